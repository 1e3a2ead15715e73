"""How good predictions were, from counts of labelled rows.

What the counts leave undefined is None, and never NaN or a 0 that looks like a result.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from pegel_agent.statistics.intervals import wilson
from pegel_agent.statistics.slots import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Measured:
    """A value and the ends of its interval."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Precision (of the rows predicted so), recall (of the rows that are so) and their harmonic mean."""

    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class ErrorSums:
    """Sums over labelled rows of a regression: |e|, e², and the labels y and y², taken from any fixed origin."""

    rows: int
    absolute: float
    squared: float
    labels: float
    labels_squared: float


def accuracy(right: int, rows: int) -> Measured | None:
    """Share of rows predicted right, with its 95 % Wilson interval."""
    return Measured(right / rows, *wilson(right, rows)) if rows else None


def class_scores(confusion: IntArray, positive: int) -> ClassScores:
    """One class against all others; `confusion` (k, k) has rows by predicted (first axis) and actual class."""
    hits = int(confusion[positive, positive])
    predicted, actual = int(confusion[positive].sum()), int(confusion[:, positive].sum())
    return ClassScores(_ratio(hits, predicted), _ratio(hits, actual), _ratio(2 * hits, predicted + actual))


def macro_scores(confusion: IntArray, *, classes: int | None = None) -> ClassScores:
    """Means over the classes that occur in predictions or labels, or over those among the first so many `classes`.

    As is usual, a class that is never predicted has a precision of 0 here, and one that never occurs a recall of 0.
    """
    occurring = [one for one in range(len(confusion))[:classes] if confusion[one].any() or confusion[:, one].any()]
    if not occurring:
        return ClassScores(None, None, None)
    each = [class_scores(confusion, one) for one in occurring]
    return ClassScores(
        *(sum(getattr(one, name) or 0.0 for one in each) / len(each) for name in ("precision", "recall", "f1"))
    )


def roc_auc(negatives: IntArray, positives: IntArray, *, confidence: float = 0.95) -> Measured | None:
    """Chance that a positive row scores above a negative one, ties counting half; None without rows of both.

    Rows by score bin (k,), ascending. The interval is that of Hanley and McNeil (Radiology 143, 1982). It has no width
    where one kind lies wholly above the other.
    """
    n, m = int(negatives.sum()), int(positives.sum())
    if not n or not m:
        return None
    below = np.cumsum(negatives) - negatives
    area = float(positives @ (below + negatives / 2)) / n / m
    both, one = area / (2 - area), 2 * area * area / (1 + area)
    variance = (
        area * (1 - area) + (m - 1) * (both - area * area) + (n - 1) * (one - area * area)
    ) / n / m  # fmt: skip
    half = float(special.ndtri((1 + confidence) / 2)) * math.sqrt(max(0.0, variance))
    return Measured(area, max(0.0, area - half), min(1.0, area + half))


def brier(negatives: IntArray, positives: IntArray, scores: FloatArray) -> float | None:
    """Mean squared difference of score and outcome (Brier, 1950), from rows by bin (k,) and the bins' mean scores (k,).

    What scores differ within a bin adds nothing, so that coarse bins make it smaller by the variance within them.
    """
    rows = int(negatives.sum() + positives.sum())
    return float(negatives @ scores**2 + positives @ (1 - scores) ** 2) / rows if rows else None


def calibration_error(misses: IntArray, hits: IntArray, scores: FloatArray) -> float | None:
    """Expected calibration error: mean difference of a bin's score and its share of hits (Naeini et al., AAAI 2015).

    Rows by bin (k,) and the bins' mean scores (k,); the score is the probability of a hit.
    """
    rows = misses + hits
    total = int(rows.sum())
    return float(np.abs(hits - rows * scores).sum()) / total if total else None


def mean_absolute_error(sums: ErrorSums) -> float | None:
    """In the label's unit."""
    return _finite(sums.absolute / sums.rows) if sums.rows else None


def root_mean_squared_error(sums: ErrorSums) -> float | None:
    """In the label's unit; None where the squares are beyond what a number can hold."""
    return _finite(math.sqrt(max(0.0, sums.squared) / sums.rows)) if sums.rows else None


def r_squared(sums: ErrorSums) -> float | None:
    """Share of the labels' variance that the predictions explain; None where the labels do not vary."""
    if sums.rows < 2:
        return None
    varied = sums.labels_squared - sums.labels * sums.labels / sums.rows
    if not varied > 1e-12 * sums.labels_squared:  # nothing is left but rounding
        return None
    return _finite(1 - sums.squared / varied)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
