"""Where a value falls: bins built from a reference's values, and counts of values per bin.

A bin never tells of one person: outer edges are the 10th smallest and largest value, rounded, and a category or a
repeated number is named only where at least ten rows share it.

Numbers are compared in single precision, in which models are served: 0.7 in a file and the nearest float32 to it
in a request are the same value.
"""

import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from pegel_agent.statistics.slots import FloatArray, IntArray, Slot

MAX_INTERVALS = 20
MAX_CATEGORIES = 64
SHARED_BY = 10
_DIGITS = 6
_TAKEN = frozenset({"", "other", "missing"})

SingleArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class NumericBins:
    """Bins of numbers by their ascending `edges`; an interval is (edge, next edge], the first has both its ends.

    An edge given twice is a value with a bin of its own, and the interval below it then ends before it.
    Counts are (len(edges) + 2,): below, the intervals, above, missing. Infinities fall below and above; NaN is missing.
    """

    edges: tuple[float, ...]

    @property
    def slots(self) -> tuple[Slot, ...]:
        return (Slot.BELOW, *(Slot.INTERVAL,) * (len(self.edges) - 1), Slot.ABOVE, Slot.MISSING)

    @property
    def names(self) -> tuple[str, ...]:
        """A label value for each bin."""
        low, high = _text(self.edges[0]), _text(self.edges[-1])
        between = (
            _text(a) if a == b else f"{_text(a)} to {_text(b)}"
            for a, b in zip(self.edges, self.edges[1:], strict=False)
        )
        return (f"below {low}", *between, f"above {high}", "missing")

    def positions(self, values: FloatArray) -> IntArray:
        """The bin (rows,) of each value (rows,)."""
        found: IntArray = np.searchsorted(_ends(self.edges), _single(values), side="left")
        return found

    def counts(self, values: FloatArray) -> IntArray:
        """Rows per bin of values (rows,)."""
        # Sorting them all and finding the few ends takes a sixth of finding each value's place among the ends.
        upto = np.searchsorted(np.sort(_single(values)), _ends(self.edges), side="right")
        return np.diff(upto, prepend=0, append=len(values)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class CategoryBins:
    """Bins of categories: one for each, then other (rare in the reference, or never seen there) and missing."""

    categories: tuple[str, ...]

    @property
    def slots(self) -> tuple[Slot, ...]:
        return (*(Slot.CATEGORY,) * len(self.categories), Slot.OTHER, Slot.MISSING)

    @property
    def names(self) -> tuple[str, ...]:
        """A label value for each bin: categories that would pass for another bin's name, or for none, are quoted."""
        quoted = (f'"{name}"' if name in _TAKEN or name.startswith('"') else name for name in self.categories)
        return (*quoted, "other", "missing")

    def positions(self, values: NDArray[np.object_]) -> IntArray:
        """The bin (rows,) of each string (rows,); None is missing."""
        size = len(self.categories)
        known: dict[str | None, int] = {name: position for position, name in enumerate(self.categories)}
        known[None] = size + 1
        return np.fromiter(map(known.get, values.tolist(), repeat(size)), dtype=np.int64, count=len(values))

    def counts(self, values: NDArray[np.object_]) -> IntArray:
        """Rows per bin of strings (rows,); None is missing."""
        return np.bincount(self.positions(values), minlength=len(self.categories) + 2).astype(np.int64)


def numeric_bins(values: FloatArray) -> NumericBins | None:
    """Bins of a reference's values (rows,); None without a finite value.

    Edges lie at up to 20 quantiles, with ties merged. A value that at least ten rows and half an even bin share has a
    bin of its own. Where no more than 20 values are that common and no other is, those are the edges.
    """
    single = _single(values)
    finite = np.sort(single[np.isfinite(single)])
    if not len(finite):
        return None
    trim = SHARED_BY - 1
    inner = finite[trim : len(finite) - trim] if len(finite) > 2 * trim else finite[len(finite) // 2 :][:1]
    distinct, rows = np.unique(finite, return_counts=True)
    shared = distinct[rows >= SHARED_BY]
    if len(shared) <= MAX_INTERVALS and rows[rows < SHARED_BY].sum() < SHARED_BY and len(shared):
        candidates = shared
    else:
        intervals = max(1, min(MAX_INTERVALS, len(inner) // SHARED_BY))
        candidates = np.unique(np.quantile(inner, np.linspace(0, 1, intervals + 1), method="inverted_cdf"))
    common = frozenset(distinct[rows >= max(SHARED_BY, len(finite) / MAX_INTERVALS / 2)].tolist())
    return NumericBins(_edges(finite, candidates, frozenset(shared.tolist()), common))


def category_bins(rows: Counter[str]) -> CategoryBins | None:
    """Bins of the up to 64 most frequent categories that at least ten of a reference's rows share, by name.

    None where no category is shared so, as in a column of ids: there is nothing to compare.
    """
    shared = [(-count, name) for name, count in rows.items() if count >= SHARED_BY]
    return CategoryBins(tuple(sorted(name for _, name in sorted(shared)[:MAX_CATEGORIES]))) if shared else None


def _edges(
    finite: SingleArray, candidates: SingleArray, shared: frozenset[float], common: frozenset[float]
) -> tuple[float, ...]:
    """Ascending edges: shared values exact, others rounded, and common ones twice where other rows lie below them."""
    edges: list[float] = []
    for candidate in candidates.tolist():
        edge = candidate if candidate in shared else _rounded(candidate, candidates)
        if edges:
            last, upto = np.searchsorted(finite, [edges[-1], edge], side="right")
            if upto - last < SHARED_BY:
                continue
            between = np.searchsorted(finite, edge, side="left") - last
        alone = candidate in common and (not edges or between >= SHARED_BY)
        edges += [edge, edge] if alone else [edge]
    if len(edges) == 1:  # an interval of no width, so that leaving a constant shows
        edges *= 2
    return tuple(float(str(np.float32(edge))) for edge in edges)


@lru_cache(1024)
def _ends(edges: tuple[float, ...]) -> SingleArray:
    """The last value (edges + 1,) of every bin but that of the missing: NaN sorts behind them all."""
    ends = _single(np.array((*edges, math.inf)))
    # A value on the first edge, or on the first of two equal ones, belongs to the bin above it.
    lowered = np.concatenate(([True], ends[1:-2] == ends[2:-1], [False, False]))
    return np.where(lowered, np.nextafter(ends, np.float32(-math.inf)), ends)


def _single(values: FloatArray) -> SingleArray:
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _rounded(edge: float, edges: SingleArray) -> float:
    """Six digits of the edge or of the edges' span, whichever is finer."""
    finer = min(abs(edge), float(edges[-1]) - float(edges[0])) or abs(edge)
    return round(edge, _DIGITS - 1 - math.floor(math.log10(finer))) if finer else edge


def _text(edge: float) -> str:
    return f"{edge:.9g}"  # as exact as single precision
