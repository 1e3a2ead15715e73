"""The HTTP side of every admin port: small enough for the forwarder, parsed by httptools.

A handler is an async function from Request to Response. Headers and bodies are bounded, a slow or malformed client
costs one connection for a bounded time, and an exception in a handler becomes a 500 and one log line. Where more
connections are open than may be, the one that has been idle longest gives way to a new one: whoever holds all of them
keeps nobody out.
"""

import asyncio
import contextlib
import gzip
import heapq
import hmac
import logging
import os
import re
import resource
import socket
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

import httptools

from pegel_exporters.errors import UserError
from pegel_exporters.keepalive import Keepalive
from pegel_exporters.seldom import Seldom

log = logging.getLogger("pegel")

MAX_BODY_BYTES = 1 << 20
MAX_HEADER_BYTES = 16 << 10
MAX_BODIES_BYTES = 8 << 20
"""What the bodies of all connections may take together: a server may share a pod's memory with its traffic."""
PEERS = Keepalive(user_timeout_seconds=60)
_GZIP_FROM_BYTES = 1024
_MAX_FRAMING_BYTES = 8 << 20  # small chunks weigh more than what they carry
_MAX_PIPELINED = 32
_LINGER_SECONDS = 1.0
_NEW_SECONDS = 0.1
"""So long a new connection has to say what it wants before it may have to give way."""
_clock = time.monotonic


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may take of a server. No time is prolonged by bytes that trickle in or are taken.

    A request's head must be complete `head_seconds` after its first byte (of the first request: after the connection
    was accepted), its body `body_seconds` after its head; an answer must be taken `answer_seconds` after it was
    written; between requests a connection may be idle for `idle_seconds`. Where more than `connections` are open, those
    that have been idle longest give way, some milliseconds after the new ones came; beyond `at_once`, at once.
    """

    connections: int = 256
    at_once: int = 1024
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    answer_seconds: float = 30.0
    idle_seconds: float = 75.0

    def within(self, descriptors: int) -> "Limits":
        """These, with no more connections than there are file descriptors for."""
        at_once = max(2, min(self.at_once, descriptors))
        return replace(self, at_once=at_once, connections=min(self.connections, max(1, at_once // 2)))


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Request:
    """One request; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """One answer. `encoding` names how `body` is compressed already, if it is."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    encoding: str = ""


Handler = Callable[[Request], Awaitable[Response]]


def text(body: str, status: int = 200) -> Response:
    """A plain answer of one line."""
    return Response(status, f"{body}\n".encode())


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or connect. An empty host listens on all interfaces."""

    host: str
    port: int

    @classmethod
    def parse(cls, value: str) -> "Address":
        """Read `:9466`, `127.0.0.1:9466` or `[::1]:9466`. Raises UserError."""
        match = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^\s/:\[\]]*):([0-9]{1,5})", value)
        if match is None or int(match[2]) > 65_535:
            raise UserError(f"{value!r} is not an address; write HOST:PORT or :PORT")
        return cls(match[1].strip("[]"), int(match[2]))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def listen(address: Address, *, backlog: int = 1024, keepalive: Keepalive = PEERS) -> socket.socket:
    """A listening TCP socket. Raises UserError when the port is in use or may not be used."""
    try:
        sock = _listening(address, backlog)
    except OSError as error:
        raise UserError(f"cannot listen on {address}: {error.strerror}") from error
    keepalive.on(sock)
    return sock


def _listening(address: Address, backlog: int) -> socket.socket:
    if address.host:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        return socket.create_server((address.host, address.port), family=family, backlog=backlog)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", address.port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True)
    return socket.create_server(("", address.port), backlog=backlog)


def allow_many_connections() -> int:
    """Raise the limit of file descriptors as far as it may be; how many are left. The usual soft limit is 1024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most - len(os.listdir("/proc/self/fd"))


def read_token(path: str | None) -> str | None:
    """A bearer token from a file, None without a path. Raises UserError when it is missing or empty."""
    if path is None:
        return None
    try:
        token = Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the token in {path}: {error}") from error
    if not token:
        raise UserError(f"the token file {path} is empty")
    return token


def authorised(request: Request, token: str | None) -> bool:
    """Whether the request carries the bearer token, compared in constant time. No token lets all pass."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return token is None or (scheme.lower() == "bearer" and hmac.compare_digest(given.encode(), token.encode()))


async def serve(
    handler: Handler,
    sock: socket.socket,
    *,
    tls: ssl.SSLContext | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    without_body: Handler | None = None,
    limits: Limits = LIMITS,
    name: str = "this port",
    gave_way: Callable[[], None] = lambda: None,
    leaving: Callable[[], bool] = lambda: False,
) -> asyncio.AbstractServer:
    """Answer requests on a listening socket (TCP or Unix) until the server is closed.

    A body of more than `max_body_bytes`, or one for which the others leave no room, is refused; or, if there is a
    handler `without_body`, read and dropped, and that one answers the request, of which the body is empty then.
    `gave_way` is called for each connection that is closed because there are too many; the log calls the port `name`.
    While it is `leaving`, an answer is the last of its connection.
    """
    loop = asyncio.get_running_loop()

    def say(times: int) -> None:
        log.warning("%s: more than %d connections were open; %d that had been idle longest gave way to new ones",
                    name, limits.connections, times)  # fmt: skip

    server = _Server(handler, max_body_bytes, without_body, limits, gave_way, leaving, Seldom(say))
    if sock.family == socket.AF_UNIX:
        return await loop.create_unix_server(lambda: _Connection(server), sock=sock)
    handshake = limits.head_seconds if tls else None
    return await loop.create_server(lambda: _Connection(server), sock=sock, ssl=tls, ssl_handshake_timeout=handshake)


@dataclass(slots=True)
class _Server:
    """What a server's connections share: its settings, which they are, and what their unanswered bodies hold."""

    handler: Handler
    max_body_bytes: int
    without_body: Handler | None
    limits: Limits
    gave_way: Callable[[], None]
    leaving: Callable[[], bool]
    log: Seldom
    open: "set[_Connection]" = field(default_factory=set)
    bytes: int = 0
    _soon: asyncio.TimerHandle | None = None

    def accepted(self, connection: "_Connection") -> None:
        self.open.add(connection)
        if len(self.open) > self.limits.at_once:
            self._close(len(self.open) - self.limits.at_once, self.open)
        if len(self.open) > self.limits.connections and self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(_NEW_SECONDS, self._make_room)

    def _make_room(self) -> None:
        """A connection is seldom new for longer than its request needs to come: what has none by then gives way."""
        self._soon = None
        too_many = len(self.open) - self.limits.connections
        if too_many <= 0:
            return
        before = _clock() - _NEW_SECONDS
        self._close(too_many, [each for each in self.open if each.accepted <= before and not each.at_work])
        if len(self.open) > self.limits.connections:
            self._soon = asyncio.get_running_loop().call_later(_NEW_SECONDS, self._make_room)

    def _close(self, count: int, among: "Iterable[_Connection]") -> None:
        """Close so many: new ones last of all, as nobody can know yet what they want, and the newest of these last."""
        before = _clock() - _NEW_SECONDS

        def order(each: _Connection) -> tuple[bool, int, float]:
            return (True, 0, each.accepted) if each.accepted > before else (False, *each.precedence())

        for connection in heapq.nsmallest(count, among, key=order):
            self.open.discard(connection)
            connection.give_way()
            self.log.happened()
            self.gave_way()


class _Connection(asyncio.Protocol):
    """One client's connection: requests in, answers out, one at a time and in order."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._held = 0
        self._parser: Any = httptools.HttpRequestParser(self)
        self._queue: deque[tuple[Request, Handler, bool] | Response] = deque()
        """Requests, each with who answers it and whether the connection lives on then; or the refusal of the last."""
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._done_reading = False
        self._client_done = False
        self._requests = 0
        self._reading: asyncio.TimerHandle | None = None
        """When what is being read, or waited for, must have come."""
        self._writing: asyncio.TimerHandle | None = None
        """When the answer that was written must have been taken."""
        self.accepted = self._since = _clock()
        self._reset()

    def _reset(self) -> None:
        """Be ready for the next request's first byte."""
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._header_size = 0
        self._framing_size = 0
        self._in_body = False
        self._drops_body = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)  # so that what is not taken is known to the byte
        self._must_come(self._server.limits.head_seconds)
        self._server.accepted(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._need_not_come()
        self._is_taken()
        self._server.open.discard(self)
        self._hold(-self._held)
        self._parser = None  # it holds this connection: no collector should have to find that out
        self._queue.clear()
        if self._task:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()
        self._is_taken()

    def data_received(self, data: bytes) -> None:
        if self._done_reading:
            return
        before = self._requests
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # the request itself has been queued, and is answered as if it had not asked
        except httptools.HttpParserError:
            return self._refuse(400, "not an HTTP/1.1 request")
        if self._requests == before:
            self._framing_size += len(data)
            if not self._in_body and self._framing_size > MAX_HEADER_BYTES:
                self._refuse(431, "the request's header is too large")
            elif self._framing_size > _MAX_FRAMING_BYTES:
                self._refuse(413, "the request is too large")

    def eof_received(self) -> bool:
        """A client that has finished sending still gets its answers, except over TLS, which cannot."""
        self._client_done = True
        return self._busy and self._transport.get_extra_info("sslcontext") is None

    def precedence(self) -> tuple[int, float]:
        """The least of all gives way first: what waits for a request, then for a body, then for an answer to be taken;
        and of these what has been so for longest."""
        if not self._writable.is_set():
            return 2, self._since
        return 3 if self.at_work else 1 if self._in_body else 0, self._since

    @property
    def at_work(self) -> bool:
        """Whether an answer is being made, which the client is not to blame for."""
        return self._busy and self._writable.is_set()

    def give_way(self) -> None:
        """Close at once."""
        self._transport.abort()

    # httptools

    def on_message_begin(self) -> None:
        if self._requests:  # the first has had its time from the connection's start
            self._must_come(self._server.limits.head_seconds)

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_header(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(len(name) + len(value))
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._in_body = True
        self._must_come(self._server.limits.body_seconds)
        self._since = _clock()
        length = self._headers.get("content-length", "")
        if length.isdigit() and int(length) > self._server.max_body_bytes:
            self._no_room(413, "the request is too large")
        if self._headers.get("expect", "").lower() == "100-continue" and not self._done_reading and not self._busy:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._framing_size -= len(body)
        if not self._done_reading and not self._drops_body:
            self._body += body
            self._hold(len(body))
            if len(self._body) > self._server.max_body_bytes:
                self._no_room(413, "the request is too large")
            elif self._server.bytes > MAX_BODIES_BYTES:
                self._no_room(503, "too many large requests at once")

    def on_message_complete(self) -> None:
        if self._done_reading:
            return
        self._requests += 1
        self._need_not_come()
        path = self._url.decode("latin-1").partition("?")[0]
        request = Request(self._parser.get_method().decode("latin-1"), path, self._headers, bytes(self._body))
        keep_alive = (
            self._parser.should_keep_alive()
            and not self._parser.should_upgrade()
            and not self._server.leaving()
            and len(self._server.open) <= self._server.limits.connections // 2
        )
        handler = self._server.without_body if self._drops_body else None
        self._done_reading = not keep_alive
        self._reset()
        if len(self._queue) >= _MAX_PIPELINED:
            self._refuse(429, "too many requests at once")
        else:
            self._enqueue((request, handler or self._server.handler, keep_alive))

    # answers

    @property
    def _busy(self) -> bool:
        return self._task is not None and not self._task.done()

    def _hold(self, size: int) -> None:
        self._held += size
        self._server.bytes += size

    def _count_header(self, size: int) -> None:
        self._header_size += size
        if self._header_size > MAX_HEADER_BYTES:
            self._refuse(431, "the request's header is too large")

    def _no_room(self, status: int, reason: str) -> None:
        """Do without the body of this request."""
        if self._server.without_body is None:
            return self._refuse(status, reason)
        self._drops_body = True
        self._drop_body()

    def _refuse(self, status: int, reason: str) -> None:
        """Read nothing more, and close when what came before is answered."""
        if not self._done_reading:
            self._done_reading = True
            self._need_not_come()
            self._drop_body()
            self._enqueue(text(reason, status))

    def _drop_body(self) -> None:
        self._hold(-len(self._body))
        self._body = bytearray()

    def _enqueue(self, item: tuple[Request, Handler, bool] | Response) -> None:
        self._queue.append(item)
        if not self._busy:
            self._task = asyncio.get_running_loop().create_task(self._answer())

    async def _answer(self) -> None:
        while self._queue:
            item = self._queue.popleft()
            if isinstance(item, Response):
                data, keep_alive = _encode(item), False
            else:
                request, handler, keep_alive = item
                data = await self._answer_to(request, handler, keep_alive)
                self._hold(-len(request.body))
            await self._writable.wait()
            self._since = _clock()
            self._transport.write(data)
            if not self._writable.is_set():
                self._must_be_taken()
            if not keep_alive or (self._client_done and not self._queue):
                return self._linger() if isinstance(item, Response) else self._close()
        if self._reading is None:
            self._must_come(self._server.limits.idle_seconds)

    async def _answer_to(self, request: Request, handler: Handler, keep_alive: bool) -> bytes:
        head = request.method == "HEAD"
        try:
            response = _compressed(request, await handler(request))
            return _encode(response, head=head, keep_alive=keep_alive)
        except Exception:
            log.exception("answering %s failed", request.path)
            return _encode(text("internal error", 500), head=head, keep_alive=keep_alive)

    # endings

    def _must_come(self, seconds: float) -> None:
        self._need_not_come()
        self._reading = asyncio.get_running_loop().call_later(seconds, self._did_not_come)

    def _need_not_come(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _did_not_come(self) -> None:
        self._reading = None
        if self._in_body or self._header_size:
            self._refuse(408, "the request took too long")
        elif not self._busy:
            self._close()

    def _must_be_taken(self) -> None:
        self._is_taken()
        seconds = self._server.limits.answer_seconds
        self._writing = asyncio.get_running_loop().call_later(seconds, self._transport.abort)

    def _is_taken(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _close(self) -> None:
        self._done_reading = True
        self._transport.close()  # waits until the answer is taken

    def _linger(self) -> None:
        """Leave a client that is still sending the time to read why: closing at once would reset the connection."""
        if self._transport.can_write_eof():
            self._transport.write_eof()
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._close)


def _encode(response: Response, *, head: bool = False, keep_alive: bool = False) -> bytes:
    headers = {
        "Content-Type": response.content_type,
        "Content-Length": str(len(response.body)),
        "X-Content-Type-Options": "nosniff",
        **({"Content-Encoding": response.encoding} if response.encoding else {}),
        **({} if keep_alive else {"Connection": "close"}),
        **response.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    start = f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}\r\n{lines}\r\n".encode("latin-1")
    return start if head else start + response.body


def accepts_gzip(request: Request) -> bool:
    """Whether the client takes gzip; a quality of 0 says no."""
    for coding in request.headers.get("accept-encoding", "").split(","):
        name, _, quality = coding.replace(" ", "").lower().partition(";q=")
        if name == "gzip":
            return not quality or quality.strip("0.") != ""
    return False


def _compressed(request: Request, response: Response) -> Response:
    if response.encoding or len(response.body) < _GZIP_FROM_BYTES or not accepts_gzip(request):
        return response
    return Response(response.status, gzip.compress(response.body, 1), response.content_type, response.headers, "gzip")
