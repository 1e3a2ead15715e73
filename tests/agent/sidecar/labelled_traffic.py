"""A model's traffic and its labels in simulated time, through the sidecar's own labels."""

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pegel_agent.reference.performance import Performance
from pegel_agent.sidecar.feedback import Labels
from pegel_agent.sidecar.monitor.state import AccuracyState
from pegel_agent.statistics.budget import Window

DAY, HOUR = 86_400.0, 3_600.0
START = 1_700_000_000.0
TRUTH = 0.96
REFERENCE = Performance("binary", 10_000, 9_600, ("0", "1"), ((7_950, 350, 0), (50, 1_650, 0), (0, 0, 0)))
"""A fifth of the rows are positive; the model finds 82 % of them, and calls few others so."""

Delay = Callable[[np.random.Generator, int, int], float | None]
"""Seconds until the label of a row with this prediction and this label comes; None for never."""


@dataclass(frozen=True)
class Seen:
    """How things stood at one moment: time since the start, state, drop reported, evidence (log10)."""

    at: float
    state: AccuracyState
    dropped: bool
    evidence: float


def play(
    delay: Delay,
    *,
    rate: float,
    seconds: float,
    horizon: float = DAY,
    seed: int = 1,
    store_bytes: int = 16 << 20,
    error: Callable[[float], float] = lambda _: 1 - TRUTH,
    restart_at: float = math.inf,
    rows: int = 1,
    of: Labels | None = None,
) -> list[Seen]:
    """Predictions at a steady rate, their labels when they come, and what is known four times a horizon's hundredth."""
    random = np.random.default_rng(seed)

    def fresh() -> Labels:
        return Labels("m", "1", REFERENCE, window=Window(seconds=max(1.0, horizon / 288)), horizon_seconds=horizon,
                      store_bytes=store_bytes)  # fmt: skip

    labels = of or fresh()
    coming: list[tuple[float, int, int]] = []
    seen: list[Seen] = []
    request, step, owed = 0, horizon / 288, 0.0
    for tick in range(int(seconds / step)):
        began = START + tick * step
        if tick * step >= restart_at:
            labels, restart_at = fresh(), math.inf
        owed += rate * step / rows
        requests, owed = int(owed), owed - int(owed)
        actual = (random.random((requests, rows)) < 0.2).astype(int)
        # Errors are mostly missed positives, so that positives are right less often.
        share = error(tick * step)
        wrong = random.random((requests, rows)) < np.where(actual == 1, np.minimum(1.0, 4.5 * share), share / 8)
        said = np.where(wrong, 1 - actual, actual)
        for number in range(requests):
            at = began + step * number / requests
            request += 1
            for row in range(rows):
                prediction, label = int(said[number, row]), int(actual[number, row])
                labels.predicted(f"r{request}", row, prediction, at)
                after = delay(random, prediction, label)
                if after is not None:
                    heapq.heappush(coming, (at + after, request * rows + row, label))
        now = began + step
        due: list[dict[str, Any]] = []
        while coming and coming[0][0] <= now:
            _, number, label = heapq.heappop(coming)
            due.append({"id": f"r{number // rows}", "row": number % rows, "label": label})
        labels.take(due, now)
        labels.tick(now)
        assert labels.drop is not None
        seen.append(Seen(now - START, labels.state(), labels.drop.verdict.dropped, labels.drop.verdict.evidence))
    return seen
