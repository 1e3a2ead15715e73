"""GPU time, energy and money by who had them: added up between readings. Pure, no clock.

Every GPU costs its price whether it works or not. What a container has of it is its share; what nobody holds is
`unallocated`, so that all of a node's add up to its GPUs'. A MIG device is as much of its GPU as it has slices, and
costs its own price where the table has one, else its slices'. A GPU that is cut up costs what its parts do.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from pegel_exporters import catalogue
from pegel_exporters.exposition import Family, Histogram, LabelValues
from pegel_exporters.gpu.metrics import Gauge
from pegel_exporters.gpu.prices import Prices
from pegel_exporters.gpu.shares import Share

State = Literal["active", "idle_held", "idle", "lost", "unknown"]
STATES: tuple[State, ...] = ("active", "idle_held", "idle", "lost", "unknown")

IDLE_BELOW_RATIO = 0.01
"""Utilisation below which a GPU counts as idle."""
KEPT_SECONDS = 600.0
"""How long what a container has had is told after it has ended, so that its last rise is scraped."""
LONGEST_SECONDS = 120.0
"""A longer time without a reading counts as none. A driver that hangs is waited for by a minute at most."""
UNALLOCATED, UNKNOWN = "unallocated", "unknown"


@dataclass(frozen=True, slots=True)
class Account:
    """What was had: seconds of a whole GPU, of them idle ones, joules, and money in the prices' currency."""

    seconds: float = 0.0
    idle_seconds: float = 0.0
    joules: float = 0.0
    cost: float = 0.0

    def plus(self, other: "Account") -> "Account":
        """Both together."""
        return Account(
            self.seconds + other.seconds,
            self.idle_seconds + other.idle_seconds,
            self.joules + other.joules,
            self.cost + other.cost,
        )


class Accounts:
    """Accounts by the labels of a container's or of nobody's part. Times are seconds on one clock."""

    def __init__(self, prices: Prices, *, longest: float = LONGEST_SECONDS) -> None:
        """`longest` is the time between two calls in seconds from which on it is taken for none."""
        self.prices = prices
        self._longest = longest
        self._accounts: dict[LabelValues, Account] = {}
        self._seen: dict[LabelValues, float] = {}
        self._energy: dict[str, float] = {}
        self._last: float | None = None

    def take(self, gauges: Iterable[Gauge], shares: Iterable[Share] | None, now: float) -> None:
        """Add up the time since the last call, which all of it belongs to who has the GPUs now.

        `shares` are None where it isn't known who has them.
        """
        rest = UNKNOWN if shares is None else UNALLOCATED
        seconds = 0.0 if self._last is None else now - self._last
        seconds = seconds if 0 < seconds <= self._longest else 0.0
        self._last = now
        by_gpu: dict[str, list[Share]] = defaultdict(list)
        for share in shares or ():
            by_gpu[share.uuid].append(share)
        for gauge in gauges:
            if gauge.reading.uuid:
                self._take_one(gauge, list(_parts(gauge, by_gpu[gauge.reading.uuid], rest, self.prices)), seconds, now)
        for labels in [labels for labels, seen in self._seen.items() if now - seen > KEPT_SECONDS]:
            del self._accounts[labels], self._seen[labels]

    def _take_one(
        self, gauge: Gauge, parts: list[tuple[LabelValues, float, float, bool]], seconds: float, now: float
    ) -> None:
        uuid = gauge.reading.uuid
        energy = gauge.measured.value(catalogue.GPU_ENERGY)
        joules = 0.0 if energy is None or not seconds else max(0.0, energy - self._energy.get(uuid, energy))
        if energy is not None:
            self._energy[uuid] = energy
        money = seconds / 3600
        for labels, part, price, idle in parts:
            if not seconds and labels[-1] == UNKNOWN:  # nobody was asked yet
                continue
            had = Account(part * seconds, part * seconds * idle, part * joules, price * money)
            self._accounts[labels] = self._accounts.get(labels, Account()).plus(had)
            self._seen[labels] = now

    def all(self) -> dict[LabelValues, Account]:
        """All accounts, by their labels."""
        return dict(self._accounts)

    def families(self) -> tuple[Family, ...]:
        """What was had, as counters."""
        told = self._accounts.items()
        return (
            Family(catalogue.GPU_POD_SECONDS, {labels: one.seconds for labels, one in told}),
            Family(catalogue.GPU_POD_IDLE_SECONDS, {labels: one.idle_seconds for labels, one in told}),
            Family(catalogue.GPU_POD_ENERGY, {labels: one.joules for labels, one in told if labels[3] in self._energy}),
            Family(catalogue.GPU_POD_COST, {(*labels, self.prices.currency): one.cost for labels, one in told}),
        )


def _parts(
    gauge: Gauge, held: list[Share], rest: str, prices: Prices
) -> Iterator[tuple[LabelValues, float, float, bool]]:
    """Who has which part of a GPU now, 0 to 1, the price of an hour of it, and whether it is known to do nothing.

    All parts add up to 1, and their prices to the GPU's.
    """
    parts = [share.fraction * _of_gpu(gauge, share.mig_uuid) for share in held]
    costs = [share.fraction * _hour_of(gauge, share.mig_uuid, prices) for share in held]
    # A kubelet that tells of more than there is must not make a GPU cost more than it does.
    hour = hour_of(gauge, prices)
    more, dearer = max(1.0, sum(parts)), max(1.0, sum(costs) / hour if hour else 1.0)
    for share, part, cost in zip(held, parts, costs, strict=True):
        yield share.labels, part / more, cost / dearer, _idle(gauge, share.mig_uuid)
    nobody = ("", "", "", gauge.reading.uuid, "", "", "", rest)
    yield nobody, max(0.0, 1 - sum(parts) / more), max(0.0, hour - sum(costs) / dearer), _idle(gauge, "")


def hour_of(gauge: Gauge, prices: Prices) -> float:
    """The price of an hour of a GPU: where it is cut up, of its parts, and of what is cut into none."""
    cut = [mig.uuid for mig in gauge.reading.instances]
    whole = max(0.0, 1 - sum(_of_gpu(gauge, uuid) for uuid in cut))
    return whole * prices.hour(gauge.reading.name) + sum(_hour_of(gauge, uuid, prices) for uuid in cut)


def _hour_of(gauge: Gauge, mig_uuid: str, prices: Prices) -> float:
    """The price of an hour of a GPU's MIG device, or of the GPU itself."""
    if not mig_uuid:
        return hour_of(gauge, prices)
    mig = gauge.reading.instance(mig_uuid)
    own = prices.device_hour(gauge.reading.name, mig.profile) if mig else None
    return _of_gpu(gauge, mig_uuid) * prices.hour(gauge.reading.name) if own is None else own


def _idle(gauge: Gauge, mig_uuid: str) -> bool:
    """Whether a GPU or a MIG device is known to do nothing."""
    if not mig_uuid:
        return state_of(gauge, held=False) in ("idle", "idle_held")
    used = gauge.mig_value(mig_uuid, catalogue.GPU_MIG_UTILIZATION)
    return gauge.up and used is not None and used < IDLE_BELOW_RATIO


def _of_gpu(gauge: Gauge, mig_uuid: str) -> float:
    """What part of its GPU a MIG device is, 1 for the GPU itself; of one that isn't known, nothing."""
    if not mig_uuid:
        return 1.0
    mig = gauge.reading.instance(mig_uuid)
    slices = mig.slices if mig else 0
    return slices / max(gauge.reading.raw.get("max_migs", 7.0), sum(one.slices for one in gauge.reading.instances), 1.0)


def state_of(gauge: Gauge, *, held: bool) -> State:
    """What a GPU does; `held` says that a container has it or a part of it.

    Of one that is cut up and tells nothing of its parts' activity it isn't known whether it works.
    """
    if not gauge.up:
        return "lost"
    used = [gauge.value(catalogue.GPU_UTILIZATION)] if not gauge.instances else [
        one.value(catalogue.GPU_MIG_UTILIZATION) for one in gauge.instances
    ]  # fmt: skip
    if not gauge.fresh or any(use is None for use in used):
        return "unknown"
    if max(use for use in used if use is not None) >= IDLE_BELOW_RATIO:
        return "active"
    return "idle_held" if held or gauge.reading.processes else "idle"


def families(gauges: Iterable[Gauge], shares: Iterable[Share], prices: Prices) -> tuple[Family, ...]:
    """What each GPU does and costs, and what memory each container uses."""
    shares = tuple(shares)
    held = {share.uuid for share in shares}
    states: dict[LabelValues, float | Histogram] = {}
    hours: dict[LabelValues, float | Histogram] = {}
    for gauge in gauges:
        ids = gauge.reading.uuid, gauge.reading.gpu
        now = state_of(gauge, held=gauge.reading.uuid in held)
        states.update({(*ids, state): float(state == now) for state in STATES})
        if gauge.reading.uuid:
            hours[*ids, prices.currency] = round(hour_of(gauge, prices), 6)
    memory: dict[LabelValues, float | Histogram] = {
        share.labels: share.memory_bytes for share in shares if share.memory_bytes is not None
    }
    return (
        Family(catalogue.GPU_STATE, states),
        Family(catalogue.GPU_PRICE, hours),
        Family(catalogue.GPU_POD_MEMORY_USED, memory),
    )
