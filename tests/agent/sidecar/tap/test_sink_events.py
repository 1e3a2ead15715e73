"""What is an event of the payload logger, and which two are one exchange."""

import base64
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pegel_agent.sidecar.tap import sink
from pegel_agent.sidecar.tap.sink import Event, Half, MalformedEvent, Pairs, event_of
from pegel_exporters.serving import Request

REQUEST, RESPONSE = "org.kubeflow.serving.inference.request", "org.kubeflow.serving.inference.response"


def posted(body: bytes = b"{}", **headers: str) -> Request:
    return Request("POST", "/", {name.replace("_", "-"): value for name, value in headers.items()}, body)


def structured(**event: Any) -> Request:
    return posted(json.dumps(event).encode(), content_type="application/cloudevents+json; charset=utf-8")


def test_in_binary_mode_headers_are_the_attributes_and_the_body_is_the_data() -> None:
    sent = posted(b"data", ce_id="a-1", ce_type=RESPONSE, ce_component="predictor", content_type="application/json")
    assert event_of(sent) == Event("a-1", "response", "predictor", b"data")


def test_a_client_s_content_type_does_not_make_a_binary_event_a_structured_one() -> None:
    sent = posted(b"data", ce_id="a", ce_type=REQUEST, content_type="application/cloudevents+json")
    assert event_of(sent) == Event("a", "request", "", b"data")


@pytest.mark.parametrize(
    "data", [{"data": {"instances": [[1]]}}, {"data_base64": base64.b64encode(b'{"instances": [[1]]}').decode()}]
)
def test_in_structured_mode_the_body_holds_attributes_and_data(data: dict[str, Any]) -> None:
    event = event_of(structured(specversion="1.0", id="a", type=REQUEST, source="x", component="predictor", **data))
    assert (event.id, event.half, event.component) == ("a", "request", "predictor")
    assert json.loads(event.body) == {"instances": [[1]]}


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (posted(), "no Ce-Type"),
        (posted(content_type="application/json", ce_id="a"), "no Ce-Type"),
        (posted(ce_id="a", ce_type="io.seldon.serving.inference.request"), "Ce-Type is neither"),
        (posted(ce_id="a", ce_type="org.kubeflow.serving.inference."), "Ce-Type is neither"),
        (posted(ce_type=REQUEST), "Ce-Id must be"),
        (posted(ce_type=REQUEST, ce_id="x" * 257), "Ce-Id must be"),
        (posted(ce_type=REQUEST, ce_id="caf\xe9"), "Ce-Id must be"),
        (structured(type=REQUEST, id="a\r\nX-Request-Id: b", data=1), "Ce-Id must be"),
        (structured(type=REQUEST, data=1), "not a CloudEvent in JSON"),
        (structured(type=REQUEST, id=7), "not a CloudEvent in JSON"),
        (structured(type=REQUEST, id="a", data_base64="!"), "not a CloudEvent in JSON"),
        (structured(type=REQUEST, id="a", data_base64="\xe9"), "not a CloudEvent in JSON"),
        (posted(b"\xff{", content_type="application/cloudevents+json"), "not a CloudEvent in JSON"),
        (posted(b"[" * 10_000, content_type="application/cloudevents+json"), "not a CloudEvent in JSON"),
    ],
)
def test_what_is_no_event_is_refused_with_one_line(sent: Request, words: str) -> None:
    with pytest.raises(MalformedEvent, match=words) as refusal:
        event_of(sent)
    assert "\n" not in str(refusal.value)


class Store:
    """Pairs, and how many it gave up."""

    def __init__(self, seconds: float = 60) -> None:
        self.given_up = 0
        self.pairs = Pairs(self._lost, seconds=seconds)

    def _lost(self) -> None:
        self.given_up += 1

    def add(
        self, identity: str, half: Half, body: bytes | None = b"", *, now: float = 0, component: str = ""
    ) -> tuple[bytes | None, bytes | None] | None:
        return self.pairs.add(Event(identity, half, component, body), now)


def test_either_half_may_come_first() -> None:
    store = Store()
    assert store.add("a", "request", b"asked") is None
    assert store.add("b", "response", b"answered") is None
    assert store.add("a", "response", b"answered") == (b"asked", b"answered")
    assert store.add("b", "request", b"asked") == (b"asked", b"answered")


def test_an_event_that_comes_again_changes_nothing() -> None:
    store = Store()
    assert store.add("a", "request", b"asked") is None
    assert store.add("a", "request", b"again") is None
    assert store.add("a", "response", b"answered") == (b"asked", b"answered")
    assert store.add("a", "request", b"asked") is None
    assert store.add("a", "response", b"answered") is None
    store.pairs.tick(1_000)
    assert store.given_up == 0


def test_what_never_meets_its_other_half_is_given_up_once_and_its_late_half_is_ignored() -> None:
    store = Store(seconds=60)
    store.add("a", "request", now=100)
    store.add("b", "response", now=130)
    store.pairs.tick(159)
    assert store.given_up == 0
    store.pairs.tick(160)
    assert store.given_up == 1
    assert store.add("a", "response", now=161) is None
    store.pairs.tick(190)
    assert store.given_up == 2


def test_what_was_settled_is_remembered_for_a_while_longer_than_an_event_waits() -> None:
    store = Store(seconds=60)
    store.add("a", "request", now=59)
    assert store.add("a", "response", now=59) is not None
    store.pairs.tick(60)
    assert store.add("a", "request", now=119) is None
    assert store.add("a", "response", now=119) is None
    store.pairs.tick(1_000)
    assert store.given_up == 0


def test_a_body_that_was_not_kept_has_its_half_in_the_exchange() -> None:
    store = Store(seconds=60)
    assert store.add("a", "request", None) is None
    assert store.add("a", "response", b"answered") == (None, b"answered")
    assert store.add("b", "response", b"answered") is None
    assert store.add("b", "request", None) == (None, b"answered")
    store.add("c", "request", None)
    store.pairs.tick(60)
    assert store.given_up == 1


def test_an_id_is_new_again_after_a_while() -> None:
    store = Store(seconds=60)
    store.add("a", "request")
    assert store.add("a", "response") is not None
    for now in (60, 120):
        store.pairs.tick(now)
    assert store.add("a", "request", now=121) is None
    assert store.add("a", "response", now=121) is not None


def test_a_transformer_and_its_predictor_are_two_exchanges_of_one_id() -> None:
    store = Store()
    store.add("a", "request", b"raw", component="transformer")
    store.add("a", "request", b"features", component="predictor")
    assert store.add("a", "response", b"1", component="predictor") == (b"features", b"1")
    assert store.add("a", "response", b"yes", component="transformer") == (b"raw", b"yes")


def test_a_full_store_gives_up_what_has_waited_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "MAX_WAITING", 3)
    monkeypatch.setattr(sink, "MAX_WAITING_BYTES", 100)
    store = Store()
    for identity in "abcd":
        store.add(identity, "request", b"x")
    assert store.given_up == 1
    store.add("e", "request", b"x" * 99)
    assert store.given_up == 3
    assert store.add("d", "response") == (b"x", b"")
    assert store.add("e", "response") == (b"x" * 99, b"")


@given(
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["request", "response"])), max_size=60),
    st.integers(1, 8),
)
def test_every_exchange_is_joined_or_given_up_exactly_once(events: list[tuple[int, Half]], room: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sink, "MAX_WAITING", room)
        store = Store()
        joined = Counter[int]()
        for number, half in events:
            bodies = store.add(str(number), half, f"{half} {number}".encode())
            if bodies is not None:
                assert bodies == (f"request {number}".encode(), f"response {number}".encode())
                joined[number] += 1
        store.pairs.tick(1e9)
    assert set(joined.values()) <= {1}
    assert len(joined) + store.given_up == len({number for number, _ in events})
    assert (len(store.pairs._waiting), store.pairs._waiting_bytes) == (0, 0)


def test_a_flood_of_ids_is_remembered_in_bounds() -> None:
    store = Store()
    for number in range(4 * sink.MAX_SETTLED):
        store.add(str(number), "request", b"x")
    assert len(store.pairs._waiting) == sink.MAX_WAITING
    assert len(store.pairs._settled) + len(store.pairs._settled_before) <= 2 * sink.MAX_SETTLED
