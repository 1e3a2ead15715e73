"""Labels find their predictions, each row counts once, and nothing that is posted does harm."""

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from pegel_agent.sidecar.feedback import Answer, Labels, items_of
from pegel_agent.sidecar.feedback.cohorts import MIN_LABELS
from pegel_agent.sidecar.feedback.labels import _MAX_EARLY, EARLY_SECONDS
from pegel_agent.sidecar.feedback.rows import agree, plain
from pegel_exporters.catalogue import JUDGED_LABELS
from pegel_exporters.errors import UserError
from scipy import stats

MATCHED, EARLY, DUPLICATE, UNMATCHED, REJECTED = (
    Answer(*(int(place == one) for place in range(5))) for one in range(5)
)


VALUE = "must be a text of up to 256 characters, a number, true or false"


def labels() -> Labels:
    """Each label is judged at once."""
    return Labels("houses", "3", horizon_seconds=0.0)


def post(to: Labels, *items: Any, now: float = 0.0) -> Answer:
    return to.take(items_of(json.dumps(items).encode()), now)


def became(answer: Answer) -> Answer:
    """An answer without its reason."""
    return replace(answer, reason=None)


def accuracy(of: Labels) -> float | None:
    """Accuracy over few labels, which `state` does not show yet."""
    latest = of.cohorts.latest()
    return latest.right / latest.rows if latest.rows else None


def test_a_label_finds_the_prediction_of_its_id() -> None:
    of = labels()
    of.predicted("a", 0, 1.0, 100.0)
    assert post(of, {"id": "a", "label": 1}, now=130.0) == MATCHED
    assert of.outcomes == {"matched": 1, "duplicate": 0, "unmatched": 0, "rejected": 0}
    assert accuracy(of) == 1.0
    assert of.delay_sum == 30.0
    assert of.delay_counts[:4] == [0, 0, 1, 0]


def test_each_row_of_a_request_has_a_label_of_its_own() -> None:
    of = labels()
    for row, prediction in enumerate(("cat", "dog", "cat")):
        of.predicted("a", row, prediction, 0.0)
    items = [{"id": "a", "row": row, "label": "cat"} for row in range(3)]
    assert post(of, *items) == Answer(3, 0, 0, 0, 0)
    assert accuracy(of) == pytest.approx(2 / 3)


def test_a_second_label_for_a_row_is_a_duplicate_and_the_last_ts_wins() -> None:
    of = labels()
    of.predicted("a", 0, 1, 0.0)
    assert post(of, {"id": "a", "label": 0, "ts": 10.0}) == MATCHED
    assert post(of, {"id": "a", "label": 1, "ts": 9.0}) == DUPLICATE
    assert accuracy(of) == 0.0
    assert post(of, {"id": "a", "label": 1, "ts": 11.0}) == DUPLICATE
    assert accuracy(of) == 1.0
    assert of.cohorts.latest().rows == 1
    assert of.outcomes["matched"] == 1


def test_a_label_without_ts_is_as_young_as_its_arrival() -> None:
    of = labels()
    of.predicted("a", 0, 1, 0.0)
    post(of, {"id": "a", "label": 0}, now=10.0)
    assert post(of, {"id": "a", "label": 1}, now=20.0) == DUPLICATE
    assert accuracy(of) == 1.0
    post(of, {"id": "a", "label": 0, "ts": 15.0}, now=30.0)
    assert accuracy(of) == 1.0


def test_an_early_label_waits_for_its_prediction() -> None:
    of = labels()
    assert post(of, {"id": "a", "label": 1}, now=0.0) == EARLY
    assert sum(of.outcomes.values()) == 0
    of.predicted("a", 0, 1, EARLY_SECONDS - 1)
    of.tick(EARLY_SECONDS + 5)
    assert of.outcomes == {"matched": 1, "duplicate": 0, "unmatched": 0, "rejected": 0}
    assert of.delay_sum == 0.0
    assert post(of, {"id": "a", "label": 1}) == DUPLICATE


def test_an_early_label_is_given_up_after_ten_minutes() -> None:
    of = labels()
    post(of, {"id": "a", "label": 1}, now=0.0)
    post(of, {"id": "b", "label": 1}, now=500.0)
    of.tick(EARLY_SECONDS)
    assert of.outcomes["unmatched"] == 0
    of.tick(EARLY_SECONDS + 1)
    assert of.outcomes["unmatched"] == 1
    of.predicted("a", 0, 1, EARLY_SECONDS + 2)
    assert of.outcomes["matched"] == 0
    of.tick(500 + EARLY_SECONDS + 1)
    assert of.outcomes["unmatched"] == 2


def test_of_two_early_labels_the_last_ts_wins_and_the_first_one_s_wait_counts() -> None:
    of = labels()
    post(of, {"id": "a", "label": "x", "ts": 5}, now=0.0)
    assert post(of, {"id": "a", "label": "y", "ts": 7}, now=400.0) == DUPLICATE
    assert post(of, {"id": "a", "label": "z", "ts": 6}, now=500.0) == DUPLICATE
    of.predicted("a", 0, "y", 550.0)
    assert accuracy(of) == 1.0
    post(of, {"id": "b", "label": "x"}, now=0.0)
    post(of, {"id": "b", "label": "x"}, now=599.0)
    of.tick(EARLY_SECONDS + 1)
    assert not of._early


def test_a_label_with_its_prediction_is_joined_to_nothing() -> None:
    of = labels()
    assert post(of, {"label": 1, "prediction": 1}, {"label": 1, "prediction": 0}) == Answer(2, 0, 0, 0, 0)
    assert post(of, {"id": "other replica's", "label": "x", "prediction": "x"}) == MATCHED
    assert accuracy(of) == pytest.approx(2 / 3)
    assert post(of, {"id": "other replica's", "label": "x", "prediction": "x"}) == DUPLICATE
    assert sum(of.delay_counts) == 0


def test_a_label_without_id_and_prediction_is_rejected() -> None:
    answer = post(labels(), {"label": 1})
    assert became(answer) == REJECTED
    assert answer.reason == "item 0: neither id nor prediction"


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"id": "secret"}, "no label"), ({"id": "secret", "label": None}, "no label"), ("secret", "not a JSON object"),
        ({"id": "secret", "label": ["secret"]}, f"label {VALUE}"),
        ({"id": {"secret": 1}, "label": 1}, "id must be a text of up to 256 characters or a whole number"),
        ({"id": "secret", "label": 1, "row": "secret"}, "row must be a whole number"),
        ({"id": "secret", "label": 1, "ts": "secret"}, "ts must be a Unix time in seconds"),
        ({"id": "secret", "label": 1, "prediction": {}},
         f"prediction {VALUE}"),
        ({"id": "secret", "label": 1, "score": "secret"}, "score must be a number"),
        ({"id": "secret", "label": 1, "predicted_ts": "secret"}, "predicted_ts must be a Unix time in seconds"),
        ({"id": "secret", "label": 1, "predicted_ts": 1.7e12},
         "predicted_ts must be a Unix time in seconds that is past"),
        ({"id": "secret", "label": 1, "model_name": "secret"}, "model_name or model_version is another one's"),
        ({"id": "secret", "label": "x" * 300}, f"label {VALUE}"),
    ],
)  # fmt: skip
def test_why_an_item_is_rejected_is_said_without_a_value(item: Any, reason: str) -> None:
    good = {"label": 1, "prediction": 1}
    answer = post(labels(), good, item, {})
    assert became(answer) == Answer(1, 0, 0, 0, 2)
    assert answer.reason == f"item 1: {reason}"


def test_without_a_rejected_item_the_answer_has_no_reason() -> None:
    answer = json.loads(msgspec.json.encode(post(labels(), {"id": "a", "label": 1})))
    assert answer == {"accepted": 0, "waiting": 1, "duplicate": 0, "unmatched": 0, "rejected": 0}


def test_a_label_without_row_is_that_of_the_first_row() -> None:
    of = labels()
    of.predicted("a", 0, 1, 0.0)
    of.predicted("a", 1, 0, 0.0)
    assert post(of, {"id": "a", "label": 1}) == MATCHED
    assert accuracy(of) == 1.0


@pytest.mark.parametrize(
    ("named", "answer"),
    [
        ({}, MATCHED),
        ({"model_name": "houses"}, MATCHED),
        ({"model_name": "houses", "model_version": "3"}, MATCHED),
        ({"model_name": "flats"}, REJECTED),
        ({"model_version": "4"}, REJECTED),
        ({"model_name": 7}, REJECTED),
    ],
)
def test_a_label_for_another_model_is_rejected(named: dict[str, Any], answer: Answer) -> None:
    of = labels()
    of.predicted("a", 0, 1, 0.0)
    assert became(post(of, {"id": "a", "label": 1, **named})) == answer


@pytest.mark.parametrize(
    "item",
    [
        None, 1, "x", [], {}, {"id": "a"}, {"label": None, "id": "a"}, {"label": [1], "id": "a"},
        {"label": 1, "id": ["a"]}, {"label": 1, "id": "a", "row": "0"}, {"label": 1, "id": "a", "ts": "now"},
        {"label": 1, "id": "a", "row": 10**30}, {"label": 10**400, "id": "a"}, {"label": 1, "id": 10**400},
        {"label": "x" * 300, "id": "a"}, {"label": 1, "id": "i" * 300}, {"label": {"a": {}}, "prediction": 1},
    ],
)  # fmt: skip
def test_an_item_that_is_none_is_rejected_and_the_others_count(item: Any) -> None:
    of = labels()
    of.predicted("a", 0, 1, 0.0)
    answer = post(of, item, {"id": "a", "label": 1})
    assert became(answer) == Answer(1, 0, 0, 0, 1)
    assert answer.reason is not None
    assert answer.reason.startswith("item 0: ")


def test_an_id_may_be_a_number_and_nothing_takes_the_place_of_a_label_without_id() -> None:
    of = labels()
    of.predicted("7", 0, 1, 0.0)
    assert post(of, {"id": 7, "label": 1}) == MATCHED
    post(of, {"label": 1, "prediction": 1})
    assert post(of, {"id": "", "row": 1, "label": 1, "prediction": 1}) == MATCHED


def test_an_array_and_a_line_for_each_say_the_same() -> None:
    items = [{"id": str(number), "label": number} for number in range(3)]
    lines = "\n".join(json.dumps(item) for item in items)
    for body in (json.dumps(items), f"\n {json.dumps(items)} ", lines, lines + "\n", lines.replace("\n", "\r\n")):
        assert items_of(body.encode()) == items


def test_a_thousand_labels_are_taken_and_one_more_is_not() -> None:
    item = {"label": "[{" * 3, "prediction": 1}
    assert len(items_of(json.dumps([item] * 1_000).encode())) == 1_000
    for body in (json.dumps([item] * 1_001), "\n".join([json.dumps(item)] * 1_001), "[" + "[]," * 300_000 + "[]]"):
        with pytest.raises(UserError, match="at most 1000 labels"):
            items_of(body.encode())


@pytest.mark.parametrize(
    "body",
    [
        b"[", b"{", b'[{"label": 1}', b"nonsense", b"\xff\xfe", b'["\xff"]', b'["\\ud800"]', b"[1e999]", b"[NaN]",
        b"[1]]", b"[" * 9_000, b'{"a":' * 9_000, b"[1" + b"0" * 5_000 + b"]", b"\x00", b"\xef\xbb\xbf[]",
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused_in_one_line(body: bytes) -> None:
    with pytest.raises(UserError) as refusal:
        items_of(body)
    assert "\n" not in str(refusal.value)
    assert "nonsense" not in str(refusal.value)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["a", "b", ""])
ITEMS = st.fixed_dictionaries(
    {"label": VALUES},
    optional=dict.fromkeys(
        ("id", "row", "model_name", "model_version", "prediction", "score", "ts", "predicted_ts"), VALUES
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(ITEMS | VALUES | st.lists(VALUES), max_size=6), st.sampled_from([1.0, math.nan, None, "x", True, 3]))
def test_nothing_that_is_posted_raises_anything_but_a_user_error(items: list[Any], prediction: Any) -> None:
    of = labels()
    of.predicted("a", 0, prediction, 0.0)
    try:
        found = items_of(json.dumps(items).encode())
    except UserError:
        return
    answer = of.take(found, 1.0)
    assert answer.accepted + answer.waiting + answer.duplicate + answer.unmatched + answer.rejected == len(items)
    of.predicted("b", 0, prediction, 2.0)
    of.tick(1e9)
    assert not of._early
    assert math.isfinite(of.delay_sum)


@settings(max_examples=300)
@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:0123eE+-.tfn \n\\u', max_size=60).map(str.encode))
def test_no_bytes_raise_anything_but_a_user_error(body: bytes) -> None:
    try:
        items = items_of(body)
    except UserError:
        return
    labels().take(items, 0.0)


def test_memory_is_bounded_whatever_comes() -> None:
    of = Labels("houses", "3", horizon_seconds=0.0, store_bytes=1 << 20)
    capacity = of._predictions.capacity
    for number in range(capacity):
        of.predicted(f"p{number}", 0, 1, 0.0, other_id=f"q{number}")
    of.predicted("long", 0, "x" * 1_000, 0.0)
    assert of._predictions.count == capacity
    assert of._predictions.size_bytes <= 1 << 20
    assert post(of, {"id": "long", "label": 1}, {"id": "p0", "label": 1}).waiting == 2
    outcomes = [post(of, {"id": f"e{number}", "label": 1}) for number in range(_MAX_EARLY)]
    assert outcomes[-1].waiting == 1
    assert len(of._early) == _MAX_EARLY
    assert of.outcomes["unmatched"] == 2, "those that waited longest made room"
    for number in range(capacity + 100):
        of.take([{"id": f"l{number}", "label": 1, "prediction": number % 2}], 0.0)
    assert of._predictions.count == capacity
    assert of.cohorts.latest().rows < JUDGED_LABELS + 100


def test_the_history_reaches_back_to_the_beginning_in_few_points() -> None:
    of = labels()
    for _ in range(MIN_LABELS):
        of.take([{"label": 1, "prediction": 1}], 0.0)
    for now in range(5_000):
        of.tick(float(now))
    history = of.state().history
    assert 60 <= len(history) <= 240
    assert history[0][0] == 0.0
    assert history[-1][0] > 4_900
    times = [point[0] for point in history]
    assert times == sorted(set(times))


@pytest.mark.parametrize("right", [0, 1, 37, 92, 119, 120])
def test_accuracy_and_its_interval_are_wilson_s(right: int) -> None:
    of = labels()
    for number in np.random.default_rng(1).permutation(120).tolist():
        of.take([{"label": 1, "prediction": int(number < right)}], 0.0)
    state = of.state()
    interval = stats.binomtest(right, 120).proportion_ci(0.95, method="wilson")
    assert (state.state, state.labels) == ("ok", 120)
    assert state.accuracy == pytest.approx(right / 120)
    assert (state.lower, state.upper) == pytest.approx((interval.low, interval.high))


def test_accuracy_is_that_of_the_latest_labels() -> None:
    of = labels()
    for number in range(JUDGED_LABELS + 100):
        of.take([{"label": 1, "prediction": int(number >= 100)}], 0.0)
    assert of.state().accuracy == 1.0


def test_too_few_labels_are_no_accuracy() -> None:
    of = labels()
    for _ in range(MIN_LABELS - 1):
        of.take([{"label": 1, "prediction": 1}], 0.0)
        of.tick(0.0)
    state = of.state()
    assert (state.state, state.accuracy, state.lower, state.upper, state.history) == (
        "insufficient", None, None, None, (),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("prediction", "label", "same"),
    [
        (1.0, 1, True), ("1", 1, True), (1.0, "1.0", True), ("cat", "cat", True), ("cat", "dog", False),
        ("cat", " cat ", True), (True, 1, True), ("true", True, True), ("True", 1, True), ("false", 0, True),
        (0.7, 1, True), (0.7, 0, False), (0.3, 0, True), (0.5, 1, True), (0.7, True, True), (2.0, 1, False),
        ("nan", "nan", True), ("inf", "inf", True), (0.7, "cat", False), (0, "", False), (10**30, 1, False),
    ],
)  # fmt: skip
def test_a_prediction_says_a_label(prediction: Any, label: Any, same: bool) -> None:
    assert agree(plain(prediction), plain(label)) is same


def test_a_prediction_that_says_nothing_is_not_remembered() -> None:
    of = labels()
    of.predicted("a", 0, None, 0.0)
    of.predicted("b", 0, math.nan, 0.0)
    assert of._predictions.count == 0
