"""What one look at a node's GPUs found, in base units. A value that the driver doesn't have is None.

Readings travel from the worker process to the exporter as one line of JSON.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field


class DriverUnavailableError(Exception):
    """The NVIDIA driver cannot be asked; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One GPU. `gpu` is its index as NVML counts; `error` says why it could not be read, empty when it was.

    Ratios run from 0 to 1; temperatures are by sensor (`gpu`, `memory`) and clocks, in hertz, by domain
    (`graphics`, `sm`, `memory`, `video`), without those that the driver doesn't have. Energy counts from when the
    driver was loaded.
    """

    uuid: str
    gpu: str
    name: str = ""
    minor_number: str = ""
    pci_bus_id: str = ""
    error: str = ""
    utilization_ratio: float | None = None
    memory_utilization_ratio: float | None = None
    memory_used_bytes: float | None = None
    memory_total_bytes: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    energy_joules: float | None = None
    temperatures_celsius: Mapping[str, float] = field(default_factory=dict)
    clocks_hertz: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """All GPUs that the driver lists, read at Unix time `time`."""

    time: float
    driver_version: str
    cuda_version: str
    simulated: bool
    gpus: tuple[Reading, ...]

    def to_json(self) -> str:
        """One line without a line break."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str | bytes) -> "Node":
        """The node that `to_json` wrote. Raises DriverUnavailableError when the line tells of one instead."""
        fields = json.loads(line)
        if "unavailable" in fields:
            raise DriverUnavailableError(fields["unavailable"])
        return cls(**{**fields, "gpus": tuple(Reading(**gpu) for gpu in fields["gpus"])})
