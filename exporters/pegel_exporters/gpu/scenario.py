"""Scenarios of simulated GPUs: what such a file says, and what is wrong with one that can't be used.

A scenario is a YAML (or JSON) file: the driver's versions and groups of equal GPUs, as in `scenarios/`. What a real
model doesn't have is `absent` here.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml

from pegel_exporters.errors import UserError

ABSENT = ("utilization", "memory_utilization", "power", "power_limit", "energy", "field_82", "clock:video")
_PROFILE = re.compile(r"([1-7])g\.([0-9]+)gb")
_POD = re.compile(r"[a-z0-9-]+/[a-z0-9.-]+/[a-z0-9-]+")

T = TypeVar("T")


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
    gpm: bool = False
    """Whether the driver tells its inner activity, as of Hopper and newer."""
    nvlinks: int = 0
    pcie_generation: int = 4
    throttled: float = 0.0
    """The share of the time in which the power limit holds its clocks down."""
    mig: tuple[str, ...] = ()
    """Profiles of the MIG devices that it is cut into, such as `1g.5gb`."""
    pods: tuple[str, ...] = ()
    """NAMESPACE/POD/CONTAINER that hold it: one alone, several by time-slicing, or each the MIG device at its place."""

    @property
    def devices(self) -> tuple[tuple[int, int], ...]:
        """Slices and MiB of each MIG device."""
        told = (_PROFILE.fullmatch(profile) for profile in self.mig)
        return tuple((int(one[1]), int(one[2]) * 1024) for one in told if one)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happens to the GPU of an index again and again: at `seconds` after each `every` have begun.

    An `xid` is reported; without one the GPU is lost for `lasts` seconds, or, at index −1, the driver hangs so long.
    """

    gpu: int
    every: float
    seconds: float = 0.0
    lasts: float = 0.0
    xid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A node's driver and GPUs. `name` tells its GPUs' UUIDs from those of other scenarios."""

    name: str
    driver_version: str
    cuda_version: str
    groups: tuple[Group, ...]
    events: tuple[Event, ...] = ()

    @property
    def gpus(self) -> tuple[Group, ...]:
        """The group of each GPU."""
        return tuple(group for group in self.groups for _ in range(group.count))


def built_in() -> tuple[str, ...]:
    """The names of the scenarios that Pegel brings along."""
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in _scenarios().iterdir()))


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
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: not a YAML file: {error}") from error
    document = _mapping(document, where)
    groups = document.get("groups")
    if not isinstance(groups, list) or not groups:
        raise UserError(f"{where}: 'groups' must be a list of GPU groups")
    parsed = tuple(_group(group, f"{where}: group {number}") for number, group in enumerate(groups, 1))
    events = document.get("events", [])
    if not isinstance(events, list):
        raise UserError(f"{where}: 'events' must be a list")
    happens = tuple(_event(event, f"{where}: event {number}") for number, event in enumerate(events, 1))
    scenario = _build(Scenario, {**document, "groups": parsed, "events": happens, "name": name}, where)
    for number, event in enumerate(happens, 1):
        if not -1 <= event.gpu < len(scenario.gpus):
            raise UserError(f"{where}: event {number}: there is no GPU {event.gpu}")
    return scenario


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
    if len(group.devices) != len(group.mig):
        raise UserError(f"{where}: 'mig' must be profiles such as 1g.5gb")
    if sum(slices for slices, _ in group.devices) > 7 or len(group.pods) > len(group.mig) > 0:
        raise UserError(f"{where}: 'mig' has more than seven slices, or 'pods' more than it has devices")
    if not all(_POD.fullmatch(pod) for pod in group.pods):
        raise UserError(f"{where}: 'pods' must be NAMESPACE/POD/CONTAINER")
    if not 0 <= group.throttled <= 1 or not 0 <= group.nvlinks <= 18:
        raise UserError(f"{where}: 'throttled' must be between 0 and 1, 'nvlinks' between 0 and 18")
    for name in group.absent:
        if name not in ABSENT:
            raise UserError(f"{where}: {name!r} cannot be absent; known: {', '.join(ABSENT)}")
    return group


def _event(value: object, where: str) -> Event:
    event = _build(Event, _mapping(value, where), where)
    if not event.every > 0 or not 0 <= event.seconds < event.every or not 0 <= event.lasts < event.every:
        raise UserError(f"{where}: 'every' must be above 0, 'seconds' and 'lasts' from 0 to below it")
    if (event.xid > 0) == (event.lasts > 0):
        raise UserError(f"{where}: either 'xid' or 'lasts' must be above 0")
    return event


_KINDS: Mapping[Any, tuple[str, Callable[[Any], bool]]] = {
    str: ("text in quotes", lambda value: isinstance(value, str)),
    bool: ("true or false", lambda value: isinstance(value, bool)),
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
