"""What is made of judged rows and of scores: whether accuracy has dropped, and what it is to be expected."""

from collections.abc import Iterable
from itertools import accumulate

import numpy as np

from pegel_agent.reference.performance import Curve, Performance
from pegel_agent.sidecar.feedback.rows import Tally
from pegel_agent.statistics.accuracy_drop import AccuracyDrop, DropVerdict, ReferenceRate
from pegel_agent.statistics.budget import Window, share_of
from pegel_agent.statistics.estimation import Estimate, expected_accuracy

_STEP_ROWS = 50
_ERROR_SHARES = (0.5, 0.25, 0.1, 0.05)
"""A regression errs more when more of its errors are above what these shares of the reference's were."""
_GENERATION_ROWS = 5_000
_BATCH_ROWS = 256
_MIN_SCORES = 50


class DropWatch:
    """Bets on judged rows, with the part of the model's budget that accuracy has.

    One bet a window of time; where windows are of rows, one for 50 labels, or as many as a window has rows.
    """

    def __init__(self, performance: Performance, window: Window, budget_windows: float) -> None:
        self._limits, rates = _events(performance)
        self._window = window
        self._next = 0.0
        self._drop = AccuracyDrop(rates, windows=share_of(budget_windows, "accuracy_drop"))
        self._rows = 0
        self._happened = [0] * len(rates)
        self.verdict: DropVerdict = self._drop.verdict()

    def reset(self) -> None:
        """Start anew: what was judged lately was no fair sample."""
        self._drop.reset()
        self.verdict = self._drop.verdict()

    def tick(self, judged: Tally, now: float) -> None:
        """Time has passed, in which all rows of `judged` have been judged since the start."""
        rows = judged.rows - self._rows
        if self._window.rows is not None:
            if rows < min(self._window.rows, _STEP_ROWS):
                return
            windows = min(1.0, rows / self._window.rows)
        else:
            length = self._window.seconds or 0.0
            if self._next - length <= now < self._next:
                return
            self._next = now + length
            windows = 1.0
        if rows:
            happened = [_happened(judged, limit) for limit in self._limits]
            new = [one - before for one, before in zip(happened, self._happened, strict=True)]
            self.verdict = self._drop.observe(rows, new, windows=windows)
            self._rows, self._happened = judged.rows, happened


def _events(performance: Performance) -> tuple[list[int | None], list[ReferenceRate]]:
    """The last error bin of each limit, and how often the reference was above it; None where wrong is wrong."""
    if performance.errors is None:
        return [None], [ReferenceRate(performance.rows - performance.right, performance.rows)]
    total = sum(performance.errors.rows)
    above = [total - up_to for up_to in accumulate(performance.errors.rows[:-2])]
    limits = sorted({min(range(len(above)), key=lambda at: abs(above[at] / total - share)) for share in _ERROR_SHARES})
    return list(limits), [ReferenceRate(above[limit], total) for limit in limits]


def _happened(judged: Tally, limit: int | None) -> int:
    if limit is None:
        return judged.rows - judged.right
    return sum(rows for position, rows in judged.errors.items() if position > limit)


class ExpectedAccuracy:
    """Scores of the latest predictions, with or without labels, against the reference's curve."""

    def __init__(self, curve: Curve) -> None:
        self._bins = curve.bins
        self._reference = np.array(curve.rows[:-1]), np.array(curve.right[:-1])
        self._pending: list[float] = []
        self._earlier = np.zeros(len(curve.rows), dtype=np.int64)
        self._current = self._earlier.copy()

    def add(self, scores: Iterable[float]) -> None:
        """Count the scores of predictions; NaN is a prediction without one."""
        self._pending += scores
        if len(self._pending) >= _BATCH_ROWS:
            self._count()

    def estimate(self) -> Estimate | None:
        """For the latest 5,000 to 10,000 predictions; None where too few of them have a score to tell."""
        self._count()
        rows = self._earlier + self._current
        scored = int(rows[:-1].sum())
        if scored < _MIN_SCORES or 2 * scored < rows.sum():
            return None
        return expected_accuracy(rows[:-1], *self._reference)

    def _count(self) -> None:
        if self._pending:
            self._current += self._bins.counts(np.array(self._pending, dtype=np.float64))
            self._pending.clear()
        if self._current.sum() >= _GENERATION_ROWS:
            self._earlier, self._current = self._current, np.zeros_like(self._current)
