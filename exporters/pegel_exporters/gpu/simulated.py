"""GPUs that do not exist, for a demo and for tests: readings that are a function of time and a scenario.

Values have the resolution of NVML's (percent, milliwatt, millijoule, MHz, °C).
"""

import math
import uuid
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from pegel_exporters.gpu.cluster import Cluster, PodName
from pegel_exporters.gpu.podresources import Holding
from pegel_exporters.gpu.readings import Instance, Node, Process, Reading, Xid
from pegel_exporters.gpu.scenario import ABSENT, Event, Group, Scenario, built_in, load, parse

__all__ = ["ABSENT", "EPOCH", "DriverHangsError", "Source", "built_in", "holders", "load", "parse", "read", "source"]

EPOCH = 1_735_689_600.0
"""When the simulated drivers were loaded, as a Unix time: 2025 began. Energy counts from here."""

_MIB = 1 << 20
_WAVES = ((1.0, 0.55), (0.29, 0.30), (0.013, 0.15))
"""A load's waves: period as a share of the group's, and weight; the weights add up to 1."""
_SPELL_SECONDS = 600.0
"""Once in so many seconds the clocks are held down, for the group's share of them."""
_NVLINK_BYTES_A_SECOND = 2e9
_POWER_CAP = 0x4

Source = Callable[[float], Node]


class DriverHangsError(Exception):
    """The simulated driver answers in `seconds`, and not before."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"it answers in {seconds:g} seconds")
        self.seconds = seconds


def source(name: str) -> Source:
    """The readings of a built-in scenario or a scenario file as a function of Unix time. Raises UserError.

    Times must not go back: an error is reported with the first reading after it.
    """
    scenario = load(name)
    last = math.inf

    def node(now: float) -> Node:
        nonlocal last
        since, last = min(last, now), now
        return read(scenario, now, since=since)

    return node


class Holders(NamedTuple):
    """Who holds GPUs, as the kubelet would be asked, None where nobody does; the pods of processes; and what an API
    server would tell."""

    ask: Callable[[], Awaitable[tuple[Holding, ...]]] | None
    owners: Callable[[Iterable[int]], Mapping[int, PodName]]
    cluster: Callable[[], Cluster]


def holders(name: str) -> Holders:
    """Those of a scenario. A pod's team is its namespace."""
    scenario = load(name)
    held = tuple(_holdings(scenario))
    cluster = Cluster(teams={(one.namespace, one.pod): one.namespace for one in held})
    owned = {process.pid: pod for process, pod in _owned(scenario)}

    async def ask() -> tuple[Holding, ...]:
        return held

    def owners(pids: Iterable[int]) -> dict[int, PodName]:
        return {pid: owned[pid] for pid in pids if pid in owned}

    return Holders(ask if held else None, owners, lambda: cluster)


def read(scenario: Scenario, now: float, *, since: float | None = None) -> Node:
    """All GPUs of a scenario at Unix time `now`, which is not before EPOCH, with the errors from `since` on.

    Raises DriverHangsError while the scenario's driver hangs.
    """
    if hangs := max((_left(event, now) for event in scenario.events if event.gpu < 0), default=0.0):
        raise DriverHangsError(hangs)
    lost = {event.gpu for event in scenario.events if _left(event, now)}
    return Node(
        time=now,
        driver_version=scenario.driver_version,
        cuda_version=scenario.cuda_version,
        simulated=True,
        gpus=tuple(
            _reading(scenario.name, index, group, now)
            if index not in lost
            else Reading(uuid=_uuid(scenario.name, index), gpu=str(index), error="GPU is lost")
            for index, group in enumerate(scenario.gpus)
        ),
        xids=tuple(
            Xid(uuid=_uuid(scenario.name, event.gpu), code=event.xid, time=at)
            for event in scenario.events
            if event.xid and since is not None
            for at in _times(event, since, now)
        ),
    )


def _left(event: Event, now: float) -> float:
    """For how many seconds an event lasts on, 0 where it doesn't happen now."""
    since = (now - EPOCH) % event.every - event.seconds
    return event.lasts - since if 0 <= since < event.lasts else 0.0


def _times(event: Event, since: float, now: float) -> Iterator[float]:
    """When an event was, after `since` and up to `now`."""
    first = math.floor((since - EPOCH - event.seconds) / event.every) + 1
    last = math.floor((now - EPOCH - event.seconds) / event.every)
    return (EPOCH + number * event.every + event.seconds for number in range(first, last + 1))


def _uuid(scenario: str, index: int, part: str = "") -> str:
    identity = uuid.uuid5(uuid.NAMESPACE_DNS, f"{scenario}.{index}{part}.simulated.pegel.dev")
    return f"{'MIG' if part else 'GPU'}-{identity}"


def _reading(scenario: str, index: int, group: Group, now: float) -> Reading:
    gpu = _uuid(scenario, index)
    phase = zlib.crc32(gpu.removeprefix("GPU-").encode()) / 2**32
    load, busy_seconds = _load(group, phase, now)
    raw = _values(group, phase, load, busy_seconds, now)
    absent = {*group.absent, *(("utilization", "memory_utilization") if group.mig else ())}
    processes = tuple(_processes(index, group, load))
    for kind in ("compute", "graphics"):
        raw[f"processes:{kind}"] = sum(process.kind == kind for process in processes)
    return Reading(
        uuid=gpu,
        gpu=str(index),
        name=group.model,
        minor_number=str(index),
        pci_bus_id=f"00000000:{7 + 8 * index:02X}:00.0",
        raw={key: float(value) for key, value in raw.items() if key not in absent},
        instances=tuple(_instances(scenario, index, group, load)),
        processes=processes,
    )


def _values(group: Group, phase: float, load: float, busy_seconds: float, now: float) -> dict[str, float]:
    span = group.limit_watts * 0.95 - group.idle_watts
    busy = group.mean > 0
    memory = group.memory_mib * _MIB
    graphics, memory_clock = group.graphics_mhz[busy], group.memory_mhz[busy]
    heat = 34 + 40 * load
    elapsed = now - EPOCH
    spell = (elapsed + phase * _SPELL_SECONDS) % _SPELL_SECONDS
    held_down = spell < group.throttled * _SPELL_SECONDS
    spells = math.floor((elapsed + phase * _SPELL_SECONDS) / _SPELL_SECONDS)
    held_seconds = spells * group.throttled * _SPELL_SECONDS + min(spell, group.throttled * _SPELL_SECONDS)
    raw: dict[str, float] = {
        "utilization": round(load * 100),
        "memory_utilization": round(load * 60),
        "memory_used": int(memory * group.memory_used),
        "memory_total": memory,
        "memory_free": memory - int(memory * group.memory_used),
        "memory_reserved": 0,
        "power": round((group.idle_watts + span * load) * 1000),
        "power_limit": round(group.limit_watts * 1000),
        "energy": round((group.idle_watts * elapsed + span * busy_seconds) * 1000),
        "temperature": round(heat),
        "threshold:shutdown": 92,
        "threshold:slowdown": 89,
        "field_82": round(heat + 9),
        "clock:graphics": graphics,
        "clock:sm": graphics,
        "clock:memory": memory_clock,
        "clock:video": round(graphics * 0.9),
        "max_clock:sm": group.graphics_mhz[1],
        "pstate": 0 if busy else 8,
        "throttle_reasons": _POWER_CAP * held_down + (not busy),
        "field_74": round(held_seconds * 1e9),
        "field_1": 1,
        "ecc_corrected:dram": 0,
        "ecc_uncorrected:dram": 0,
        "pcie_generation": group.pcie_generation if busy else 1,
        "pcie_max_generation": group.pcie_generation,
        "pcie_width": 16,
        "pcie_max_width": 16,
        "pcie_replays": 0,
        "mig_mode": bool(group.mig),
    }
    if group.mig:
        raw["max_migs"] = 7
    for link in range(group.nvlinks):
        raw[f"nvlink_state:{link}"] = 1
    if group.nvlinks:
        moved = 1024 * math.floor(busy_seconds * _NVLINK_BYTES_A_SECOND / 1024)
        raw |= {"nvlink_transmit": moved, "nvlink_receive": moved}
    if group.gpm and not group.mig:
        raw |= {f"gpm_{number}": value for number, value in _activity(load).items()}
    return raw


def _activity(load: float) -> dict[int, float]:
    """What the performance monitor tells, in percent."""
    parts = {1: 1.0, 2: 0.85, 3: 0.5, 5: 0.4, 10: 0.6, 11: 0.0, 12: 0.1, 13: 0.2}
    return {number: round(100 * part * load, 2) for number, part in parts.items()}


def _instances(scenario: str, index: int, group: Group, load: float) -> Iterator[Instance]:
    for number, (slices, mebibytes) in enumerate(group.devices):
        used = group.memory_used if number < len(group.pods) else 0.0
        raw: dict[str, float] = {
            "memory_total": mebibytes * _MIB,
            "memory_used": int(mebibytes * _MIB * used),
            "memory_free": mebibytes * _MIB - int(mebibytes * _MIB * used),
            "memory_reserved": 0,
        }
        if group.gpm:
            activity = _activity(load if number < len(group.pods) else 0.0)
            raw |= {f"gpm_{one}": activity[one] for one in (1, 2, 5, 10)}
        yield Instance(
            uuid=_uuid(scenario, index, f".{number}"),
            profile=group.mig[number],
            gpu_instance=number + 1,
            compute_instance=0,
            slices=slices,
            raw={key: float(value) for key, value in raw.items()},
        )


def _processes(index: int, group: Group, load: float) -> Iterator[Process]:
    """One of each pod; of those that share a GPU each next one uses more, the first nothing."""
    count = len(group.pods)
    for number in range(count):
        weight = number / (count * (count - 1) / 2) if count > 1 and not group.mig else 1.0
        mebibytes = group.devices[number][1] if group.mig else group.memory_mib / count
        yield Process(
            pid=100_000 + 100 * index + number,
            memory_bytes=float(int(mebibytes * _MIB * group.memory_used)),
            sm_percent=None if group.mig else float(round(100 * load * weight)),
            gpu_instance=number + 1 if group.mig else None,
        )


def _owned(scenario: Scenario) -> Iterator[tuple[Process, tuple[str, str]]]:
    for index, group in enumerate(scenario.gpus):
        for process, pod in zip(_processes(index, group, 0.0), group.pods, strict=True):
            namespace, name, _ = pod.split("/")
            yield process, (namespace, _of_gpu(name, index))


def _of_gpu(pod: str, index: int) -> str:
    """Pods of a group's GPUs are replicas."""
    return f"{pod}-{index}"


def _holdings(scenario: Scenario) -> Iterator[Holding]:
    for index, group in enumerate(scenario.gpus):
        for number, pod in enumerate(group.pods):
            namespace, name, container = pod.split("/")
            if group.mig:
                resource, device = f"nvidia.com/mig-{group.mig[number]}", _uuid(scenario.name, index, f".{number}")
            else:
                replica = f"::{number}" if len(group.pods) > 1 else ""
                resource, device = "nvidia.com/gpu", f"{_uuid(scenario.name, index)}{replica}"
            yield Holding(namespace, _of_gpu(name, index), container, resource, (device,))


def _load(group: Group, phase: float, now: float) -> tuple[float, float]:
    """The load (0 to 1) and its integral since EPOCH in seconds, so that energy is exactly power over time."""
    elapsed = now - EPOCH
    load, integral = group.mean, group.mean * elapsed
    for number, (share, weight) in enumerate(_WAVES, 1):
        turn = 2 * math.pi / (group.period_seconds * share)
        start = 2 * math.pi * phase * number
        load += group.swing * weight * math.sin(turn * elapsed + start)
        integral += group.swing * weight * (math.cos(start) - math.cos(turn * elapsed + start)) / turn
    return load, integral
