"""A reference learned from a model's first traffic, where no profile was given."""

import numpy as np

from pegel_agent.reference.columns import Column, feature_of, learn_feature
from pegel_agent.reference.profile import FORMAT, Feature, Profile
from pegel_agent.sidecar.monitor.columns import Layout, joined, roles
from pegel_agent.sidecar.monitor.windows import count
from pegel_agent.statistics.slots import IntArray

BINS_AFTER_ROWS = 2_000
MIN_ROWS = 10_000
MIN_WINDOWS = 80
_MAX_CHARACTERS = 256
_MAX_FIRST_BYTES = 8 << 20
_TEXT_BYTES = 57
"""What a text takes beside its characters."""


class Learning:
    """Lays the bins after the first 2,000 rows and counts until there are 10,000 rows and 80 windows with rows.

    Only the rows for the bins are kept, and only until then; rows that fill 8 MiB are enough for bins.
    """

    def __init__(self, layout: Layout, *, min_rows: int = MIN_ROWS, min_windows: int = MIN_WINDOWS) -> None:
        self.layout = layout
        self.min_rows = min_rows
        self._min_windows = min_windows
        self._first: dict[str, list[Column]] = {name: [] for name, _ in roles(layout)}
        self._counted: dict[str, tuple[Feature, IntArray]] | None = None
        self._first_bytes = 0
        self._window_rows = 0
        self._windows = 0
        self.rows = 0

    def add(self, columns: dict[str, Column]) -> None:
        """Learn from columns (rows,) by feature."""
        rows = max((len(values) for values in columns.values()), default=0)
        self.rows += rows
        self._window_rows += rows
        if self._counted is None:
            for name, values in columns.items():
                kept = _bounded(values)
                self._first[name].append(kept)
                self._first_bytes += _bytes(kept)
            if self.rows >= min(BINS_AFTER_ROWS, self.min_rows) or self._first_bytes >= _MAX_FIRST_BYTES:
                self._lay_bins()
            return
        for name, (feature, counts) in self._counted.items():
            if name in columns:
                np.add(counts, count(feature, columns[name])[0], out=counts)

    def close_window(self) -> None:
        """End a window; one without rows does not count."""
        self._windows += self._window_rows > 0
        self._window_rows = 0

    def profile(self, *, model_name: str, model_version: str, now: float) -> Profile | None:
        """The learned reference once it is ready; None before, and while no feature has shown a value."""
        if not self._counted or self.rows < self.min_rows or self._windows < self._min_windows:
            return None
        features = tuple(
            feature_of(feature.name, feature.role, feature.bins, counts) for feature, counts in self._counted.values()
        )
        return Profile(FORMAT, now, model_name, model_version, self.rows, features)

    def _lay_bins(self) -> None:
        self._counted = {}
        for name, role in roles(self.layout):
            values = joined(self._first[name]) if self._first[name] else None
            feature = learn_feature(name, role, values) if values is not None else None
            if feature is not None:
                self._counted[name] = (feature, np.array(feature.counts, dtype=np.int64))
        self._first.clear()


def _bounded(values: Column) -> Column:
    """A copy that keeps nothing else alive: no block that the column is a part of, no text longer than a category."""
    copy = values.copy()
    if copy.dtype == object:
        copy[:] = [None if value is None else value[:_MAX_CHARACTERS] for value in copy.tolist()]
    return copy


def _bytes(values: Column) -> int:
    if values.dtype != object:
        return values.nbytes
    return values.nbytes + sum(_TEXT_BYTES + len(value) for value in values.tolist() if value is not None)
