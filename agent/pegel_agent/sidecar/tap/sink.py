"""Events of KServe's payload logger in, whole exchanges out: the request and the answer that have one id.

The logger sends each as a CloudEvent in binary mode, with the answers of status 200 only, in no certain order, and
takes a full sink for a reason to hold up inference; so every event is answered at once, whatever becomes of it.

The id is the client's where that sent one, so that several exchanges may have the same. The logger sends nothing twice.
An event broker between it and the sink may: that is the same event again where its time is so exact that no two events
share one, and all else is the same too.
"""

import base64
import binascii
import logging
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

import msgspec
from pegel_exporters.serving import Request, Response, text

from pegel_agent.sidecar.compression import DEFLATE, GZIP, CannotInflateError, TooLargeError, inflate
from pegel_agent.sidecar.paths import CLOUDEVENTS
from pegel_agent.sidecar.tap.counters import Counters, Tally
from pegel_agent.sidecar.tap.courier import Courier
from pegel_agent.sidecar.tap.served import OWN
from pegel_agent.sidecar.tap.turns import MAX_COPY_BYTES

log = logging.getLogger("pegel")

MAX_WAITING = 4_096
"""Events that wait for their other half, at most."""
MAX_WAITING_BYTES = 8 << 20
"""What their bodies take together, at most."""
MAX_REMEMBERED = 5_000
"""Events that are remembered for a while, lest one that is sent again counts again."""
MAX_BATCH = 5_000
"""Events in one batch, about."""
MAX_ID_CHARACTERS = 256

_ATTRIBUTES = ("id", "type", "component", "inferenceservicename", "namespace", "endpoint", "time", "source")
_NO_EVENT = "not a CloudEvent in JSON with id, type and data"
_STRUCTURED = "application/cloudevents+json"
_BATCH = "application/cloudevents-batch+json"
_IDENTITY = frozenset({"", "identity"})
_GZIP_MAGIC = b"\x1f\x8b"
_LOG_LARGE_EVERY_SECONDS = 60.0
_EXACT_TIME = re.compile(r"[0-9T:-]{8,}\.[0-9]{4,}.{0,8}")

Half = Literal["request", "response"]

_TYPES: Mapping[str, Half] = {
    "org.kubeflow.serving.inference.request": "request",
    "org.kubeflow.serving.inference.response": "response",
}

T = TypeVar("T")
W = TypeVar("W")


class MalformedEvent(Exception):
    """The request carries no event of the payload logger; the message says what is wrong and quotes nothing."""


class TooLargeEvent(Exception):
    """Which events these are stood in a body that is too large."""


@dataclass(frozen=True, slots=True)
class Event:
    """One half of an exchange. `component` is the part of the service that was called: transformer, predictor, …

    `body` is None when it was too large to be kept, and as it was sent, in this content `coding`. `time` and `source`
    are the event's own.
    """

    id: str
    half: Half
    component: str
    body: bytes | None
    service: str = ""
    namespace: str = ""
    endpoint: str = ""
    coding: str = ""
    time: str = ""
    source: str = ""


class _Structured(msgspec.Struct):
    id: str
    type: str
    component: Any = ""
    inferenceservicename: Any = ""
    namespace: Any = ""
    endpoint: Any = ""
    time: Any = ""
    source: Any = ""
    data: msgspec.Raw = msgspec.Raw()
    data_base64: str = ""


_STRUCTURED_EVENT = msgspec.json.Decoder(_Structured)
_STRUCTURED_BATCH = msgspec.json.Decoder(list[_Structured])


def events_of(request: Request) -> list[Event]:
    """The events in a request, in binary or structured mode or in a batch, of which some may be no events of ours.

    Raises MalformedEvent where none is, and TooLargeEvent.
    """
    headers = request.headers
    if "ce-type" in headers:
        return [_binary(request)]
    if not (_is(request, _STRUCTURED) or _is(request, _BATCH)):
        raise MalformedEvent("no Ce-Type: expected a CloudEvent as KServe's payload logger sends it")
    body = _inflated(request)
    if _is(request, _STRUCTURED):
        return [_structured(_decoded(body, _STRUCTURED_EVENT))]
    if body.count(b'"id"') > MAX_BATCH:
        raise TooLargeEvent
    found, refusal = [], MalformedEvent("an empty batch")
    for told in _decoded(body, _STRUCTURED_BATCH):
        try:
            found.append(_structured(told))
        except MalformedEvent as reason:
            refusal = reason
    if not found:
        raise refusal
    return found


def _binary(request: Request) -> Event:
    attribute = {name: request.headers.get(f"ce-{name}", "") for name in _ATTRIBUTES}
    coding = request.headers.get("content-encoding", "").strip().lower()
    return _event(attribute, request.body, coding)


def _structured(told: _Structured) -> Event:
    try:
        body = base64.b64decode(told.data_base64, validate=True) if told.data_base64 else bytes(told.data)
    except (binascii.Error, ValueError):
        raise MalformedEvent(_NO_EVENT) from None
    attributes = {name: getattr(told, name) for name in _ATTRIBUTES}
    return _event({name: value if type(value) is str else "" for name, value in attributes.items()}, body)


def _decoded(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise MalformedEvent(_NO_EVENT) from None


def _inflated(request: Request) -> bytes:
    coding = request.headers.get("content-encoding", "").strip().lower()
    if coding in _IDENTITY:
        return request.body
    try:
        return inflate(request.body, coding, MAX_COPY_BYTES)
    except TooLargeError:
        raise TooLargeEvent from None
    except CannotInflateError as reason:
        raise MalformedEvent(str(reason)) from None


def _is(request: Request, content_type: str) -> bool:
    headers = request.headers
    return "ce-type" not in headers and headers.get("content-type", "").lower().startswith(content_type)


def _event(attribute: Mapping[str, str], body: bytes, coding: str = "") -> Event:
    half = _TYPES.get(attribute["type"])
    if half is None:
        raise MalformedEvent(f"Ce-Type is neither {' nor '.join(_TYPES)}")
    identity = attribute["id"]
    if not (0 < len(identity) <= MAX_ID_CHARACTERS and identity.isascii() and identity.isprintable()):
        raise MalformedEvent(f"Ce-Id must be 1 to {MAX_ID_CHARACTERS} printable ASCII characters")
    if coding in _IDENTITY:
        # The logger copies what the client and the model sent, and leaves their coding out.
        coding = "gzip" if body.startswith(_GZIP_MAGIC) else ""
    elif coding not in GZIP and coding != DEFLATE:
        coding = "unknown"
    return Event(
        identity, half, attribute["component"], body, attribute["inferenceservicename"], attribute["namespace"],
        attribute["endpoint"], coding, attribute["time"], attribute["source"],
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[W]):
    key: int
    half: Half
    service: int
    body: bytes | None
    coding: str
    whose: W
    since: float


@dataclass(frozen=True, slots=True)
class Joined:
    """The bodies of a request and its answer, each with its content coding."""

    asked: bytes | None
    answered: bytes | None
    asked_coding: str = ""
    answered_coding: str = ""


class Pairs(Generic[W]):
    """Halves of exchanges, each kept until its other half comes: bounded in number, in bytes and in age.

    Halves of one id meet in their order. `given_up` is called for an exchange of which the other half never came, with
    whose it is. Times are seconds of the caller's clock.
    """

    def __init__(self, given_up: Callable[[W], None], *, seconds: float) -> None:
        self._given_up = given_up
        self._seconds = seconds
        self._waiting: OrderedDict[int, _Waiting[W]] = OrderedDict()
        """By a number that grows, the oldest first."""
        self._numbers: dict[int, list[int]] = {}
        """The numbers of those that wait by id and component, the oldest first."""
        self._next = 0
        self._waiting_bytes = 0
        self._remembered: Counter[int] = Counter()
        """Events that came, and halves whose other half was given up."""
        self._remembered_before: Counter[int] = Counter()
        self._turned = 0.0

    def is_repeated(self, event: Event) -> bool:
        """Whether this very event came before. From now on it has."""
        if not _EXACT_TIME.fullmatch(event.time):
            return False
        key = hash((_key(event), event.half, event.time, event.source, event.body))
        repeated = key in self._remembered or key in self._remembered_before
        self._remember(key)
        return repeated

    def add(self, event: Event, whose: W, now: float) -> Joined | None:
        """The whole exchange when this event completes one.

        Where there is no room, those that have waited longest are given up; what comes of them later is ignored.
        """
        first = self._other_half_of(event)
        if first is not None:
            asked, answered = (first, event) if first.half == "request" else (event, first)
            return Joined(asked.body, answered.body, asked.coding, answered.coding)
        key = _key(event)
        if self._was_given_up(key, event.half):
            return None
        self._next += 1
        self._waiting[self._next] = _Waiting(
            key, event.half, _service(event), event.body, event.coding, whose, now
        )  # fmt: skip
        self._numbers.setdefault(key, []).append(self._next)
        self._waiting_bytes += len(event.body or b"")
        while len(self._waiting) > MAX_WAITING or self._waiting_bytes > MAX_WAITING_BYTES:
            self._given_up(self._give_up_oldest().whose)
        return None

    def ignore(self, event: Event) -> None:
        """This event's exchange is none: its other half is ignored, whether it came or comes."""
        if self._other_half_of(event) is None:
            self._remember(hash((_key(event), event.half)))

    def tick(self, now: float) -> None:
        """Give up what has waited too long, and forget in time what came."""
        while self._waiting and next(iter(self._waiting.values())).since <= now - self._seconds:
            self._given_up(self._give_up_oldest().whose)
        if now - self._turned >= self._seconds:
            self._turn()
            self._turned = now

    def _give_up_oldest(self) -> _Waiting[W]:
        waiting = self._take(next(iter(self._waiting)))
        self._remember(hash((waiting.key, waiting.half)))
        return waiting

    def _other_half_of(self, event: Event) -> _Waiting[W] | None:
        """The oldest that waits for an event like this one, which then waits no longer. Services are compared where
        both halves tell theirs."""
        service = _service(event)
        for number in self._numbers.get(_key(event), ()):
            waiting = self._waiting[number]
            if waiting.half != event.half and (waiting.service == service or 0 in {waiting.service, service}):
                return self._take(number)
        return None

    def _was_given_up(self, key: int, half: Half) -> bool:
        other = hash((key, "response" if half == "request" else "request"))
        for remembered in (self._remembered_before, self._remembered):
            if remembered[other] > 0:
                remembered[other] -= 1
                return True
        return False

    def _take(self, number: int) -> _Waiting[W]:
        waiting = self._waiting.pop(number)
        self._waiting_bytes -= len(waiting.body or b"")
        numbers = self._numbers[waiting.key]
        numbers.remove(number)
        if not numbers:
            del self._numbers[waiting.key]
        return waiting

    def _remember(self, key: int) -> None:
        self._remembered[key] += 1
        if len(self._remembered) >= MAX_REMEMBERED:
            self._turn()

    def _turn(self) -> None:
        self._remembered_before, self._remembered = self._remembered, Counter()


def _key(event: Event) -> int:
    """A number, because thousands of ids are remembered. A transformer and its predictor may be told of by one id."""
    return hash((event.id, event.component))


def _service(event: Event) -> int:
    """0 where the event doesn't tell."""
    return hash((event.service, event.namespace, event.endpoint)) if event.service else 0


class Sink:
    """Answers what is posted to the sink. `seconds`: how long an event waits for its other half."""

    def __init__(self, counters: Counters, courier: Courier, *, seconds: float) -> None:
        self._counters = counters
        self._courier = courier
        self._pairs = Pairs(self._lost, seconds=seconds)
        self._warned = False
        self._large = 0
        self._large_logged: float | None = None

    async def __call__(self, request: Request) -> Response:
        """One event, or a batch. The answer has no body: an event broker would look for an event in it."""
        return self._answer(request, events_of)

    async def without_body(self, request: Request) -> Response:
        """One event that was too large to be kept: answered and counted like any other."""
        if request.method == "POST" and (_is(request, _STRUCTURED) or _is(request, _BATCH)):
            self._too_large(self._counters.tally_of(OWN))  # which event it was stood in the body
            return Response(200, b"")
        return self._answer(request, lambda request: [replace(each, body=None) for each in events_of(request)])

    def tick(self) -> None:
        """A second has passed."""
        self._pairs.tick(time.monotonic())
        if self._counters.shed and not self._counters.total and not self._warned:
            self._warned = True
            log.warning("no event has met its other half yet: the logger must send requests and responses (mode: all),"
                        " and both to the same sink")  # fmt: skip

    def _answer(self, request: Request, read: Callable[[Request], list[Event]]) -> Response:
        if request.method != "POST":
            return Response(405, b"KServe's payload logger posts its events here\n", headers={"Allow": "POST"})
        try:
            events = read(request)
        except MalformedEvent as reason:
            return text(str(reason), 400)
        except TooLargeEvent:
            self._too_large(self._counters.tally_of(OWN))
            return Response(200, b"")
        now = time.monotonic()
        for event in events:
            self._take(event, now)
        return Response(200, b"")

    def _take(self, event: Event, now: float) -> None:
        if self._pairs.is_repeated(event):
            return
        owner = self._counters.served.owner_by_event(event.service, event.namespace, event.component, event.endpoint)
        tally = self._counters.tally_of(owner)
        if owner is None:
            if event.half == "response":  # the logger tells only of answers with 200
                self._counters.told(tally, CLOUDEVENTS, 200)
            return
        if event.half == "request" and event.body == b"":  # a GET of the model's health or metadata
            self._pairs.ignore(event)
            return
        joined = self._pairs.add(event, tally, now)
        if joined is None:
            return
        self._counters.told(tally, CLOUDEVENTS, 200)
        asked, answered = joined.asked, joined.answered
        if asked is None or answered is None or len(asked) + len(answered) > MAX_COPY_BYTES:
            self._too_large(tally)
            return
        request = [f"POST / HTTP/1.1\r\nCe-Id: {event.id}\r\n{_framing(asked, joined.asked_coding)}".encode(), asked]
        response = [f"HTTP/1.1 200 OK\r\n{_framing(answered, joined.answered_coding)}".encode(), answered]
        self._courier.offer(CLOUDEVENTS, 200, request, response, tally, began=now, took=0.0)

    def _lost(self, tally: Tally) -> None:
        tally.now.shed += 1

    def _too_large(self, tally: Tally) -> None:
        tally.now.shed += 1
        self._large += 1
        now = time.monotonic()
        if self._large_logged is None or now - self._large_logged > _LOG_LARGE_EVERY_SECONDS:
            self._large_logged = now
            log.warning("an exchange is counted and not read: request and answer have more than %d MiB, or there was"
                        " no room for one of them (%d so far)", MAX_COPY_BYTES >> 20, self._large)  # fmt: skip


def _framing(body: bytes, coding: str) -> str:
    """The end of a head."""
    coded = f"Content-Encoding: {coding}\r\n" if coding else ""
    return f"{coded}Content-Length: {len(body)}\r\n\r\n"
