"""One reference watched window by window: counts per bin in, distances and the detector's verdict out."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from pegel_agent.reference.columns import Column, count_columns
from pegel_agent.reference.profile import Feature, Profile
from pegel_agent.sidecar.monitor.columns import as_numbers
from pegel_agent.statistics import distances
from pegel_agent.statistics.detector import Detector, FeatureVerdict, Settings, Verdict
from pegel_agent.statistics.slots import FloatArray, IntArray, Slot

SHOWN_WINDOWS = 8
"""How many windows the current histogram covers."""


@dataclass(frozen=True, slots=True)
class Distances:
    """A feature's last window against its reference. `ks` and `rank_wasserstein` need an order and are None without."""

    psi: float
    psi_limit: float
    js: float
    tvd: float
    ks: float | None
    rank_wasserstein: float | None


class WatchedFeature:
    """One feature's counts (k,): of all rows, of the open window and of the last closed ones."""

    def __init__(self, feature: Feature) -> None:
        self.feature = feature
        self.reference = feature.shares
        self.names = feature.bins.names
        size = len(self.names)
        self.total: IntArray = np.zeros(size, dtype=np.int64)
        self.open: IntArray = np.zeros(size, dtype=np.int64)
        self.closed: deque[IntArray] = deque(maxlen=SHOWN_WINDOWS)
        self.invalid = 0
        self.distances: Distances | None = None

    def add(self, values: Column) -> None:
        """Count a column (rows,)."""
        counts, invalid = count(self.feature, values)
        self.total += counts
        self.open += counts
        self.invalid += invalid

    def current(self) -> FloatArray:
        """Shares (k,) over the last closed windows; the open one's while none is closed. Zeros without rows."""
        counts = np.sum(self.closed, axis=0) if self.closed else self.open
        rows = int(counts.sum())
        shares: FloatArray = counts / rows if rows else np.zeros(len(counts))
        return shares

    def rows(self) -> int:
        """Rows that `current` covers."""
        return int(np.sum(self.closed) if self.closed else self.open.sum())

    def close(self, alpha: float) -> IntArray:
        """End the open window and return its counts (k,); PSI's limit is exceeded with probability `alpha`."""
        counts, self.open = self.open, np.zeros_like(self.open)
        rows = int(counts.sum())
        if rows:
            self.closed.append(counts)
            p, q = distances.smoothed_shares(counts), self.reference.shares
            ordered = Slot.INTERVAL in self.reference.slots
            self.distances = Distances(
                psi=distances.psi(p, q),
                psi_limit=distances.psi_limit(rows, self.reference.rows, len(p), alpha=alpha),
                js=distances.js(p, q),
                tvd=distances.tvd(p, q),
                ks=distances.ks(p, q) if ordered else None,
                rank_wasserstein=distances.rank_wasserstein(p, q) if ordered else None,
            )
        return counts


class Watch:
    """All features of a profile. `budget_windows`: mean number of windows between false alarms.

    Raises ArithmeticError, LookupError or ValueError for a profile that says nothing to be watched by.
    """

    def __init__(self, profile: Profile, *, budget_windows: float, tolerance: float) -> None:
        self.profile = profile
        self.features = {feature.name: WatchedFeature(feature) for feature in profile.features}
        self._detector = Detector(
            {name: watched.reference for name, watched in self.features.items()},
            Settings(budget_windows, tolerance=tolerance),
        )
        self._alpha = 1 / (budget_windows * len(self.features))
        self.verdict: Verdict | None = None

    def add(self, columns: dict[str, Column]) -> None:
        """Count columns (rows,) by feature; a feature that is not among them is unseen, one of no profile ignored."""
        for name, values in columns.items():
            watched = self.features.get(name)
            if watched is not None:
                watched.add(values)

    def close_window(self) -> Verdict:
        """End the open window."""
        counts = {name: watched.close(self._alpha) for name, watched in self.features.items()}
        # A feature without a row says nothing: its stakes must not grow with every window that it is not in.
        self.verdict = self._detector.observe({name: values for name, values in counts.items() if values.any()})
        return self.verdict

    def verdicts(self) -> dict[str, FeatureVerdict]:
        """The last verdict by feature; features that the detector leaves out are not in it."""
        return {verdict.name: verdict for verdict in self.verdict.features} if self.verdict else {}


def count(feature: Feature, values: Column) -> tuple[IntArray, int]:
    """Rows per bin (k,) of a column (rows,), and how many of its values were of the wrong kind, which count as missing.

    Text that says a number is that number where the feature is numeric.
    """
    if feature.kind == "numeric" and values.dtype == object:
        numbers, invalid = as_numbers(values)
        return count_columns(feature, numbers)[0], invalid
    return count_columns(feature, values)
