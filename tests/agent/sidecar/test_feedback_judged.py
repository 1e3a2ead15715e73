"""Labels beside a reference's performance: judged when they are fair, counted by class, and a drop is found."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pegel_agent.reference.performance import Curve, Errors, Performance, PerformanceCollector
from pegel_agent.sidecar.feedback import Labels, families
from pegel_agent.sidecar.feedback.cohorts import MIN_LABELS, Cohorts
from pegel_agent.sidecar.feedback.rows import Judge, Row, Tally, plain
from pegel_agent.statistics.budget import Window
from pegel_exporters.catalogue import CATALOGUE
from sklearn import metrics

MODEL = ("houses", "3")
DAY, HOUR = 86_400.0, 3_600.0
START = 1_700_000_000.0
BINARY = Performance("binary", 10_000, 9_000, ("0", "1"), ((4_500, 500, 0), (500, 4_500, 0), (0, 0, 0)))
ANIMALS = Performance("multiclass", 100, 80, ("cat", "dog"), ((40, 5, 5), (5, 40, 5), (0, 0, 0)))
PRICES = Performance("regression", 1_000, 0, errors=Errors((0.0, 1.0, 2.0, 3.0, 4.0), (0, 500, 250, 150, 50, 50, 0)))
RIGHT, WRONG = Row(True), Row(False)


def labels(performance: Performance | None = BINARY, **options: Any) -> Labels:
    return Labels(*MODEL, performance, **({"horizon_seconds": 0.0} | options))


def post(to: Labels, *items: Any, now: float = START) -> Any:
    return to.take(list(items), now)


def published(of: Labels, now: float = START) -> dict[str, Any]:
    """Samples by metric and by the labels that are not the model's."""
    page: dict[str, Any] = {}
    for family in families(of, MODEL, now):
        assert family.metric in CATALOGUE
        for values, sample in family.samples.items():
            assert len(values) == len(family.metric.labels)
            page["/".join((family.metric.name, *values[2:]))] = sample
    return page


# When labels are judged


def test_rows_wait_until_their_time_is_a_horizon_ago_and_are_judged_together() -> None:
    of = Cohorts(DAY)
    for second in range(600):
        of.add(RIGHT if second % 2 else WRONG, START + second, START + second)
    of.tick(START + DAY)
    assert (of.judged.rows, of.waiting) == (0, 600)
    of.tick(START + DAY + 1_200)
    assert (of.judged.rows, of.judged.right, of.waiting) == (600, 300, 0)
    assert of.fair == of.judged


def test_a_label_that_brings_its_prediction_is_judged_at_once_when_it_is_late_or_has_no_time() -> None:
    of = Cohorts(HOUR)
    of.add(RIGHT, START, START)
    of.add(RIGHT, None, START)
    of.add(RIGHT, START - 3 * HOUR, START)
    assert (of.judged.rows, of.waiting) == (2, 1)
    of.tick(START + 3 * HOUR)
    of.add(RIGHT, START, START + 3 * HOUR)
    assert (of.judged.rows, of.fair.rows, of.waiting) == (4, 4, 0)


def test_a_late_label_that_found_its_prediction_is_counted_and_not_judged() -> None:
    of = Cohorts(HOUR)
    of.predicted(1.0, math.nan, START, "a")
    of.tick(START + 2 * HOUR)
    of.labelled(1.0, math.nan, START, "a")
    of.add(WRONG, START, START + 2 * HOUR, joined=True)
    assert (of.judged.rows, of.fair.rows, of.latest().rows) == (1, 0, 0)


def test_a_correction_changes_a_row_wherever_it_is_and_never_a_counter() -> None:
    of = Cohorts(HOUR)
    assert of.add(WRONG, START, START) is None
    chunk = of.add(WRONG, None, START)
    for tally in (of.tally_of(START, None), of.tally_of(None, chunk)):
        assert tally is not None
        tally.add(WRONG, -1)
        tally.add(RIGHT)
    of.tick(START + 3 * HOUR)
    assert (of.latest().rows, of.latest().right) == (2, 2)
    assert (of.judged.rows, of.judged.right) == (2, 1)


def test_coverage_is_that_of_predictions_old_enough() -> None:
    of = Cohorts(HOUR)
    assert of.coverage(START) is None
    for second in range(4_000):
        of.predicted(1.0, math.nan, START + second, second)
        if second < 1_800 or second % 2:
            of.labelled(1.0, math.nan, START + second, second)
    now = START + HOUR + 3_000
    assert of.coverage(now) == pytest.approx((1_800 + 600) / 3_000, abs=0.01)
    of.tick(now)
    assert of.coverage(now) == pytest.approx((1_800 + 600) / 3_000, abs=0.01)
    for hour in range(1, 4):
        of.tick(START + hour * HOUR + 4_000)
    assert of.coverage(START + 4 * HOUR) is None, "what is old is forgotten"


@pytest.mark.parametrize("horizon", [1.5 * HOUR, DAY])
def test_positives_known_after_an_hour_and_negatives_after_a_day_are_no_drop_whatever_the_horizon(
    horizon: float,
) -> None:
    """The model finds every negative and four of five positives, as it did on its reference."""
    rng = np.random.default_rng(1)
    reference = Performance("binary", 10_000, 9_000, ("0", "1"), ((5_000, 1_000, 0), (0, 4_000, 0), (0, 0, 0)))
    of = labels(reference, horizon_seconds=horizon, window=Window(seconds=300.0))
    coming: list[tuple[float, dict[str, Any]]] = []
    dropped = False
    for window in range(2 * 288 + 24):
        now = START + 300.0 * window
        for number in range(20):
            actual = int(rng.integers(0, 2))
            prediction = int(actual and rng.random() < 0.8)
            of.predicted(f"{window}-{number}", 0, prediction, now)
            coming.append((now + (HOUR if actual else DAY), {"id": f"{window}-{number}", "label": actual}))
        due = [item for at, item in coming if at <= now]
        coming = [(at, item) for at, item in coming if at > now]
        post(of, *due, now=now)
        of.tick(now)
        assert of.drop is not None
        dropped = dropped or of.drop.verdict.dropped
    assert not dropped
    if horizon < DAY:
        assert of.state().unknown is not None
        assert of.state().accuracy is None
    else:
        assert of.state().accuracy == pytest.approx(0.9, abs=0.05)
        coverage = of.cohorts.coverage(now)
        assert coverage is not None
        assert coverage > 0.99


def test_labels_that_wait_are_immature_and_no_accuracy() -> None:
    of = labels(horizon_seconds=DAY)
    for number in range(MIN_LABELS):
        assert of.state().state == "insufficient"
        post(of, {"label": 1, "prediction": 1, "predicted_ts": START + number})
    assert (of.state().state, of.state().labels) == ("immature", MIN_LABELS)
    page = published(of)
    assert page["ml_model_quality_state/immature"] == 1.0
    assert "ml_model_accuracy" not in page
    assert not [name for name in page if name.startswith("ml_model_quality/")]
    of.tick(START + 2 * DAY)
    assert of.state().state == "ok"
    assert published(of)["ml_model_accuracy"] == 1.0


def test_without_a_performance_no_client_makes_a_series() -> None:
    of = Labels(*MODEL, horizon_seconds=0.0)
    for number in range(MIN_LABELS):
        of.predicted(f"{number}", 0, f"made up {number}", START)
    post(of, *({"id": f"{number}", "label": f"made up {number % 40}"} for number in range(MIN_LABELS)))
    page = published(of)
    assert page["ml_model_accuracy"] == 0.8
    assert page["ml_model_accuracy_labels"] == 50.0
    assert {name.partition("/")[0] for name in page} == {
        "ml_model_accuracy", "ml_model_accuracy_lower", "ml_model_accuracy_upper", "ml_model_accuracy_labels",
        "ml_model_quality_state", "ml_labels_total", "ml_label_delay_seconds", "ml_predictions_dropped_total",
    }  # fmt: skip


# Classes


@pytest.mark.parametrize(
    ("prediction", "classes", "place"),
    [
        (0.7, ("0", "1"), 1), (0.5, ("no", "yes"), 1), (0.0, ("no", "yes"), 0), ("0.2", ("no", "yes"), 0),
        ("yes", ("no", "yes"), 1), (" yes ", ("no", "yes"), 1), (True, ("0", "1"), 1), ("1.0", ("0", "1"), 1),
        (1.7, ("0", "1"), 2), (0.7, ("0", "1", "2"), 3), ("maybe", ("no", "yes"), 2),
    ],
)  # fmt: skip
def test_a_prediction_names_a_class(prediction: Any, classes: tuple[str, ...], place: int) -> None:
    size = len(classes) + 1
    confusion = ((10, *(0,) * len(classes)), *((0,) * size,) * len(classes))
    judge = Judge(Performance("binary" if size == 3 else "multiclass", 10, 10, classes, confusion))
    row = judge.row(plain(prediction), plain(classes[0]), None)
    assert row.classes == (place, 0)
    assert row.right is (place == 0)


def test_the_confusion_is_there_at_0_and_counts_other_classes_together() -> None:
    of = labels(ANIMALS)
    page = published(of)
    cells = {name: value for name, value in page.items() if name.startswith("ml_confusion_total")}
    assert len(cells) == 9
    assert set(cells.values()) == {0.0}
    assert page["ml_accuracy_drop_detected"] == 0.0
    post(of, {"label": "cat", "prediction": "cat"}, {"label": "cow", "prediction": "dog"},
         {"label": "cow", "prediction": "hen"}, {"label": "cow", "prediction": "cow"})  # fmt: skip
    page = published(of)
    assert {name: value for name, value in page.items() if name in cells and value} == {
        "ml_confusion_total/cat/cat": 1.0, "ml_confusion_total/dog/other": 1.0, "ml_confusion_total/other/other": 2.0,
    }  # fmt: skip
    assert of.cohorts.judged.right == 2, "two other classes are not the same class"


def test_more_classes_than_twenty_are_counted_one_by_one() -> None:
    names = np.array([f"c{number:02}" for number in range(30) for _ in range(10 + number)], dtype=object)
    collector = PerformanceCollector("label", "prediction")
    collector.add({"label": names, "prediction": names})
    of = labels(collector.result())
    post(of, {"label": "c29", "prediction": "c28"}, {"label": "c28", "prediction": "c28"},
         {"label": "c29", "prediction": "c00"})  # fmt: skip
    page = published(of)
    outcomes = {name: value for name, value in page.items() if name.startswith("ml_class_outcomes_total")}
    assert len(outcomes) == 60
    assert {name.partition("/")[2]: value for name, value in outcomes.items() if value} == {
        "c28/true_positive": 1.0, "c28/false_positive": 1.0, "c29/false_negative": 2.0,
    }  # fmt: skip
    assert not [name for name in page if name.startswith("ml_confusion_total")]


def test_quality_of_a_binary_model_is_scikit_learns() -> None:
    rng = np.random.default_rng(7)
    score = rng.random(5_000)
    truth = (rng.random(5_000) < score).astype(float)
    collector = PerformanceCollector("label", "prediction")
    collector.add({"label": truth, "prediction": score})
    of = labels(collector.result())
    score, truth = score[:500], truth[:500]
    for number in range(500):
        of.predicted(f"{number}", 0, float(score[number]), START)
    post(of, *({"id": f"{number}", "label": int(truth[number])} for number in range(500)))
    page = published(of)
    said = score >= 0.5
    assert page["ml_model_accuracy"] == pytest.approx(metrics.accuracy_score(truth, said))
    assert page["ml_model_quality/precision"] == pytest.approx(metrics.precision_score(truth, said))
    assert page["ml_model_quality/recall"] == pytest.approx(metrics.recall_score(truth, said))
    assert page["ml_model_quality/f1"] == pytest.approx(metrics.f1_score(truth, said))
    assert page["ml_model_quality/roc_auc"] == pytest.approx(metrics.roc_auc_score(truth, score), abs=0.01)
    assert page["ml_model_quality/brier"] == pytest.approx(metrics.brier_score_loss(truth, score), abs=0.002)
    assert 0 < page["ml_model_quality/ece"] < 0.1


def test_quality_of_several_classes_is_the_mean_of_the_named_ones() -> None:
    of = labels(ANIMALS)
    rows = [("cat", "cat")] * 40 + [("dog", "cat")] * 10 + [("dog", "dog")] * 30 + [("cat", "cow")] * 5
    post(of, *({"prediction": predicted, "label": actual} for predicted, actual in rows))
    predicted, actual = zip(*rows, strict=True)
    wanted = metrics.precision_recall_fscore_support(actual, predicted, labels=["cat", "dog"], average="macro")
    page = published(of)
    found = [page[f"ml_model_quality/{name}"] for name in ("precision", "recall", "f1")]
    assert found == pytest.approx(wanted[:3])


def test_what_labels_leave_undefined_has_no_series() -> None:
    of = labels()
    post(of, *({"prediction": 0, "label": 0} for _ in range(MIN_LABELS)))
    assert not [name for name in published(of) if name.startswith("ml_model_quality/")]


# Regression


def test_a_regression_has_errors_and_no_accuracy() -> None:
    rng = np.random.default_rng(8)
    truth = rng.normal(1e6, 5, 300)
    told = truth + rng.normal(0, 1, 300)
    of = labels(PRICES)
    post(of, *({"prediction": float(told[n]), "label": str(truth[n])} for n in range(300)))
    page = published(of)
    assert page["ml_model_quality/mae"] == pytest.approx(metrics.mean_absolute_error(truth, told), rel=1e-6)
    assert page["ml_model_quality/rmse"] == pytest.approx(metrics.root_mean_squared_error(truth, told), rel=1e-6)
    assert page["ml_model_quality/r2"] == pytest.approx(metrics.r2_score(truth, told), rel=1e-6)
    assert page["ml_model_quality_state/ok"] == 1.0
    assert not [name for name in page if name.startswith(("ml_model_accuracy", "ml_confusion"))]


@pytest.mark.parametrize("value", ["cheap", "nan", "inf", True, "", "1e999"])
@pytest.mark.parametrize("field", ["label", "prediction"])
def test_what_is_no_number_is_no_label_of_a_regression(value: Any, field: str) -> None:
    answer = post(labels(PRICES), {"label": 1.0, "prediction": 1.0, field: value})
    assert (answer.accepted, answer.rejected) == (0, 1)
    assert answer.reason == f"item 0: {field} must be a finite number: the model is a regression"


def test_numbers_too_large_to_square_leave_no_result_that_is_none() -> None:
    of = labels(PRICES)
    post(of, *({"prediction": 1e300, "label": -1e300 * (n % 2)} for n in range(MIN_LABELS)))
    quality = {name: value for name, value in published(of).items() if name.startswith("ml_model_quality/")}
    assert quality == {"ml_model_quality/mae": pytest.approx(1.5e300)}


# A drop


def steady(of: Labels, rng: np.random.Generator, windows: int, error: float) -> list[bool]:
    """Windows of 50 labels, so many of them wrong; whether each ended in a drop."""
    states = []
    for _ in range(windows):
        wrong = rng.random(50) < error
        post(of, *({"prediction": 1, "label": int(not one)} for one in wrong))
        of.tick(START)
        assert of.drop is not None
        states.append(of.drop.verdict.dropped)
    return states


def test_a_drop_is_found_published_and_let_go() -> None:
    of = labels(window=Window(rows=50))
    rng = np.random.default_rng(2)
    assert not any(steady(of, rng, 60, 0.1))
    assert steady(of, rng, 30, 0.3)[-1]
    page = published(of)
    assert page["ml_accuracy_drop_detected"] == 1.0
    assert page["ml_accuracy_drop_evidence"] > page["ml_accuracy_drop_evidence_limit"]
    assert page["ml_accuracy_drop_evidence_limit"] == pytest.approx(math.log10(4 * 8_640))
    assert not steady(of, rng, 300, 0.05)[-1]


def test_windows_of_many_rows_are_judged_by_fifty_labels() -> None:
    of = labels(window=Window(rows=5_000))
    steady(of, np.random.default_rng(3), 1, 0.15)
    assert of.drop is not None
    fresh = labels(window=Window(rows=50))
    steady(fresh, np.random.default_rng(3), 1, 0.15)
    assert fresh.drop is not None
    assert of.drop.verdict.evidence == pytest.approx(fresh.drop.verdict.evidence - 2)


def test_windows_of_time_make_one_bet_each() -> None:
    of = labels(window=Window(seconds=300.0))
    assert of.drop is not None
    evidence = []
    for second in range(0, 1_500, 100):
        post(of, *({"prediction": 1, "label": 0} for _ in range(5)), now=START + second)
        of.tick(START + second)
        evidence.append(of.drop.verdict.evidence)
    assert len(set(evidence)) == 5


def test_a_regression_whose_errors_grow_has_dropped() -> None:
    rng = np.random.default_rng(4)
    of = labels(PRICES, window=Window(rows=50))
    assert of.drop is not None

    def play(scale: float) -> bool:
        for _ in range(20):
            errors = np.interp(rng.random(50), np.cumsum([0, 0.5, 0.25, 0.15, 0.1]), [0.0, 1.0, 2.0, 3.0, 4.0]) * scale
            post(of, *({"prediction": float(error), "label": 0} for error in errors))
            of.tick(START)
        return of.drop is not None and of.drop.verdict.dropped

    assert not play(1.0)
    assert play(1.6)


# Accuracy to expect


def test_accuracy_is_expected_from_scores_without_any_label() -> None:
    curve = Curve((0.0, 0.5, 1.0), (0, 600, 400, 0, 0), (0, 300, 380, 0, 0))
    reference = Performance("binary", 1_000, 680, ("0", "1"), ((300, 20, 0), (300, 380, 0), (0, 0, 0)), scores=curve)
    of = labels(reference)
    assert of.expected is not None
    assert "ml_model_accuracy_estimated" not in published(of)
    of.expected.add([0.2] * 100 + [0.9] * 100)
    page = published(of)
    assert page["ml_model_accuracy_estimated"] == pytest.approx((0.5 + 0.95) / 2, abs=0.001)
    assert 0 < page["ml_model_accuracy_estimated_error"] < 0.02
    of.expected.add([math.nan] * 300)
    assert "ml_model_accuracy_estimated" not in published(of), "most answers have no score"
    of.expected.add([0.9] * 12_000)
    of.expected.add([0.2] * 12_000)
    assert published(of)["ml_model_accuracy_estimated"] == pytest.approx((0.5 + 0.95) / 2, abs=0.3)


# Whatever is posted

VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(["0", "cat", ""])
)
ITEMS = st.fixed_dictionaries(
    {"label": VALUES}, optional=dict.fromkeys(("id", "row", "prediction", "score", "ts", "predicted_ts"), VALUES)
)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([BINARY, ANIMALS, PRICES]),
    st.lists(ITEMS, max_size=8),
    VALUES,
    st.sampled_from([0.0, DAY]),
)
def test_nothing_that_is_posted_raises_or_becomes_a_result_that_is_none(
    performance: Performance, items: list[Any], prediction: Any, horizon: float
) -> None:
    of = labels(performance, horizon_seconds=horizon)
    of.predicted("0", 0, prediction, START, other_id="cat")
    sent = [json.loads(json.dumps(item)) for item in items]
    answer = post(of, *sent, *sent)
    assert answer.accepted + answer.waiting + answer.duplicate + answer.unmatched + answer.rejected == 2 * len(items)
    of.tick(START + 3 * DAY)
    assert of.cohorts.waiting == 0
    page = published(of, START + 3 * DAY)
    assert not [name for name, value in page.items() if isinstance(value, float) and math.isnan(value)]
    assert of.cohorts.judged.rows == of.outcomes["matched"]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 2)), max_size=40), st.integers(0, 40))
def test_tallies_merge_to_the_tally_of_all_rows(rows: list[tuple[bool, int, int]], cut: int) -> None:
    whole, first, second = Tally(), Tally(), Tally()
    for place, (right, predicted, actual) in enumerate(rows):
        row = Row(right, (predicted, actual))
        whole.add(row)
        (first if place < cut else second).add(row)
    first.merge(second)
    assert first == whole
