"""What one look at a node's GPUs found, in NVML's own units, before anybody interprets it.

`raw` values are named by the keys of `measures`: what the driver doesn't have has no key. Readings travel from the
worker process to the exporter as one line of JSON.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec


class DriverUnavailableError(Exception):
    """The NVIDIA driver cannot be asked; the message says why."""


Raw = Mapping[str, float]
"""Values in NVML's units (percent, milliwatts, MHz, bytes), by key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process that has a context on a GPU, as the host numbers it.

    `kind` is `compute` or `graphics`. `memory_bytes` is None where the driver doesn't tell, `sm_percent` where the
    process was not sampled since the last reading. `gpu_instance` is the MIG instance, None without MIG.
    """

    pid: int
    kind: str = "compute"
    memory_bytes: float | None = None
    sm_percent: float | None = None
    gpu_instance: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A MIG device: a compute instance in a GPU instance. `profile` is such as `1g.5gb`; `slices` are its sevenths."""

    uuid: str
    profile: str
    gpu_instance: int
    compute_instance: int
    slices: int
    raw: Raw = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One GPU. `gpu` is its index as NVML counts; `error` says why it could not be read, empty when it was."""

    uuid: str
    gpu: str
    name: str = ""
    minor_number: str = ""
    pci_bus_id: str = ""
    error: str = ""
    raw: Raw = field(default_factory=dict)
    instances: tuple[Instance, ...] = ()
    processes: tuple[Process, ...] = ()

    def instance(self, uuid: str) -> Instance | None:
        """Its MIG device of this UUID, None where it has none."""
        return next((one for one in self.instances if one.uuid == uuid), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Xid:
    """An error that the driver reported of a GPU at Unix time `time`, by NVIDIA's code."""

    uuid: str
    code: int
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """All GPUs that the driver lists, read at Unix time `time`; `xids` are those reported since the last reading."""

    time: float
    driver_version: str
    cuda_version: str
    simulated: bool
    gpus: tuple[Reading, ...]
    xids: tuple[Xid, ...] = ()

    def to_json(self) -> bytes:
        """One line without a line break."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, line: bytes) -> "Node":
        """The node that `to_json` wrote. Raises DriverUnavailableError when the line tells of one instead."""
        try:
            return msgspec.json.decode(line, type=cls)
        except msgspec.ValidationError:
            raise DriverUnavailableError(msgspec.json.decode(line, type=Unavailable).unavailable) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """Why there is no node, in its place."""

    unavailable: str
