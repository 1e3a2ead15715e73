"""The HTTP side of every admin port: small enough for the forwarder, parsed by httptools.

A handler is an async function from Request to Response. Bodies are bounded, a slow or malformed client costs
one connection, and an exception in a handler becomes a 500 and one log line.
"""

import asyncio
import gzip
import hmac
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import httptools

from pegel_exporters.errors import UserError

log = logging.getLogger("pegel")

MAX_BODY_BYTES = 1 << 20
MAX_HEADER_BYTES = 16 << 10
IDLE_SECONDS = 75.0
_GZIP_FROM_BYTES = 1024


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
        host, colon, port = value.rpartition(":")
        if not colon or not port.isdigit() or int(port) > 65_535:
            raise UserError(f"{value!r} is not an address; write HOST:PORT or :PORT")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def listen(address: Address, *, backlog: int = 1024) -> socket.socket:
    """A listening TCP socket. Raises UserError when the port is in use or may not be used."""
    try:
        if address.host:
            family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
            return socket.create_server((address.host, address.port), family=family, backlog=backlog)
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", address.port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True
            )
        return socket.create_server(("", address.port), backlog=backlog)
    except OSError as error:
        raise UserError(f"cannot listen on {address}: {error.strerror}") from error


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
    given = request.headers.get("authorization", "").encode()
    return token is None or hmac.compare_digest(given, f"Bearer {token}".encode())


async def serve(handler: Handler, sock: socket.socket, *, tls: ssl.SSLContext | None = None) -> asyncio.AbstractServer:
    """Answer requests on a listening socket (TCP or Unix) until the server is closed."""
    loop = asyncio.get_running_loop()
    if sock.family == socket.AF_UNIX:
        return await loop.create_unix_server(lambda: _Connection(handler), sock=sock)
    return await loop.create_server(lambda: _Connection(handler), sock=sock, ssl=tls)


class _Connection(asyncio.Protocol):
    """One client's connection: requests in, answers out, one at a time."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._parser = httptools.HttpRequestParser(self)
        self._tasks: set[asyncio.Task[None]] = set()
        self._queue: list[Request | None] = []
        self._reset()

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._size = 0
        self._header_size = 0
        self._too_large = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._idle.cancel()
        for task in self._tasks:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._transport.close)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._write(text("not an HTTP/1.1 request", 400), head=False, keep_alive=False)

    # httptools

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_size += len(name) + len(value)
        if self._header_size > MAX_HEADER_BYTES:
            self._too_large = True
        else:
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > MAX_BODY_BYTES:
            self._too_large = True
            self._body.clear()
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._too_large:
            self._queue.append(None)
        else:
            path = self._url.decode("latin-1").partition("?")[0]
            method = self._parser.get_method().decode("latin-1")
            self._queue.append(Request(method, path, self._headers, b"".join(self._body)))
        keep_alive = self._parser.should_keep_alive() and len(self._queue) < 8
        self._reset()
        if len(self._queue) == 1:
            task = asyncio.get_running_loop().create_task(self._answer(keep_alive))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, keep_alive: bool) -> None:
        while self._queue:
            request = self._queue[0]
            if request is None:
                response, head = text("the request is too large", 413), False
            else:
                head = request.method == "HEAD"
                try:
                    response = _compressed(request, await self._handler(request))
                except Exception:
                    log.exception("answering %s failed", request.path)
                    response = text("internal error", 500)
            self._write(response, head=head, keep_alive=keep_alive and request is not None)
            self._queue.pop(0)

    def _write(self, response: Response, *, head: bool, keep_alive: bool) -> None:
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
        if not self._transport.is_closing():
            self._transport.write(start if head else start + response.body)
            if not keep_alive:
                self._transport.close()


def _compressed(request: Request, response: Response) -> Response:
    if (
        response.encoding
        or len(response.body) < _GZIP_FROM_BYTES
        or "gzip" not in request.headers.get("accept-encoding", "")
    ):
        return response
    return Response(response.status, gzip.compress(response.body, 1), response.content_type, response.headers, "gzip")
