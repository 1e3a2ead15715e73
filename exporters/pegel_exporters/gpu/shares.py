"""How much of a GPU each container has: all of one that it holds alone, else what its processes use. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from pegel_exporters import catalogue
from pegel_exporters.gpu.attribution import Allocation, Allocations, Attribution
from pegel_exporters.gpu.metrics import Gauge
from pegel_exporters.gpu.readings import Process


@dataclass(frozen=True, slots=True, kw_only=True)
class Share(Allocation):
    """A container's part of a device, 0 to 1; all of a device that is held add up to 1.

    `attribution` says what the part rests on. `memory_bytes` is None where it isn't known.
    """

    fraction: float
    memory_bytes: float | None


def shares(
    allocations: Allocations, gauges: Iterable[Gauge], owners: Mapping[int, tuple[str, str]]
) -> tuple[Share, ...]:
    """The shares of all devices that are held; `owners` are the pods of processes, as far as they are known.

    A device that several hold is divided by the multiprocessor time that the driver measured of their processes since
    the last reading; a holder without any has none. Where none of it was measured, it is divided evenly.
    """
    by_uuid = {gauge.reading.uuid: gauge for gauge in gauges}
    devices: dict[tuple[str, str], list[Allocation]] = defaultdict(list)
    for one in allocations.held:
        devices[one.uuid, one.mig_uuid].append(one)
    found: list[Share] = []
    for (uuid, mig_uuid), held in devices.items():
        gauge = by_uuid.get(uuid)
        if len(held) == 1 and held[0].attribution != "equal_share":
            found.append(_share(held[0], held[0].attribution, 1.0, _memory(gauge, mig_uuid)))
        else:
            found += _divided(held, _processes(gauge, mig_uuid), owners)
    return tuple(found)


def _divided(
    held: list[Allocation], processes: tuple[Process, ...], owners: Mapping[int, tuple[str, str]]
) -> Iterable[Share]:
    used: dict[tuple[str, str], float] = defaultdict(float)
    memory: dict[tuple[str, str], float] = defaultdict(float)
    containers: dict[tuple[str, str], int] = defaultdict(int)
    for one in held:
        containers[one.namespace, one.pod] += 1
    # A process that computes and draws is in both lists.
    for process in {process.pid: process for process in processes}.values():
        pod = owners.get(process.pid)
        if pod in containers:
            used[pod] += process.sm_percent or 0.0
            memory[pod] += process.memory_bytes or 0.0
    total = sum(used.values())
    for one in held:
        pod = one.namespace, one.pod
        # A pod's containers can't be told apart by its processes.
        own_memory = memory[pod] / containers[pod] if pod in memory else None
        if total > 0:
            yield _share(one, "process", used[pod] / total / containers[pod], own_memory)
        else:
            yield _share(one, "equal_share", 1 / len(held), own_memory)


def _share(one: Allocation, attribution: Attribution, fraction: float, memory: float | None) -> Share:
    return Share(**asdict(one) | {"attribution": attribution}, fraction=fraction, memory_bytes=memory)


def _memory(gauge: Gauge | None, mig_uuid: str) -> float | None:
    """What is used of a device that one container has alone."""
    if gauge is None:
        return None
    if not mig_uuid:
        return gauge.value(catalogue.GPU_MEMORY_USED)
    return gauge.mig_value(mig_uuid, catalogue.GPU_MIG_MEMORY_USED)


def _processes(gauge: Gauge | None, mig_uuid: str) -> tuple[Process, ...]:
    if gauge is None or not gauge.fresh:
        return ()
    mig = gauge.reading.instance(mig_uuid)
    instance = mig.gpu_instance if mig else None
    return tuple(one for one in gauge.reading.processes if not mig_uuid or one.gpu_instance == instance)
