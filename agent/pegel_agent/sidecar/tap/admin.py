"""The admin port. Health and the tap's metrics are the forwarder's own; what the analyser knows is relayed from it."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec
from pegel_exporters.exposition import OPENMETRICS, OPENMETRICS_END, TEXT, Renderer, wants_openmetrics
from pegel_exporters.serving import Address, Request, Response, authorised, text

from pegel_agent.sidecar import frames
from pegel_agent.sidecar.tap.connection import Traffic
from pegel_agent.sidecar.tap.counters import Counters

log = logging.getLogger("pegel")

RELAY_SECONDS = 3.0
_MAX_ANSWER_BYTES = 16 << 20
_MOST_RELAYED = 8
"""Requests that the analyser is asked at the same time; others wait their turn, scrapes in a line of their own."""
_MOST_SCRAPES = 4
_RELAYED = {"/": "GET", "/api/status": "GET", "/v1/feedback": "POST", frames.PROFILE_PATH: "GET"}
_GUARDED = frozenset({"/v1/feedback", frames.PROFILE_PATH})
_METHODS = {**_RELAYED, "/healthz": "GET", "/readyz": "GET", "/metrics": "GET"}


class Admin:
    """Answers the admin port. `version` is Pegel's; `draining` says that no new traffic is wanted.

    `upstreams` are the model's addresses, of which the first says whether it is ready; a sink has none.
    """

    def __init__(
        self,
        *,
        counters: Counters,
        traffic: Traffic,
        upstreams: tuple[Address, ...],
        folder: Path,
        version: str,
        feedback_token: str | None,
        draining: Callable[[], bool],
    ) -> None:
        self._counters = counters
        self._traffic = traffic
        self._upstreams = upstreams
        self._socket = str(folder / frames.HTTP_SOCKET)
        self._version = version
        self._token = feedback_token
        self._draining = draining
        self._renderers = {False: Renderer(), True: Renderer()}
        self._pages, self._scrapes = asyncio.Semaphore(_MOST_RELAYED), asyncio.Semaphore(_MOST_SCRAPES)
        self._asking: asyncio.Task[bool] | None = None

    async def __call__(self, request: Request) -> Response:
        """One request of an operator, a scraper or a probe."""
        method = _METHODS.get(request.path)
        if method is None:
            return text("there is /, /metrics, /healthz, /readyz, /api/status, /v1/profile and POST /v1/feedback", 404)
        if request.method != method and (request.method, method) != ("HEAD", "GET"):
            return Response(405, f"use {method}\n".encode(), headers={"Allow": method})
        if request.path in _RELAYED:
            return await self._relayed(request, method)
        if request.path == "/readyz":
            return await self._ready()
        if request.path == "/metrics":
            return await self._metrics(request)
        return text("ok")

    async def _relayed(self, request: Request, method: str) -> Response:
        if request.path == frames.PROFILE_PATH and self._token is None:
            # A learned one names categories after requests.
            return text("the profile is given only to a bearer token: start with --feedback-token FILE", 403)
        if request.path in _GUARDED and not authorised(request, self._token):
            return Response(401, b"a bearer token is needed\n", headers={"WWW-Authenticate": "Bearer"})
        answer = await self._relay(method, request.path, request.body)
        if answer is None:
            return text("the analyser does not answer; it is being started again, traffic is not affected", 503)
        return answer

    async def model_listens(self) -> bool:
        """Whether the model accepts a connection, or there is none to do so. Who asks while that is being found out
        waits for the same answer."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask_model())
        return await asyncio.shield(self._asking)

    async def _ask_model(self) -> bool:
        for model in self._upstreams[:1]:
            try:
                async with asyncio.timeout(1.0):
                    _, writer = await asyncio.open_connection(model.host, model.port)
            except (OSError, TimeoutError):
                return False
            writer.close()
        return True

    async def _ready(self) -> Response:
        if self._draining():
            return text("shutting down", 503)
        if not await self.model_listens():
            return text(f"the model does not listen on {self._upstreams[0]}", 503)
        return text("ok")

    async def _metrics(self, request: Request) -> Response:
        openmetrics = wants_openmetrics(request.headers.get("accept", ""))
        theirs = await self._relay("GET", "/metrics/openmetrics" if openmetrics else "/metrics/text")
        self._traffic.follow()
        own = self._renderers[openmetrics].render(
            self._counters.families(
                connections=len(self._traffic.open),
                bytes_to_model=self._traffic.bytes_to_model,
                bytes_to_client=self._traffic.bytes_to_client,
                version=self._version,
            ),
            openmetrics=openmetrics,
            end=False,
        )
        page = own + (theirs.body if theirs is not None and theirs.status == 200 else b"")
        return Response(200, page + OPENMETRICS_END if openmetrics else page, OPENMETRICS if openmetrics else TEXT)

    def _state(self) -> frames.TapState:
        self._traffic.follow()
        counters = self._counters
        return frames.TapState(
            requests=counters.total,
            requests_per_second=counters.requests_per_second,
            errors=counters.errors,
            in_flight=counters.in_flight,
            connections=len(self._traffic.open),
            analysed=counters.analysed,
            shed=counters.shed,
            undecodable=counters.undecodable,
            analyser_restarts=counters.restarts,
            p50_seconds=counters.quantile(0.5),
            p95_seconds=counters.quantile(0.95),
            p99_seconds=counters.quantile(0.99),
            refused=counters.refusals,
            refused_last_minute=counters.refusals_last_minute,
            unfollowed={why: n for why, n in counters.unfollowed_reasons.items() if n},
            undecodable_reasons={why: n for why, n in counters.undecodable_reasons.items() if n},
            unwatched_seconds=counters.unwatched_seconds,
            upstream=" or ".join(map(str, self._upstreams)),
            served=counters.served.names,
            served_found=not counters.served.names_given,
            other_model_requests=counters.other_model_requests,
        )

    async def _relay(self, method: str, path: str, body: bytes = b"") -> Response | None:
        """The analyser's answer; None when it has none in time."""
        state = msgspec.json.encode(self._state()).decode("latin-1")  # as headers are, whatever a model is called
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: analyser\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n"
            f"{frames.TAP_STATE_HEADER}: {state}\r\n\r\n"
        )
        writer = None
        turn = self._scrapes if path.startswith("/metrics/") else self._pages
        try:
            async with asyncio.timeout(RELAY_SECONDS), turn:
                reader, writer = await asyncio.open_unix_connection(self._socket, limit=_MAX_ANSWER_BYTES)
                writer.write(head.encode("latin-1") + body)
                answer = await reader.read(-1)
            return _parse(answer)
        except (OSError, TimeoutError, ValueError):
            return None
        finally:
            if writer is not None:
                with contextlib.suppress(OSError):
                    writer.close()


def _parse(answer: bytes) -> Response:
    """An answer of our own server, ended by its close. Raises ValueError when it is not whole."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    start, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    if not separator or int(headers.pop("content-length")) != len(body):
        raise ValueError("a truncated answer")
    content_type = headers.pop("content-type")
    kept = {name.title(): headers[name] for name in ("content-security-policy", "cache-control") if name in headers}
    return Response(int(start.split(" ")[1]), body, content_type, kept)
