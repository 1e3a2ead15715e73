"""The drift detector: bets against the reference, with a false-alarm budget that is kept.

Each expert bets that the rows follow its shares q rather than the reference's p; q depends on earlier windows only.
A penalty per row pays for the reference being a sample, so that without drift an expert's stake cannot grow in
expectation. The stakes are Shiryaev–Roberts e-detectors (Shin, Ramdas and Rinaldo, 2022): their mean reaches A
on average no sooner than after A windows without drift, with probability 1 − delta over the reference.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from pegel_agent.statistics.slots import FloatArray, IntArray, ReferenceShares
from pegel_agent.statistics.tilts import Tilt, chi2, tilts

_ADAPTIVE = tuple((weight, horizon) for weight in (0.25, 1.0) for horizon in (2.0, 8.0, 32.0))
_WEIGHTS = np.array([[weight] for weight, _ in _ADAPTIVE])
_DECAY = np.array([[1 - 1 / horizon] for _, horizon in _ADAPTIVE])
_PRIOR_ROWS = 20.0
_MOVED = 3


@dataclass(frozen=True, slots=True)
class Settings:
    """`windows`: the budget A, the mean number of windows between false alarms. `delta`: the chance that the reference
    is too unlucky a sample for the budget. `tolerance`: the χ² of drift that the user calls harmless."""

    windows: float
    delta: float = 0.05
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True)
class FeatureVerdict:
    """One feature after a window. `evidence` is log10; `moved` has (bin, change of share), the largest first."""

    name: str
    evidence: float
    drifted: bool
    direction: str
    moved: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The model after a window. `evidence` and `limit` are log10; `drifted` holds until the evidence is gone."""

    evidence: float
    limit: float
    drifted: bool
    score: float
    features: tuple[FeatureVerdict, ...]


class _Feature:
    """One feature's experts and their stakes, in natural logarithms."""

    def __init__(self, name: str, reference: ReferenceShares, settings: Settings, features: int) -> None:
        self.name = name
        self.reference = reference
        p, m = reference.shares, reference.rows
        self.tilts: tuple[Tilt, ...] = tilts(reference)
        experts = len(self.tilts) + len(_ADAPTIVE)
        z = -float(special.ndtri(settings.delta / (features * experts)))
        distance = np.array([chi2(tilt.shares, p) for tilt in self.tilts])
        paid = np.log1p(z * np.sqrt(distance / m) + np.sqrt(settings.tolerance * distance))
        shares = np.array([tilt.shares for tilt in self.tilts]).reshape(len(self.tilts), len(p))
        self.gains: FloatArray = np.log(shares / p) - paid[:, None]
        unlucky = float(special.chdtri(len(p) - 1, settings.delta / features))
        self.radius = np.sqrt(unlucky / m) + np.sqrt(settings.tolerance)
        self.log_stakes: FloatArray = np.full(experts, -np.inf)
        self.recent: FloatArray = np.zeros((len(_ADAPTIVE), len(p)))

    def bet(self, counts: FloatArray) -> FloatArray:
        """Increments of all experts (experts,) for a window's counts (k,), before the adaptive ones learn from it."""
        p = self.reference.shares
        learned = (self.recent + _PRIOR_ROWS * p) / (self.recent.sum(axis=1, keepdims=True) + _PRIOR_ROWS)
        q = p + _WEIGHTS * (learned - p)
        paid = np.log1p(self.radius * np.sqrt(np.sum((q - p) ** 2 / p, axis=1)))
        adaptive = np.log(q / p) @ counts - counts.sum() * paid
        self.recent = self.recent * _DECAY + counts
        return np.concatenate((self.gains @ counts, adaptive))

    def direction(self) -> str:
        winner = int(np.argmax(self.log_stakes))
        if self.log_stakes[winner] <= 0:
            return ""
        return self.tilts[winner].direction if winner < len(self.tilts) else "shape"

    def moved(self) -> tuple[tuple[int, float], ...]:
        recent = self.recent[1]  # about eight windows
        if not recent.sum():
            return ()
        change = recent / recent.sum() - self.reference.shares
        return tuple((int(i), float(change[i])) for i in np.argsort(-np.abs(change))[:_MOVED])


class Detector:
    """Watches all features of one model, a window at a time.

    A feature with a single bin, or whose reference leaves nothing to bet on, is left out. Not safe for threads.
    """

    def __init__(self, references: Mapping[str, ReferenceShares], settings: Settings) -> None:
        betting = {name: reference for name, reference in references.items() if len(reference.shares) > 1}
        self._features = [_Feature(name, ref, settings, len(betting)) for name, ref in betting.items()]
        self._log_limit = float(np.log(settings.windows))
        experts = sum(len(feature.log_stakes) for feature in self._features)
        self._cap = self._log_limit + float(np.log(max(experts, 1))) + 2
        self._mean_rows = 0.0
        self._windows = 0
        self._drifted = False

    def observe(self, counts: Mapping[str, IntArray]) -> Verdict:
        """Take in one window: counts (k,) by feature; one left out counts as unseen."""
        rows = max((int(values.sum()) for values in counts.values()), default=0)
        # An idle model's windows add no stake: else it would raise an alarm after A empty windows.
        weight = 1.0 if self._windows == 0 or not self._mean_rows else min(1.0, rows / self._mean_rows)
        if rows:
            self._mean_rows = (self._mean_rows * self._windows + rows) / (self._windows + 1)
            self._windows += 1
            for feature in self._features:
                if feature.name in counts:
                    increments = feature.bet(counts[feature.name].astype(np.float64))
                    stakes = np.logaddexp(feature.log_stakes, np.log(weight)) + increments
                    feature.log_stakes = np.minimum(stakes, self._cap)
        evidence = _log_mean_exp(np.concatenate([np.empty(0), *(f.log_stakes for f in self._features)]))
        if evidence >= self._log_limit:
            self._drifted = True
        verdict = self._verdict(evidence)
        if self._drifted and evidence <= self._log_limit / 2:
            self._drifted = False
            for feature in self._features:
                feature.log_stakes[:] = -np.inf
            return self._verdict(-np.inf)
        return verdict

    def _verdict(self, evidence: float) -> Verdict:
        verdicts = []
        for feature in self._features:
            own = _log_mean_exp(feature.log_stakes)
            drifted = own >= self._log_limit
            direction = feature.direction()
            verdicts.append(
                FeatureVerdict(
                    feature.name, own / float(np.log(10)), drifted, direction, feature.moved() if direction else ()
                )
            )
        verdicts.sort(key=lambda verdict: -verdict.evidence)
        score = sum(verdict.drifted for verdict in verdicts) / len(verdicts) if verdicts else 0.0
        return Verdict(
            evidence / float(np.log(10)), self._log_limit / float(np.log(10)), self._drifted, score, tuple(verdicts)
        )


def _log_mean_exp(values: FloatArray) -> float:
    # scipy's logsumexp takes ten times as long for so few values, and runs for every feature of every window.
    highest = float(values.max()) if len(values) else -np.inf
    return highest if highest == -np.inf else highest + float(np.log(np.mean(np.exp(values - highest))))
