"""GPUs that do not exist, for a demo and for tests: readings that are a function of time and a scenario.

A scenario is a YAML (or JSON) file: the driver's versions and groups of equal GPUs, as in `scenarios/`. Values have
the resolution of NVML's (percent, milliwatt, millijoule, MHz, °C). What a real model doesn't have is `absent` here.
"""

import math
import uuid
import zlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml

from pegel_exporters.errors import UserError
from pegel_exporters.gpu.readings import Node, Reading

EPOCH = 1_735_689_600.0
"""When the simulated drivers were loaded, as a Unix time: 2025 began. Energy counts from here."""

ABSENT = ("utilization", "memory_utilization", "power", "power_limit", "energy", "field_82", "clock:video")
_MIB = 1 << 20
_WAVES = ((1.0, 0.55), (0.29, 0.30), (0.013, 0.15))
"""A load's waves: period as a share of the group's, and weight; the weights add up to 1."""

T = TypeVar("T")
Source = Callable[[float], Node]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """GPUs of one model under one load: utilisation swings around `mean` by at most `swing` (both 0 to 1).

    `period_seconds` is the longest wave's. Clocks are (idle, busy) in MHz. `memory_used` is a share of the memory.
    """

    model: str
    count: int = 1
    memory_mib: int
    memory_used: float = 0.5
    idle_watts: float
    limit_watts: float
    mean: float = 0.0
    swing: float = 0.0
    period_seconds: float = 1800.0
    graphics_mhz: tuple[int, ...] = (210, 1410)
    memory_mhz: tuple[int, ...] = (1215, 1215)
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A node's driver and GPUs. `name` tells its GPUs' UUIDs from those of other scenarios."""

    name: str
    driver_version: str
    cuda_version: str
    groups: tuple[Group, ...]


def built_in() -> tuple[str, ...]:
    """The names of the scenarios that Pegel brings along."""
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in _scenarios().iterdir()))


def source(name: str) -> Source:
    """The readings of a built-in scenario or a scenario file as a function of Unix time. Raises UserError."""
    scenario = load(name)
    return lambda now: read(scenario, now)


def load(name: str) -> Scenario:
    """A built-in scenario by its name, or one from a file. Raises UserError."""
    if name in built_in():
        return parse(_scenarios().joinpath(f"{name}.yaml").read_text(), name=name, where=name)
    path = Path(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UserError(f"{name}: no built-in scenario ({', '.join(built_in())}) and no file: {reason}") from error
    return parse(text, name=path.stem, where=name)


def parse(text: str, *, name: str, where: str) -> Scenario:
    """A scenario from YAML or JSON. Raises UserError that says where a value is wrong."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not a YAML file: {error}") from error
    document = _mapping(document, where)
    groups = document.get("groups")
    if not isinstance(groups, list) or not groups:
        raise UserError(f"{where}: 'groups' must be a list of GPU groups")
    parsed = tuple(_group(group, f"{where}: group {number}") for number, group in enumerate(groups, 1))
    return _build(Scenario, {**document, "groups": parsed, "name": name}, where)


def read(scenario: Scenario, now: float) -> Node:
    """All GPUs of a scenario at Unix time `now`, which is not before EPOCH."""
    groups = [group for group in scenario.groups for _ in range(group.count)]
    return Node(
        time=now,
        driver_version=scenario.driver_version,
        cuda_version=scenario.cuda_version,
        simulated=True,
        gpus=tuple(_reading(scenario.name, index, group, now) for index, group in enumerate(groups)),
    )


def _reading(scenario: str, index: int, group: Group, now: float) -> Reading:
    identity = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{scenario}.{index}.simulated.pegel.dev"))
    phase = zlib.crc32(identity.encode()) / 2**32
    load, busy_seconds = _load(group, phase, now)
    span = group.limit_watts * 0.95 - group.idle_watts
    busy = group.mean > 0
    memory = group.memory_mib * _MIB
    graphics, memory_clock = group.graphics_mhz[busy], group.memory_mhz[busy]
    heat = 34 + 40 * load
    raw: dict[str, float] = {
        "utilization": round(load * 100),
        "memory_utilization": round(load * 60),
        "memory_used": int(memory * group.memory_used),
        "memory_total": memory,
        "power": round((group.idle_watts + span * load) * 1000),
        "power_limit": round(group.limit_watts * 1000),
        "energy": round((group.idle_watts * (now - EPOCH) + span * busy_seconds) * 1000),
        "temperature": round(heat),
        "field_82": round(heat + 9),
        "clock:graphics": graphics,
        "clock:sm": graphics,
        "clock:memory": memory_clock,
        "clock:video": round(graphics * 0.9),
    }
    return Reading(
        uuid=f"GPU-{identity}",
        gpu=str(index),
        name=group.model,
        minor_number=str(index),
        pci_bus_id=f"00000000:{7 + 8 * index:02X}:00.0",
        raw={key: float(value) for key, value in raw.items() if key not in group.absent},
    )


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


def _scenarios() -> Any:
    return files("pegel_exporters.gpu").joinpath("scenarios")


def _group(value: object, where: str) -> Group:
    group = _build(Group, _mapping(value, where), where)
    if group.count < 1 or group.memory_mib < 1:
        raise UserError(f"{where}: 'count' and 'memory_mib' must be at least 1")
    if not group.swing <= group.mean <= 1 - group.swing:
        raise UserError(f"{where}: 'mean' plus and minus 'swing' must stay within 0 and 1")
    if not 0 <= group.memory_used <= 1:
        raise UserError(f"{where}: 'memory_used' must be between 0 and 1")
    if not 0 < group.idle_watts < group.limit_watts or group.period_seconds <= 0:
        raise UserError(f"{where}: 'idle_watts' must be above 0 and below 'limit_watts', 'period_seconds' above 0")
    if len(group.graphics_mhz) != 2 or len(group.memory_mhz) != 2:
        raise UserError(f"{where}: clocks are two numbers, idle and busy")
    for name in group.absent:
        if name not in ABSENT:
            raise UserError(f"{where}: {name!r} cannot be absent; known: {', '.join(ABSENT)}")
    return group


_KINDS: Mapping[Any, tuple[str, Callable[[Any], bool]]] = {
    str: ("text in quotes", lambda value: isinstance(value, str)),
    int: ("a whole number", lambda value: type(value) is int),
    float: ("a number", lambda value: type(value) in (int, float) and math.isfinite(value)),
    tuple[int, ...]: ("a list of whole numbers", lambda value: all(type(item) is int for item in value)),
    tuple[str, ...]: ("a list of words", lambda value: all(isinstance(item, str) for item in value)),
}


def _build(cls: Callable[..., T], values: Mapping[str, object], where: str) -> T:
    """A dataclass from values, each of the field's type. Raises UserError."""
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise UserError(f"{where}: {name!r} is not known; known: {', '.join(known)}")
    arguments: dict[str, object] = {}
    for name, field in known.items():
        if name in values:
            value = values[name]
            value = tuple(value) if isinstance(value, list) else value
            kind, fits = _KINDS.get(field.type, ("", lambda _: True))
            if isinstance(value, tuple) != str(field.type).startswith("tuple") or not fits(value):
                raise UserError(f"{where}: {name!r} must be {kind}")
            arguments[name] = float(value) if field.type is float else value  # type: ignore[arg-type]
        elif field.default is MISSING:
            raise UserError(f"{where}: {name!r} is missing")
    return cls(**arguments)


def _mapping(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected names and values, found {type(value).__name__}")
    return {str(name): item for name, item in value.items()}
