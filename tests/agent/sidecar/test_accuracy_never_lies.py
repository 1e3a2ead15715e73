"""An accuracy that is shown is that of all predictions, however labels come; else there is none, and it is said why.

A model is right in 96 of 100 rows and stays so; positives are right less often than negatives.
"""

import logging
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from labelled_traffic import DAY, HOUR, REFERENCE, START, TRUTH, Delay, Seen, play
from pegel_agent.reference.performance import Errors, Performance
from pegel_agent.sidecar.feedback import Labels, families
from pegel_agent.sidecar.monitor.state import AccuracyState
from pegel_exporters.catalogue import MODEL_QUALITY_STATE, PREDICTIONS_DROPPED, QUALITY_STATES

MODEL = ("m", "1")
RATE = 0.1
FEW_MISSES = 0.12
"""Of intervals of 95 %, seen over and over while the same rows are shown."""


def first(positives: bool, *, slow: float = 23 / 24, horizon: float = DAY) -> Delay:
    """Labels of one class come after a twenty-fourth of the horizon, the others after `slow` of it."""
    return lambda _, __, label: horizon / 24 if (label == 1) is positives else slow * horizon


def share(of: float, *, horizon: float = DAY) -> Delay:
    return lambda random, _, __: horizon / 24 if random.random() < of else None


def flagged(_: np.random.Generator, prediction: int, __: int) -> float | None:
    return HOUR if prediction else None


def positives(_: np.random.Generator, __: int, label: int) -> float | None:
    return HOUR if label else None


def shown(seen: Iterable[Seen]) -> list[AccuracyState]:
    return [one.state for one in seen if one.state.state == "ok"]


def reasons(seen: Iterable[Seen]) -> set[str]:
    return {one.state.unknown.reason for one in seen if one.state.unknown is not None}


def holds(seen: list[Seen]) -> bool:
    """Nothing that is shown is a lie, and nothing was called a drop."""
    states = shown(seen)
    misses = sum(not (s.lower or 0) <= TRUTH <= (s.upper or 0) for s in states)
    far = [s for s in states if abs((s.accuracy or 0) - TRUTH) > 4.5 * math.sqrt(TRUTH * (1 - TRUTH) / s.labels)]
    return not any(one.dropped for one in seen) and not far and misses <= FEW_MISSES * len(states)


@pytest.mark.parametrize(
    ("rate", "horizon"), [(0.3, DAY), (3.0, 2.4 * HOUR), (30.0, 0.24 * HOUR)], ids=["slow", "medium", "fast"]
)
@pytest.mark.parametrize("kind", ["positives", "negatives", "one in ten", "half"])
def test_labels_of_one_class_first_or_of_a_random_part_are_judged_and_right(
    rate: float, horizon: float, kind: str
) -> None:
    delays = {
        "positives": first(True, horizon=horizon),
        "negatives": first(False, horizon=horizon),
        "one in ten": share(0.1, horizon=horizon),
        "half": share(0.5, horizon=horizon),
    }
    seen = play(delays[kind], rate=rate, horizon=horizon, seconds=2 * horizon)
    assert holds(seen)
    assert not reasons(seen)
    assert seen[-1].state.state == "ok"
    assert len(shown(seen)) > 250


@pytest.mark.parametrize("delay", [flagged, positives])
def test_labels_for_predicted_or_actual_positives_alone_say_nothing(delay: Delay) -> None:
    seen = play(delay, rate=RATE, seconds=3 * DAY)
    assert not shown(seen)
    assert reasons(seen) == {"partial"}
    assert not any(one.dropped for one in seen)
    assert all(one.evidence == -math.inf for one in seen)


@pytest.mark.parametrize("kind", ["positives", "negatives"])
def test_the_labels_of_one_class_after_the_horizon_say_nothing(kind: str) -> None:
    seen = play(first(kind == "positives", slow=1.3), rate=RATE, seconds=4 * DAY)
    assert holds(seen)
    assert len(shown(seen)) < 20, "before their number tells"
    assert seen[-1].state.unknown is not None
    assert seen[-1].state.unknown.reason == "late"
    assert "longer --label-horizon" in seen[-1].state.unknown.text


def test_batches_that_come_three_days_late_say_nothing() -> None:
    def daily(random: np.random.Generator, _: int, __: int) -> float:
        return 3 * DAY + float(random.integers(0, 24)) * HOUR

    seen = play(daily, rate=RATE, seconds=6 * DAY)
    assert not shown(seen)
    assert reasons(seen) == {"late"}
    assert not any(one.dropped for one in seen)


@pytest.mark.parametrize("delay", [first(True), first(False), share(0.5)], ids=["positives", "negatives", "half"])
def test_where_predictions_are_forgotten_nothing_is_said_of_them(delay: Delay) -> None:
    seen = play(delay, rate=RATE, seconds=2.5 * DAY, store_bytes=1 << 17)
    assert not shown(seen)
    assert reasons(seen) == {"forgotten"}
    last = seen[-1].state
    assert last.unknown is not None
    assert last.retention_seconds is not None
    assert last.retention_seconds < DAY
    assert "are kept, which is" in last.unknown.text


def test_what_is_forgotten_too_soon_is_counted_and_what_was_labelled_or_old_enough_is_not() -> None:
    for keeps, delay in ((1 << 17, None), (1 << 17, HOUR), (1 << 20, None)):
        of = Labels(*MODEL, REFERENCE, store_bytes=keeps)
        play(lambda *_, after=delay: after, rate=RATE, seconds=3 * DAY, of=of)
        (dropped,) = next(f for f in families(of, MODEL, START) if f.metric is PREDICTIONS_DROPPED).samples.values()
        assert (dropped > 20_000) if keeps == 1 << 17 and delay is None else (dropped == 0)


def test_predictions_that_are_forgotten_after_their_label_came_cost_nothing() -> None:
    seen = play(lambda *_: HOUR, rate=RATE, seconds=2.5 * DAY, store_bytes=1 << 17)
    assert holds(seen)
    assert not reasons(seen)
    assert len(shown(seen)) > 250


def test_a_weak_preference_shows_before_it_is_taken_for_a_drop() -> None:
    def rather_positives(random: np.random.Generator, prediction: int, _: int) -> float | None:
        return HOUR if random.random() < (0.55 if prediction else 0.4) else None

    seen = play(rather_positives, rate=0.3, seconds=4 * DAY)
    assert holds(seen)
    assert seen[-1].state.state == "unknown"
    assert seen[-1].evidence == -math.inf, "what it rested on was no fair sample"


def test_a_restart_in_between_forgets_and_does_not_lie() -> None:
    seen = play(first(True), rate=RATE, seconds=4 * DAY, restart_at=1.5 * DAY)
    assert holds(seen)
    assert seen[-1].state.state == "ok"


@pytest.mark.parametrize("delay", [first(True), share(0.5)], ids=["all", "half"])
def test_a_drop_is_found_all_the_same(delay: Delay) -> None:
    seen = play(delay, rate=0.3, seconds=4 * DAY, error=lambda at: 0.04 if at < 1.5 * DAY else 0.12)
    assert not reasons(seen)
    assert next(one.at for one in seen if one.dropped) < 2.7 * DAY
    assert seen[-1].dropped


def until(at: float, before: Delay, after: Delay, rate: float = RATE) -> Callable[[dict[str, float]], Delay]:
    """One way of labelling for predictions up to a time, and another one from there."""

    def by(clock: dict[str, float]) -> Delay:
        def delay(random: np.random.Generator, prediction: int, label: int) -> float | None:
            clock["rows"] = clock.get("rows", 0) + 1
            return (before if clock["rows"] < at * rate else after)(random, prediction, label)

        return delay

    return by


def test_an_outage_of_labels_is_unknown_until_they_come_again() -> None:
    out = until(2 * DAY, share(0.9), share(0.0))
    seen = play(out({}), rate=RATE, seconds=3.5 * DAY)
    assert seen[-1].state.state == "unknown"
    assert reasons(seen) == {"coverage"}
    clock: dict[str, float] = {}

    def hours_without(random: np.random.Generator, prediction: int, label: int) -> float | None:
        clock["rows"] = clock.get("rows", 0) + 1
        missing = 2 * DAY < clock["rows"] / RATE < 2.2 * DAY
        return None if missing else share(0.9)(random, prediction, label)

    seen = play(hours_without, rate=RATE, seconds=4 * DAY)
    assert holds(seen)
    states = [one.state.state for one in seen if one.at > 2 * DAY]
    assert states.index("unknown") < len(states) - 1 - states[::-1].index("unknown")
    assert set(states[-100:]) == {"ok"}


def test_another_coverage_for_good_is_the_usual_one_after_a_horizon() -> None:
    seen = play(until(3 * DAY, share(0.9), share(0.4))({}), rate=RATE, seconds=7 * DAY)
    assert holds(seen)
    unknown = [one.at for one in seen if one.state.state == "unknown"]
    assert reasons(seen) == {"coverage"}
    assert 0.4 * DAY < len(unknown) * 300 < 1.5 * DAY
    assert seen[-1].state.state == "ok"


def test_evidence_is_frozen_while_accuracy_is_unknown() -> None:
    def bad_then_partial(clock: dict[str, float]) -> Delay:
        return until(2.8 * DAY, share(1.0), flagged, 0.3)(clock)

    seen = play(bad_then_partial({}), rate=0.3, seconds=6 * DAY, error=lambda at: 0.04 if at < 1.5 * DAY else 0.15)
    unknown = [one for one in seen if one.state.state == "unknown"]
    assert unknown
    assert len({one.evidence for one in unknown}) == 1
    assert all(one.dropped for one in unknown), "what was found on fair labels is not forgotten"


@pytest.mark.parametrize("by_request", [True, False], ids=["whole requests", "single rows"])
def test_rows_of_a_request_may_be_labelled_together_or_each_for_itself(by_request: bool) -> None:
    """Twenty rows a request; half of the requests, or half of the rows, get labels."""
    state: dict[str, Any] = {"rows": 0, "labelled": True}

    def delay(random: np.random.Generator, _: int, __: int) -> float | None:
        if not by_request or state["rows"] % 20 == 0:
            state["labelled"] = random.random() < 0.5
        state["rows"] += 1
        return HOUR if state["labelled"] else None

    seen = play(delay, rate=0.5, seconds=2.5 * DAY, rows=20)
    assert holds(seen)
    assert not reasons(seen)


def test_labels_of_the_first_row_of_a_request_alone_are_a_part() -> None:
    """Where rows are ranked, the first row is another kind of row than the others."""
    of = Labels(*MODEL, REFERENCE)
    for number in range(4_000):
        at = START + number * 60
        for row in range(5):
            of.predicted(f"r{number}", row, int(row == 0), at)
        of.take([{"id": f"r{number}", "label": 1}], at)
        of.tick(at)
    assert of.state().unknown is not None
    assert of.state().unknown.reason == "partial"


def test_ids_that_come_again_for_other_predictions_tell_nothing() -> None:
    of = Labels(*MODEL, REFERENCE)
    for number in range(4_000):
        at = START + number * 60
        of.predicted(f"customer-{number % 100}", 0, number % 2 if number % 100 else number % 3, at)
        of.predicted(f"customer-{number % 100}", 0, (number + number // 100) % 2, at + 30)
        of.take([{"id": f"customer-{number % 100}", "label": 1}], at + 40)
        of.tick(at)
    state = of.state()
    assert state.accuracy is None
    assert state.unknown is not None
    assert state.unknown.reason == "reused"


def test_a_client_s_id_of_several_requests_is_no_way_to_find_one() -> None:
    of = Labels(*MODEL, horizon_seconds=0.0)
    for number in range(3):
        of.predicted(f"server-{number}", 0, number, START, other_id="client")
    answer = of.take([{"id": "client", "label": 2}], START)
    assert (answer.accepted, answer.unmatched) == (0, 1)
    assert of.take([{"id": f"server-{number}", "label": number} for number in range(3)], START).accepted == 3


def test_labels_for_many_times_long_ago_take_no_memory() -> None:
    of = Labels(*MODEL, REFERENCE)
    of.take([{"label": 1, "prediction": 1, "predicted_ts": -(2.0**number)} for number in range(500)], START)
    assert of.cohorts.judged.rows == 500
    assert of.cohorts.waiting == 0


def test_how_long_predictions_are_kept_is_told_by_the_rate_before_and_after_the_store_is_full() -> None:
    of = Labels(*MODEL, REFERENCE, store_bytes=1 << 19)
    told = []
    for number in range(30_000):
        of.predicted(f"r{number}", 0, number % 2, START + 10.0 * number)
        if number % 5_000 == 4_999:
            of.tick(START + 10.0 * number)
            told.append(of.retention_seconds)
    assert told == [pytest.approx(87_380, rel=0.15)] * 6


def test_a_request_that_is_sent_again_is_one_prediction() -> None:
    of = Labels(*MODEL, REFERENCE)
    for number in range(3_000):
        at = START + number * 60
        of.predicted(f"r{number}", 0, number % 2, at)
        of.predicted(f"r{number}", 0, number % 2, at + 1)
        of.take([{"id": f"r{number}", "label": number % 2}], at + 2)
        of.tick(at + 60)
    assert (of.state().state, of.state().accuracy, of.state().coverage) == ("ok", 1.0, 1.0)


@pytest.mark.parametrize("performance", [None, "regression"])
def test_a_model_without_a_reference_s_performance_and_a_regression_are_held_to_the_same(performance: Any) -> None:
    prices = Performance("regression", 1_000, 0, errors=Errors((0.0, 1.0, 2.0), (0, 500, 450, 50, 0)))
    random = np.random.default_rng(3)
    for chosen in (False, True):
        of = Labels(*MODEL, prices if performance else None)
        for number in range(5_000):
            at = START + number * 60
            value = float(random.normal(100, 10))
            of.predicted(f"r{number}", 0, value if performance else float(value > 110), at)
            if (value > 110) if chosen else random.random() < 0.2:
                of.take([{"id": f"r{number}", "label": value if performance else 1}], at + 30)
            of.tick(at + 60)
        assert of.state().state == ("unknown" if chosen else "ok")
        names = {family.metric.name for family in families(of, MODEL, at)}
        assert ("ml_model_quality" in names or "ml_model_accuracy" in names) is not chosen


def test_one_request_an_hour_is_judged_and_its_labels_missed() -> None:
    rate = 1 / 3_600
    seen = play(share(1.0), rate=rate, seconds=12 * DAY)
    assert seen[-1].state.state == "ok"
    assert not reasons(seen)
    seen = play(until(10 * DAY, share(1.0), share(0.0), rate)({}), rate=rate, seconds=15 * DAY)
    assert seen[-1].state.state == "unknown"
    assert reasons(seen) == {"coverage"}


def test_a_clock_that_is_set_back_or_on_makes_no_lie() -> None:
    random = np.random.default_rng(5)
    of = Labels(*MODEL, REFERENCE)
    states = []
    for number in range(9_000):
        at = START + number * 30
        if 3_000 <= number < 3_100:
            at += 2 * DAY
        elif 6_000 <= number < 6_200:
            at -= 2 * HOUR
        actual = int(random.random() < 0.2)
        said = actual if random.random() < TRUTH else 1 - actual
        of.predicted(f"r{number}", 0, said, at)
        of.take([{"id": f"r{number}", "label": actual}], at + 5)
        of.tick(at + 30)
        states.append(of.state())
    shown_accuracies = [one.accuracy for one in states if one.accuracy is not None]
    assert shown_accuracies
    assert all(abs(one - TRUTH) < 0.045 for one in shown_accuracies)
    assert of.state().state == "ok"


def test_unknown_is_published_as_a_state_and_nothing_beside_it_and_logged_once_an_hour(
    caplog: pytest.LogCaptureFixture,
) -> None:
    of = Labels(*MODEL, REFERENCE)
    with caplog.at_level(logging.INFO, "pegel"):
        play(flagged, rate=0.3, seconds=2.5 * DAY, of=of)
    samples = {family.metric.name: family.samples for family in families(of, MODEL, START + 2.5 * DAY)}
    states = samples[MODEL_QUALITY_STATE.name]
    assert {labels[2] for labels in states} == set(QUALITY_STATES)
    assert {labels[2]: value for labels, value in states.items() if value} == {"unknown": 1.0}
    assert not [name for name in samples if name.startswith("ml_model_accuracy")]
    assert "ml_model_quality" not in samples
    assert samples["ml_predictions_dropped_total"] == {MODEL: 0.0}
    assert samples["ml_predictions_retention_seconds"][MODEL] > DAY
    lines = [record.getMessage() for record in caplog.records]
    assert all("accuracy is unknown: labels come for some kinds of predictions" in line for line in lines)
    assert 1 < len(lines) <= 37, "one an hour in a day and a half"
