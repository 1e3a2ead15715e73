"""Where a value falls: bins built from a reference's values, and counts of values per bin.

A bin never tells of one person: outer edges are the 10th smallest and largest value, and a category or a repeated
number has a bin of its own only where at least ten rows share it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pegel_agent.statistics.slots import FloatArray, IntArray, Slot

MAX_INTERVALS = 20
SHARED_BY = 10
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class NumericBins:
    """Bins of numbers by their ascending `edges`; an interval is (edge, next edge], the first has both its ends.

    Counts are (len(edges) + 2,): below, the intervals, above, missing. Infinities fall below and above; NaN is missing.
    """

    edges: tuple[float, ...]

    @property
    def slots(self) -> tuple[Slot, ...]:
        return (Slot.BELOW, *(Slot.INTERVAL,) * (len(self.edges) - 1), Slot.ABOVE, Slot.MISSING)

    @property
    def names(self) -> tuple[str, ...]:
        """A label value for each bin."""
        low, high = f"{self.edges[0]:g}", f"{self.edges[-1]:g}"
        between = (f"{a:g} to {b:g}" for a, b in zip(self.edges, self.edges[1:], strict=False))
        return (f"below {low}", *between, f"above {high}", "missing")

    def counts(self, values: FloatArray) -> IntArray:
        """Rows per bin of values (rows,)."""
        edges = np.array(self.edges)
        position = np.searchsorted(edges, values, side="left")
        position[values == edges[0]] = 1
        missing = np.isnan(values)
        position[missing] = len(edges) + 1
        return np.bincount(position, minlength=len(edges) + 2).astype(np.int64)


@dataclass(frozen=True, slots=True)
class CategoryBins:
    """Bins of categories: one for each, then other (rare in the reference), new and missing.

    `rare` names what the reference saw too seldom for a bin; it is not published.
    """

    categories: tuple[str, ...]
    rare: frozenset[str]

    @property
    def slots(self) -> tuple[Slot, ...]:
        return (*(Slot.CATEGORY,) * len(self.categories), Slot.OTHER, Slot.NEW, Slot.MISSING)

    @property
    def names(self) -> tuple[str, ...]:
        """A label value for each bin."""
        return (*self.categories, "other", "new", "missing")

    def counts(self, values: NDArray[np.object_]) -> IntArray:
        """Rows per bin of strings (rows,); None is missing."""
        size = len(self.categories)
        known: dict[str | None, int] = {name: position for position, name in enumerate(self.categories)}
        known |= dict.fromkeys(self.rare, size)
        known[None] = size + 2
        return np.bincount([known.get(value, size + 1) for value in values], minlength=size + 3).astype(np.int64)


def numeric_bins(values: FloatArray) -> NumericBins | None:
    """Bins at up to 20 quantiles of a reference's values (rows,), ties merged; None without a finite value."""
    finite = np.sort(values[np.isfinite(values)])
    if not len(finite):
        return None
    outermost = min(SHARED_BY, len(finite)) - 1
    inner = (
        finite[outermost : len(finite) - outermost] if len(finite) > 2 * outermost else finite[len(finite) // 2 :][:1]
    )
    edges = np.quantile(inner, np.linspace(0, 1, MAX_INTERVALS + 1), method="inverted_cdf")
    rounded = np.unique([float(f"{edge:.{_DIGITS}g}") for edge in edges])
    # A constant is an interval of no width, so that leaving it shows.
    return NumericBins(tuple(float(edge) for edge in (rounded if len(rounded) > 1 else rounded.repeat(2))))


def category_bins(values: NDArray[np.object_]) -> CategoryBins:
    """Bins of the categories that at least ten of a reference's rows (rows,) share, by name."""
    names, rows = np.unique([value for value in values if value is not None], return_counts=True)
    shared = rows >= SHARED_BY
    return CategoryBins(tuple(map(str, names[shared])), frozenset(map(str, names[~shared])))
