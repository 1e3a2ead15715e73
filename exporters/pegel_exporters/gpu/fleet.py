"""What is known of a node's GPUs over time: the last good reading of each, and what changed since. No I/O, no clock."""

from dataclasses import dataclass, replace

from pegel_exporters.gpu.metrics import Fleet, Gauge
from pegel_exporters.gpu.readings import Node, Reading


@dataclass(slots=True)
class _Known:
    """One GPU: its last good reading, when that was on the caller's clock (None: never), and its present error."""

    reading: Reading
    at: float | None
    error: str


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
        return news

    def failed(self, error: str) -> list[str]:
        """The driver could not be asked. Returns one line, unless the reason is still the same."""
        news = [] if error == self._error else [f"no GPU readings: {error}; trying again"]
        self._error, self._answered = error, False
        return news

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
            age_seconds=age,
            up=self._answered and not known.error,
            fresh=age is not None and age <= self._stale_after,
            error=known.error,
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
        known = self._known.setdefault(key, _Known(reading, None, ""))
        before, known.error = known.error, reading.error
        if not reading.error:
            known.reading, known.at = reading, now
        if reading.error == before:
            return []
        return [f"GPU {reading.gpu} {reading.uuid}: {reading.error or 'answers again'}".replace("  ", " ")]
