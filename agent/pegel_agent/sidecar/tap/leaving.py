"""How the tap ends. Clients are told first and new ones still served, because those who send them hear of it late; only
then does it stop listening, and exchanges that are under way get the time to end.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pegel_agent.sidecar.tap.connection import Traffic

log = logging.getLogger("pegel")

_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Ending:
    """The times of an end. It begins with SIGTERM, or before that when `file` appears (what a preStop hook does).

    New connections are served for `lame_duck_seconds` from then, and in any case until SIGTERM; after that, exchanges
    under way get `drain_seconds`. A connection on which nothing was said for `quiet_seconds` counts as idle.
    """

    lame_duck_seconds: float = 5.0
    drain_seconds: float = 20.0
    quiet_seconds: float = 0.5
    file: Path | None = None


ENDING = Ending()


@dataclass(slots=True)
class Shutdown:
    """What has been asked of the process. `leaving` comes first, `asked` is SIGTERM, `at_once` leaves no time."""

    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    at_once: bool = False
    code: int = 0

    def refuse(self) -> None:
        """The settings cannot work."""
        self.code = 2
        self.ask(at_once=True)

    def ask(self, *, at_once: bool) -> None:
        """A signal has come."""
        self.at_once = self.at_once or at_once or self.asked.is_set()
        self.asked.set()
        self.leaving.set()


async def end(
    ending: Ending,
    shutdown: Shutdown,
    traffic: Traffic,
    servers: Sequence[asyncio.AbstractServer],
    model_listens: Callable[[], Awaitable[bool]],
) -> None:
    """Go through the end, once `shutdown.leaving` is set."""
    loop = asyncio.get_running_loop()
    lame_until = loop.time() + ending.lame_duck_seconds
    traffic.leave()
    while not shutdown.at_once and (loop.time() < lame_until or not shutdown.asked.is_set()):
        _close(traffic, quiet_seconds=ending.quiet_seconds, unread_seconds=ending.drain_seconds, told=True)
        if shutdown.asked.is_set() and not traffic.open and not await model_listens():
            break  # a model that has ended has nothing to answer to new connections
        await asyncio.sleep(_LOOK_SECONDS)
    for server in servers:
        server.close()
    began = loop.time()
    if not shutdown.at_once:
        await asyncio.sleep(ending.quiet_seconds)  # what the last have sent is read by then
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ending.drain_seconds):
            while traffic.open and not shutdown.at_once:
                # Who asks again and again on one connection, whatever it is told, has no quiet moment.
                late = loop.time() - began > ending.drain_seconds / 2
                _close(
                    traffic, quiet_seconds=0.0 if late else ending.quiet_seconds,
                    unread_seconds=ending.drain_seconds / 2, told=False,
                )  # fmt: skip
                await asyncio.sleep(_LOOK_SECONDS)
    if traffic.open:
        log.warning("%d connections were not idle in time and are reset", len(traffic.open))


def _close(traffic: Traffic, *, quiet_seconds: float, unread_seconds: float, told: bool) -> None:
    traffic.follow()
    for side in list(traffic.open):
        side.close_if_done(quiet_seconds=quiet_seconds, unread_seconds=unread_seconds, told=told)
