"""What is known of a node's GPUs over time: the last good reading of each, and what changed since. No I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pegel_exporters import catalogue
from pegel_exporters.gpu import xid
from pegel_exporters.gpu.measures import MEASURES, MIG_MEASURES, Labels, Measured, measure
from pegel_exporters.gpu.metrics import Fleet, Gauge
from pegel_exporters.gpu.readings import Node, Reading, Xid

_COUNTERS = frozenset(metric.name for metric in catalogue.CATALOGUE if metric.type == "counter")
_NOTHING = Measured({}, 0)

BORN_SECONDS = 60.0
"""How long a new GPU's error counts are shown as 0 from their first scrape: increase() sees a rise only from a 0 that
every scraper has read."""


class Counters:
    """Totals that never fall: a driver that is loaded anew begins its counters at 0, and the totals go on."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, Labels], float] = {}
        self._totals: dict[tuple[str, Labels], float] = {}

    def take(self, measured: Measured) -> Measured:
        """The same samples, with totals in place of the driver's counters."""
        samples: dict[str, Mapping[Labels, float]] = dict(measured.samples)
        for name in _COUNTERS & samples.keys():
            samples[name] = {labels: self._total((name, labels), value) for labels, value in samples[name].items()}
        return Measured(samples, measured.implausible)

    def _total(self, key: tuple[str, Labels], value: float) -> float:
        last = self._last.get(key, 0.0)
        total = self._totals.get(key, 0.0) + (value - last if value >= last else value)
        self._last[key], self._totals[key] = value, total
        return total


@dataclass(slots=True)
class _Known:
    """One GPU: its last good reading and what was measured, when that was on the caller's clock (None: never), its
    present error, and what it has counted since the exporter started."""

    reading: Reading
    measured: Measured = _NOTHING
    instances: tuple[Measured, ...] = ()
    at: float | None = None
    error: str = ""
    counted: Counters = field(default_factory=Counters)
    implausible: int = 0
    xids: dict[str, int] = field(default_factory=lambda: dict.fromkeys(xid.NAMES, 0))
    last_xid: Xid | None = None
    scraped: float | None = None


class Watch:
    """Takes readings and failures in, gives the fleet as the page shows it. Times are seconds on one clock.

    A GPU that was seen once stays on the page, at `up` 0 when it is lost: an absent series raises no alarm.
    """

    def __init__(self, *, stale_after: float) -> None:
        """`stale_after` is the age in seconds at which a reading's values leave the page."""
        self._stale_after = stale_after
        self._known: dict[str, _Known] = {}
        self._node: Node | None = None
        self._error: str | None = None
        self._answered = False

    def took(self, node: Node, now: float) -> list[str]:
        """A reading arrived. Returns what a person should be told, a line each."""
        news = []
        if not self._answered:
            news.append(f"reading {len(node.gpus)} GPU(s), driver {node.driver_version}")
        self._node, self._error, self._answered = node, None, True
        listed = set()
        for reading in node.gpus:
            key = self._key(reading)
            listed.add(key)
            news += self._update(key, reading, now)
        for key in [key for key in self._known if key not in listed]:
            news += self._update(key, replace(self._known[key].reading, error="the driver no longer lists it"), now)
        return news + self._xids(node)

    def failed(self, error: str) -> list[str]:
        """The driver could not be asked. Returns one line, unless the reason is still the same."""
        news = [] if error == self._error else [f"no GPU readings: {error}; trying again"]
        self._error, self._answered = error, False
        return news

    def scraped(self, uuids: frozenset[str], now: float) -> None:
        """A page with these GPUs was scraped."""
        for uuid in uuids & self._known.keys():
            if self._known[uuid].scraped is None:
                self._known[uuid].scraped = now

    def fleet(self, now: float) -> Fleet:
        """What the page tells at this moment."""
        node = self._node
        return Fleet(
            driver_version=node.driver_version if node else "",
            cuda_version=node.cuda_version if node else "",
            simulated=node.simulated if node else False,
            listed=len(node.gpus) if node and self._answered else None,
            error=self._error or "",
            gauges=tuple(self._gauge(known, now) for known in self._known.values()),
        )

    def _gauge(self, known: _Known, now: float) -> Gauge:
        age = None if known.at is None else round(now - known.at, 3)
        return Gauge(
            reading=known.reading,
            measured=known.measured,
            instances=known.instances,
            age_seconds=age,
            up=self._answered and not known.error,
            fresh=age is not None and age <= self._stale_after,
            error=known.error,
            implausible=known.implausible,
            xids=known.xids,
            counting=known.scraped is not None and now >= known.scraped + BORN_SECONDS,
            last_xid=known.last_xid,
        )

    def _key(self, reading: Reading) -> str:
        """A GPU's UUID; the index stands in for it when a GPU is lost before it could tell one."""
        if reading.uuid:
            return reading.uuid
        known = (key for key, known in self._known.items() if known.reading.gpu == reading.gpu)
        return next(known, f"index {reading.gpu}")

    def _update(self, key: str, reading: Reading, now: float) -> list[str]:
        if reading.uuid:
            self._known.pop(f"index {reading.gpu}", None)
        known = self._known.setdefault(key, _Known(reading))
        before, known.error = known.error, reading.error
        if not reading.error:
            known.reading, known.at = reading, now
            known.measured = known.counted.take(measure(reading.raw, MEASURES))
            known.instances = tuple(measure(instance.raw, MIG_MEASURES) for instance in reading.instances)
            known.implausible += sum(one.implausible for one in (known.measured, *known.instances))
        if reading.error == before:
            return []
        return [f"GPU {reading.gpu} {reading.uuid}: {reading.error or 'answers again'}".replace("  ", " ")]

    def _xids(self, node: Node) -> list[str]:
        news = []
        for event in node.xids:
            known = self._known.get(event.uuid)
            if known is not None:
                known.xids[xid.name(event.code)] += 1
                known.last_xid = event
            news.append(f"GPU {known.reading.gpu if known else '?'} {event.uuid}: {xid.describe(event.code)}")
        return news
