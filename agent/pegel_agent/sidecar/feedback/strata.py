"""Kinds of predictions, told apart by what was predicted and how surely, to see whether labels come for all alike."""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from pegel_agent.sidecar.feedback.store import Plain

_VALUES = 20
_PARTS = 8
_SCORES_FROM = _VALUES + 1
STRATA = _SCORES_FROM + _PARTS + 1
"""Places of a prediction's value, the last of them for all others, then of its score, the last for none."""
SPLIT = _SCORES_FROM


class Strata:
    """By up to 20 values where the first predictions have no more, else by eighths of their numbers; and by eighths of
    their scores."""

    def __init__(self, first: Sequence[tuple[Plain, float]]) -> None:
        values = Counter(value for value, _ in first)
        numbers = sorted(value for value in values.elements() if isinstance(value, float))
        self._named: dict[Plain, int] = {}
        self._edges: list[float] = []
        if len(values) <= _VALUES or 2 * len(numbers) < len(first):
            self._named = {value: place for place, (value, _) in enumerate(values.most_common(_VALUES))}
        else:
            self._edges = _eighths(numbers)
        self._score_edges = _eighths(sorted(score for _, score in first if not math.isnan(score)))

    def of(self, value: Plain, score: float) -> tuple[int, int]:
        """A prediction's places: of its value, and of its score, NaN where it has none."""
        if self._edges and isinstance(value, float):
            place = bisect_left(self._edges, value)
        else:
            place = self._named.get(value, _VALUES)
        scored = _PARTS if math.isnan(score) else bisect_left(self._score_edges, score)
        return place, _SCORES_FROM + scored


def _eighths(ascending: Sequence[float]) -> list[float]:
    size = len(ascending)
    return sorted({ascending[part * size // _PARTS] for part in range(1, _PARTS)}) if size else []
