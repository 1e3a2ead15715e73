"""A profile from a file of reference rows, in two passes: where the bins lie, then how many rows fall in each."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pegel_exporters.errors import UserError

from pegel_agent.reference import tables
from pegel_agent.reference.bins import category_bins, numeric_bins
from pegel_agent.reference.columns import Bins, Column, count_values, feature_of
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
    numeric: bool = False
    text: bool = False

    def add(self, values: Column, *, first: int, stride: int) -> None:
        """Take in a batch whose first row is the file's row `first`, and keep every `stride`-th number of the file."""
        if values.dtype == object:
            found = Counter(value for value in values.tolist() if value is not None)
            self.text = self.text or bool(found)
            self.categories.update(found)
            if len(self.categories) > _TRACKED_CATEGORIES:
                # Ten rows make a bin; what is still rare after so many others is forgotten. The second pass is exact.
                self.categories = Counter(dict(self.categories.most_common(_TRACKED_CATEGORIES // 2)))
        else:
            self.numeric = self.numeric or bool(np.isfinite(values).any())
            self.sample.append(values[-first % stride :: stride])

    def thin(self) -> None:
        """Keep every second number."""
        self.sample = [np.concatenate(self.sample)[::2]] if self.sample else []

    def bins(self) -> Bins | None:
        """The column's bins; None without a value."""
        if self.text:
            return category_bins(self.categories)
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

    Features are in the order of the columns; a column without any value gets none. Raises UserError for a file or
    column that can't be profiled.
    """
    columns = roles.columns(path)
    tell = progress or (lambda _: None)
    seen, rows = _first_pass(path, columns, roles.categorical, lambda share: tell(share / 2))
    if not rows:
        raise UserError(f"{path} has no rows")
    found = {name: column.bins() for name, column in seen.items()}
    bins = {name: of for name, of in found.items() if of is not None}
    if not bins:
        raise UserError(f"{path} has no column with a value")
    texts = frozenset(name for name in bins if seen[name].text)
    counts = _second_pass(path, bins, texts, lambda share: tell(0.5 + share / 2))
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
    path: Path, bins: Mapping[str, Bins], texts: frozenset[str], progress: tables.Progress
) -> dict[str, IntArray]:
    counts = {name: np.zeros(len(of.slots), dtype=np.int64) for name, of in bins.items()}
    for batch in tables.read(path, tuple(bins), text=texts, progress=progress):
        for name, of in bins.items():
            counts[name] += count_values(of, batch[name])[0]
    return counts
