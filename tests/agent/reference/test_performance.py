"""A reference's performance is counted as scikit-learn counts it, in batches of any size, and names no one."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pegel_agent.reference.performance import (
    MAX_CLASSES,
    Curve,
    Errors,
    Performance,
    PerformanceCollector,
    class_name,
    number_of,
)
from pegel_exporters.errors import UserError
from sklearn import metrics


def texts(values):
    return np.array(values, dtype=object)


def collected(label, prediction, score=None, *, batch=1_000, **options):
    collector = PerformanceCollector("label", "prediction", None if score is None else "score", **options)
    columns = {"label": label, "prediction": prediction, "score": score}
    for start in range(0, len(label), batch):
        collector.add({name: columns[name][start : start + batch] for name in collector.columns})
    return collector.result()


def test_a_binary_model_has_its_confusion_and_its_curve():
    rng = np.random.default_rng(1)
    score = rng.random(5_000)
    label = (rng.random(5_000) < score).astype(float)
    found = collected(label, (score >= 0.5).astype(float), score)
    assert (found.kind, found.rows, found.classes) == ("binary", 5_000, ("0", "1"))
    wanted = metrics.confusion_matrix(label, score >= 0.5).T
    assert np.array(found.confusion)[:2, :2].tolist() == wanted.tolist()
    assert found.right == np.trace(wanted)
    assert sum(found.scores.rows) == 5_000
    assert sum(found.scores.right) == found.right
    assert found.errors is None


def test_probabilities_as_predictions_are_scores_too():
    rng = np.random.default_rng(2)
    score = rng.random(3_000)
    label = (rng.random(3_000) < score).astype(float)
    found = collected(label, score)
    assert found == collected(label, (score >= 0.5).astype(float), score)


def test_the_class_whose_rows_score_higher_is_the_positive_one():
    rng = np.random.default_rng(3)
    score = rng.random(2_000)
    label = texts(np.where(rng.random(2_000) < score, "bad", "good").tolist())
    found = collected(label, texts(np.where(score >= 0.5, "bad", "good").tolist()), score)
    assert (found.kind, found.classes) == ("binary", ("good", "bad"))


def test_several_classes_are_counted_and_rare_ones_have_no_name():
    label = np.array([0.0] * 40 + [1.0] * 30 + [2.0] * 20 + [3.0] * 9)
    prediction = label.copy()
    prediction[:5] = 1.0
    found = collected(label, prediction)
    assert (found.kind, found.classes, found.class_names) == ("multiclass", ("0", "1", "2"), ("0", "1", "2", "other"))
    assert found.confusion == ((35, 0, 0, 0), (5, 30, 0, 0), (0, 0, 20, 0), (0, 0, 0, 9))
    assert found.right == 94
    assert not found.more_classes


def test_of_many_classes_the_twenty_most_frequent_are_named():
    names = [f"c{number:02}" for number in range(30) for _ in range(10 + number)]
    found = collected(texts(names), texts(names))
    assert found.classes == tuple(f"c{number}" for number in range(10, 30))
    assert len(found.classes) == MAX_CLASSES
    assert found.more_classes
    assert found.right == found.rows == len(names)


def test_a_class_that_few_rows_share_makes_no_binary_model():
    found = collected(np.array([0.0] * 100 + [1.0] * 9), np.zeros(109))
    assert (found.kind, found.classes) == ("multiclass", ("0",))


def test_a_class_named_other_is_not_the_rest():
    names = texts(["other"] * 20 + ["a"] * 20)
    assert collected(names, names).class_names == ("a", '"other"', "other")


def test_a_regression_has_errors_and_no_classes():
    rng = np.random.default_rng(4)
    label = rng.normal(100, 15, 4_000)
    found = collected(label, label + rng.normal(0, 3, 4_000))
    assert (found.kind, found.classes, found.confusion, found.scores) == ("regression", (), (), None)
    assert sum(found.errors.rows) == found.rows == 4_000
    assert np.interp(0.5, np.cumsum(found.errors.rows[1:-2]) / 4_000, found.errors.edges[1:]) == pytest.approx(
        2, abs=0.3
    )


@pytest.mark.parametrize(
    ("label", "prediction", "kind"),
    [
        ([0, 1], [0.2, 0.7], "binary"),
        ([0, 1], [1, 0], "binary"),
        ([0, 1], [-2.5, 3.5], "regression"),
        ([1, 2, 3], [1, 2, 3], "multiclass"),
        ([1, 2, 3], [1.5, 2.5, 3.5], "regression"),
        ([1, 2, 3], [0.5, 2, 3], "regression"),
        ([1, 2, 3], [1, 2, 7], "regression"),
        (["a", "b"], ["a", "a"], "binary"),
        (["a", "b", "c"], ["a", "a", "a"], "multiclass"),
        (["true", "false"], ["true", "true"], "binary"),
    ],
)
def test_the_kind_is_found_out(label, prediction, kind):
    def column(values):
        many = values * 50
        return texts(many) if isinstance(many[0], str) else np.array(many, dtype=float)

    assert collected(column(label), column(prediction)).kind == kind


def test_the_kind_may_be_told():
    values = np.array([1.0, 2.0, 3.0] * 20)
    assert collected(values, values, kind="regression").kind == "regression"
    assert collected(values, values, kind="multiclass").kind == "multiclass"


def test_more_distinct_numbers_than_are_kept_are_a_regression():
    values = np.arange(150_000.0)
    found = collected(values, values[::-1].copy(), batch=65_536)
    assert (found.kind, found.rows) == ("regression", 150_000)


def test_rows_without_a_label_or_a_prediction_do_not_count():
    label = np.array([0.0, 1.0, np.nan, np.inf] * 20)
    prediction = np.array([0.0, np.nan, 1.0, 1.0] * 20)
    found = collected(label, prediction)
    assert (found.rows, found.right) == (20, 20)
    assert collected(label[:36], prediction[:36]) is None
    assert collected(texts([None, " "] * 50), texts(["a", "b"] * 50)) is None


def test_a_score_that_is_no_probability_is_refused_by_its_column():
    with pytest.raises(UserError, match="column 'score' has scores outside 0 to 1"):
        collected(np.zeros(20), np.zeros(20), np.full(20, 1.5))


def test_missing_scores_are_a_bin_of_their_own():
    score = np.array([0.2, 0.8, np.nan] * 40)
    found = collected(np.array([0.0, 1.0, 1.0] * 40), np.array([0.0, 1.0, 0.0] * 40), score)
    assert (found.scores.rows[-1], found.scores.right[-1]) == (40, 0)


ROWS = st.lists(
    st.tuples(*[st.sampled_from([0.0, 1.0, 2.0, np.nan])] * 2, st.floats(0, 1) | st.just(np.nan)),
    min_size=1,
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(1, 60))
def test_any_split_into_batches_gives_the_same_and_it_comes_back_from_json(rows, batch):
    label, prediction, score = (np.array(column) for column in zip(*rows, strict=True))
    whole = collected(label, prediction, score)
    assert collected(label, prediction, score, batch=batch) == whole
    if whole is not None:
        assert msgspec.json.decode(msgspec.json.encode(whole), type=Performance) == whole
        assert sum(map(sum, whole.confusion)) in (0, whole.rows)
        assert whole.right == int(((label == prediction) & ~np.isnan(label)).sum())


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (1, "1"), (1.0, "1"), ("1.0", "1"), (True, "1"), ("True", "1"), (False, "0"), (-0.0, "0"), ("-0", "0"),
        (2.5, "2.5"), (" cat ", "cat"), ("", None), (None, None), (float("nan"), None), (float("inf"), None),
        ("nan", "nan"), (2**63 - 1, "9.223372036854776e+18"),
    ],
)  # fmt: skip
def test_a_value_names_a_class(value, name):
    assert class_name(value) == name


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        ("2.5", 2.5),
        (True, None),
        ("x", None),
        (float("nan"), None),
        ("inf", None),
        (None, None),
        (10**400, None),
    ],
)
def test_a_value_is_a_number_or_not(value, number):
    assert number_of(value) == number


CURVE = Curve((0.1, 0.9), (1, 8, 1, 0), (0, 6, 1, 0))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Performance("binary", 10, 11, ("0", "1"), ((5, 0, 0), (5, 0, 0), (0, 0, 0))),
        lambda: Performance("binary", 0, 0, ("0", "1"), ((0, 0, 0),) * 3),
        lambda: Performance("binary", 10, 5, ("0",), ((5, 0), (5, 0))),
        lambda: Performance("multiclass", 10, 5, ("0", "0"), ((5, 0, 0), (5, 0, 0), (0, 0, 0))),
        lambda: Performance("multiclass", 10, 5, ("0", "1"), ((5, 0, 0), (4, 0, 0), (0, 0, 0))),
        lambda: Performance("multiclass", 10, 5, ("0", "1"), ((5, 0), (5, 0))),
        lambda: Performance("multiclass", 10, 5, ("0",), ((5, -1), (6, 0))),
        lambda: Performance("regression", 10, 5),
        lambda: Performance("regression", 10, 5, scores=CURVE, errors=Errors((0.0, 1.0), (0, 10, 0, 0))),
        lambda: Curve((0.1, 0.9), (1, 8, 1), (0, 6, 1)),
        lambda: Curve((0.9, 0.1), (1, 8, 1, 0), (0, 6, 1, 0)),
        lambda: Curve((0.1, 0.9), (1, 8, 1, 0), (2, 6, 1, 0)),
        lambda: Errors((0.1,), (1, 8, 1)),
    ],
)
def test_counts_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match=r"performance|scores|errors"):
        wrong()
