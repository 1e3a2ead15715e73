"""What the forwarder counts, exactly, of every inference request, and the families it publishes."""

import logging
from bisect import bisect_left
from collections import Counter, OrderedDict, deque
from itertools import accumulate

from pegel_exporters import catalogue as c
from pegel_exporters.exposition import Family, Histogram, LabelValues

from pegel_agent.sidecar import frames
from pegel_agent.sidecar.blindness import UNDECODABLE, UNFOLLOWED, look_of
from pegel_agent.sidecar.paths import OTHER, Model
from pegel_agent.sidecar.tap.served import OWN, Served
from pegel_agent.sidecar.tap.turns import Exchange

log = logging.getLogger("pegel")

RATE_SECONDS = 15
REFUSAL_SECONDS = 60
OUTCOMES = ("ok", "error", "client_abort", "timeout", "unfollowed")
_NO_ANSWER = "none"
_MAX_UNDECIDED = 16
"""Names that may turn out to be the model's, at most; requests for those before them share one tally."""


class _Durations:
    """A histogram that is being filled."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def include(self, others: "_Durations") -> None:
        """Count what some others of the same bounds have counted too."""
        self._counts = [one + another for one, another in zip(self._counts, others._counts, strict=True)]
        self._sum += others._sum

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


class Tally:
    """The requests of one owner (see Served), and what became of their copies. Of other models' none are wanted."""

    def __init__(self, owner: str | None) -> None:
        self.owner = owner
        self.requests: Counter[tuple[str, int]] = Counter()
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.durations = _Durations(c.INFERENCE_DURATION.buckets)
        self.first_bytes = _Durations(c.INFERENCE_FIRST_BYTE.buckets)
        self.total = 0
        self.in_flight = 0
        self.analysed = 0
        self.shed = 0
        self.undecodable_reasons = dict.fromkeys(UNDECODABLE, 0)
        self._joined: Tally | None = None

    @property
    def now(self) -> "Tally":
        """Where these requests are counted by now."""
        return self if self._joined is None else self._joined.now

    def join(self, other: "Tally") -> None:
        """Count all that was counted here, and what still will be, in another tally."""
        other.include(self)
        self._joined = other

    def include(self, other: "Tally") -> None:
        """Count what another has counted too."""
        self.requests += other.requests
        for outcome, count in other.outcomes.items():
            self.outcomes[outcome] += count
        self.durations.include(other.durations)
        self.first_bytes.include(other.first_bytes)
        self.total += other.total
        self.in_flight += other.in_flight
        self.analysed += other.analysed
        self.shed += other.shed
        for reason, count in other.undecodable_reasons.items():
            self.undecodable_reasons[reason] += count

    def copied(self, outcome: int) -> None:
        """What the analyser acknowledges of a copy."""
        if outcome == frames.ANALYSED:
            self.analysed += 1
        elif outcome != frames.OTHER_MODEL:
            self.undecodable_reasons[frames.REASONS[outcome]] += 1

    @property
    def undecodable(self) -> int:
        """Exchanges that could not be decoded, for whatever reason."""
        return sum(self.undecodable_reasons.values())


class Counters:
    """One model's traffic. Not safe for threads; the forwarder has one.

    Before it is known by which name the model is served, requests of all names count as its own, the latest names' each
    in a tally of its own; then those of the others are taken out.
    """

    def __init__(self, model_name: str, model_version: str, served: Served | None = None) -> None:
        self._model = (model_name, model_version)
        self.served = served or Served()
        self._own = Tally(OWN)
        self._undecided: OrderedDict[str, Tally] = OrderedDict()
        """By name, the one that was asked for last at the end."""
        self._earlier = Tally(OWN)
        """Those of the names before them."""
        self._others = Tally(None)
        self._latest: tuple[Model | None, Tally] = (None, self._own)
        """The model that the latest request's path named, and whose it is: most often the next one's too."""
        self._recent: deque[int] = deque([0], maxlen=RATE_SECONDS + 1)
        self._recent_refusals: deque[int] = deque([0], maxlen=REFUSAL_SECONDS + 1)
        self._refusals_logged = 0
        self._log_refusals_in = 0
        self.refusals = 0
        self.unfollowed_reasons = dict.fromkeys(UNFOLLOWED, 0)
        self.unwatched_seconds = 0
        self._unfollowed_now = 0
        self._was_unwatched = False
        self._blind_logged = (0, 0)
        self._log_blind_in = 0
        self.restarts = 0
        self.analyser_up = False
        self.admin_refused = 0

    def begun(self, exchange: Exchange) -> None:
        """A request's headers are complete."""
        if exchange.protocol is not None:
            model, tally = self._latest
            if exchange.model is not model:
                tally = self.tally_of(self.served.owner_by_path(exchange.model))
                self._latest = (exchange.model, tally)
            tally.in_flight += 1
            exchange.tally = tally
            exchange.unread = tally.owner is None

    def ended(self, exchange: Exchange, outcome: str) -> None:
        """An exchange is over."""
        if exchange.protocol is None:
            return
        tally: Tally = exchange.tally.now
        tally.in_flight -= 1
        tally.total += 1
        tally.outcomes[outcome] += 1
        tally.requests[exchange.protocol, exchange.status] += 1
        if exchange.status:
            started = exchange.started
            tally.durations.add(exchange.ended - started)
            tally.first_bytes.add((exchange.first_byte or exchange.ended) - started)
        if exchange.protocol is OTHER:
            tally.undecodable_reasons[look_of(exchange.target)] += 1

    def told(self, tally: Tally, protocol: str, status: int) -> None:
        """Someone else saw an exchange, which was answered; how long that took was not told."""
        tally.total += 1
        tally.outcomes["ok"] += 1
        tally.requests[protocol, status] += 1

    def tally_of(self, owner: str | None) -> Tally:
        """Where an owner's requests are counted; see Served."""
        if owner is None:
            return self._others
        if owner == OWN:
            return self._own
        tally = self._undecided.get(owner)
        if tally is None:
            tally = self._undecided[owner] = Tally(owner)
            if len(self._undecided) > _MAX_UNDECIDED:
                self._undecided.popitem(last=False)[1].join(self._earlier)
        else:
            self._undecided.move_to_end(owner)
        return tally

    def found(self, name: str) -> None:
        """The analyser has found by which name the model is served."""
        if self.served.found is not None:
            return
        self.served.found = name
        for owner, tally in self._undecided.items():
            tally.join(self._own if owner == name else self._others)
        self._undecided.clear()
        self._earlier.join(self._others)
        self._earlier = Tally(OWN)
        self._latest = (None, self._own)
        self._log_found(name)

    @property
    def _whole(self) -> Tally:
        """All that is the model's, as far as it is known."""
        if not self._undecided:
            return self._own
        whole = Tally(OWN)
        for tally in (self._own, self._earlier, *self._undecided.values()):
            whole.include(tally)
        return whole

    def _log_found(self, name: str) -> None:
        if self.served.names_given:
            log.info("of the service's components %s is watched, as its rows fit and came first", name)
            return
        log.info(
            "the model is served as %s: the first name whose columns fit. Requests for others are forwarded, counted"
            " apart and not read; --served-model says what is to be read", name,
        )  # fmt: skip

    def unfollowed(self, reason: str) -> None:
        """A connection's exchanges can be followed no longer."""
        self.unfollowed_reasons[reason] += 1
        self._unfollowed_now += 1
        self._was_unwatched = True

    def watched(self) -> None:
        """A connection that wasn't followed is followed again, or gone."""
        self._unfollowed_now -= 1

    def refused(self) -> None:
        """The model could not be reached for a client's connection; its request, if any, was never read."""
        self._own.outcomes["error"] += 1
        self.refusals += 1

    def admin_gave_way(self) -> None:
        """A connection of an operator's was closed to make room for a new one."""
        self.admin_refused += 1

    def crowded_out(self) -> None:
        """There was no room for a client's connection: no fault of the model's, but the client's request failed."""
        self._own.outcomes["error"] += 1

    def tick(self) -> None:
        """A second has passed. Says once a minute, at most, that the model refuses."""
        self._recent.append(self.total)
        self._count_unwatched()
        self._recent_refusals.append(self.refusals)
        self._log_refusals_in = max(0, self._log_refusals_in - 1)
        if self.refusals > self._refusals_logged and not self._log_refusals_in:
            log.warning(
                "the model does not accept connections (%d refused since the last such line, %d since the start):"
                " does it listen where --upstream and --forward say?",
                self.refusals - self._refusals_logged, self.refusals,
            )  # fmt: skip
            self._refusals_logged, self._log_refusals_in = self.refusals, REFUSAL_SECONDS

    def _count_unwatched(self) -> None:
        self.unwatched_seconds += self._was_unwatched or self._unfollowed_now > 0
        self._was_unwatched = False
        self._log_blind_in = max(0, self._log_blind_in - 1)
        if self._log_blind_in:
            return
        undecodable = self.undecodable_reasons
        blind = (sum(self.unfollowed_reasons.values()), sum(undecodable.values()))
        # Exchanges that turn out to be other models' are taken out, so that there may be fewer than at the last line.
        before = min(blind[0], self._blind_logged[0]), min(blind[1], self._blind_logged[1])
        if blind != before:
            reasons = {**self.unfollowed_reasons, **undecodable}
            log.warning(
                "traffic goes by unread: %d connections not followed and %d exchanges not decoded since the last such"
                " line; since the start: %s", blind[0] - before[0], blind[1] - before[1],
                ", ".join(f"{reason} {count}" for reason, count in reasons.items() if count),
            )  # fmt: skip
            self._log_blind_in = REFUSAL_SECONDS
        self._blind_logged = blind

    @property
    def refusals_last_minute(self) -> int:
        """Connections that the model refused in the last minute."""
        return self.refusals - self._recent_refusals[0]

    @property
    def requests_per_second(self) -> float:
        """Over the last 15 seconds, or since the start where that is less."""
        seconds = len(self._recent) - 1
        return max(0, self._recent[-1] - self._recent[0]) / seconds if seconds else 0.0

    @property
    def errors(self) -> int:
        """Requests that the model failed: status 5xx, no answer or a broken one."""
        outcomes = self._whole.outcomes
        return outcomes["error"] + outcomes["timeout"]

    @property
    def total(self) -> int:
        """Requests that are over."""
        return self._whole.total

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return self._whole.in_flight

    @property
    def analysed(self) -> int:
        """Exchanges of which the analyser has read a copy."""
        return self._whole.analysed

    @property
    def shed(self) -> int:
        """Exchanges of which it got none."""
        return self._whole.shed

    @property
    def undecodable(self) -> int:
        """Exchanges that could not be decoded, for whatever reason."""
        return self._whole.undecodable

    @property
    def undecodable_reasons(self) -> dict[str, int]:
        """The same, by reason."""
        return self._whole.undecodable_reasons

    @property
    def other_model_requests(self) -> int:
        """Requests for other models that are over."""
        return self._others.total

    def quantile(self, share: float) -> float | None:
        """Seconds that this share of the answers took at most, since the start."""
        return self._whole.durations.quantile(share)

    def families(self, *, connections: int, bytes_to_model: int, bytes_to_client: int, version: str) -> list[Family]:
        """The forwarder's part of the page."""
        model = self._model
        whole = self._whole
        requests: Counter[LabelValues] = Counter()
        for (protocol, status), count in whole.requests.items():
            requests[(*model, protocol, _code(status))] += count
        others: Counter[LabelValues] = Counter({(*model, "200"): 0})
        for (_, status), count in self._others.requests.items():
            others[(*model, _code(status))] += count
        return [
            Family(c.BUILD_INFO, {(*model, version): 1.0}),
            Family(c.INFERENCE_REQUESTS, _floats(requests)),
            Family(c.INFERENCE_DURATION, {model: whole.durations.snapshot()}),
            Family(c.INFERENCE_FIRST_BYTE, {model: whole.first_bytes.snapshot()}),
            Family(c.INFERENCE_IN_FLIGHT, {model: float(whole.in_flight)}),
            Family(c.INFERENCE_OUTCOMES, {(*model, name): float(n) for name, n in whole.outcomes.items()}),
            Family(c.INFERENCE_RATE, {model: self.requests_per_second}),
            Family(
                c.TAP_EXCHANGES,
                {
                    (*model, "analysed"): float(whole.analysed),
                    (*model, "shed"): float(whole.shed),
                    (*model, "undecodable"): float(whole.undecodable),
                },
            ),
            Family(c.TAP_OTHER_MODEL_REQUESTS, _floats(others)),
            Family(c.TAP_UNDECODABLE, {(*model, why): float(n) for why, n in whole.undecodable_reasons.items()}),
            Family(c.TAP_UNFOLLOWED, {(*model, why): float(n) for why, n in self.unfollowed_reasons.items()}),
            Family(c.TAP_UNWATCHED_SECONDS, {model: float(self.unwatched_seconds)}),
            Family(
                c.TAP_BYTES,
                {(*model, "to_model"): float(bytes_to_model), (*model, "to_client"): float(bytes_to_client)},
            ),
            Family(c.TAP_CONNECTIONS, {model: float(connections)}),
            Family(c.TAP_ANALYSER_RESTARTS, {model: float(self.restarts)}),
            Family(c.TAP_ANALYSER_UP, {model: float(self.analyser_up)}),
            Family(c.TAP_ADMIN_REFUSED, {model: float(self.admin_refused)}),
        ]


def _floats(counts: Counter[LabelValues]) -> dict[LabelValues, float]:
    return {labels: float(count) for labels, count in counts.items()}


def _code(status: int) -> str:
    """An answer's status as a label's value: one that HTTP has, so that no server makes more series than those."""
    if not status:
        return _NO_ANSWER
    return str(status) if 100 <= status <= 599 else "other"
