"""What is an event of the payload logger, and which two are one exchange."""

import base64
import gzip
import json
import zlib
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pegel_agent.sidecar.tap import sink
from pegel_agent.sidecar.tap.sink import Event, Half, Joined, MalformedEvent, Pairs, TooLargeEvent, events_of
from pegel_exporters.serving import Request

REQUEST, RESPONSE = "org.kubeflow.serving.inference.request", "org.kubeflow.serving.inference.response"


def event_of(request: Request) -> Event:
    (event,) = events_of(request)
    return event


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

    def _lost(self, whose: str) -> None:
        assert whose == "mine"
        self.given_up += 1

    def add(
        self, identity: str, half: Half, body: bytes | None = b"x", *, now: float = 0, **attributes: str
    ) -> tuple[bytes | None, bytes | None] | None:
        event = Event(identity, half, attributes.pop("component", ""), body, **attributes)
        if self.pairs.is_repeated(event):
            return None
        joined = self.pairs.add(event, "mine", now)
        return None if joined is None else (joined.asked, joined.answered)


def test_either_half_may_come_first() -> None:
    store = Store()
    assert store.add("a", "request", b"asked") is None
    assert store.add("b", "response", b"answered") is None
    assert store.add("a", "response", b"answered") == (b"asked", b"answered")
    assert store.add("b", "request", b"asked") == (b"asked", b"answered")


def test_an_event_that_comes_again_changes_nothing() -> None:
    store = Store()
    asked: dict[str, str] = {"time": "2026-01-01T00:00:00.123456789Z", "source": "http://localhost:9081/"}
    answered = asked | {"time": "2026-01-01T00:00:00.2234Z"}
    assert store.add("a", "request", b"asked", **asked) is None
    assert store.add("a", "request", b"asked", **asked) is None
    assert store.add("a", "response", b"answered", **answered) == (b"asked", b"answered")
    assert store.add("a", "request", b"asked", **asked) is None
    assert store.add("a", "response", b"answered", **answered) is None
    store.pairs.tick(1_000)
    assert store.given_up == 0


@pytest.mark.parametrize("time", ["", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123Z", "soon", "x" * 20_000])
def test_events_alike_are_several_where_their_time_does_not_say_that_they_are_one(time: str) -> None:
    store = Store()
    for _ in range(20):
        assert store.add("a", "request", b"asked", time=time) is None
        assert store.add("a", "response", b"answered", time=time) == (b"asked", b"answered")


@pytest.mark.parametrize("different", ["time", "source", "body", "half"])
def test_an_event_with_anything_else_is_another(different: str) -> None:
    event = {"time": "2026-01-01T00:00:00.123456Z", "source": "a", "body": b"a", "half": "request"}
    other = event | {"time": "2026-01-01T00:00:00.123457Z", "source": "b", "body": b"b", "half": "response"}
    store = Store()
    assert not store.pairs.is_repeated(Event(id="a", component="", **event))  # type: ignore[arg-type]
    assert not store.pairs.is_repeated(
        Event(id="a", component="", **(event | {different: other[different]}))  # type: ignore[arg-type]
    )
    assert store.pairs.is_repeated(Event(id="a", component="", **event))  # type: ignore[arg-type]


def test_exchanges_of_one_id_are_joined_in_their_order() -> None:
    store = Store()
    for number in range(5):
        assert store.add("a", "request", b"asked %d" % number) is None
    for number in range(5):
        assert store.add("a", "response", b"answered %d" % number) == (b"asked %d" % number, b"answered %d" % number)
    for number in range(5):
        assert store.add("a", "response", b"answered %d" % number) is None
    for number in range(5):
        assert store.add("a", "request", b"asked %d" % number) == (b"asked %d" % number, b"answered %d" % number)


def test_of_one_id_the_oldest_is_given_up_first() -> None:
    store = Store(seconds=60)
    for now in (0, 30, 59):
        store.add("a", "request", b"at %d" % now, now=now)
    store.pairs.tick(60)
    assert store.given_up == 1
    assert store.add("a", "response", now=61) == (b"at 30", b"x")


def test_services_and_namespaces_of_one_id_are_different_exchanges() -> None:
    store = Store()
    store.add("a", "request", b"1", service="houses", namespace="models")
    assert store.add("a", "response", b"2", service="shadow", namespace="models") is None
    assert store.add("a", "response", b"2", service="houses", namespace="others") is None
    assert store.add("a", "response", b"2", service="houses", namespace="models") == (b"1", b"2")


def test_what_is_no_exchange_is_ignored_with_its_other_half() -> None:
    store = Store(seconds=60)
    store.pairs.ignore(Event("a", "request", "", b""))
    assert store.add("a", "response") is None
    assert store.add("a", "response") is None
    store.pairs.ignore(Event("a", "request", "", b""))
    store.pairs.tick(60)
    assert store.given_up == 0


def test_a_half_that_does_not_tell_its_service_is_of_any() -> None:
    store = Store()
    store.add("a", "request", b"1", service="houses", namespace="models")
    assert store.add("a", "response", b"2") == (b"1", b"2")


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


def test_a_body_that_was_not_kept_has_its_half_in_the_exchange() -> None:
    store = Store(seconds=60)
    assert store.add("a", "request", None) is None
    assert store.add("a", "response", b"answered") == (None, b"answered")
    assert store.add("b", "response", b"answered") is None
    assert store.add("b", "request", None) == (None, b"answered")
    store.add("c", "request", None)
    store.pairs.tick(60)
    assert store.given_up == 1


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
    assert store.add("d", "response") == (b"x", b"x")
    assert store.add("e", "response") == (b"x" * 99, b"x")


@given(
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["request", "response"])), max_size=60),
    st.integers(1, 8),
)
def test_every_exchange_is_joined_or_given_up_exactly_once(events: list[tuple[int, Half]], room: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sink, "MAX_WAITING", room)
        store = Store(seconds=10)
        joined = Counter[int]()
        late = 0
        for place, (number, half) in enumerate(events):
            before = store.given_up, len(store.pairs._waiting)
            bodies = store.add(str(number), half, f"{half} {number}".encode(), now=place)
            if bodies is not None:
                assert bodies == (f"request {number}".encode(), f"response {number}".encode())
                joined[number] += 1
            elif (store.given_up, len(store.pairs._waiting)) == before:
                late += 1
            store.pairs.tick(place)
        store.pairs.tick(1e9)
    # Each half is joined with another, given up, or comes too late for one that was.
    assert 2 * joined.total() + store.given_up + late == len(events)
    assert late <= store.given_up
    assert (len(store.pairs._waiting), store.pairs._waiting_bytes, store.pairs._numbers) == (0, 0, {})


def test_a_flood_of_ids_is_remembered_in_bounds() -> None:
    store = Store()
    for number in range(3 * sink.MAX_REMEMBERED):
        store.add(str(number), "request", b"x", time=f"2026-01-01T00:00:00.{number:06}Z")
    assert len(store.pairs._waiting) == len(store.pairs._numbers) == sink.MAX_WAITING
    assert len(store.pairs._remembered) + len(store.pairs._remembered_before) <= 2 * sink.MAX_REMEMBERED


def batch(*events: dict[str, Any], **headers: str) -> Request:
    return posted(json.dumps(events).encode(), content_type="application/cloudevents-batch+json", **headers)


def test_attributes_that_are_no_text_are_as_good_as_none() -> None:
    event = event_of(
        structured(id="a", type=REQUEST, data=1, component=None, namespace=7, inferenceservicename=[], time={})
    )
    assert (event.component, event.namespace, event.service, event.time) == ("", "", "", "")


def test_a_batch_is_its_events() -> None:
    one = {"specversion": "1.0", "id": "a", "source": "x", "type": REQUEST, "data": {"instances": [[1]]}}
    two = one | {"type": RESPONSE, "inferenceservicename": "houses", "namespace": "models", "endpoint": "default"}
    first, second = events_of(batch(one, two))
    assert (first.id, first.half, first.service) == ("a", "request", "")
    assert (second.half, second.service, second.namespace, second.endpoint) == (
        "response",
        "houses",
        "models",
        "default",
    )


def test_what_else_is_in_a_batch_costs_no_other() -> None:
    mine = {"id": "a", "type": REQUEST, "data": 1}
    assert [event.id for event in events_of(batch({"id": "b", "type": "other"}, mine, mine | {"id": ""}))] == ["a"]


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (batch(), "an empty batch"),
        (batch({"id": "a", "type": "other"}), "Ce-Type is neither"),
        (batch({"id": "a"}), "not a CloudEvent in JSON"),
        (posted(b"[1,2", content_type="application/cloudevents-batch+json"), "not a CloudEvent in JSON"),
        (posted(b"{}", content_type="application/cloudevents-batch+json"), "not a CloudEvent in JSON"),
        (batch({"id": "a", "type": REQUEST}, content_encoding="br"), "content coding"),
        (batch({"id": "a", "type": REQUEST}, content_encoding="gzip"), "malformed compression"),
    ],
)
def test_what_is_no_batch_is_refused_with_one_line(sent: Request, words: str) -> None:
    with pytest.raises(MalformedEvent, match=words):
        events_of(sent)


def test_batches_and_bombs_are_bounded() -> None:
    many = b"[" + b",".join([b'{"id":"","type":""}'] * (sink.MAX_BATCH + 1)) + b"]"
    bomb = gzip.compress(b'{"id": "a", "type": "%s", "data": "%s"}' % (REQUEST.encode(), bytes(2 << 20)))
    assert len(bomb) < 10_000
    for body, kind, coding in ((many, "-batch", ""), (bomb, "", "gzip"), (bomb, "-batch", "gzip")):
        with pytest.raises(TooLargeEvent):
            events_of(posted(body, content_type=f"application/cloudevents{kind}+json", content_encoding=coding))


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate"])
def test_a_compressed_event_in_structured_mode_is_read(coding: str) -> None:
    compress = zlib.compress if coding == "deflate" else gzip.compress
    body = compress(json.dumps({"id": "a", "type": REQUEST, "data": {"instances": [[1]]}}).encode())
    sent = posted(body, content_type="application/cloudevents+json", content_encoding=coding)
    assert json.loads(event_of(sent).body or b"") == {"instances": [[1]]}


@pytest.mark.parametrize(
    ("body", "coding", "found"),
    [
        (b"{}", "", ""),
        (b"{}", "identity", ""),
        (gzip.compress(b"{}", mtime=0), "", "gzip"),
        (gzip.compress(b"{}", mtime=0), " GZIP ", "gzip"),
        (b"{}", "deflate", "deflate"),
        (b"{}", "br\r\nCe-Id: another", "unknown"),
    ],
)
def test_the_coding_of_an_event_s_data_is_told_or_seen(body: bytes, coding: str, found: str) -> None:
    """The logger copies a client's compressed body, and not the header that says so."""
    event = event_of(posted(body, ce_id="a", ce_type=REQUEST, content_encoding=coding))
    assert (event.body, event.coding) == (body, found)
    encoded = base64.b64encode(body).decode()
    assert event_of(structured(type=REQUEST, id="a", data_base64=encoded)).coding == ("gzip" if body[0] == 31 else "")


def test_the_codings_of_both_halves_stay_with_them() -> None:
    pairs = Pairs[str](lambda whose: None, seconds=60)
    assert pairs.add(Event("a", "response", "", b"2", coding="gzip"), "", 0) is None
    assert pairs.add(Event("a", "request", "", b"1"), "", 0) == Joined(b"1", b"2", "", "gzip")
