"""Which bodies labels go in, whom they go to, and what all replicas' counts say together."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pegel_agent.cluster.feedback_client import MAX_BYTES, MAX_ITEMS, Batch, Outcome, _Answer, added, batches, replicas
from pegel_exporters.errors import UserError


def test_a_body_has_up_to_a_thousand_labels_and_those_with_a_prediction_are_apart() -> None:
    items = [{"id": str(n), "label": 1} | ({"prediction": 0} if n % 3 == 0 else {}) for n in range(3_500)]
    found = list(batches(items))
    assert sorted((batch.joined, batch.items) for batch in found) == [
        (False, 167), (False, 1_000), (True, 333), (True, 1_000), (True, 1_000)
    ]  # fmt: skip
    sent = [msgspec.json.decode(line) for batch in found for line in batch.body.split(b"\n")]
    assert sorted(sent, key=lambda item: int(item["id"])) == items


@given(st.lists(st.integers(0, 5_000), max_size=800))
def test_a_body_is_never_larger_than_a_sidecar_takes(sizes: list[int]) -> None:
    found = list(batches({"id": "ä" * size, "label": 1} for size in sizes))
    assert all(len(batch.body) <= MAX_BYTES and batch.items <= MAX_ITEMS for batch in found)
    assert sum(batch.items for batch in found) == len(sizes)


def told(items: int, *answers: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Counted, repeated, unknown and rejected, of answers with accepted, duplicate and rejected."""
    outcome = added(Outcome(), Batch(b"", items, True), [_Answer(*answer) for answer in answers])
    return outcome.counted, outcome.repeated, outcome.unknown, outcome.rejected


@pytest.mark.parametrize(
    ("what", "answers", "expected"),
    [
        ("each replica knows some", [(60, 0, 0), (30, 0, 0)], (90, 0, 10, 0)),
        ("no replica knows any", [(0, 0, 0), (0, 0, 0)], (0, 0, 100, 0)),
        ("all are sent again, while they wait at the others", [(0, 100, 0), (0, 100, 0)], (0, 100, 0, 0)),
        ("all are sent again, and wait nowhere any more", [(0, 60, 0), (0, 30, 0)], (0, 90, 10, 0)),
        ("five are no labels", [(50, 0, 5), (45, 0, 5)], (95, 0, 0, 5)),
        ("five are no labels of either version", [(50, 0, 50), (0, 0, 55)], (50, 0, 0, 50)),
        ("each is of one of two versions", [(50, 0, 50), (50, 0, 50)], (100, 0, 0, 0)),
        ("only one replica answers", [(60, 0, 0)], (60, 0, 40, 0)),
    ],
)
def test_the_counts_of_all_replicas_say_what_became_of_the_labels(
    what: str, answers: list[tuple[int, int, int]], expected: tuple[int, int, int, int]
) -> None:
    assert told(100, *answers) == expected, what


@given(st.integers(1, 50), st.data())
def test_every_label_is_in_one_number_whatever_replicas_answer(items: int, data: st.DataObject) -> None:
    count = st.integers(0, items)
    answers = data.draw(st.lists(st.tuples(count, count, count), min_size=1, max_size=5))
    found = told(items, *answers)
    assert (sum(found), min(found) >= 0) == (items, True)


def test_all_addresses_behind_the_names_are_asked_each_once() -> None:
    found = {"churn": ["10.0.0.1", "10.0.0.2"], "both": ["10.0.0.2", "fd00::1"]}
    asked = replicas(["http://churn:9466", "http://both:9466/"], lambda host, _: found[host])
    assert [replica.url for replica in asked] == [
        "http://10.0.0.1:9466/v1/feedback",
        "http://10.0.0.2:9466/v1/feedback",
        "http://[fd00::1]:9466/v1/feedback",
    ]
    assert [replica.authority for replica in asked] == ["churn:9466", "churn:9466", "both:9466"]
    (secure,) = replicas(["https://churn/labels"], lambda host, port: [f"10.0.0.{port % 256}"])
    assert (secure.url, secure.host, str(secure)) == (
        "https://10.0.0.187:443/labels",
        "churn",
        "https://10.0.0.187:443/labels",
    )


@pytest.mark.parametrize(
    "url", ["churn:9466", "ftp://churn", "http://", "http://churn:99999", "http://churn:0", "//x", ""]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="expected a URL such as"):
        replicas([url])
