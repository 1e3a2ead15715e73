"""GPU time that was paid for and not used: pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pegel_exporters import catalogue
from pegel_exporters.gpu.accounts import IDLE_BELOW_RATIO
from pegel_exporters.gpu.measures import measure
from pegel_exporters.gpu.prices import Prices
from pegel_exporters.gpu.readings import Node, Reading

PRICES = Prices()


@dataclass(frozen=True, slots=True, kw_only=True)
class Waste:
    """What a span of readings cost and how much of it was idle. Money is in the currency of the prices."""

    gpu_seconds: float
    idle_gpu_seconds: float
    idle_joules: float
    cost: float
    idle_cost: float
    idle_gpus: tuple[str, ...]
    """UUIDs of the GPUs that were idle during the whole span."""

    @property
    def idle_ratio(self) -> float:
        """Share of the GPU time that was idle, 0 to 1; 0 without any."""
        return self.idle_gpu_seconds / self.gpu_seconds if self.gpu_seconds else 0.0


def waste(nodes: Sequence[Node], *, prices: Prices = PRICES) -> Waste:
    """Idle GPU time, energy and money between readings of the same GPUs, oldest first.

    A GPU is idle between two readings when both show less than IDLE_BELOW_RATIO. Time for which a GPU's
    utilisation is not known (MIG, a lost GPU) counts as neither used nor idle. Fewer than two readings tell nothing.
    """
    total = idle = joules = cost = idle_cost = 0.0
    idle_uuids: dict[str, bool] = {}
    for before, after in pairwise(nodes):
        seconds = after.time - before.time
        earlier = {gpu.uuid: gpu for gpu in before.gpus}
        for gpu in after.gpus:
            old = earlier.get(gpu.uuid)
            used = [] if old is None else [use for use in (_use(old), _use(gpu)) if use is not None]
            if old is None or len(used) < 2:
                continue
            is_idle = max(used) < IDLE_BELOW_RATIO
            euros = seconds / 3600 * prices.hour(gpu.name)
            total += seconds
            cost += euros
            idle_uuids[gpu.uuid] = idle_uuids.get(gpu.uuid, True) and is_idle
            if is_idle:
                idle += seconds
                idle_cost += euros
                joules += _energy(old, gpu)
    return Waste(
        gpu_seconds=total,
        idle_gpu_seconds=idle,
        idle_joules=joules,
        cost=cost,
        idle_cost=idle_cost,
        idle_gpus=tuple(uuid for uuid, is_idle in idle_uuids.items() if is_idle),
    )


def _energy(before: Reading, after: Reading) -> float:
    """Joules between two readings: 0 where they are not known, or began anew because the driver was reloaded."""
    at = [measure(reading.raw).value(catalogue.GPU_ENERGY) for reading in (before, after)]
    return max(0.0, at[1] - at[0]) if at[0] is not None and at[1] is not None else 0.0


def _use(reading: Reading) -> float | None:
    return measure(reading.raw).value(catalogue.GPU_UTILIZATION)
