"""Events of KServe's payload logger in, whole exchanges out: the request and the answer that have one id.

The logger sends each as a CloudEvent in binary mode, with the answers of status 200 only, in no certain order, and
takes a full sink for a reason to hold up inference; so every event is answered at once, whatever becomes of it.
"""

import base64
import binascii
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import msgspec
from pegel_exporters.serving import Request, Response, text

from pegel_agent.sidecar.paths import CLOUDEVENTS
from pegel_agent.sidecar.tap.counters import Counters
from pegel_agent.sidecar.tap.courier import Courier
from pegel_agent.sidecar.tap.turns import MAX_COPY_BYTES

log = logging.getLogger("pegel")

MAX_WAITING = 4_096
"""Events that wait for their other half, at most."""
MAX_WAITING_BYTES = 8 << 20
"""What their bodies take together, at most."""
MAX_SETTLED = 5_000
"""Exchanges that are over and remembered for a while, lest an event that is sent again begins another."""
MAX_ID_CHARACTERS = 256

_STRUCTURED = "application/cloudevents+json"
_LOG_LARGE_EVERY_SECONDS = 60.0

Half = Literal["request", "response"]

_TYPES: Mapping[str, Half] = {
    "org.kubeflow.serving.inference.request": "request",
    "org.kubeflow.serving.inference.response": "response",
}


class MalformedEvent(Exception):
    """The request carries no event of the payload logger; the message says what is wrong and quotes nothing."""


@dataclass(frozen=True, slots=True)
class Event:
    """One half of an exchange. `component` is the part of the service that was called: transformer, predictor, …

    `body` is None when it was too large to be kept.
    """

    id: str
    half: Half
    component: str
    body: bytes | None


class _Structured(msgspec.Struct):
    id: str
    type: str
    component: str = ""
    data: msgspec.Raw = msgspec.Raw()
    data_base64: str = ""


_STRUCTURED_EVENT = msgspec.json.Decoder(_Structured)


def event_of(request: Request) -> Event:
    """The event in a request, in binary or in structured mode. Raises MalformedEvent."""
    headers = request.headers
    kind = headers.get("ce-type")
    if kind is not None:
        return _event(headers.get("ce-id", ""), kind, headers.get("ce-component", ""), request.body)
    if not _is_structured(request):
        raise MalformedEvent("no Ce-Type: expected a CloudEvent as KServe's payload logger sends it")
    try:
        told = _STRUCTURED_EVENT.decode(request.body)
        body = base64.b64decode(told.data_base64, validate=True) if told.data_base64 else bytes(told.data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, binascii.Error, ValueError):
        raise MalformedEvent("not a CloudEvent in JSON with id, type and data") from None
    return _event(told.id, told.type, told.component, body)


def _is_structured(request: Request) -> bool:
    headers = request.headers
    return "ce-type" not in headers and headers.get("content-type", "").lower().startswith(_STRUCTURED)


def _event(identity: str, kind: str, component: str, body: bytes) -> Event:
    half = _TYPES.get(kind)
    if half is None:
        raise MalformedEvent(f"Ce-Type is neither {' nor '.join(_TYPES)}")
    if not (0 < len(identity) <= MAX_ID_CHARACTERS and identity.isascii() and identity.isprintable()):
        raise MalformedEvent(f"Ce-Id must be 1 to {MAX_ID_CHARACTERS} printable ASCII characters")
    return Event(identity, half, component, body)


@dataclass(frozen=True, slots=True)
class _Waiting:
    half: Half
    body: bytes | None
    since: float


class Pairs:
    """Halves of exchanges, each kept until its other half comes: bounded in number, in bytes and in age.

    `given_up` is called for an exchange of which the other half never came. Times are seconds of the caller's clock.
    """

    def __init__(self, given_up: Callable[[], None], *, seconds: float) -> None:
        self._given_up = given_up
        self._seconds = seconds
        self._waiting: OrderedDict[int, _Waiting] = OrderedDict()
        self._waiting_bytes = 0
        self._settled: set[int] = set()
        self._settled_before: set[int] = set()
        self._turned = 0.0

    def add(self, event: Event, now: float) -> tuple[bytes | None, bytes | None] | None:
        """The bodies of request and answer when this event completes them.

        An event that came before changes nothing. Where there is no room, those that have waited longest are given up.
        """
        key = _key(event)
        if key in self._settled or key in self._settled_before:
            return None
        first = self._waiting.get(key)
        if first is None:
            self._waiting[key] = _Waiting(event.half, event.body, now)
            self._waiting_bytes += len(event.body or b"")
            while len(self._waiting) > MAX_WAITING or self._waiting_bytes > MAX_WAITING_BYTES:
                self._give_up_oldest()
            return None
        if first.half == event.half:
            return None
        self.settle(event)
        return (first.body, event.body) if event.half == "response" else (event.body, first.body)

    def settle(self, event: Event) -> None:
        """Whatever else comes of this event's exchange is ignored."""
        self._settle(_key(event))

    def tick(self, now: float) -> None:
        """Give up what has waited too long, and forget in time what was settled."""
        while self._waiting and next(iter(self._waiting.values())).since <= now - self._seconds:
            self._give_up_oldest()
        if now - self._turned >= self._seconds:
            self._turn()
            self._turned = now

    def _give_up_oldest(self) -> None:
        self._settle(next(iter(self._waiting)))
        self._given_up()

    def _settle(self, key: int) -> None:
        waiting = self._waiting.pop(key, None)
        if waiting is not None:
            self._waiting_bytes -= len(waiting.body or b"")
        self._settled.add(key)
        if len(self._settled) >= MAX_SETTLED:
            self._turn()

    def _turn(self) -> None:
        self._settled_before, self._settled = self._settled, set()


def _key(event: Event) -> int:
    """A number, because thousands of ids are remembered. A transformer and its predictor may be told of by one id."""
    return hash((event.id, event.component))


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
        """One event. The answer has no body: an event broker would look for an event in it."""
        return self._answer(request, event_of)

    async def without_body(self, request: Request) -> Response:
        """One event that was too large to be kept: answered and counted like any other."""
        if request.method == "POST" and _is_structured(request):  # which event it was stood in the body
            self._too_large()
            return Response(200, b"")
        return self._answer(request, lambda request: replace(event_of(request), body=None))

    def tick(self) -> None:
        """A second has passed."""
        self._pairs.tick(time.monotonic())
        if self._counters.shed and not self._counters.total and not self._warned:
            self._warned = True
            log.warning("no event has met its other half yet: the logger must send requests and responses (mode: all),"
                        " and both to the same sink")  # fmt: skip

    def _answer(self, request: Request, read: Callable[[Request], Event]) -> Response:
        if request.method != "POST":
            return Response(405, b"KServe's payload logger posts its events here\n", headers={"Allow": "POST"})
        try:
            event = read(request)
        except MalformedEvent as reason:
            return text(str(reason), 400)
        self._take(event, time.monotonic())
        return Response(200, b"")

    def _take(self, event: Event, now: float) -> None:
        if event.half == "request" and event.body == b"":  # a GET of the model's health or metadata
            self._pairs.settle(event)
            return
        bodies = self._pairs.add(event, now)
        if bodies is None:
            return
        asked, answered = bodies
        self._counters.told(CLOUDEVENTS, 200)
        if asked is None or answered is None or len(asked) + len(answered) > MAX_COPY_BYTES:
            self._too_large()
            return
        request = [f"POST / HTTP/1.1\r\nCe-Id: {event.id}\r\nContent-Length: {len(asked)}\r\n\r\n".encode(), asked]
        response = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answered), answered]
        self._courier.offer(CLOUDEVENTS, 200, request, response, began=now, took=0.0)

    def _lost(self) -> None:
        self._counters.shed += 1

    def _too_large(self) -> None:
        self._counters.shed += 1
        self._large += 1
        now = time.monotonic()
        if self._large_logged is None or now - self._large_logged > _LOG_LARGE_EVERY_SECONDS:
            self._large_logged = now
            log.warning("an exchange is counted and not read: request and answer have more than %d MiB, or there was"
                        " no room for one of them (%d so far)", MAX_COPY_BYTES >> 20, self._large)  # fmt: skip
