"""Quality from counts is what scikit-learn makes of the rows."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pegel_agent.statistics.quality import (
    ClassScores,
    ErrorSums,
    accuracy,
    brier,
    calibration_error,
    class_scores,
    macro_scores,
    mean_absolute_error,
    r_squared,
    roc_auc,
    root_mean_squared_error,
)
from sklearn import metrics

LABELLED = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)
SCORED = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=80)


def confusion(rows: list[tuple[int, int]], classes: int = 4) -> np.ndarray[Any, np.dtype[np.int64]]:
    found = np.zeros((classes, classes), dtype=np.int64)
    for predicted, actual in rows:
        found[predicted, actual] += 1
    return found


@settings(deadline=None)
@given(LABELLED)
def test_scores_of_classes_are_scikit_learns(rows: list[tuple[int, int]]) -> None:
    predicted, actual = zip(*rows, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = metrics.precision_recall_fscore_support(actual, predicted, average="macro", zero_division=0)[:3]
        ones = metrics.precision_recall_fscore_support(
            actual, predicted, labels=[1], average=None, zero_division=np.nan
        )[:3]
    macro = macro_scores(confusion(rows))
    assert (macro.precision, macro.recall, macro.f1) == pytest.approx(wanted)
    one = class_scores(confusion(rows), 1)
    for ours, theirs in zip((one.precision, one.recall, one.f1), ones, strict=True):
        assert (math.nan if ours is None else ours) == pytest.approx(theirs[0], nan_ok=True)
    right = sum(a == b for a, b in rows)
    assert accuracy(right, len(rows)).value == pytest.approx(metrics.accuracy_score(actual, predicted))  # type: ignore[union-attr]


@settings(deadline=None)
@given(SCORED)
def test_area_and_errors_of_scores_are_scikit_learns(rows: list[tuple[int, bool]]) -> None:
    scores = np.array([(place + 0.5) / 10 for place, _ in rows])
    truths = np.array([hit for _, hit in rows])
    places = np.array([place for place, _ in rows])
    negatives = np.bincount(places[~truths], minlength=10)
    positives = np.bincount(places[truths], minlength=10)
    middles = (np.arange(10) + 0.5) / 10
    assert brier(negatives, positives, middles) == pytest.approx(
        metrics.brier_score_loss(truths, scores, pos_label=True)
    )
    area = roc_auc(negatives, positives)
    if truths.all() or not truths.any():
        assert area is None
    else:
        assert area is not None
        assert area.value == pytest.approx(metrics.roc_auc_score(truths, scores))
        assert area.lower <= area.value <= area.upper
    by_hand = sum(abs(truths[places == place].sum() - (places == place).sum() * middles[place]) for place in range(10))
    assert calibration_error(negatives, positives, middles) == pytest.approx(by_hand / len(rows))


def test_the_interval_of_the_area_holds_it_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    edges = np.linspace(-4, 5, 200)
    true = 0.7602  # of two normal distributions one standard deviation apart
    held = 0
    for _ in range(400):
        area = roc_auc(
            np.bincount(np.searchsorted(edges, rng.normal(0, 1, 150)), minlength=201),
            np.bincount(np.searchsorted(edges, rng.normal(1, 1, 60)), minlength=201),
        )
        assert area is not None
        held += area.lower <= true <= area.upper
    assert 0.92 <= held / 400 <= 0.985


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6)] * 2), min_size=2, max_size=50), st.floats(-1e3, 1e3))
def test_errors_of_a_regression_are_scikit_learns(rows: list[tuple[float, float]], origin: float) -> None:
    predicted, actual = (np.array(side) for side in zip(*rows, strict=True))
    error = predicted - actual
    moved = actual - origin
    sums = ErrorSums(
        len(rows), float(np.abs(error).sum()), float(error @ error), float(moved.sum()), float(moved @ moved)
    )
    assert mean_absolute_error(sums) == pytest.approx(metrics.mean_absolute_error(actual, predicted))
    assert root_mean_squared_error(sums) == pytest.approx(metrics.root_mean_squared_error(actual, predicted))
    found = r_squared(sums)
    if found is not None and np.var(actual) > 1e-6 * float(moved @ moved) / len(rows):
        assert found == pytest.approx(metrics.r2_score(actual, predicted), rel=1e-5, abs=1e-5)
    if len(set(actual.tolist())) == 1:
        assert found is None


def test_without_rows_nothing_is_a_result() -> None:
    none = np.zeros(3, dtype=np.int64)
    assert accuracy(0, 0) is None
    assert macro_scores(np.zeros((2, 2), dtype=np.int64)) == ClassScores(None, None, None)
    assert roc_auc(none, none) is None
    assert brier(none, none, np.zeros(3)) is None
    assert calibration_error(none, none, np.zeros(3)) is None
    nothing = ErrorSums(0, 0.0, 0.0, 0.0, 0.0)
    assert (mean_absolute_error(nothing), root_mean_squared_error(nothing), r_squared(nothing)) == (None, None, None)


def test_errors_too_large_for_a_number_are_no_result() -> None:
    huge = ErrorSums(3, math.inf, math.inf, math.inf, math.inf)
    assert (mean_absolute_error(huge), root_mean_squared_error(huge), r_squared(huge)) == (None, None, None)
