"""The names, units and labels of dcgm-exporter, for dashboards and rules that were made for it. Pure.

What DCGM's profiling module gives before Hopper NVML doesn't, and is absent here. A value stands once, with the pod
that holds its GPU or MIG device alone; of a device that pods share no pod is named, because no value is any one's.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pegel_exporters.catalogue import Metric, MetricType
from pegel_exporters.exposition import Family, Histogram, LabelValues
from pegel_exporters.gpu.attribution import Allocation
from pegel_exporters.gpu.measures import plausible
from pegel_exporters.gpu.metrics import Fleet
from pegel_exporters.gpu.readings import Instance, Raw, Reading

LABELS = (
    "gpu", "UUID", "pci_bus_id", "device", "modelName", "GPU_I_PROFILE", "GPU_I_ID", "Hostname", "hostname",
    "DCGM_FI_DRIVER_VERSION", "container", "namespace", "pod",
)  # fmt: skip
"""Both spellings of the host's name: releases of dcgm-exporter and its dashboards differ in it."""

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Field:
    """A DCGM field: the key of NVML's value, and what that is divided by to be in DCGM's unit."""

    metric: Metric
    key: str
    divisor: float = 1.0


def _field(name: str, key: str, help_text: str, *, divisor: float = 1.0, kind: MetricType = "gauge") -> Field:
    return Field(Metric(f"DCGM_FI_{name}", kind, help_text, LABELS), key, divisor)


FIELDS: tuple[Field, ...] = (
    _field("DEV_SM_CLOCK", "clock:sm", "SM clock (MHz)."),
    _field("DEV_MEM_CLOCK", "clock:memory", "Memory clock (MHz)."),
    _field("DEV_GPU_TEMP", "temperature", "GPU temperature (°C)."),
    _field("DEV_MEMORY_TEMP", "field_82", "Memory temperature (°C)."),
    _field("DEV_SLOWDOWN_TEMP", "threshold:slowdown", "Temperature at which the GPU slows down (°C)."),
    _field("DEV_SHUTDOWN_TEMP", "threshold:shutdown", "Temperature at which the GPU shuts down (°C)."),
    _field("DEV_POWER_USAGE", "power", "Power drawn (W).", divisor=1e3),
    _field("DEV_POWER_MGMT_LIMIT", "power_limit", "Power limit in force (W).", divisor=1e3),
    _field("DEV_TOTAL_ENERGY_CONSUMPTION", "energy", "Energy since the driver was loaded (mJ).", kind="counter"),
    _field("DEV_GPU_UTIL", "utilization", "GPU utilisation (%)."),
    _field("DEV_MEM_COPY_UTIL", "memory_utilization", "Memory controller's utilisation (%)."),
    _field("DEV_ENC_UTIL", "encoder_utilization", "Encoder utilisation (%)."),
    _field("DEV_DEC_UTIL", "decoder_utilization", "Decoder utilisation (%)."),
    _field("DEV_FB_TOTAL", "memory_total", "Framebuffer memory (MiB).", divisor=_MIB),
    _field("DEV_FB_FREE", "memory_free", "Framebuffer memory that is free (MiB).", divisor=_MIB),
    _field("DEV_FB_USED", "memory_used", "Framebuffer memory in use (MiB).", divisor=_MIB),
    _field("DEV_FB_RESERVED", "memory_reserved", "Framebuffer memory that the driver keeps (MiB).", divisor=_MIB),
    _field("DEV_BAR1_TOTAL", "bar1_total", "BAR1 address space (MiB).", divisor=_MIB),
    _field("DEV_BAR1_USED", "bar1_used", "BAR1 address space in use (MiB).", divisor=_MIB),
    _field("DEV_PSTATE", "pstate", "Performance state, 0 is the highest."),
    _field("DEV_FAN_SPEED", "fan:0", "Speed of the first fan (%)."),
    _field("DEV_MIG_MODE", "mig_mode", "Whether the GPU is cut into MIG devices."),
    _field("DEV_CLOCK_THROTTLE_REASONS", "throttle_reasons", "Bits of NVML's clock event reasons."),
    _field("DEV_POWER_VIOLATION", "field_74", "Time throttled for power (us).", divisor=1e3, kind="counter"),
    _field("DEV_THERMAL_VIOLATION", "field_75", "Time throttled for heat (us).", divisor=1e3, kind="counter"),
    _field("DEV_SYNC_BOOST_VIOLATION", "field_76", "Time throttled by sync boost (us).", divisor=1e3, kind="counter"),
    _field("DEV_BOARD_LIMIT_VIOLATION", "field_77", "Time at the board's limit (us).", divisor=1e3, kind="counter"),
    _field("DEV_LOW_UTIL_VIOLATION", "field_78", "Time throttled for low use (us).", divisor=1e3, kind="counter"),
    _field("DEV_RELIABILITY_VIOLATION", "field_79", "Time at the reliability limit (us).", divisor=1e3, kind="counter"),
    _field("DEV_PCIE_REPLAY_COUNTER", "pcie_replays", "PCIe packets that were sent again.", kind="counter"),
    _field("DEV_PCIE_LINK_GEN", "pcie_generation", "PCIe generation now."),
    _field("DEV_PCIE_LINK_WIDTH", "pcie_width", "PCIe lanes in use."),
    _field("DEV_PCIE_MAX_LINK_GEN", "pcie_max_generation", "Highest PCIe generation."),
    _field("DEV_PCIE_MAX_LINK_WIDTH", "pcie_max_width", "PCIe lanes there are."),
    _field("DEV_ECC_SBE_VOL_TOTAL", "field_3", "Corrected memory errors since the driver's load.", kind="counter"),
    _field("DEV_ECC_DBE_VOL_TOTAL", "field_4", "Uncorrected memory errors since the driver's load.", kind="counter"),
    _field("DEV_ECC_SBE_AGG_TOTAL", "field_5", "Corrected memory errors over the GPU's life.", kind="counter"),
    _field("DEV_ECC_DBE_AGG_TOTAL", "field_6", "Uncorrected memory errors over the GPU's life.", kind="counter"),
    _field("DEV_RETIRED_SBE", "field_29", "Pages retired for corrected errors.", kind="counter"),
    _field("DEV_RETIRED_DBE", "field_30", "Pages retired for uncorrected errors.", kind="counter"),
    _field("DEV_RETIRED_PENDING", "field_31", "Whether pages wait to be retired.", kind="counter"),
    _field("DEV_CORRECTABLE_REMAPPED_ROWS", "field_142", "Rows replaced for corrected errors.", kind="counter"),
    _field("DEV_UNCORRECTABLE_REMAPPED_ROWS", "field_143", "Rows replaced for uncorrected errors.", kind="counter"),
    _field("DEV_ROW_REMAP_PENDING", "field_144", "Whether a row waits to be replaced."),
    _field("DEV_ROW_REMAP_FAILURE", "field_145", "Whether a row could not be replaced."),
    _field("PROF_GR_ENGINE_ACTIVE", "gpm_1", "Share of time with any work (0 to 1).", divisor=100),
    _field("PROF_SM_ACTIVE", "gpm_2", "Share of the multiprocessors that were busy (0 to 1).", divisor=100),
    _field("PROF_SM_OCCUPANCY", "gpm_3", "Active warps of those possible (0 to 1).", divisor=100),
    _field("PROF_PIPE_TENSOR_ACTIVE", "gpm_5", "Share of time with tensor operations (0 to 1).", divisor=100),
    _field("PROF_DRAM_ACTIVE", "gpm_10", "Memory bandwidth used of that possible (0 to 1).", divisor=100),
    _field("PROF_PIPE_FP64_ACTIVE", "gpm_11", "Share of time with FP64 operations (0 to 1).", divisor=100),
    _field("PROF_PIPE_FP32_ACTIVE", "gpm_12", "Share of time with FP32 operations (0 to 1).", divisor=100),
    _field("PROF_PIPE_FP16_ACTIVE", "gpm_13", "Share of time with FP16 operations (0 to 1).", divisor=100),
    _field("PROF_PCIE_TX_BYTES", "gpm_20", "Bytes a second sent over PCIe.", divisor=1 / _MIB),
    _field("PROF_PCIE_RX_BYTES", "gpm_21", "Bytes a second received over PCIe.", divisor=1 / _MIB),
    _field("PROF_NVLINK_TX_BYTES", "gpm_61", "Bytes a second sent over NVLink.", divisor=1 / _MIB),
    _field("PROF_NVLINK_RX_BYTES", "gpm_60", "Bytes a second received over NVLink.", divisor=1 / _MIB),
)
XID_ERRORS = Metric("DCGM_FI_DEV_XID_ERRORS", "gauge", "The last XID error, 0 before any.", LABELS)


def families(fleet: Fleet, hostname: str) -> tuple[Family, ...]:
    """The page's families, those without samples too. A MIG device stands beside its GPU, with GPU_I_ID."""
    told: dict[str, dict[LabelValues, float | Histogram]] = {field.metric.name: {} for field in FIELDS}
    xids: dict[LabelValues, float | Histogram] = {}
    for gauge in fleet.gauges:
        if gauge.reading.uuid:
            code = gauge.last_xid.code if gauge.last_xid else 0
            xids[_labels(fleet, gauge.reading, hostname)] = float(code)
        for labels, raw in _devices(fleet, gauge.reading, hostname) if gauge.fresh else ():
            for field in FIELDS:
                value = raw.get(field.key)
                if value is not None and plausible(field.key, value):
                    told[field.metric.name][labels] = value / field.divisor
    return *(Family(field.metric, told[field.metric.name]) for field in FIELDS), Family(XID_ERRORS, xids)


def _devices(fleet: Fleet, gpu: Reading, hostname: str) -> Iterator[tuple[LabelValues, Raw]]:
    """A GPU and its MIG devices: their labels and values."""
    of_parts = {key for instance in gpu.instances for key in instance.raw}
    # What its parts tell the whole doesn't tell again: a sum over all series is then right.
    yield _labels(fleet, gpu, hostname), {key: value for key, value in gpu.raw.items() if key not in of_parts}
    for instance in gpu.instances:
        yield _labels(fleet, gpu, hostname, instance), instance.raw


def _labels(fleet: Fleet, gpu: Reading, hostname: str, instance: Instance | None = None) -> LabelValues:
    holder = _alone(fleet, gpu.uuid, instance.uuid if instance else "")
    return (
        gpu.gpu,
        gpu.uuid,
        gpu.pci_bus_id,
        f"nvidia{gpu.minor_number or gpu.gpu}",
        gpu.name,
        *((instance.profile, str(instance.gpu_instance)) if instance else ("", "")),
        hostname,
        hostname,
        fleet.driver_version,
        *((holder.container, holder.namespace, holder.pod) if holder else ("", "", "")),
    )


def _alone(fleet: Fleet, uuid: str, mig_uuid: str) -> Allocation | None:
    """The one container that holds a device for itself."""
    held = fleet.pods.allocations.held if fleet.pods and fleet.pods.allocations else ()
    of_device = [one for one in held if (one.uuid, one.mig_uuid) == (uuid, mig_uuid)]
    return of_device[0] if len(of_device) == 1 and of_device[0].attribution in ("exclusive", "mig") else None
