"""The forwarder process: traffic through, exchanges counted, the analyser kept running, the admin port answered."""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
import uvloop
from pegel_exporters.serving import Address, listen, serve

from pegel_agent.sidecar.settings import AnalyserSettings
from pegel_agent.sidecar.tap.admin import Admin
from pegel_agent.sidecar.tap.connection import ClientSide, Traffic, reset
from pegel_agent.sidecar.tap.counters import Counters
from pegel_agent.sidecar.tap.courier import Courier
from pegel_agent.sidecar.tap.supervisor import keep_running
from pegel_agent.sidecar.tap.turns import Observer

log = logging.getLogger("pegel")

_COLLECT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class ForwarderSettings:
    """Where the tap listens, where the model is, where operators look. `analyser` is None to only count.

    An analyser that says nothing for `silence_seconds` is started again; after SIGTERM exchanges under way get
    `drain_seconds` to end.
    """

    listen: Address
    upstream: Address
    admin: Address
    model_name: str
    model_version: str
    version: str
    analyser: AnalyserSettings | None
    feedback_token: str | None = None
    silence_seconds: float = 30.0
    drain_seconds: float = 25.0


@dataclass(slots=True)
class _Shutdown:
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    at_once: bool = False
    code: int = 0

    def refuse(self) -> None:
        """The settings cannot work."""
        self.code = 2
        self.ask(at_once=True)

    def ask(self, *, at_once: bool) -> None:
        self.at_once = self.at_once or at_once or self.asked.is_set()
        self.asked.set()


def run(settings: ForwarderSettings) -> int:
    """Forward until SIGTERM, which lets exchanges under way end, or SIGINT; the exit code.

    It is 2 when the analyser refuses its settings at its first start, having said why. Raises UserError for a port in
    use.
    """
    traffic_socket, admin_socket = listen(settings.listen), listen(settings.admin)
    _allow_many_connections()
    return uvloop.run(_until_signalled(settings, traffic_socket, admin_socket))


def _allow_many_connections() -> None:
    """Each connection takes two descriptors, and the usual soft limit is 1024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _until_signalled(
    settings: ForwarderSettings, traffic_socket: socket.socket, admin_socket: socket.socket
) -> int:
    loop = asyncio.get_running_loop()
    shutdown = _Shutdown()
    loop.add_signal_handler(signal.SIGTERM, partial(shutdown.ask, at_once=False))
    loop.add_signal_handler(signal.SIGINT, partial(shutdown.ask, at_once=True))
    with tempfile.TemporaryDirectory(prefix="pegel-") as folder:
        return await _run(settings, traffic_socket, admin_socket, Path(folder), shutdown)


async def _run(
    settings: ForwarderSettings,
    traffic_socket: socket.socket,
    admin_socket: socket.socket,
    folder: Path,
    shutdown: _Shutdown,
) -> int:
    loop = asyncio.get_running_loop()
    counters = Counters(settings.model_name, settings.model_version)
    courier = Courier(counters)
    traffic = Traffic(
        settings.upstream.host or "127.0.0.1", settings.upstream.port,
        Observer(counters.begun, courier.ended, counters.unfollowed), refused=counters.refused,
    )  # fmt: skip
    admin = Admin(
        counters=counters, traffic=traffic, folder=folder, version=settings.version,
        feedback_token=settings.feedback_token, draining=shutdown.asked.is_set,
    )  # fmt: skip
    admin_server = await serve(admin, admin_socket)
    traffic_server = await loop.create_server(lambda: ClientSide(traffic), sock=traffic_socket)
    tasks = [loop.create_task(_housekeeping(counters))]
    if settings.analyser is not None:
        analyser = msgspec.structs.replace(settings.analyser, socket_folder=str(folder))
        tasks.append(loop.create_task(keep_running(analyser, courier, counters, shutdown.refuse,
                                                   silence_seconds=settings.silence_seconds)))  # fmt: skip
    log.info("watching %s: %s to %s, status page on http://%s/", settings.model_name, settings.listen,
             settings.upstream, Address(settings.admin.host or "localhost", settings.admin.port))  # fmt: skip
    # What start-up left is never garbage; from here on only cycles need a collector, now and then.
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        await shutdown.asked.wait()
        traffic_server.close()
        await _drain(traffic, shutdown, settings.drain_seconds)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for side in list(traffic.open):
            if side.transport is not None:
                reset(side.transport)  # what is cut off here must not look complete
        admin_server.close()
    return shutdown.code


async def _housekeeping(counters: Counters) -> None:
    seconds = 0
    while True:
        await asyncio.sleep(1.0)
        counters.tick()
        seconds += 1
        if seconds % _COLLECT_SECONDS == 0:
            gc.collect()


async def _drain(traffic: Traffic, shutdown: _Shutdown, seconds: float) -> None:
    """Wait until exchanges under way have ended, closing connections as they fall idle."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while traffic.open and not shutdown.at_once:
                traffic.follow()
                for side in list(traffic.open):
                    side.close_if_idle()
                await asyncio.sleep(0.02)
