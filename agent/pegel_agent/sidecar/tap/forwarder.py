"""The forwarder process: traffic through or events in, exchanges counted, the analyser kept running, the admin port
answered."""

import asyncio
import gc
import logging
import signal
import socket
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import uvloop
from pegel_exporters import logs
from pegel_exporters.errors import UserError
from pegel_exporters.keepalive import KEEPALIVE, Keepalive
from pegel_exporters.serving import LIMITS, Address, Limits, allow_many_connections, listen, serve

from pegel_agent.sidecar.settings import AnalyserSettings
from pegel_agent.sidecar.tap.admin import Admin
from pegel_agent.sidecar.tap.connection import ClientSide, Traffic, reset
from pegel_agent.sidecar.tap.counters import Counters
from pegel_agent.sidecar.tap.courier import Courier
from pegel_agent.sidecar.tap.descriptors import Shares, shared_out
from pegel_agent.sidecar.tap.leaving import ENDING, Ending, Shutdown, end
from pegel_agent.sidecar.tap.peers import PATIENCE, Patience
from pegel_agent.sidecar.tap.served import Served
from pegel_agent.sidecar.tap.sink import Sink
from pegel_agent.sidecar.tap.supervisor import keep_running
from pegel_agent.sidecar.tap.turns import MAX_COPY_BYTES, Observer

log = logging.getLogger("pegel")

_COLLECT_SECONDS = 30.0
_LONGEST_TEMPORARY = 77
"""A socket's whole name may have 107 characters."""


@dataclass(frozen=True, slots=True)
class Forward:
    """A port, and where its connections go. An upstream without a host is on this one."""

    listen: Address
    upstream: Address


@dataclass(frozen=True, slots=True)
class ForwarderSettings:
    """Where the tap listens, where the model is, where operators look. `analyser` is None to only count.

    Without `upstream` it forwards nothing: it listens for the events of KServe's payload logger, and each waits
    `join_seconds` for its other half. `forwards` are more ports of the model. What the model is served by is found in
    the traffic unless `served_models` says it; requests for other models, and for versions that are not among
    `served_versions`, are not its own. An analyser that says nothing for `silence_seconds` is started again. `ending`
    has the times of the end. `keepalive` and `patience` say when a peer of the model's ports counts as gone, on either
    side, `limits` what clients may take of the admin port and of a sink.
    """

    listen: Address
    upstream: Address | None
    admin: Address
    model_name: str
    model_version: str
    version: str
    analyser: AnalyserSettings | None
    forwards: tuple[Forward, ...] = ()
    feedback_token: str | None = None
    served_models: tuple[str, ...] = ()
    served_versions: tuple[str, ...] = ()
    join_seconds: float = 300.0
    silence_seconds: float = 30.0
    ending: Ending = ENDING
    keepalive: Keepalive = KEEPALIVE
    patience: Patience = PATIENCE
    limits: Limits = LIMITS


@dataclass(frozen=True, slots=True)
class _Ports:
    """Sockets that listen, and how many connections they may have."""

    admin: socket.socket
    traffic: tuple[socket.socket, ...]
    shares: Shares


def run(settings: ForwarderSettings) -> int:
    """Forward until SIGTERM, which lets exchanges under way end, or SIGINT; the exit code.

    It is 2 when the analyser refuses its settings at its first start, having said why. Raises UserError for a port in
    use.
    """
    admin = listen(settings.admin)
    addresses = (settings.listen, *(forward.listen for forward in settings.forwards))
    traffic = tuple(_listen_for_traffic(address, settings) for address in addresses)
    if settings.ending.file is not None:  # of a container that ran in this pod before
        settings.ending.file.unlink(missing_ok=True)
    return uvloop.run(_until_signalled(settings, _Ports(admin, traffic, shared_out(allow_many_connections()))))


def _listen_for_traffic(address: Address, settings: ForwarderSettings) -> socket.socket:
    return listen(address) if settings.upstream is None else listen(address, keepalive=settings.keepalive)


async def _until_signalled(settings: ForwarderSettings, ports: _Ports) -> int:
    loop = asyncio.get_running_loop()
    shutdown = Shutdown()
    loop.add_signal_handler(signal.SIGTERM, partial(shutdown.ask, at_once=False))
    loop.add_signal_handler(signal.SIGINT, partial(shutdown.ask, at_once=True))
    with _temporary_folder() as folder:
        return await _run(settings, ports, Path(folder), shutdown)


def _temporary_folder() -> "tempfile.TemporaryDirectory[str]":
    try:
        within = tempfile.gettempdir()
        if len(within) > _LONGEST_TEMPORARY:
            raise UserError(f"{within} is too long a name for sockets to be in; set TMPDIR to a shorter one")
        return tempfile.TemporaryDirectory(prefix="pegel-")
    except OSError as error:
        raise UserError(
            "no folder can be written to, which the sockets between the two processes need: in a container with a "
            "read-only root, mount an emptyDir at /tmp"
        ) from error


async def _run(settings: ForwarderSettings, ports: _Ports, folder: Path, shutdown: Shutdown) -> int:
    loop = asyncio.get_running_loop()
    served = Served(settings.served_models, settings.served_versions)
    counters = Counters(settings.model_name, settings.model_version, served)
    courier = Courier(counters)
    traffic = Traffic(
        Observer(counters.begun, courier.ended, counters.unfollowed, counters.watched), refused=counters.refused,
        crowded_out=counters.crowded_out, most=ports.shares.clients,
        keepalive=settings.keepalive, patience=settings.patience,
    )  # fmt: skip
    forwards = _forwards(settings)
    admin = Admin(
        counters=counters, traffic=traffic, upstreams=tuple(each.upstream for each in forwards),
        folder=folder, version=settings.version,
        feedback_token=settings.feedback_token, draining=shutdown.leaving.is_set,
    )  # fmt: skip
    admin_server = await serve(
        admin, ports.admin, limits=settings.limits.within(ports.shares.admin), name="the admin port",
        gave_way=counters.admin_gave_way,
    )  # fmt: skip
    ticks: list[Callable[[], None]] = [counters.tick, traffic.tick, partial(_look_for, settings.ending.file, shutdown)]
    traffic_servers: list[asyncio.AbstractServer] = []
    if forwards:
        for each, sock in zip(forwards, ports.traffic, strict=True):
            traffic_servers.append(await loop.create_server(partial(ClientSide, traffic, each.upstream), sock=sock))
    else:
        sink = Sink(counters, courier, seconds=settings.join_seconds)
        ticks.append(sink.tick)
        traffic_servers.append(
            await serve(
                sink, ports.traffic[0], max_body_bytes=MAX_COPY_BYTES, without_body=sink.without_body,
                limits=settings.limits.within(ports.shares.clients), name="the sink", gave_way=counters.admin_gave_way,
                leaving=shutdown.leaving.is_set,
            )
        )  # fmt: skip
    tasks = [loop.create_task(_housekeeping(ticks))]
    if settings.analyser is not None:
        analyser = msgspec.structs.replace(settings.analyser, socket_folder=str(folder), log_format=logs.log_format())
        tasks.append(loop.create_task(keep_running(analyser, courier, counters, shutdown.refuse,
                                                   silence_seconds=settings.silence_seconds)))  # fmt: skip
    log.info("watching %s: %s, status page on http://%s/", settings.model_name,
             ", ".join(f"{each.listen} to {each.upstream}" for each in forwards) or f"events on {settings.listen}",
             Address(settings.admin.host or "localhost", settings.admin.port))  # fmt: skip
    # What start-up left is never garbage; from here on only cycles need a collector, now and then.
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        await shutdown.leaving.wait()
        await end(settings.ending, shutdown, traffic, traffic_servers, admin.model_listens)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for side in list(traffic.open):
            if side.transport is not None:
                reset(side.transport)  # what is cut off here must not look complete
        admin_server.close()
    return shutdown.code


def _forwards(settings: ForwarderSettings) -> tuple[Forward, ...]:
    """All that is forwarded, the model's first port first; nothing by a sink."""
    if settings.upstream is None:
        return ()
    return tuple(
        Forward(each.listen, Address(each.upstream.host or "127.0.0.1", each.upstream.port))
        for each in (Forward(settings.listen, settings.upstream), *settings.forwards)
    )


async def _housekeeping(ticks: Sequence[Callable[[], None]]) -> None:
    seconds = 0
    while True:
        await asyncio.sleep(1.0)
        for tick in ticks:
            tick()
        seconds += 1
        if seconds % _COLLECT_SECONDS == 0:
            gc.collect()


def _look_for(file: Path | None, shutdown: Shutdown) -> None:
    if file is not None and not shutdown.leaving.is_set() and file.exists():
        log.info("leaving soon: clients are asked to connect elsewhere")
        shutdown.leaving.set()
