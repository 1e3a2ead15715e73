"""What the forwarder counts, exactly, of every inference request, and the families it publishes."""

import logging
from bisect import bisect_left
from collections import Counter, deque
from itertools import accumulate

from pegel_exporters import catalogue as c
from pegel_exporters.exposition import Family, Histogram, LabelValues

from pegel_agent.sidecar.paths import OTHER
from pegel_agent.sidecar.tap.turns import Exchange

log = logging.getLogger("pegel")

RATE_SECONDS = 15
REFUSAL_SECONDS = 60
_OUTCOMES = ("ok", "error", "client_abort", "timeout")
_NO_ANSWER = "none"


class _Durations:
    """A histogram that is being filled."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def snapshot(self) -> Histogram:
        return Histogram(tuple(self._counts), self._sum)

    def quantile(self, share: float) -> float | None:
        """As PromQL's histogram_quantile: linear within a bucket. None without observations."""
        total = sum(self._counts)
        if not total:
            return None
        rank = share * total
        below = 0.0
        bounds = (0.0, *self._bounds)
        for position, reached in enumerate(accumulate(self._counts[:-1])):
            if reached >= rank and self._counts[position]:
                low, high = bounds[position], bounds[position + 1]
                return low + (high - low) * (rank - below) / self._counts[position]
            below = reached
        return self._bounds[-1]


class Counters:
    """One model's traffic. Not safe for threads; the forwarder has one."""

    def __init__(self, model_name: str, model_version: str) -> None:
        self._model = (model_name, model_version)
        self._requests: Counter[tuple[str, int]] = Counter()
        self._outcomes = dict.fromkeys(_OUTCOMES, 0)
        self._durations = _Durations(c.INFERENCE_DURATION.buckets)
        self._first_bytes = _Durations(c.INFERENCE_FIRST_BYTE.buckets)
        self._recent: deque[int] = deque([0], maxlen=RATE_SECONDS + 1)
        self._recent_refusals: deque[int] = deque([0], maxlen=REFUSAL_SECONDS + 1)
        self._refusals_logged = 0
        self._log_refusals_in = 0
        self.refusals = 0
        self.total = 0
        self.in_flight = 0
        self.analysed = 0
        self.shed = 0
        self.undecodable = 0
        self.restarts = 0
        self.analyser_up = False
        self.admin_refused = 0

    def begun(self, exchange: Exchange) -> None:
        """A request's headers are complete."""
        if exchange.protocol is not None:
            self.in_flight += 1

    def ended(self, exchange: Exchange, outcome: str) -> None:
        """An exchange is over."""
        if exchange.protocol is None:
            return
        self.in_flight -= 1
        self.total += 1
        self._outcomes[outcome] += 1
        self._requests[exchange.protocol, exchange.status] += 1
        if exchange.status:
            started = exchange.started
            self._durations.add(exchange.ended - started)
            self._first_bytes.add((exchange.first_byte or exchange.ended) - started)
        if exchange.protocol is OTHER:
            self.undecodable += 1

    def told(self, protocol: str, status: int) -> None:
        """Someone else saw an exchange, which was answered; how long that took was not told."""
        self.total += 1
        self._outcomes["ok"] += 1
        self._requests[protocol, status] += 1

    def unfollowed(self) -> None:
        """A connection's exchanges can be followed no longer."""
        self.undecodable += 1

    def refused(self) -> None:
        """The model could not be reached for a client's connection; its request, if any, was never read."""
        self._outcomes["error"] += 1
        self.refusals += 1

    def admin_gave_way(self) -> None:
        """A connection of an operator's was closed to make room for a new one."""
        self.admin_refused += 1

    def crowded_out(self) -> None:
        """There was no room for a client's connection: no fault of the model's, but the client's request failed."""
        self._outcomes["error"] += 1

    def tick(self) -> None:
        """A second has passed. Says once a minute, at most, that the model refuses."""
        self._recent.append(self.total)
        self._recent_refusals.append(self.refusals)
        self._log_refusals_in = max(0, self._log_refusals_in - 1)
        if self.refusals > self._refusals_logged and not self._log_refusals_in:
            log.warning(
                "the model does not accept connections (%d refused since the last such line, %d since the start):"
                " does it listen where --upstream and --forward say?",
                self.refusals - self._refusals_logged, self.refusals,
            )  # fmt: skip
            self._refusals_logged, self._log_refusals_in = self.refusals, REFUSAL_SECONDS

    @property
    def refusals_last_minute(self) -> int:
        """Connections that the model refused in the last minute."""
        return self.refusals - self._recent_refusals[0]

    @property
    def requests_per_second(self) -> float:
        """Over the last 15 seconds, or since the start where that is less."""
        seconds = len(self._recent) - 1
        return (self._recent[-1] - self._recent[0]) / seconds if seconds else 0.0

    @property
    def errors(self) -> int:
        """Requests that the model failed: status 5xx, no answer or a broken one."""
        return self._outcomes["error"] + self._outcomes["timeout"]

    def quantile(self, share: float) -> float | None:
        """Seconds that this share of the answers took at most, since the start."""
        return self._durations.quantile(share)

    def families(self, *, connections: int, bytes_to_model: int, bytes_to_client: int, version: str) -> list[Family]:
        """The forwarder's part of the page."""
        model = self._model
        requests: dict[LabelValues, float] = {
            (*model, protocol, str(status) if status else _NO_ANSWER): float(count)
            for (protocol, status), count in self._requests.items()
        }
        return [
            Family(c.BUILD_INFO, {(*model, version): 1.0}),
            Family(c.INFERENCE_REQUESTS, requests),
            Family(c.INFERENCE_DURATION, {model: self._durations.snapshot()}),
            Family(c.INFERENCE_FIRST_BYTE, {model: self._first_bytes.snapshot()}),
            Family(c.INFERENCE_IN_FLIGHT, {model: float(self.in_flight)}),
            Family(c.INFERENCE_OUTCOMES, {(*model, name): float(n) for name, n in self._outcomes.items()}),
            Family(c.INFERENCE_RATE, {model: self.requests_per_second}),
            Family(
                c.TAP_EXCHANGES,
                {
                    (*model, "analysed"): float(self.analysed),
                    (*model, "shed"): float(self.shed),
                    (*model, "undecodable"): float(self.undecodable),
                },
            ),
            Family(
                c.TAP_BYTES,
                {(*model, "to_model"): float(bytes_to_model), (*model, "to_client"): float(bytes_to_client)},
            ),
            Family(c.TAP_CONNECTIONS, {model: float(connections)}),
            Family(c.TAP_ANALYSER_RESTARTS, {model: float(self.restarts)}),
            Family(c.TAP_ANALYSER_UP, {model: float(self.analyser_up)}),
            Family(c.TAP_ADMIN_REFUSED, {model: float(self.admin_refused)}),
        ]
