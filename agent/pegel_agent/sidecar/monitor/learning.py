"""A reference learned from a model's first traffic, where no profile was given."""

from collections import deque

import numpy as np

from pegel_agent.reference.columns import Column, count, feature_of, learn_feature
from pegel_agent.reference.order import in_order, order_of
from pegel_agent.reference.profile import FORMAT, Feature, Profile, Role
from pegel_agent.sidecar.monitor.columns import Layout, joined, roles
from pegel_agent.statistics.budget import Window
from pegel_agent.statistics.slots import IntArray

BINS_AFTER_ROWS = 2_000
MIN_ROWS = 10_000
MIN_WINDOWS = 80
_MAX_CHARACTERS = 256
_MAX_FIRST_BYTES = 8 << 20
_MAX_WINDOW_BYTES = 8 << 20
_TEXT_BYTES = 57
"""What a text takes beside its characters."""


class Learning:
    """Lays the bins after the first 2,000 rows and counts until there are 10,000 rows and 80 windows with rows.

    Only the rows for the bins are kept, and only until then; rows that fill 8 MiB are enough for bins. Counts are kept
    of the latest windows that fit in as much; they tell how much rows resemble their neighbours. A column without
    a value that some of these rows share is no feature; where that is every column, learning begins again.
    """

    def __init__(
        self, layout: Layout, *, window: Window, min_rows: int = MIN_ROWS, min_windows: int = MIN_WINDOWS
    ) -> None:
        self.layout = layout
        self._window = window
        self.min_rows = min_rows
        self.min_windows = min_windows
        self._first: dict[str, list[Column]] = {}
        self._first_windows: list[dict[str, int]] = []
        """How many columns of each feature there were when each window closed that is among the first rows."""
        self._counted: dict[str, tuple[Feature, IntArray]] | None = None
        self._open: IntArray = np.zeros(0, dtype=np.int32)
        self._closed: deque[IntArray] = deque()
        """Rows in the bins of all features, one after the other, in each window."""
        self._window_rows = 0
        self._first_bytes = 0
        self.rows = 0
        self.windows = 0

    def add(self, columns: dict[str, Column]) -> None:
        """Learn from columns (rows,) by feature."""
        rows = max((len(values) for values in columns.values()), default=0)
        self.rows += rows
        self._window_rows += rows
        if self._counted is None:
            for name, values in columns.items():
                kept = _bounded(values)
                self._first.setdefault(name, []).append(kept)
                self._first_bytes += _bytes(kept)
            if self.rows >= min(BINS_AFTER_ROWS, self.min_rows) or self._first_bytes >= _MAX_FIRST_BYTES:
                self._lay_bins()
            return
        # All are counted before one is added: a column that cannot be counted must not leave the others with more rows.
        found = {
            name: count(feature, columns[name])[0] for name, (feature, _) in self._counted.items() if name in columns
        }
        for name, counts in found.items():
            self._counted[name][1][:] += counts
        self._open += self._side_by_side(found)

    def close_window(self) -> None:
        """End a window; one without rows does not count."""
        if not self._window_rows:
            return
        self.windows += 1
        self._window_rows = 0
        if self._counted is None:
            self._first_windows.append({name: len(parts) for name, parts in self._first.items()})
        else:
            self._closed.append(self._open)
            self._open = np.zeros_like(self._open)

    def profile(self, *, model_name: str, model_version: str, now: float) -> Profile | None:
        """The learned reference, of the features that can be watched, once it is ready; None before."""
        if not self._counted or self.rows < self.min_rows or self.windows < self.min_windows:
            return None
        windows = np.array(self._closed, dtype=np.int64)
        numbers = np.arange(len(windows))
        features, start = [], 0
        for feature, counts in self._counted.values():
            end = start + len(counts)
            whole = feature_of(feature.name, feature.role, feature.bins, counts)
            features.append(in_order(whole, windows[:, start:end], numbers))
            start = end
        order = order_of(len(windows), self._window)
        return Profile(FORMAT, now, model_name, model_version, self.rows, tuple(features), order)

    def _lay_bins(self) -> None:
        first, self._first, self._first_bytes = self._first, {}, 0
        ends, self._first_windows = self._first_windows, []
        counted: dict[str, tuple[Feature, IntArray]] = {}
        for name, role in roles(self.layout):
            feature = _learned(name, role, first[name]) if name in first else None
            if feature is not None:
                counted[name] = (feature, np.array(feature.counts, dtype=np.int64))
        if not counted:  # other rows may show what these did not
            self.rows = self.windows = self._window_rows = 0
            return
        self._counted = counted
        bins = sum(len(counts) for _, counts in counted.values())
        self._closed = deque(maxlen=_MAX_WINDOW_BYTES // (4 * bins))
        starts: dict[str, int] = {}
        for end in [*ends, {name: len(parts) for name, parts in first.items()}]:
            parts = {name: first[name][starts.get(name, 0) : end.get(name, 0)] for name in counted}
            found = {name: count(counted[name][0], joined(some))[0] for name, some in parts.items() if some}
            self._closed.append(self._side_by_side(found))
            starts = end
        self._open = self._closed.pop()

    def _side_by_side(self, found: dict[str, IntArray]) -> IntArray:
        """Rows in the bins of all features, one after the other; none where a feature was not found."""
        assert self._counted is not None
        none = ((name, np.zeros_like(counts)) for name, (_, counts) in self._counted.items())
        return np.concatenate([found.get(name, zeros) for name, zeros in none]).astype(np.int32)


def _learned(name: str, role: Role, parts: list[Column]) -> Feature | None:
    """A feature with a bin of some value; None where there is none, as for an id: no category of it is shared."""
    try:
        feature = learn_feature(name, role, joined(parts))
    except (ArithmeticError, LookupError, ValueError):  # what one column holds must not cost the others
        return None
    return feature if feature is not None and (feature.kind == "numeric" or feature.categories) else None


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
