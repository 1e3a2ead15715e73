"""One reference watched window by window: counts per bin in, distances and the detector's verdict out."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from pegel_agent.reference.columns import Column, alike, count
from pegel_agent.reference.computed import Computed
from pegel_agent.reference.detection import detector_for, is_judged, smallest_shift_of, stratum_of
from pegel_agent.reference.keys import CategoryKey
from pegel_agent.reference.profile import Feature, Profile, Role
from pegel_agent.reference.seasons import expected_shares
from pegel_agent.statistics import distances
from pegel_agent.statistics.budget import Part, share_of
from pegel_agent.statistics.detector import Detector, FeatureVerdict, Verdict
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
        self.expected = feature.reference
        self.reference = self.expected.whole
        self.names = feature.bins.names
        size = len(self.names)
        self.total: IntArray = np.zeros(size, dtype=np.int64)
        self.open: IntArray = np.zeros(size, dtype=np.int64)
        self._by_stratum = expected_shares(self.expected) if self.expected.strata else np.zeros((0, size))
        self.foreseen: FloatArray = np.zeros(size)
        """Rows per bin (k,) that a reference with strata expected of all rows."""
        self.closed: deque[IntArray] = deque(maxlen=SHOWN_WINDOWS)
        self.invalid = 0
        self.distances: Distances | None = None

    def add(self, values: Column, stratum: int) -> None:
        """Count a column (rows,) that came in this stratum."""
        counts, invalid = count(self.feature, values)
        if len(self._by_stratum):
            self.foreseen += counts.sum() * self._by_stratum[stratum]
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

    def close(self, alpha: float, stratum: int) -> IntArray:
        """End the open window and return its counts (k,); PSI's limit is exceeded with probability `alpha`."""
        counts, self.open = self.open, np.zeros_like(self.open)
        rows = int(counts.sum())
        if rows:
            self.closed.append(counts)
            reference, effect = self.expected.at(stratum), self.expected.largest_effect
            p, q = distances.smoothed_shares(counts), reference.shares
            ordered = Slot.INTERVAL in reference.slots
            self.distances = Distances(
                psi=distances.psi(p, q),
                psi_limit=distances.psi_limit(
                    rows, reference.rows, len(p), alpha=alpha, deff=effect, reference_deff=effect
                ),
                js=distances.js(p, q),
                tvd=distances.tvd(p, q),
                ks=distances.ks(p, q) if ordered else None,
                rank_wasserstein=distances.rank_wasserstein(p, q) if ordered else None,
            )
        return counts


class Watch:
    """All features of a profile: the data in one evidence process, the predictions in another.

    `budget_windows` is the model's whole budget, the mean number of windows between false alarms, of which each process
    has its share; by `key` the profile's categories are named. Raises ArithmeticError, LookupError or ValueError for a
    profile that says nothing to be watched by.
    """

    def __init__(
        self, profile: Profile, *, budget_windows: float, tolerance: float, key: CategoryKey | None = None
    ) -> None:
        self.profile = profile
        self._key = key
        self.judged = is_judged(profile)
        self.smallest_shift = smallest_shift_of(profile)
        self.features = {feature.name: WatchedFeature(feature) for feature in profile.watched}
        self._detectors: dict[Role, Detector] = {}
        parts: dict[Role, Part] = {"input": "data_drift", "prediction": "prediction_drift"}
        for role, part in parts.items():
            if (of_role := profile.of_role(role)) is not None:
                windows = share_of(budget_windows, part)
                self._detectors[role] = detector_for(of_role, windows=windows, tolerance=tolerance)
        self._computed = Computed.by(profile)
        self._alpha = 1 / (budget_windows * len(self.features))
        self._verdicts: dict[Role, Verdict] = {}

    @property
    def verdict(self) -> Verdict | None:
        """On the data, after the last window; None before one, or where only predictions are watched."""
        return self._verdicts.get("input")

    @property
    def prediction_verdict(self) -> Verdict | None:
        """On the predictions, likewise."""
        return self._verdicts.get("prediction")

    @property
    def roles(self) -> tuple[Role, ...]:
        """What is watched."""
        return tuple(self._detectors)

    def add(self, columns: dict[str, Column], at: float | None = None) -> None:
        """Count columns (rows,) by feature; a feature that is not among them is unseen, one of no profile ignored.

        The rows came at this Unix time, or shortly before. Raises UserError without it where the reference tells hours
        apart.
        """
        stratum = stratum_of(self.profile, at)
        for name, values in columns.items():
            watched = self.features.get(name)
            if watched is not None:
                shown = alike(watched.feature, values, self._key)
                watched.add(shown, stratum)
        for name, values in self._computed.of(columns).items():
            self.features[name].add(values, stratum)

    def close_window(self, middle: float | None = None) -> Verdict | None:
        """End the open window, whose middle was at this Unix time, and return the verdict on the data.

        Raises UserError without a time where the reference tells hours apart.
        """
        stratum = stratum_of(self.profile, middle)
        counts = {name: watched.close(self._alpha, stratum) for name, watched in self.features.items()}
        # A feature without a row says nothing: its stakes must not grow with every window that it is not in.
        seen = {name: values for name, values in counts.items() if values.any()}
        for role, detector in self._detectors.items():
            of_role = {name: values for name, values in seen.items() if self.features[name].feature.role == role}
            self._verdicts[role] = detector.observe(of_role, stratum)
        return self.verdict

    def verdicts(self) -> dict[str, FeatureVerdict]:
        """The last verdict by feature, strongest evidence first; those that the detectors leave out are not in it."""
        found = [one for verdict in self._verdicts.values() for one in verdict.features]
        return {one.name: one for one in sorted(found, key=lambda one: -one.evidence)}
