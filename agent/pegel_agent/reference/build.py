"""A profile from a file of reference rows, in two passes: where the bins lie, then how many rows fall in each."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pegel_exporters.errors import UserError

from pegel_agent.reference import tables
from pegel_agent.reference.bins import numeric_bins
from pegel_agent.reference.columns import (
    Bins,
    Column,
    categories_of,
    choose_categories,
    count_values,
    feature_of,
    in_first_half,
)
from pegel_agent.reference.profile import FORMAT, Profile
from pegel_agent.statistics.slots import FloatArray, IntArray

_SAMPLE_ROWS = 200_000
_TRACKED_CATEGORIES = 200_000


@dataclass(frozen=True, slots=True)
class Roles:
    """What the columns of a file are: those that are no inputs, and those to take as categories."""

    labels: frozenset[str] = frozenset()
    predictions: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()
    categorical: frozenset[str] = frozenset()

    def columns(self, path: Path) -> tuple[str, ...]:
        """The file's columns that get a feature, in its order. Raises UserError where a role doesn't fit the file."""
        names = tables.column_names(path)
        for name in sorted(self.labels | self.predictions | self.ignored | self.categorical):
            if name not in names:
                raise UserError(f"{path} has no column {name!r}; it has {', '.join(names)}")
        left_out = self.labels | self.ignored
        for name in sorted(left_out & (self.predictions | self.categorical)):
            raise UserError(f"column {name!r} can't be left out and be a prediction or categorical")
        kept = tuple(name for name in names if name not in left_out)
        if not kept:
            raise UserError(f"{path} has no column left to profile")
        return kept


@dataclass(slots=True)
class _Seen:
    """What the first pass keeps of a column: an even sample of its numbers, or its categories with their rows."""

    sample: list[FloatArray] = field(default_factory=list)
    categories: Counter[str] = field(default_factory=Counter)
    half: Counter[str] = field(default_factory=Counter)
    """Categories of half of the rows."""
    chosen: bool = False
    """Whether only the other rows may be counted."""
    numeric: bool = False
    text: bool = False

    def add(self, values: Column, *, first: int, stride: int) -> None:
        """Take in a batch whose first row is the file's row `first`, and keep every `stride`-th number of the file."""
        if values.dtype == object:
            self.categories = _tracked(self.categories, categories_of(values))
            self.half = _tracked(self.half, categories_of(values[in_first_half(first, len(values))]))
            self.text = bool(self.categories)
        else:
            self.numeric = self.numeric or bool(np.isfinite(values).any())
            self.sample.append(values[-first % stride :: stride])

    def thin(self) -> None:
        """Keep every second number."""
        self.sample = [np.concatenate(self.sample)[::2]] if self.sample else []

    def bins(self) -> Bins | None:
        """The column's bins; None without a number or a text that ten rows share."""
        if self.text:
            bins, self.chosen = choose_categories(self.categories, self.half)
            return bins
        return numeric_bins(np.concatenate(self.sample)) if self.numeric else None


def build_profile(
    path: Path,
    *,
    roles: Roles,
    model_name: str,
    model_version: str,
    created: float,
    progress: tables.Progress | None = None,
) -> Profile:
    """Read the file twice and return its profile.

    Features are in the order of the columns; a column without a number or a text that ten rows share gets none. Raises
    UserError for a file or column that can't be profiled.
    """
    columns = roles.columns(path)
    tell = progress or (lambda _: None)
    seen, rows = _first_pass(path, columns, roles.categorical, lambda share: tell(share / 2))
    if not rows:
        raise UserError(f"{path} has no rows")
    found = {name: column.bins() for name, column in seen.items()}
    bins = {name: of for name, of in found.items() if of is not None}
    if not bins:
        raise UserError(f"{path} has no column to profile: none has a number, or a text that ten rows share")
    counts = _second_pass(path, bins, seen, lambda share: tell(0.5 + share / 2))
    features = tuple(
        feature_of(name, "prediction" if name in roles.predictions else "input", of, counts[name])
        for name, of in bins.items()
    )
    return Profile(FORMAT, created, model_name, model_version, rows, features)


def _first_pass(
    path: Path, columns: tuple[str, ...], categorical: frozenset[str], progress: tables.Progress
) -> tuple[dict[str, _Seen], int]:
    seen = {name: _Seen() for name in columns}
    rows, stride = 0, 1
    for batch in tables.read(path, columns, text=categorical, progress=progress):
        for name, column in seen.items():
            column.add(batch[name], first=rows, stride=stride)
            if column.numeric and column.text:
                raise UserError(f"{path}: column {name!r} has numbers and text; mend it, or pass --categorical {name}")
        rows += len(batch[columns[0]])
        while rows // stride > 2 * _SAMPLE_ROWS:
            stride *= 2
            for column in seen.values():
                column.thin()
    return seen, rows


def _second_pass(
    path: Path, bins: Mapping[str, Bins], seen: Mapping[str, _Seen], progress: tables.Progress
) -> dict[str, IntArray]:
    texts = frozenset(name for name in bins if seen[name].text)
    first = 0
    counts = {name: np.zeros(len(of.slots), dtype=np.int64) for name, of in bins.items()}
    for batch in tables.read(path, tuple(bins), text=texts, progress=progress):
        for name, of in bins.items():
            values = batch[name]
            if seen[name].chosen:
                values = values[~in_first_half(first, len(values))]
            counts[name] += count_values(of, values)[0]
        first += len(batch[next(iter(bins))])
    return counts


def _tracked(rows: Counter[str], more: Counter[str]) -> Counter[str]:
    """Rows by category, together. Ten rows make a bin: what is still rare after so many others is forgotten."""
    rows.update(more)
    return rows if len(rows) <= _TRACKED_CATEGORIES else Counter(dict(rows.most_common(_TRACKED_CATEGORIES // 2)))
