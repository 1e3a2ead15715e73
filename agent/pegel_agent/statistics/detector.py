"""The drift detector: bets against the reference, with a false-alarm budget that is kept.

Each expert bets that the rows follow its shares q rather than the reference's p; q depends on earlier windows only.
A penalty per row pays for the reference being a sample, so that without drift an expert's stake cannot grow in
expectation. Rows that resemble their neighbours count as fewer: what a window is worth is divided by its design effect.
Where the reference has strata, as hours of the day, p and q are the stratum's, and an expert has one stake in all. The
stakes are Shiryaev–Roberts e-detectors (Shin, Ramdas and Rinaldo, 2022): their mean reaches A on average no sooner than
after A windows without drift, with probability 1 − delta over the reference.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from pegel_agent.statistics.sensitivity import OF_TILTS, unlucky_errors, unlucky_quantile
from pegel_agent.statistics.slots import FloatArray, IntArray, Reference
from pegel_agent.statistics.tilts import bets_of, shares_of

_ADAPTIVE = tuple((weight, horizon) for weight in (0.25, 1.0) for horizon in (2.0, 8.0, 32.0))
_WEIGHTS = np.array([[weight] for weight, _ in _ADAPTIVE])
_DECAY = np.array([[1 - 1 / horizon] for _, horizon in _ADAPTIVE])
_PRIOR_ROWS = 20.0
_MOVED = 3


@dataclass(frozen=True, slots=True)
class Settings:
    """`windows`: the budget A, the mean number of windows between false alarms. `delta`: the chance that the reference
    is too unlucky a sample for the budget. `tolerance`: the χ² of drift that the user calls harmless. `judged`: False
    where evidence is computed but must never be called drift."""

    windows: float
    delta: float = 0.05
    tolerance: float = 0.0
    judged: bool = True


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

    def __init__(self, name: str, reference: Reference, settings: Settings, features: int) -> None:
        self.name = name
        self.reference = reference
        self.bets = bets_of(reference)
        experts, bins = len(self.bets) + len(_ADAPTIVE), len(reference.whole.shares)
        unlucky = settings.delta / (features * max(len(reference.strata), 1))
        self.quantile = unlucky_quantile(self.bets, reference.whole, OF_TILTS * unlucky)
        self.chi2_quantile = float(special.chdtri(bins - 1, (1 - OF_TILTS) * unlucky))
        # Norms add, squares don't.
        self.harmless = float(np.sqrt(settings.tolerance) + np.sqrt(reference.heterogeneity))
        self.effects = np.array([reference.design_effects.get(direction, 1.0) for direction, _ in self.bets])
        self.log_stakes: FloatArray = np.full(experts, -np.inf)
        self.recent: FloatArray = np.zeros((len(_ADAPTIVE), bins))
        self.expected: FloatArray = np.zeros((len(_ADAPTIVE), bins))
        """Rows per bin over each adaptive expert's horizon, and what the reference would have made of their number."""
        self._turn_to(0)

    def _turn_to(self, stratum: int) -> None:
        """Lay the bets against a stratum's shares."""
        reference = self.reference.at(stratum)
        p = reference.shares
        q = shares_of(self.bets, reference)
        distance = np.sum((q - p) ** 2 / p, axis=1)
        unlucky = unlucky_errors(self.bets, q, reference, self.quantile, self.effects)
        paid = np.log1p(unlucky + self.harmless * np.sqrt(distance))
        self.gains: FloatArray = (np.log(q / p) - paid[:, None]) / self.effects[:, None]
        self.radius = np.sqrt(self.reference.largest_effect * self.chi2_quantile / reference.rows) + self.harmless
        # Where a stratum leaves no room for a bet, its stake is neither at risk nor added to.
        self.entry: FloatArray = np.zeros(len(self.log_stakes))
        self.entry[: len(self.bets)][distance == 0] = -np.inf
        self.shares, self.stratum = p, stratum

    def observe(self, counts: FloatArray, stratum: int, log_weight: float, cap: float) -> None:
        """Play a window's counts (k,), of which the adaptive experts learn afterwards."""
        if self.reference.strata and stratum != self.stratum:
            self._turn_to(stratum)
        p, rows = self.shares, counts.sum()
        q = (self.recent + _PRIOR_ROWS * p) * p / (self.expected + _PRIOR_ROWS * p)
        q = p + _WEIGHTS * (q / q.sum(axis=1, keepdims=True) - p)
        paid = np.log1p(self.radius * np.sqrt(np.sum((q - p) ** 2 / p, axis=1)))
        adaptive = (np.log(q / p) @ counts - rows * paid) / self.reference.largest_effect
        self.recent = self.recent * _DECAY + counts
        self.expected = self.expected * _DECAY + rows * p
        stakes = np.logaddexp(self.log_stakes, self.entry + log_weight)
        self.log_stakes = np.minimum(stakes + np.concatenate((self.gains @ counts, adaptive)), cap)

    def direction(self) -> str:
        winner = int(np.argmax(self.log_stakes))
        if self.log_stakes[winner] <= 0:
            return ""
        return self.bets[winner][0] if winner < len(self.bets) else "shape"

    def moved(self) -> tuple[tuple[int, float], ...]:
        recent, expected = self.recent[1], self.expected[1]  # about eight windows
        if not recent.sum():
            return ()
        change = (recent - expected) / recent.sum()
        return tuple((int(i), float(change[i])) for i in np.argsort(-np.abs(change))[:_MOVED])


class Detector:
    """Watches all features of one model, a window at a time.

    A feature with a single bin, or whose reference leaves nothing to bet on, is left out. Not safe for threads.
    """

    def __init__(self, references: Mapping[str, Reference], settings: Settings) -> None:
        betting = {name: reference for name, reference in references.items() if len(reference.whole.shares) > 1}
        self._features = [_Feature(name, ref, settings, len(betting)) for name, ref in betting.items()]
        self._log_limit = float(np.log(settings.windows))
        experts = sum(len(feature.log_stakes) for feature in self._features)
        self._cap = self._log_limit + float(np.log(max(experts, 1))) + 2
        self._judged = settings.judged
        self._mean_rows = 0.0
        self._windows = 0
        self._drifted = False

    def observe(self, counts: Mapping[str, IntArray], stratum: int = 0) -> Verdict:
        """Take in one window: counts (k,) by feature, one left out counts as unseen; and its stratum, where a
        reference has several."""
        rows = max((int(values.sum()) for values in counts.values()), default=0)
        # An idle model's windows add no stake: else it would raise an alarm after A empty windows.
        weight = 1.0 if self._windows == 0 or not self._mean_rows else min(1.0, rows / self._mean_rows)
        if rows:
            self._mean_rows = (self._mean_rows * self._windows + rows) / (self._windows + 1)
            self._windows += 1
            for feature in self._features:
                if feature.name in counts:
                    feature.observe(counts[feature.name].astype(np.float64), stratum, float(np.log(weight)), self._cap)
        evidence = _log_mean_exp(np.concatenate([np.empty(0), *(f.log_stakes for f in self._features)]))
        if self._judged and evidence >= self._log_limit:
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
            drifted = self._judged and own >= self._log_limit
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
