"""Whether a model errs more often than it did on its reference, with a false-alarm budget that is kept.

Each event that a row may have (a wrong prediction, an error above a limit) happened so and so often in the reference.
Bets on its happening more often than the upper bound of that rate gain nothing in expectation while it does not. Their
stakes are Shiryaev–Roberts e-detectors (Shin, Ramdas and Rinaldo, 2022), as in the drift detector.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from pegel_agent.statistics.slots import FloatArray

_STEPS = np.array([0.01, 0.02, 0.05, 0.1, 0.25])
"""How far bets go from the bound to certainty."""


@dataclass(frozen=True, slots=True)
class ReferenceRate:
    """In how many of the reference's rows an event happened."""

    happened: int
    rows: int


@dataclass(frozen=True, slots=True)
class DropVerdict:
    """`evidence` and `limit` are log10; `dropped` holds until the evidence has fallen to half of the limit."""

    evidence: float
    limit: float
    dropped: bool


def upper_bound(rate: ReferenceRate, *, confidence: float = 0.95) -> float:
    """What a rate stays below with this confidence (Clopper and Pearson, 1934, one-sided); 1 without rows."""
    if rate.happened >= rate.rows:
        return 1.0
    return float(special.betaincinv(rate.happened + 1, rate.rows - rate.happened, confidence))


class AccuracyDrop:
    """Watches the events of labelled rows. Without a drop it reports one once in `windows` windows at most, on average.

    That holds with probability 1 − delta over the reference, for rows whose chance of an event is, given the past, no
    higher than the bound and the `tolerance` (a rate) that the user calls harmless. Not safe for threads.
    """

    def __init__(
        self, references: Sequence[ReferenceRate], *, windows: float, tolerance: float = 0.0, delta: float = 0.05
    ) -> None:
        bounds = np.array([upper_bound(rate, confidence=1 - delta / len(references)) for rate in references])
        # At 1 nothing is left to bet on, and a stake that cannot lose would be an alarm after `windows` windows.
        self._watched = bounds + tolerance < 1
        bound = (bounds + tolerance)[self._watched][:, None]
        q = bound + _STEPS * (1 - bound)
        self._gains: FloatArray = np.log(q / bound)
        self._losses: FloatArray = np.log((1 - q) / (1 - bound))
        self._log_limit = math.log(windows)
        self._cap = self._log_limit + math.log(max(q.size, 1)) + 2
        self._log_stakes: FloatArray = np.full(q.shape, -np.inf)
        self._dropped = False

    def observe(self, rows: int, happened: Sequence[int], *, windows: float = 1.0) -> DropVerdict:
        """Take in labelled rows, and in how many of them each event happened.

        `windows`: the part of the budget's windows that they stand for, up to 1.
        """
        if rows:
            counts = np.asarray(happened, dtype=np.float64)[self._watched][:, None]
            increments = counts * self._gains + (rows - counts) * self._losses
            stakes = np.logaddexp(self._log_stakes, math.log(min(1.0, windows))) + increments
            self._log_stakes = np.minimum(stakes, self._cap)
        evidence = self._evidence()
        if evidence >= self._log_limit:
            self._dropped = True
        elif self._dropped and evidence <= self._log_limit / 2:
            self.reset()
        return self.verdict()

    def reset(self) -> None:
        """Forget what was observed: it rested on rows that were no fair sample."""
        self._dropped = False
        self._log_stakes[:] = -np.inf

    def verdict(self) -> DropVerdict:
        """How things stand."""
        return DropVerdict(self._evidence() / math.log(10), self._log_limit / math.log(10), self._dropped)

    def _evidence(self) -> float:
        stakes = self._log_stakes
        return float(special.logsumexp(stakes)) - math.log(stakes.size) if stakes.size else -math.inf
