"""Follows the exchanges on one connection: where each begins and ends, how it ended, and a copy of its bytes.

Framing is httptools' (llhttp), so ends are exact, keep-alive and pipelining included. What it cannot follow (TLS,
HTTP/2, an upgraded connection, broken HTTP) is forwarded all the same and no longer followed.
"""

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httptools

from pegel_agent.sidecar.paths import OTHER, Model, model_of, protocol_of
from pegel_agent.sidecar.tap.broken import BrokenExchange, begins_a_request

MAX_COPY_BYTES = 4 << 20
"""An exchange with more bytes than this is counted, not copied."""
MAX_COPYING_BYTES = 8 << 20
"""What the copies of all unfinished exchanges may take together."""
MAX_PIPELINED = 256
"""A connection with more unanswered requests than this is followed no longer."""
_REMEMBERED_TARGETS = 256
_MAX_TARGET_BYTES = 8 << 10
_MAX_HEAD_BYTES = 8 << 10

_HEADER_END = re.compile(rb"\n\r?\n")
_FRAMING = re.compile(rb"\n(?:content-length|transfer-encoding)[ \t]*:[^\r\n]*", re.IGNORECASE)
_HTTP2_PREFACE = b"PRI * HTTP/2.0"
_ANSWERED_BY_A_HEADER = (b"HEAD", b"CONNECT")


class _CannotFollowError(Exception):
    """What comes next on this connection is nothing that can be followed; raised through the parser to stop it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Exchange:
    """One request and its answer. Times are seconds of the caller's clock; 0 for what has not happened yet.

    `request` and `response` hold the bytes as they went by, `size` in all; `request` is None when no copy is kept.
    `head` is the answer's first bytes, its header at least unless that is huge. `status` is 0 without an answer.
    `protocol` is None for what is no inference, `model` where the path names none. Whoever counts it may keep in
    `tally` where, and say in `unread` that no copy is wanted.
    """

    # Defaults of the class, not of each object: one is made for every request.
    first_byte = 0.0
    ended = 0.0
    target = b""
    method = b""
    protocol: str | None = None
    model: Model | None = None
    tally: Any = None
    unread = False
    status = 0
    head = b""
    size = 0

    def __init__(self, started: float) -> None:
        self.started = started
        self.request: list[bytes] | None = []
        self.response: list[bytes] = []


@dataclass(frozen=True, slots=True)
class Observer:
    """What a connection's exchanges are told to. `ended` gets the outcome: ok, error, client_abort, timeout or
    unfollowed.
    `unfollowed` gets one of blindness.UNFOLLOWED; `watched` says that such a connection is followed again, or is gone.
    """

    begun: Callable[[Exchange], None]
    ended: Callable[[Exchange, str], None]
    unfollowed: Callable[[str], None]
    watched: Callable[[], None] = lambda: None


class Copying:
    """Bytes held by the copies of unfinished exchanges, over all connections."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


class Turns:
    """One connection's exchanges. Feed it the bytes of both directions in the order they were seen."""

    __slots__ = (
        "_broken",
        "_copying",
        "_first",
        "_now",
        "_observer",
        "_open",
        "_request_parser",
        "_response_parser",
        "_touched",
        "_waiting",
        "_why",
        "client_finished",
        "following",
    )  # fmt: skip

    def __init__(self, observer: Observer, copying: Copying) -> None:
        self._observer = observer
        self._copying = copying
        self._waiting: deque[Exchange] = deque()
        """Exchanges whose answer is not complete, the oldest first."""
        self._open: Exchange | None = None
        """The exchange whose request is not complete."""
        self._touched: list[Exchange] = []
        """The exchanges that the last bytes from the client are part of."""
        self._now = 0.0
        self.client_finished = False
        """Set when the client has sent its last byte: a model that then hangs up was left, most likely."""
        self.following = True
        self._why: str | None = None
        """Why what comes next can't be followed, as a parser's callback found it."""
        self._first = b""
        """The connection's first bytes, until the first request's header is complete."""
        self._broken: BrokenExchange | None = None
        """After whose end the connection may be followed again; None while it is followed, and where it never is."""
        self._request_parser: Any = _request_parser(self)
        self._response_parser: Any = _response_parser(_ResponseSide(self))

    @property
    def idle(self) -> bool:
        """Whether no exchange is under way."""
        return not self._waiting and self._open is None

    @property
    def answer_is_next(self) -> bool:
        """Whether the model's next byte begins the answer to the only request under way, which is complete."""
        waiting = self._waiting
        return self.following and len(waiting) == 1 and self._open is None and not waiting[0].first_byte

    def request_bytes(self, data: bytes, now: float) -> None:
        """Bytes that went to the model at `now`."""
        if not self.following and not self._resumes(data, now):
            return
        if len(self._first) < len(_HTTP2_PREFACE):
            self._first += data[: len(_HTTP2_PREFACE)]
        self._now = now
        touched = self._touched
        touched.clear()
        if self._open is not None:
            touched.append(self._open)
        try:
            self._request_parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._after_offer(data, offer.args[0])
        except httptools.HttpParserError:
            self._refuse_request(data)
        if len(touched) == 1:
            exchange = touched[0]
            if exchange.request is not None:
                exchange.request.append(data)
                self._grow(exchange, len(data))
        else:  # pipelined: framed exactly, but the bytes of one chunk are several exchanges'
            for exchange in touched:
                self._drop_copy(exchange)

    def response_bytes(self, data: bytes, now: float) -> None:
        """Bytes that came from the model at `now`."""
        if not self.following:
            if self._broken is not None:
                self._broken.answers(data, now)
            return
        self._now = now
        waiting = self._waiting
        before: bytes | None = None
        if waiting:
            exchange = waiting[0]
            if not exchange.first_byte:
                before = b""
                exchange.first_byte = now
                exchange.head = data[:_MAX_HEAD_BYTES]
            elif len(exchange.head) < _MAX_HEAD_BYTES and not _HEADER_END.search(exchange.head):
                before = exchange.head
                exchange.head += data[:_MAX_HEAD_BYTES]
            if exchange.request is not None:
                exchange.response.append(data)
                self._grow(exchange, len(data))
        try:
            self._response_parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._unfollow("upgrade", outcome="ok")
        except httptools.HttpParserCallbackError:
            self._unfollow(self._why or "malformed_response", outcome="ok")
        except httptools.HttpParserError:
            broken = None
            if len(waiting) == 1 and self._open is None and waiting[0] is exchange:
                broken = BrokenExchange(exchange.method, answer_is_known=before is not None)
                broken.answers((before or b"") + data, now)
            self._unfollow("malformed_response", broken=broken)

    def client_gone(self, now: float) -> None:
        """The client closed: what still waits was aborted by it."""
        self._now = now
        self._end_all("client_abort")
        self._stop()

    def model_gone(self, now: float) -> None:
        """The model closed: an answer that the close ends is complete, any other is broken."""
        self._now = now
        if self._waiting and _ends_by_close(self._waiting[0].head):
            self._end(self._waiting.popleft(), self._response_parser.get_status_code())
        self._end_all("client_abort" if self.client_finished else "error")
        self._stop()

    # The parsers' news

    def request_began(self) -> None:
        if self._open is not None:  # it goes on after an offer
            return
        exchange = self._open = Exchange(self._now)
        waiting = self._waiting
        if waiting:  # pipelined: answers of several may come in one chunk
            if len(waiting) >= MAX_PIPELINED or waiting[0].method in _ANSWERED_BY_A_HEADER:
                raise self._cannot("pipelined")
            self._drop_copy(waiting[0])
            exchange.request = None
        waiting.append(exchange)
        self._touched.append(exchange)

    def request_target(self, target: bytes) -> None:
        exchange = self._open
        if exchange is not None and not exchange.method:
            exchange.target = (exchange.target + target)[:_MAX_TARGET_BYTES]

    def request_headers_complete(self) -> None:
        exchange = self._open
        if exchange is None or exchange.method or exchange.ended:  # after an offer; answered before it was asked
            return
        method = self._request_parser.get_method()
        self._begin(exchange, method)
        if method in _ANSWERED_BY_A_HEADER:
            if len(self._waiting) > 1:
                raise self._cannot("pipelined")
            self._response_parser = _response_parser(_HeaderSide(self))

    def request_complete(self) -> None:
        self._open = None

    def response_headers_complete(self) -> None:
        """The answer to HEAD announces a body that does not come; the one to CONNECT may begin a tunnel."""
        status = self._response_parser.get_status_code()
        method = self._waiting[0].method if self._waiting else b""
        if method == b"CONNECT" and 200 <= status < 300:
            raise self._cannot("tunnel")
        if method == b"HEAD" and status >= 200:
            self._response_parser = _response_parser(_ResponseSide(self))
            self._end(self._waiting.popleft(), status)

    def response_complete(self) -> None:
        if not self._waiting:
            return
        status = self._response_parser.get_status_code()
        if status >= 200:
            self._end(self._waiting.popleft(), status)
        elif status == 101:
            raise self._cannot("upgrade")
        else:  # an interim answer is not the answer, but that may have begun in the same chunk
            exchange = self._waiting[0]
            end = _HEADER_END.search(exchange.head)
            exchange.head = exchange.head[end.end() :] if end else b""
            if not exchange.head:
                exchange.first_byte = 0.0

    def _after_offer(self, data: bytes, offset: int) -> None:
        """A request offers an upgrade, and whether the protocol changes is for the answer to say. httptools stops
        after such a request's header, at `offset`; its body, if it has one, and what follows are read here."""
        if len(self._touched) != 1:
            return self._unfollow("pipelined")
        exchange = self._touched[0]
        head = b"".join((*(exchange.request or ()), data[:offset]))
        framing = _FRAMING.search(head)
        self._request_parser = _request_parser(self)
        try:
            if framing and exchange.method != b"CONNECT":
                self._open = exchange
                self._request_parser.feed_data(b"POST / HTTP/1.1\r" + framing[0] + b"\r\n\r\n")
            self._request_parser.feed_data(data[offset:])
        except httptools.HttpParserUpgrade:  # by another request, in the same bytes
            self._unfollow("pipelined")
        except httptools.HttpParserError:
            self._unfollow(self._why or "malformed_request")

    # What becomes of an exchange

    def _begin(self, exchange: Exchange, method: bytes) -> None:
        exchange.method = method
        exchange.protocol, exchange.model = protocol, _ = _asked(method, exchange.target)
        self._observer.begun(exchange)
        if protocol is None or protocol is OTHER or exchange.unread:
            self._drop_copy(exchange)

    def _end(self, exchange: Exchange, status: int) -> None:
        exchange.status = status
        exchange.ended = self._now
        self._close(exchange, "timeout" if status in (408, 504) else "ok" if status < 500 else "error")

    def _end_all(self, outcome: str) -> None:
        while self._waiting:
            exchange = self._waiting.popleft()
            exchange.ended = self._now
            self._drop_copy(exchange)
            self._close(exchange, outcome)
        self._open = None

    def _close(self, exchange: Exchange, outcome: str) -> None:
        if exchange.request is not None:
            self._copying.bytes -= exchange.size
        if exchange.method:  # an exchange whose headers never came was never begun
            self._observer.ended(exchange, outcome)
        exchange.request = None  # whoever wanted the copy has it; bytes that still come are not part of it

    def _cannot(self, reason: str) -> _CannotFollowError:
        self._why = reason
        return _CannotFollowError(reason)

    def _protocol_spoken(self) -> str:
        if self._first.startswith(b"\x16"):
            return "tls"
        return "http2" if self._first.startswith(_HTTP2_PREFACE[:5]) else "malformed_request"

    def _refuse_request(self, data: bytes) -> None:
        """The client's bytes can't be followed. A request that went to the model counts, if its first line was read."""
        reason = self._why or self._protocol_spoken()
        exchange, waiting = self._open, self._waiting
        broken = None
        if reason == "malformed_request" and exchange is not None and waiting and waiting[-1] is exchange:
            known = None if exchange.request is None else b"".join((*exchange.request, data))
            if not exchange.method and exchange.target:  # its header was refused, and not its body
                self._begin(exchange, self._request_parser.get_method())
                if known is not None and len(waiting) == len(self._touched) == 1 and not exchange.first_byte:
                    broken = BrokenExchange(exchange.method, known)
        self._unfollow(reason, broken=broken)

    def _unfollow(self, reason: str, outcome: str = "unfollowed", *, broken: BrokenExchange | None = None) -> None:
        """Stop following, for one of blindness.UNFOLLOWED. Exchanges under way end here, as far as is known."""
        self._stop()
        self._broken = broken
        self._why = reason
        self._end_all(outcome)
        self._observer.unfollowed(reason)

    def _resumes(self, data: bytes, now: float) -> bool:
        """Whether these bytes of the client's begin a new exchange for certain, as the one before is over."""
        broken = self._broken
        if broken is None:
            return False
        if not broken.is_over(now):
            broken.asks(data)
            return False
        self._broken = None
        if not begins_a_request(data):
            return False
        self.following, self._why, self._first = True, None, b""
        self._request_parser = _request_parser(self)
        self._response_parser = _response_parser(_ResponseSide(self))
        self._observer.watched()
        return True

    def _stop(self) -> None:
        if self._why is not None and not self.following:
            self._observer.watched()  # gone, and so no longer unwatched
            self._why = None
        self.following = False
        self._broken = None
        # The parsers hold this object and this object holds them: no collector should have to find that out.
        self._request_parser = self._response_parser = None

    def _grow(self, exchange: Exchange, size: int) -> None:
        exchange.size += size
        copying = self._copying
        copying.bytes += size
        if exchange.size > MAX_COPY_BYTES or copying.bytes > MAX_COPYING_BYTES:
            self._drop_copy(exchange)

    def _drop_copy(self, exchange: Exchange) -> None:
        if exchange.request is not None:
            self._copying.bytes -= exchange.size
            exchange.request = None
            exchange.response = []


class _RequestSide:
    """What httptools calls while it reads requests; llhttp calls only what is there."""

    __slots__ = ("on_headers_complete", "on_message_begin", "on_message_complete", "on_url")

    def __init__(self, turns: Turns) -> None:
        self.on_message_begin = turns.request_began
        self.on_url = turns.request_target
        self.on_headers_complete = turns.request_headers_complete
        self.on_message_complete = turns.request_complete


class _ResponseSide:
    __slots__ = ("on_message_complete",)

    def __init__(self, turns: Turns) -> None:
        self.on_message_complete = turns.response_complete


class _HeaderSide:
    """For an answer that its request's method lets end with the header."""

    __slots__ = ("on_headers_complete", "on_message_complete")

    def __init__(self, turns: Turns) -> None:
        self.on_headers_complete = turns.response_headers_complete
        self.on_message_complete = turns.response_complete


def _lenient(parser: Any) -> Any:
    """Tolerant of how headers are written, never of two ways to frame a message."""
    parser.set_dangerous_leniencies(lenient_headers=True, lenient_optional_cr_before_lf=True)
    return parser


def _request_parser(turns: Turns) -> Any:
    return _lenient(httptools.HttpRequestParser(_RequestSide(turns)))


def _response_parser(side: object) -> Any:
    return _lenient(httptools.HttpResponseParser(side))


def _ends_by_close(head: bytes) -> bool:
    """Whether an answer's header is complete and leaves it to the connection's close to end the body."""
    end = _HEADER_END.search(head)
    return end is not None and not _FRAMING.search(head, 0, end.end())


_Asked = tuple[str | None, Model | None]
_seen: dict[tuple[bytes, bytes], _Asked] = {}


def _asked(method: bytes, target: bytes) -> _Asked:
    """`protocol_of` and `model_of`, remembered for the few targets that nearly all requests name."""
    key = (method, target)
    try:
        return _seen[key]
    except KeyError:
        protocol = protocol_of(method, target)
        asked = protocol, None if protocol is None else model_of(target)
        if len(_seen) < _REMEMBERED_TARGETS and len(target) < 256:
            _seen[key] = asked
        return asked
