"""NVML's values to metrics in base units: one table. Pure.

A key names a value as `readings.Raw` carries it, in NVML's own unit; `field_N` is the field value that NVML numbers N,
`gpm_N` the GPM metric N of Hopper and newer, and a word more after a colon is the link, fan or place that it is of.

Drivers have been seen to report a utilisation of 808,334,905 percent and 644,245,923 °C; such a value is worse than
none, because averages believe it. So each metric has its limits, and what is outside them is left out and counted.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from pegel_exporters import catalogue
from pegel_exporters.catalogue import Metric
from pegel_exporters.gpu.readings import Raw

LINKS = 18
"""NVLinks that a GPU has at most."""
FANS = 8

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Measure:
    """What becomes of a value: a sample of `metric`, with the values of its labels after the GPU's own."""

    metric: Metric
    labels: Labels = ()
    factor: float = 1.0
    """From NVML's unit to the metric's."""


_PERCENT, _MILLI, _NANO, _MHZ, _KIB, _MIB = 1e-2, 1e-3, 1e-9, 1e6, 1024.0, float(1 << 20)

_ECC_PLACES = ("l1", "l2", "dram", "register", "texture", "shared", "cbu", "sram")
_CLOCKS = ("graphics", "sm", "memory", "video")
_THROTTLE_FIELDS = {
    74: "power_cap", 75: "thermal", 76: "sync_boost", 77: "board_limit", 78: "low_utilization", 79: "reliability",
    80: "application_clocks", 81: "base_clocks", 269: "software_thermal", 270: "hardware_thermal", 271: "power_brake",
}  # fmt: skip
_PCIE_ERRORS = {
    173: "correctable", 174: "nak_received", 175: "receiver", 176: "bad_tlp", 177: "nak_sent", 178: "bad_dllp",
    179: "non_fatal", 180: "fatal", 181: "unsupported_request", 182: "lcrc", 183: "lane",
}  # fmt: skip
_NVLINK_ERRORS = {
    161: "replay", 162: "recovery", 163: "crc", 206: "malformed_packet", 207: "buffer_overrun", 208: "receive",
    209: "receive_remote", 210: "receive_general", 211: "local_integrity", 212: "transmit_discard",
    214: "recovery_failed", 219: "effective", 221: "symbol",
}  # fmt: skip
_GPM = {
    2: catalogue.GPU_SM_ACTIVE, 3: catalogue.GPU_SM_OCCUPANCY, 5: catalogue.GPU_TENSOR_ACTIVE,
    10: catalogue.GPU_DRAM_ACTIVE, 11: catalogue.GPU_FP64_ACTIVE, 12: catalogue.GPU_FP32_ACTIVE,
    13: catalogue.GPU_FP16_ACTIVE,
}  # fmt: skip

MEASURES: Mapping[str, Measure] = {
    "utilization": Measure(catalogue.GPU_UTILIZATION, factor=_PERCENT),
    "memory_utilization": Measure(catalogue.GPU_MEMORY_UTILIZATION, factor=_PERCENT),
    "encoder_utilization": Measure(catalogue.GPU_ENCODER_UTILIZATION, factor=_PERCENT),
    "decoder_utilization": Measure(catalogue.GPU_DECODER_UTILIZATION, factor=_PERCENT),
    "memory_used": Measure(catalogue.GPU_MEMORY_USED),
    "memory_total": Measure(catalogue.GPU_MEMORY_TOTAL),
    "memory_reserved": Measure(catalogue.GPU_MEMORY_RESERVED),
    "bar1_used": Measure(catalogue.GPU_BAR1_USED),
    "bar1_total": Measure(catalogue.GPU_BAR1_TOTAL),
    "power": Measure(catalogue.GPU_POWER, factor=_MILLI),
    "power_limit": Measure(catalogue.GPU_POWER_LIMIT, factor=_MILLI),
    "field_187": Measure(catalogue.GPU_POWER_LIMIT_BOUND, ("min",), _MILLI),
    "field_188": Measure(catalogue.GPU_POWER_LIMIT_BOUND, ("max",), _MILLI),
    "field_189": Measure(catalogue.GPU_POWER_LIMIT_BOUND, ("default",), _MILLI),
    "energy": Measure(catalogue.GPU_ENERGY, factor=_MILLI),
    "temperature": Measure(catalogue.GPU_TEMPERATURE, ("gpu",)),
    "field_82": Measure(catalogue.GPU_TEMPERATURE, ("memory",)),
    "threshold:shutdown": Measure(catalogue.GPU_TEMPERATURE_LIMIT, ("shutdown",)),
    "threshold:slowdown": Measure(catalogue.GPU_TEMPERATURE_LIMIT, ("slowdown",)),
    "threshold:memory_max": Measure(catalogue.GPU_TEMPERATURE_LIMIT, ("memory_max",)),
    "threshold:gpu_max": Measure(catalogue.GPU_TEMPERATURE_LIMIT, ("gpu_max",)),
    "margin": Measure(catalogue.GPU_TEMPERATURE_MARGIN),
    **{f"clock:{clock}": Measure(catalogue.GPU_CLOCK, (clock,), _MHZ) for clock in _CLOCKS},
    **{f"max_clock:{clock}": Measure(catalogue.GPU_CLOCK_MAX, (clock,), _MHZ) for clock in _CLOCKS},
    "pstate": Measure(catalogue.GPU_PERFORMANCE_STATE),
    **{f"field_{n}": Measure(catalogue.GPU_THROTTLE_SECONDS, (why,), _NANO) for n, why in _THROTTLE_FIELDS.items()},
    "field_1": Measure(catalogue.GPU_ECC_ENABLED),
    **{
        f"ecc_{severity}:{place}": Measure(catalogue.GPU_ECC_ERRORS, (severity, place))
        for severity in ("corrected", "uncorrected")
        for place in _ECC_PLACES
    },
    "field_142": Measure(catalogue.GPU_REMAPPED_ROWS, ("correctable",)),
    "field_143": Measure(catalogue.GPU_REMAPPED_ROWS, ("uncorrectable",)),
    "field_144": Measure(catalogue.GPU_ROW_REMAP_PENDING),
    "field_145": Measure(catalogue.GPU_ROW_REMAP_FAILED),
    "field_29": Measure(catalogue.GPU_RETIRED_PAGES, ("corrected",)),
    "field_30": Measure(catalogue.GPU_RETIRED_PAGES, ("uncorrected",)),
    "field_31": Measure(catalogue.GPU_RETIRED_PAGES_PENDING),
    "pcie_generation": Measure(catalogue.GPU_PCIE_GENERATION),
    "pcie_max_generation": Measure(catalogue.GPU_PCIE_GENERATION_MAX),
    "pcie_width": Measure(catalogue.GPU_PCIE_WIDTH),
    "pcie_max_width": Measure(catalogue.GPU_PCIE_WIDTH_MAX),
    "pcie_replays": Measure(catalogue.GPU_PCIE_REPLAYS),
    "field_197": Measure(catalogue.GPU_PCIE_BYTES, ("transmit",)),
    "field_198": Measure(catalogue.GPU_PCIE_BYTES, ("receive",)),
    **{f"field_{n}": Measure(catalogue.GPU_PCIE_ERRORS, (kind,)) for n, kind in _PCIE_ERRORS.items()},
    **{f"nvlink_state:{link}": Measure(catalogue.GPU_NVLINK_UP, (str(link),)) for link in range(LINKS)},
    "nvlink_transmit": Measure(catalogue.GPU_NVLINK_BYTES, ("transmit",)),
    "nvlink_receive": Measure(catalogue.GPU_NVLINK_BYTES, ("receive",)),
    **{f"field_{n}": Measure(catalogue.GPU_NVLINK_ERRORS, (kind,)) for n, kind in _NVLINK_ERRORS.items()},
    **{f"fan:{fan}": Measure(catalogue.GPU_FAN_SPEED, (str(fan),), _PERCENT) for fan in range(FANS)},
    **{f"gpm_{n}": Measure(metric, factor=_PERCENT) for n, metric in _GPM.items()},
    "gpm_20": Measure(catalogue.GPU_PCIE_RATE, ("transmit",), _MIB),
    "gpm_21": Measure(catalogue.GPU_PCIE_RATE, ("receive",), _MIB),
    "gpm_61": Measure(catalogue.GPU_NVLINK_RATE, ("transmit",), _MIB),
    "gpm_60": Measure(catalogue.GPU_NVLINK_RATE, ("receive",), _MIB),
    "mig_mode": Measure(catalogue.GPU_MIG_ENABLED),
    "processes:compute": Measure(catalogue.GPU_PROCESSES, ("compute",)),
    "processes:graphics": Measure(catalogue.GPU_PROCESSES, ("graphics",)),
}
"""Of a GPU; `throttle_reasons` and `field_230` (what to do to recover) are one value and several samples each."""

MIG_MEASURES: Mapping[str, Measure] = {
    "memory_used": Measure(catalogue.GPU_MIG_MEMORY_USED),
    "memory_total": Measure(catalogue.GPU_MIG_MEMORY_TOTAL),
    "gpm_1": Measure(catalogue.GPU_MIG_UTILIZATION, factor=_PERCENT),
    "gpm_2": Measure(catalogue.GPU_MIG_SM_ACTIVE, factor=_PERCENT),
    "gpm_5": Measure(catalogue.GPU_MIG_TENSOR_ACTIVE, factor=_PERCENT),
    "gpm_10": Measure(catalogue.GPU_MIG_DRAM_ACTIVE, factor=_PERCENT),
}
"""Of a MIG device. Its metrics have names of their own, so that a sum over GPUs counts nothing twice."""

_REASONS = {
    0x1: "idle", 0x2: "application_clocks", 0x4: "power_cap", 0x8: "hardware_slowdown", 0x10: "sync_boost",
    0x20: "software_thermal", 0x40: "hardware_thermal", 0x80: "power_brake", 0x100: "display_clocks",
    0x200: "board_limit", 0x400: "reliability",
}  # fmt: skip
"""Bits of `throttle_reasons`, as nvmlClocksEventReason… names them."""
RECOVERY_ACTIONS = (
    "none", "reset", "reboot", "drain_p2p", "drain_and_reset", "recover_imex", "bus_reset", "system_reboot",
)  # fmt: skip
"""By nvmlDeviceGpuRecoveryAction_t."""

_RATIO, _FLAG, _BYTES, _COUNT = (0.0, 1.0), (0.0, 1.0), (0.0, 2.0**50), (0.0, 2.0**63)
_LIMITS: Mapping[str, tuple[float, float]] = {
    metric.name: limits
    for limits, metrics in (
        (
            _RATIO,
            (
                catalogue.GPU_UTILIZATION,
                catalogue.GPU_MEMORY_UTILIZATION,
                catalogue.GPU_ENCODER_UTILIZATION,
                catalogue.GPU_DECODER_UTILIZATION,
                *_GPM.values(),
                catalogue.GPU_MIG_UTILIZATION,
                catalogue.GPU_MIG_SM_ACTIVE,
                catalogue.GPU_MIG_TENSOR_ACTIVE,
                catalogue.GPU_MIG_DRAM_ACTIVE,
            ),
        ),
        (
            _FLAG,
            (
                catalogue.GPU_ECC_ENABLED,
                catalogue.GPU_ROW_REMAP_PENDING,
                catalogue.GPU_ROW_REMAP_FAILED,
                catalogue.GPU_RETIRED_PAGES_PENDING,
                catalogue.GPU_NVLINK_UP,
                catalogue.GPU_MIG_ENABLED,
            ),
        ),
        (
            _BYTES,
            (
                catalogue.GPU_MEMORY_USED,
                catalogue.GPU_MEMORY_RESERVED,
                catalogue.GPU_BAR1_USED,
                catalogue.GPU_BAR1_TOTAL,
                catalogue.GPU_MIG_MEMORY_USED,
            ),
        ),
        ((1.0, 2.0**50), (catalogue.GPU_MEMORY_TOTAL, catalogue.GPU_MIG_MEMORY_TOTAL)),
        ((0.0, 10_000.0), (catalogue.GPU_POWER, catalogue.GPU_POWER_LIMIT, catalogue.GPU_POWER_LIMIT_BOUND)),
        ((0.0, 1e13), (catalogue.GPU_ENERGY,)),
        ((-50.0, 150.0), (catalogue.GPU_TEMPERATURE, catalogue.GPU_TEMPERATURE_LIMIT)),
        ((-200.0, 200.0), (catalogue.GPU_TEMPERATURE_MARGIN,)),
        ((0.0, 1e11), (catalogue.GPU_CLOCK, catalogue.GPU_CLOCK_MAX)),
        ((0.0, 15.0), (catalogue.GPU_PERFORMANCE_STATE,)),
        ((0.0, 1e11), (catalogue.GPU_THROTTLE_SECONDS,)),
        ((0.0, 2.0), (catalogue.GPU_FAN_SPEED,)),  # a fan may run above the speed that it is made for
        ((1.0, 10.0), (catalogue.GPU_PCIE_GENERATION, catalogue.GPU_PCIE_GENERATION_MAX)),
        ((1.0, 64.0), (catalogue.GPU_PCIE_WIDTH, catalogue.GPU_PCIE_WIDTH_MAX)),
        ((0.0, 1e13), (catalogue.GPU_PCIE_RATE, catalogue.GPU_NVLINK_RATE)),
        ((0.0, 1e6), (catalogue.GPU_REMAPPED_ROWS, catalogue.GPU_RETIRED_PAGES, catalogue.GPU_PROCESSES)),
    )
    for metric in metrics
}
"""What each metric's value can be in this world; a counter that isn't named is a count of at most 2⁶³."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Samples by metric name and label values after the GPU's own, and how many values could not be true."""

    samples: Mapping[str, Mapping[Labels, float]]
    implausible: int

    def value(self, metric: Metric, *labels: str) -> float | None:
        """One sample, None where there is none."""
        return self.samples.get(metric.name, {}).get(labels)


def possible(metric: Metric, value: float) -> bool:
    """Whether a metric can have this value; not a number is never possible."""
    low, high = _LIMITS.get(metric.name, _COUNT)
    return low <= value <= high


def plausible(key: str, value: float) -> bool:
    """Whether a value in NVML's unit can be true; one that no measure has is a count."""
    what = MEASURES.get(key)
    return possible(what.metric, _convert(value, what.factor)) if what else 0 <= value <= 2**63


def _convert(value: float, factor: float) -> float:
    """From NVML's unit to the metric's. Division keeps 43 percent 0.43, where times 0.01 doesn't."""
    return value / round(1 / factor) if factor < 1 else value * factor


def measure(raw: Raw, table: Mapping[str, Measure] = MEASURES) -> Measured:
    """The samples of one GPU's or, with MIG_MEASURES, MIG device's values. Keys that no measure has are passed over."""
    samples: dict[str, dict[Labels, float]] = {}
    implausible = 0
    of_table = ((table[key], value) for key, value in raw.items() if key in table)
    for what, value in chain(of_table, _several(raw) if table is MEASURES else ()):
        number = _convert(value, what.factor)
        if possible(what.metric, number):
            samples.setdefault(what.metric.name, {})[what.labels] = number
        else:
            implausible += 1
    return Measured(samples, implausible)


def _several(raw: Raw) -> Iterator[tuple[Measure, float]]:
    """The values that are several samples."""
    if (bits := raw.get("throttle_reasons")) is not None:
        for bit, reason in _REASONS.items():
            yield Measure(catalogue.GPU_THROTTLED, (reason,)), float(int(bits) & bit > 0)
    if (action := raw.get("field_230")) is not None:
        for number, name in enumerate(RECOVERY_ACTIONS):
            yield Measure(catalogue.GPU_RECOVERY_ACTION, (name,)), float(int(action) == number)
