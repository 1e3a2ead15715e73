"""The analyser process: exchanges in through one socket, metrics, labels and the status page out through another.

It may be killed at any time without a client noticing. It keeps itself below a memory limit, takes only the processor
time that others leave, and ends when the forwarder does.
"""

import asyncio
import contextlib
import gc
import logging
import math
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import uvloop
from pegel_exporters import logs
from pegel_exporters.errors import OUR_FAILURE, UserError, place_of
from pegel_exporters.exposition import OPENMETRICS, TEXT, Family, Renderer
from pegel_exporters.serving import Request, Response, serve, text

from pegel_agent.reference import profile as profiles
from pegel_agent.reference.keys import key_for
from pegel_agent.sidecar import feedback, frames
from pegel_agent.sidecar.blindness import decoding_reason
from pegel_agent.sidecar.monitor.model import Monitor, MonitorSettings
from pegel_agent.sidecar.paths import PROTOCOLS
from pegel_agent.sidecar.protocols import Exchange, Inference, Undecodable, decode, read_exchange
from pegel_agent.sidecar.protocols.messages import client_id
from pegel_agent.sidecar.settings import AnalyserSettings
from pegel_agent.sidecar.status.page import CONTENT_SECURITY_POLICY, CONTENT_TYPE, render
from pegel_agent.statistics.budget import Window

log = logging.getLogger("pegel")

MAX_BODY_BYTES = 1 << 20
MAX_LISTS = 50_000
"""Lists and objects in one body: each is many times larger in memory than on the wire."""
OUT_OF_MEMORY = 3
"""Exit code at the memory limit."""
_NICENESS = 10
_MAX_DIGITS = 640
"""Of an integer: Python's time for one grows with the square of them. No float64 has half as many."""
_MIN_GROWTH_BYTES = 16 << 20
_NOT_SMALL = 200
_LOG_UNDECODABLE_EVERY_SECONDS = 60.0


class Analyser:
    """What the process knows: the monitor of its model, and the model's labels."""

    def __init__(self, monitor: Monitor, labels: feedback.Labels, model: tuple[str, str]) -> None:
        self._monitor = monitor
        self._labels = labels
        self._model = model
        self._renderers = {False: Renderer(), True: Renderer()}
        self._undecodable_logged = 0.0
        self.served_as: str | None = None
        """The name by which the model is served, once an exchange of it was found to fit."""
        self.analysed = 0
        self.undecodable = 0

    def exchange(self, protocol: str, request: bytes, response: bytes, ended: float, name: str = "") -> int:
        """Take in one exchange that ended at this Unix time; what became of it, by frames.py.

        It is of the model that is served by this name. The first that was answered with success and fits says that the
        model is that one: nothing of others is taken in from then on. Without a name it is the model's for certain.
        """
        if name and self.served_as not in {None, name}:
            return frames.OTHER_MODEL
        reason = self._take_in(protocol, request, response, ended, name)
        return frames.ANALYSED if reason is None else frames.UNDECODABLE[reason]

    def _take_in(self, protocol: str, request: bytes, response: bytes, ended: float, name: str) -> str | None:
        """Why the exchange could not be read, by one of blindness.DECODING; None where it could."""
        try:
            exchange = read_exchange(request, response, max_body_bytes=MAX_BODY_BYTES)
            if not 200 <= exchange.status < 300:  # what a model refuses is not its data, but it is understood
                self.analysed += 1
                return None
            for body in (exchange.request, exchange.response):
                if len(body) > MAX_LISTS and body.count(b"[") + body.count(b"{") > MAX_LISTS:
                    raise Undecodable("too many lists")
            inference = decode(protocol, exchange)
            self._monitor.add(inference, ended)
        except Undecodable as reason:
            return self._refuse(str(reason))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            # A mistake of ours on one exchange must not cost the evidence of all others.
            return self._refuse(place_of(error))
        self.analysed += 1
        if name:
            self.served_as = name
        self._remember(exchange, inference, ended)
        return None

    def _remember(self, exchange: Exchange, inference: Inference, ended: float) -> None:
        """Keep what labels will be compared with."""
        labels = self._labels
        scores: list[float] = []
        if labels.expected is not None and labels.performance is not None:
            scores = feedback.scores_of(inference, binary=labels.performance.kind == "binary").tolist()
            labels.expected.add(scores)
        if inference.request_id is None:
            return
        other_id = client_id(exchange)
        for row, prediction in enumerate(feedback.predictions_of(inference)):
            score = None if not scores or math.isnan(scores[row]) else scores[row]
            labels.predicted(inference.request_id, row, prediction, ended, score=score, other_id=other_id)

    def tick(self, now: float) -> None:
        """A quarter of a second has passed."""
        self._monitor.tick(now)

    def second(self, now: float) -> None:
        """A second has passed."""
        self._labels.tick(now)

    async def __call__(self, request: Request) -> Response:
        """What the forwarder relays."""
        with _ends_the_process_without_memory():
            return self._answer(request)

    def _answer(self, request: Request) -> Response:
        now = time.time()
        if request.path.startswith("/metrics/"):
            openmetrics = request.path == "/metrics/openmetrics"
            page = self._renderers[openmetrics].render(self.families(), openmetrics=openmetrics, end=False)
            return Response(200, page, OPENMETRICS if openmetrics else TEXT)
        if request.path == "/v1/feedback":
            return self._feedback(request, now)
        if request.path == frames.PROFILE_PATH:
            return self._profile()
        tap = msgspec.json.decode(request.headers[frames.TAP_STATE_HEADER].encode("latin-1"), type=frames.TapState)
        state = self._monitor.state(now=now, tap=tap, accuracy=self._labels.state())
        if request.path == "/api/status":
            return Response(200, msgspec.json.encode(state), "application/json")
        return Response(
            200, render(state), CONTENT_TYPE,
            {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-store"},
        )  # fmt: skip

    def _feedback(self, request: Request, now: float) -> Response:
        try:
            items = feedback.items_of(request.body)
        except UserError as error:
            return text(str(error), 400)
        answer = self._labels.take(items, now)
        if answer.reason is not None and answer.rejected == len(items):
            return text(answer.reason, 400)
        return Response(202, msgspec.json.encode(answer), "application/json")

    def _profile(self) -> Response:
        profile = self._monitor.profile
        if profile is None:
            return text("the reference is still being learned; the page for people says how far it is", 404)
        return Response(200, profiles.encoded(profile), "application/json")

    def families(self) -> list[Family]:
        """The analyser's part of the page."""
        return [*self._monitor.families(), *feedback.families(self._labels, self._model, time.time())]

    def _refuse(self, message: str) -> str:
        self.undecodable += 1
        now = time.monotonic()
        if not self._undecodable_logged or now - self._undecodable_logged > _LOG_UNDECODABLE_EVERY_SECONDS:
            self._undecodable_logged = now
            log.warning("an exchange could not be decoded: %s (%d so far)", message, self.undecodable)
        return decoding_reason(message)


@contextlib.contextmanager
def _ends_the_process_without_memory() -> Iterator[None]:
    """At the memory limit nothing can be relied on: end at once, to be started again, rather than hang half alive."""
    try:
        yield
    except MemoryError:
        os.write(sys.stderr.fileno(), b"pegel: the analyser met its memory limit and ends\n")
        os._exit(OUT_OF_MEMORY)


class _Frames(asyncio.Protocol):
    """The forwarder's connection: frames in, acknowledgements out."""

    def __init__(self, analyser: Analyser) -> None:
        self._analyser = analyser
        self._rest = bytearray()
        self._wanted = frames.HEADER.size
        self._outcomes = bytearray()
        self._told: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._beat()

    def data_received(self, data: bytes) -> None:
        with _ends_the_process_without_memory():
            if self._rest:
                self._rest += data
                if len(self._rest) < self._wanted:
                    return
                data = bytes(self._rest)
                self._rest.clear()
            at, size = 0, frames.HEADER.size
            self._wanted = size
            while len(data) - at >= size:
                asked, answered, protocol, named, _, began, took = frames.HEADER.unpack_from(data, at)
                start = at + size + named
                middle = start + asked
                end = middle + answered
                if len(data) < end:
                    self._wanted = end - at
                    break
                name = data[at + size : start].decode()
                outcome = self._analyser.exchange(
                    PROTOCOLS[protocol], data[start:middle], data[middle:end], began + took, name
                )
                self._outcomes.append(outcome)
                at = end
                if self._analyser.served_as != self._told:
                    self._acknowledge()
            self._rest += data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()

    def _beat(self) -> None:
        """Acknowledge, even when there is nothing to: silence means that this process hangs."""
        self._acknowledge()
        self._timer = asyncio.get_running_loop().call_later(frames.ACKNOWLEDGE_EVERY_SECONDS, self._beat)

    def _acknowledge(self) -> None:
        name = b""
        if self._analyser.served_as != self._told:  # the sooner the forwarder knows, the less it need send
            self._told = self._analyser.served_as
            name = (self._told or "").encode()
        self._transport.write(frames.ACKNOWLEDGEMENT.pack(len(self._outcomes), len(name)) + self._outcomes + name)
        self._outcomes.clear()


async def _run(settings: AnalyserSettings, analyser: Analyser) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_on_loop_error)
    folder = Path(settings.socket_folder)
    for name in (frames.HTTP_SOCKET, frames.EXCHANGE_SOCKET):
        with contextlib.suppress(FileNotFoundError):
            (folder / name).unlink()  # the one of an analyser that was killed
    orphaned = asyncio.Event()
    loop.add_reader(sys.stdin, lambda: None if os.read(0, 1) else orphaned.set())
    http_socket = socket.socket(socket.AF_UNIX)
    http_socket.bind(str(folder / frames.HTTP_SOCKET))
    servers = (  # kept: a server that nobody holds is collected and closed
        await serve(analyser, http_socket),
        await loop.create_unix_server(lambda: _Frames(analyser), str(folder / frames.EXCHANGE_SOCKET)),
    )
    ticks = 0
    while not orphaned.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(orphaned.wait(), 0.25)
        ticks += 1
        with _ends_the_process_without_memory():
            analyser.tick(time.time())
            if ticks % 4 == 0:
                analyser.second(time.time())
    for server in servers:
        server.close()


def _limit_memory(resident_bytes: int) -> None:
    """Let what is in memory grow to about so much, and by 16 MiB at least.

    The kernel limits address space that may be written, of which libraries reserve far more than they use and each
    machine's another amount; so the limit is what is reserved after the start, and what may be added to it.
    """
    # OpenBLAS reserves 32 MiB at the first product that isn't small, and ends the process where it may not.
    square = np.ones((_NOT_SMALL, _NOT_SMALL))
    square @ square
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return  # not Linux: a demo on a laptop
    sizes = {line.split()[0]: int(line.split()[1]) << 10 for line in lines if line.startswith(("VmRSS:", "VmData:"))}
    limit = sizes["VmData:"] + max(resident_bytes - sizes["VmRSS:"], _MIN_GROWTH_BYTES)
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))


def _on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    with _ends_the_process_without_memory():
        if isinstance(error := context.get("exception"), MemoryError):
            raise error
        loop.default_exception_handler(context)


def _analyser(settings: AnalyserSettings, now: float) -> Analyser:
    """Raises UserError for a profile that cannot be read or watched."""
    profile = profiles.load(settings.profile) if settings.profile else None
    key = None
    if settings.profile is not None and profile is not None:
        key = key_for(settings.profile, profile.category_key, settings.category_key)
    model, window = (settings.model_name, settings.model_version), Window(settings.window_seconds, settings.window_rows)
    told = MonitorSettings(*model, window, settings.budget_windows, settings.tolerance, key)
    try:
        monitor = Monitor(told, profile, now)
    except (ArithmeticError, LookupError, ValueError) as error:
        if profile is None:
            raise
        raise UserError(
            f"{settings.profile} cannot be watched; build it anew with pegel profile build ({error})"
        ) from error
    labels = feedback.Labels(
        *model,
        profile.performance if profile is not None else None,
        window=window,
        budget_windows=settings.budget_windows,
        horizon_seconds=settings.label_horizon_seconds,
    )
    return Analyser(monitor, labels, model)


def main() -> None:
    """Run with the settings in the first argument until standard input ends."""
    settings = msgspec.json.decode(sys.argv[1], type=AnalyserSettings)
    logs.set_up(settings.log_format)
    os.nice(_NICENESS)
    sys.set_int_max_str_digits(_MAX_DIGITS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the forwarder's: it drains, then ends this
    try:
        analyser = _analyser(settings, time.time())
    except UserError as error:
        print(f"pegel: {error}", file=sys.stderr)
        sys.exit(2)
    gc.freeze()
    _limit_memory(settings.memory_bytes)
    try:
        uvloop.run(_run(settings, analyser))
    except Exception as error:
        log.error("the analyser failed: %s", place_of(error))
        sys.exit(OUR_FAILURE)


if __name__ == "__main__":
    main()
