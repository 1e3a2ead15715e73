"""The exporter as it runs: readings in at an interval, the page out as often as it is asked for.

Reading, asking the kubelet and rendering are loops of their own, so that a driver or a kubelet that hangs makes what
they told older, never the page slower. What they make of it is worked out in one thread beside the event loop, which
hands out the last page meanwhile; nothing else touches what is known.
"""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from typing import ParamSpec, TypeVar

from pegel_exporters import catalogue
from pegel_exporters.exposition import OPENMETRICS, TEXT, Family, Page, Renderer, wants_openmetrics
from pegel_exporters.gpu import accounts, page
from pegel_exporters.gpu.accounts import LONGEST_SECONDS, Accounts
from pegel_exporters.gpu.cluster import Cluster
from pegel_exporters.gpu.fleet import Watch
from pegel_exporters.gpu.metrics import Fleet
from pegel_exporters.gpu.podresources import Holding, KubeletUnavailableError
from pegel_exporters.gpu.pods import PodsWatch
from pegel_exporters.gpu.prices import Prices
from pegel_exporters.gpu.readings import DriverUnavailableError, Node
from pegel_exporters.gpu.sets import MetricSet, families
from pegel_exporters.gpu.shares import Share, shares
from pegel_exporters.gpu.simulated import DriverHangsError, Source
from pegel_exporters.gpu.worker import Worker, unanswered
from pegel_exporters.serving import Limits, Request, Response, accepts_gzip, allow_many_connections, serve, text

log = logging.getLogger("pegel")

T = TypeVar("T")
P = ParamSpec("P")
Read = Callable[[], Awaitable[Node]]
Ask = Callable[[], Awaitable[tuple[Holding, ...]]]
OwnersOf = Callable[[Iterable[int]], Mapping[int, tuple[str, str]]]
ClusterOf = Callable[[], Cluster]

LONGEST_PAUSE_SECONDS = 10.0
"""How long a missing driver is left alone before it is looked for again."""
STUCK_SECONDS = 60.0
"""Age of the page at which it isn't alive any more, or three intervals if that is longer: a disk that hangs holds up
the thread that reads whose processes there are, and only a new start helps."""
STALE_SECONDS = 15.0
"""Age at which a reading's values leave the page, or three intervals if that is longer."""
RELEASED = "it was released by SIGUSR1; SIGUSR2 takes it again"
SHORTEST_TIMEOUT_SECONDS = 2.0
SWITCH_SECONDS = 0.0005
"""How long a scrape waits at most for Python's lock, each time it needs it, while the thread beside it works."""
SHORTEST_ASK_SECONDS, LONGEST_ASK_SECONDS = 1.0, 10.0
"""The kubelet is asked at the interval within these bounds: its rate limit is one for all of its clients."""


class Exporter:
    """What the page shows, kept up to date by `watch`, `attribute` and `render`, answered by `handle`."""

    def __init__(
        self,
        *,
        interval: float,
        sets: tuple[MetricSet, ...],
        hostname: str,
        prices: Prices,
        owners: OwnersOf,
        cluster: ClusterOf,
    ) -> None:
        self._interval = interval
        self._cluster = cluster
        self._sets = sets
        self._hostname = hostname
        self._owners = owners
        self._accounts = Accounts(prices, longest=max(LONGEST_SECONDS, 3 * interval))
        self._shares: tuple[Share, ...] = ()
        self._shown: frozenset[str] = frozenset()
        """The GPUs on the page that is handed out."""
        self._scrapes: dict[frozenset[str], float] = {}
        """When pages with these GPUs were first handed out since the last reading."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="page")
        self._pods: PodsWatch | None = None
        self._watch = Watch(stale_after=max(3 * interval, STALE_SECONDS))
        self._renderers = Renderer(), Renderer()
        self._build = Family(catalogue.BUILD_INFO, {("", "", version("pegel")): 1.0})
        self._changed = asyncio.Event()
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._asked = False
        self._ready = False
        self._worked_out = time.monotonic()
        """When the page was."""
        self._page = self._rendered()[0]

    async def _beside(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What comes of some work, done in the thread after all that was asked for before."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(*args, **kwargs))

    async def watch(self, read: Read) -> None:
        """Read at every interval, less often while there is no driver. Runs until cancelled."""
        pause = self._interval
        while True:
            while not self._wanted.is_set():  # a released GPU costs as ever
                await self._beside(self._account)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wanted.wait(), self._interval)
            began = time.monotonic()
            try:
                node = await read()
            except DriverUnavailableError as error:
                await self._beside(self._failed, str(error))
                pause = max(self._interval, min(2 * pause, LONGEST_PAUSE_SECONDS))
            else:
                scrapes, self._scrapes = self._scrapes, {}
                await self._beside(self._took, node, scrapes, time.monotonic())
                pause = self._interval
            self._asked = True
            self._changed.set()
            await asyncio.sleep(began + pause - time.monotonic())

    def _took(self, node: Node, scrapes: Mapping[frozenset[str], float], now: float) -> None:
        if not self._wanted.is_set():  # it was released while it answered
            return self._failed(RELEASED)
        for shown, at in scrapes.items():
            self._watch.scraped(shown, at)
        for line in self._watch.took(node, now):
            log.info("%s", line)
        self._account()

    def _failed(self, reason: str) -> None:
        for line in self._watch.failed(reason if self._wanted.is_set() else RELEASED):
            log.warning("%s", line)
        self._account()

    def _account(self) -> None:
        """Time has passed: whose was it?"""
        fleet = self._fleet()
        told = fleet.pods.allocations if fleet.pods else None
        if told is None:
            self._shares = ()
        else:
            pids = [process.pid for gauge in fleet.gauges for process in gauge.reading.processes]
            self._shares = shares(told, fleet.gauges, self._owners(pids))
        self._accounts.take(fleet.gauges, None if told is None else self._shares, time.monotonic())

    def release(self) -> None:
        """Leave the driver alone until `take`, so that it can be unloaded: whoever reads it must be ended as well."""
        self._wanted.clear()

    def take(self) -> None:
        """Read the driver again."""
        self._wanted.set()

    async def left(self) -> None:
        """The driver was released, and whoever read it has ended."""
        if not self._wanted.is_set():
            await self._beside(self._failed, RELEASED)
            self._changed.set()

    async def attribute(self, ask: Ask) -> None:
        """Ask the kubelet who holds the GPUs, at every interval or so. Runs until cancelled."""
        self._pods = pods = PodsWatch()
        pause = min(max(self._interval, SHORTEST_ASK_SECONDS), LONGEST_ASK_SECONDS)
        while True:
            began = time.monotonic()
            try:
                holdings = await ask()
            except KubeletUnavailableError as error:
                news, level = await self._beside(pods.failed, error), logging.WARNING
            else:
                news, level = await self._beside(self._held, pods, holdings, time.monotonic()), logging.INFO
            for line in news:
                log.log(level, "%s", line)
            self._changed.set()
            await asyncio.sleep(began + pause - time.monotonic())

    def _held(self, pods: PodsWatch, holdings: tuple[Holding, ...], now: float) -> list[str]:
        return pods.took(holdings, self._watch.fleet(now), now, self._cluster())

    async def render(self) -> None:
        """Render after every reading, and at every interval without one: ages grow. Runs until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._changed.wait()
            self._changed.clear()
            asked = self._asked
            self._page, self._shown = await self._beside(self._rendered)
            self._ready = asked
            self._worked_out = time.monotonic()

    def _rendered(self) -> tuple[Page, frozenset[str]]:
        """The page as of now, and the GPUs on it."""
        fleet = self._fleet()
        gc.collect()  # a closed connection's transport holds on to itself; `run` has frozen all that stays
        return Page.of(self._told(fleet), *self._renderers), frozenset(gauge.reading.uuid for gauge in fleet.gauges)

    def _told(self, fleet: Fleet) -> tuple[Family, ...]:
        mine = (*accounts.families(fleet.gauges, self._shares, self._accounts.prices), *self._accounts.families())
        return self._build, *families(fleet, self._sets, hostname=self._hostname, accounts=mine)

    def _fleet(self) -> Fleet:
        now = time.monotonic()
        fleet = replace(self._watch.fleet(now), released=not self._wanted.is_set())
        return replace(fleet, pods=self._pods.pods(fleet, now, self._cluster())) if self._pods else fleet

    async def handle(self, request: Request) -> Response:
        """Answer /metrics, /healthz, /readyz (the page tells what the driver said, if anything) and /."""
        if request.method not in ("GET", "HEAD"):
            return Response(405, b"only GET and HEAD\n", headers={"Allow": "GET, HEAD"})
        match request.path:
            case "/metrics":
                self._scrapes.setdefault(self._shown, time.monotonic())
                return _metrics(request, self._page)
            case "/healthz":
                return self._alive()
            case "/readyz":
                return text("ready") if self._ready else text("the driver was not asked yet", 503)
            case "/":
                return Response(200, await self._beside(self._for_people), "text/html; charset=utf-8")
            case _:
                return text("not found; there are /, /metrics, /healthz and /readyz", 404)

    def _alive(self) -> Response:
        age = time.monotonic() - self._worked_out
        if age > max(STUCK_SECONDS, 3 * self._interval):
            return text(f"the page is {age:.0f} seconds old: what works it out is stuck", 503)
        return text("ok")

    def _for_people(self) -> bytes:
        return page.page(self._fleet(), self._shares, self._accounts)


def _metrics(request: Request, rendered: Page) -> Response:
    opened, packed = wants_openmetrics(request.headers.get("accept", "")), accepts_gzip(request)
    body = {
        (False, False): rendered.text,
        (False, True): rendered.text_gzip,
        (True, False): rendered.openmetrics,
        (True, True): rendered.openmetrics_gzip,
    }[opened, packed]
    return Response(200, body, OPENMETRICS if opened else TEXT, encoding="gzip" if packed else "")


async def run(
    sock: socket.socket,
    *,
    interval: float,
    sets: tuple[MetricSet, ...],
    simulate: Source | None,
    ask: Ask | None = None,
    owners: OwnersOf,
    prices: Prices,
    cluster: ClusterOf = Cluster,
    hostname: str = "",
) -> None:
    """Export until SIGTERM or SIGINT; SIGUSR1 releases the driver, SIGUSR2 takes it again.

    `interval` is in seconds; `simulate` stands in for the driver. `ask` tells who holds the GPUs; without it the page
    says nothing of pods. `owners` tells the pods of processes, `cluster` what the API server knows of them. `hostname`
    is the node's, for dcgm's labels.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    timeout = max(2 * interval, SHORTEST_TIMEOUT_SECONDS)
    worker = Worker(timeout=timeout)
    exporter = Exporter(interval=interval, sets=sets, hostname=hostname, prices=prices, owners=owners, cluster=cluster)
    closing: set[asyncio.Task[None]] = set()

    async def leave() -> None:
        await worker.close()
        await exporter.left()

    def release() -> None:
        exporter.release()
        leaving = asyncio.create_task(leave())
        closing.add(leaving)
        leaving.add_done_callback(closing.discard)

    loop.add_signal_handler(signal.SIGUSR1, release)
    loop.add_signal_handler(signal.SIGUSR2, exporter.take)
    server = await serve(
        exporter.handle, sock, limits=Limits().within(allow_many_connections() // 2), name="the exporter's port"
    )
    # A page is many small objects in no cycle: looking through all whenever some are made would hold up scrapes.
    gc.freeze()
    gc.disable()
    sys.setswitchinterval(SWITCH_SECONDS)
    loops = [
        asyncio.create_task(exporter.watch(worker.read if simulate is None else _simulated(simulate, timeout))),
        asyncio.create_task(exporter.render()),
        asyncio.create_task(stop.wait()),
    ]
    if ask:
        loops.append(asyncio.create_task(exporter.attribute(ask)))
    try:
        done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # a loop that ended has failed, and says so
    finally:
        server.close()
        for task in loops:
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await worker.close()


def _simulated(source: Source, timeout: float) -> Read:
    async def read() -> Node:
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        return source(time.time())
                    except DriverHangsError as error:
                        await asyncio.sleep(error.seconds)
        except TimeoutError:
            raise unanswered(timeout) from None

    return read
