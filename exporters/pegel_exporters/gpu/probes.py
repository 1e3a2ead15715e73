"""What NVML is asked of one GPU and its MIG devices. With `devices` and `events` the only importers of pynvml.

What a device doesn't support, or the driver's library doesn't know, is absent. That doesn't change while the driver
stays loaded, so it is asked for once. No call here sleeps in the driver.
"""

import ctypes
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pynvml

from pegel_exporters.gpu.measures import FANS, LINKS, MEASURES
from pegel_exporters.gpu.readings import Instance, Process, Reading

DRIVER_GONE = {
    pynvml.NVML_ERROR_UNINITIALIZED,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
}
_DEVICE_GONE = {
    pynvml.NVML_ERROR_GPU_IS_LOST,
    pynvml.NVML_ERROR_RESET_REQUIRED,
    pynvml.NVML_ERROR_GPU_NOT_FOUND,
}
_ABSENT = {
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    pynvml.NVML_ERROR_NO_PERMISSION,
    pynvml.NVML_ERROR_INVALID_ARGUMENT,  # a place, a link or a fan that this GPU doesn't have
}
_KINDS = ("compute", "graphics")
_ALL_LINKS = 0xFFFF_FFFF
_NO_INSTANCE = 0xFFFF_FFFF
_UNKNOWN_PSTATE = pynvml.NVML_PSTATE_UNKNOWN
_GPM_APART_SECONDS = 0.1
_GPM = (1, 2, 3, 5, 10, 11, 12, 13, 20, 21, 60, 61)
_GPM_OF_MIG = (1, 2, 5, 10)
_NVLINK_FIELDS = (161, 162, 163, 206, 207, 208, 209, 210, 211, 212, 214, 219, 221)
_FIELDS = tuple(
    sorted(
        {int(key.removeprefix("field_")) for key in MEASURES if key.startswith("field_")} - {*_NVLINK_FIELDS}
        | {3, 4, 5, 6, pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION}
    )
)
_CLOCKS = {
    "graphics": pynvml.NVML_CLOCK_GRAPHICS,
    "sm": pynvml.NVML_CLOCK_SM,
    "memory": pynvml.NVML_CLOCK_MEM,
    "video": pynvml.NVML_CLOCK_VIDEO,
}
_THRESHOLDS = {
    "shutdown": pynvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN,
    "slowdown": pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN,
    "memory_max": pynvml.NVML_TEMPERATURE_THRESHOLD_MEM_MAX,
    "gpu_max": pynvml.NVML_TEMPERATURE_THRESHOLD_GPU_MAX,
}
_PLACES = ("l1", "l2", "dram", "register", "texture", "shared", "cbu", "sram")
"""By nvmlMemoryLocation_t."""
_SEVERITIES = {
    "corrected": pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED,
    "uncorrected": pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
}

Call = Callable[[], Any]
_Asked = tuple[str, tuple[str, ...], tuple[Any, ...]]
"""A key, the functions of pynvml that may answer, newest first, and their arguments after the handle."""

_CHANGING: tuple[_Asked, ...] = (
    ("power", ("nvmlDeviceGetPowerUsage",), ()),
    ("power_limit", ("nvmlDeviceGetEnforcedPowerLimit",), ()),
    ("energy", ("nvmlDeviceGetTotalEnergyConsumption",), ()),
    ("temperature", ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"), (pynvml.NVML_TEMPERATURE_GPU,)),
    ("margin", ("nvmlDeviceGetMarginTemperature",), ()),
    ("throttle_reasons", ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"), ()),
    ("pcie_generation", ("nvmlDeviceGetCurrPcieLinkGeneration",), ()),
    ("pcie_width", ("nvmlDeviceGetCurrPcieLinkWidth",), ()),
    ("pcie_replays", ("nvmlDeviceGetPcieReplayCounter",), ()),
    *((f"clock:{clock}", ("nvmlDeviceGetClockInfo",), (domain,)) for clock, domain in _CLOCKS.items()),
    *(
        (f"ecc_{severity}:{place}", ("nvmlDeviceGetMemoryErrorCounter",), (kind, pynvml.NVML_AGGREGATE_ECC, number))
        for severity, kind in _SEVERITIES.items()
        for number, place in enumerate(_PLACES)
    ),
    *((f"nvlink_state:{link}", ("nvmlDeviceGetNvLinkState",), (link,)) for link in range(LINKS)),
    *((f"fan:{fan}", ("nvmlDeviceGetFanSpeed_v2",), (fan,)) for fan in range(FANS)),
)
_LASTING: tuple[_Asked, ...] = (
    ("pcie_max_generation", ("nvmlDeviceGetMaxPcieLinkGeneration",), ()),
    ("pcie_max_width", ("nvmlDeviceGetMaxPcieLinkWidth",), ()),
    *((f"max_clock:{clock}", ("nvmlDeviceGetMaxClockInfo",), (domain,)) for clock, domain in _CLOCKS.items()),
    *((f"threshold:{name}", ("nvmlDeviceGetTemperatureThreshold",), (number,)) for name, number in _THRESHOLDS.items()),
)


class Asker:
    """One NVML handle, with what it turned out not to have."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self._absent: set[str] = set()

    def ask(self, key: str, *calls: Call) -> Any:
        """What the first of the calls that this device knows returns; None when it has none or none now.

        Raises NVMLError when the device or its driver is gone.
        """
        for number, call in enumerate(calls):
            name = f"{key} {number}"
            if name in self._absent:
                continue
            try:
                return call()
            except pynvml.NVMLError as error:
                if error.value in DRIVER_GONE | _DEVICE_GONE:
                    raise
                if error.value not in _ABSENT:
                    return None
                self._absent.add(name)
        return None

    def forget(self) -> None:
        """Ask anew for what it didn't have."""
        self._absent.clear()

    def named(self, key: str, functions: tuple[str, ...], arguments: tuple[Any, ...] = ()) -> Any:
        """`ask` for functions of pynvml by their names; one that this pynvml doesn't have is passed over."""
        found = (getattr(pynvml, name, None) for name in functions)
        return self.ask(key, *(partial(function, self.handle, *arguments) for function in found if function))

    def memory(self) -> Iterator[tuple[str, float]]:
        """What memory there is, in bytes."""
        newest = partial(pynvml.nvmlDeviceGetMemoryInfo, self.handle, version=pynvml.nvmlMemory_v2)
        if told := self.ask("memory", newest, partial(pynvml.nvmlDeviceGetMemoryInfo, self.handle)):
            yield "memory_used", told.used
            yield "memory_total", told.total
            yield "memory_free", told.free
            if (reserved := getattr(told, "reserved", None)) is not None:
                yield "memory_reserved", reserved


class Gpm:
    """Activity between two samples of the performance monitor: the last reading's is kept for this one."""

    def __init__(self, take: Callable[[Any], Any], metrics: tuple[int, ...]) -> None:
        self._take = take
        self._metrics = metrics
        self._before: tuple[float, Any] | None = None
        self._spare: Any = None
        self._last: dict[str, float] = {}

    def close(self) -> None:
        """Give the samples back."""
        for sample in (self._before[1] if self._before else None, self._spare):
            if sample is not None:
                pynvml.nvmlGpmSampleFree(sample)
        self._before = self._spare = None

    def read(self) -> dict[str, float]:
        """By key, from the second reading on; that of the last two samples where these would be too close.

        Raises NVMLError.
        """
        now = time.monotonic()
        if self._before is not None and now - self._before[0] < _GPM_APART_SECONDS:
            return self._last
        sample = self._spare if self._spare is not None else pynvml.nvmlGpmSampleAlloc()
        self._take(sample)
        before, self._before = self._before, (now, sample)
        if before is None:
            return self._last
        self._spare = before[1]
        asked = pynvml.c_nvmlGpmMetricsGet_t()
        asked.version, asked.numMetrics = pynvml.NVML_GPM_METRICS_GET_VERSION, len(self._metrics)
        asked.sample1, asked.sample2 = before[1], sample
        for position, metric in enumerate(self._metrics):
            asked.metrics[position].metricId = metric
        try:
            pynvml.nvmlGpmMetricsGet(asked)
        except pynvml.NVMLError as error:
            if error.value != pynvml.NVML_ERROR_INVALID_ARGUMENT:
                raise
            return {}  # these two samples don't go together; the next two may
        found = asked.metrics[: len(self._metrics)]
        self._last = {f"gpm_{one.metricId}": one.value for one in found if one.nvmlReturn == pynvml.NVML_SUCCESS}
        return self._last


class _Mig:
    """A MIG device, and what of it stays the same."""

    def __init__(self, gpu: Any, handle: Any) -> None:
        self.asker = Asker(handle)
        self.uuid: str = pynvml.nvmlDeviceGetUUID(handle)
        self.gpu_instance = int(pynvml.nvmlDeviceGetGpuInstanceId(handle))
        self.compute_instance = int(pynvml.nvmlDeviceGetComputeInstanceId(handle))
        told = self.asker.ask("attributes", partial(pynvml.nvmlDeviceGetAttributes_v2, handle))
        name = self.asker.ask("name", partial(pynvml.nvmlDeviceGetName, handle)) or ""
        self.slices = int(told.computeInstanceSliceCount) if told else 0
        self.profile = name.rpartition("MIG ")[2] if "MIG " in name else _profile(told)
        self.gpm = Gpm(partial(pynvml.nvmlGpmMigSampleGet, gpu, self.gpu_instance), _GPM_OF_MIG)

    def read(self, *, gpm: bool) -> Instance:
        """Raises NVMLError when the GPU or its driver is gone."""
        values = dict(self.asker.memory())
        if gpm:
            values |= self.asker.ask("gpm", self.gpm.read) or {}
        return Instance(
            uuid=self.uuid,
            profile=self.profile,
            gpu_instance=self.gpu_instance,
            compute_instance=self.compute_instance,
            slices=self.slices,
            raw=_numbers(values.items()),
        )


def _profile(told: Any) -> str:
    """A profile's name from a MIG device's attributes, as nvidia-smi writes it."""
    if not told:
        return ""
    whole = f"{told.gpuInstanceSliceCount}g.{round(told.memorySizeMB / 1024)}gb"
    part = told.computeInstanceSliceCount < told.gpuInstanceSliceCount
    return f"{told.computeInstanceSliceCount}c.{whole}" if part else whole


class Device:
    """One GPU behind its NVML handle."""

    def __init__(self, index: int) -> None:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        self._asker = asker = Asker(handle)
        self.handle = handle
        self.gpu = str(index)
        self.uuid: str = pynvml.nvmlDeviceGetUUID(handle)
        self._name = asker.named("name", ("nvmlDeviceGetName",))
        self._minor = asker.named("minor", ("nvmlDeviceGetMinorNumber",))
        self._bus = asker.ask("bus", lambda: _text(pynvml.nvmlDeviceGetPciInfo_v3(handle).busId))
        supported = asker.named("gpm support", ("nvmlGpmQueryDeviceSupport",))
        self._has_gpm = bool(supported and supported.isSupportedDevice)
        self._gpm = Gpm(partial(pynvml.nvmlGpmSampleGet, handle), _GPM)
        self._lasting: dict[str, float] = {}
        self._fields = [(number, 0) for number in _FIELDS] + [(138, _ALL_LINKS), (139, _ALL_LINKS)]
        self._link_fields = [(number, link) for number in (202, 204, *_NVLINK_FIELDS) for link in range(LINKS)]
        self._answered: set[tuple[int, int]] = set()
        self._migs: dict[int, _Mig] = {}
        self._cut_up = False
        self._sampled = 0

    def read(self) -> Reading:
        """Everything this GPU tells now. Raises NVMLError when it or its driver is gone."""
        raw = _numbers(self._values())
        listed = {kind: self._asker.ask(f"{kind} processes", partial(self._listed, kind)) for kind in _KINDS}
        raw |= {f"processes:{kind}": float(len(found)) for kind, found in listed.items() if found is not None}
        return Reading(
            uuid=self.uuid,
            gpu=self.gpu,
            name=self._name or "",
            minor_number="" if self._minor is None else str(self._minor),
            pci_bus_id=self._bus or "",
            raw=raw,
            instances=tuple(self._instances(int(raw.get("max_migs", 0)))) if raw.get("mig_mode") else (),
            processes=tuple(self._processes(listed)),
        )

    def _values(self) -> Iterator[tuple[str, float | None]]:
        asker = self._asker
        if use := asker.named("utilization", ("nvmlDeviceGetUtilizationRates",)):
            yield "utilization", use.gpu
            yield "memory_utilization", use.memory
        for engine, function in (
            ("encoder", "nvmlDeviceGetEncoderUtilization"),
            ("decoder", "nvmlDeviceGetDecoderUtilization"),
        ):
            if told := asker.named(engine, (function,)):
                yield f"{engine}_utilization", told[0]
        yield from asker.memory()
        if bar1 := asker.named("bar1", ("nvmlDeviceGetBAR1MemoryInfo",)):
            yield "bar1_used", bar1.bar1Used
            yield "bar1_total", bar1.bar1Total
        for key, functions, arguments in _CHANGING:
            yield key, asker.named(key, functions, arguments)
        for key, functions, arguments in _LASTING:
            if key not in self._lasting and (value := asker.named(key, functions, arguments)) is not None:
                self._lasting[key] = value
        yield from self._lasting.items()
        pstate = asker.named("pstate", ("nvmlDeviceGetPerformanceState",))
        yield "pstate", None if pstate == _UNKNOWN_PSTATE else pstate
        if mode := asker.named("mig", ("nvmlDeviceGetMigMode",)):
            yield "mig_mode", mode[0]
            if self._cut_up != bool(mode[0]):  # then it can tell other things, from the next reading on
                self._cut_up = bool(mode[0])
                asker.forget()
            if mode[0]:
                yield "max_migs", asker.named("most migs", ("nvmlDeviceGetMaxMigDeviceCount",))
        yield from self._field_values()
        if self._has_gpm:
            yield from (asker.ask("gpm", self._gpm.read) or {}).items()

    def _field_values(self) -> Iterator[tuple[str, float]]:
        """Field values in one call; those of links are added up."""
        asked = self._fields + self._link_fields
        told = self._asker.ask("fields", partial(pynvml.nvmlDeviceGetFieldValues, self.handle, asked))
        if told is None:
            return
        sums: dict[int, float] = {}
        silent: set[int] = set()
        for one, value in zip(asked, told, strict=True):
            if value.nvmlReturn == pynvml.NVML_SUCCESS:
                sums[one[0]] = sums.get(one[0], 0.0) + _field(value)
                self._answered.add(one)
            elif one in self._answered:
                silent.add(one[0])  # without one of its links a sum would fall, and look as if it had begun anew
            elif value.nvmlReturn in _ABSENT:
                (self._link_fields if one in self._link_fields else self._fields).remove(one)
        sums = {number: value for number, value in sums.items() if number not in silent}
        links = {"transmit": (138, 202), "receive": (139, 204)}
        for direction, (kibibytes, counted) in links.items():
            if kibibytes in sums:
                yield f"nvlink_{direction}", sums[kibibytes] * 1024
            elif counted in sums:
                yield f"nvlink_{direction}", sums[counted]
        yield from ((f"field_{number}", value) for number, value in sums.items() if number not in {138, 139, 202, 204})

    def _instances(self, most: int) -> Iterator[Instance]:
        for index in range(most):
            try:
                handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(self.handle, index)
                known = self._migs.get(index)
                if known is None or known.uuid != pynvml.nvmlDeviceGetUUID(handle):
                    if known is not None:
                        known.gpm.close()
                    self._migs[index] = known = _Mig(self.handle, handle)
                known.asker.handle = handle
                yield known.read(gpm=self._has_gpm)
            except pynvml.NVMLError as error:
                if error.value in DRIVER_GONE or error.value == pynvml.NVML_ERROR_GPU_IS_LOST:
                    raise
                if (gone := self._migs.pop(index, None)) is not None:  # none at this index, or no longer
                    gone.gpm.close()

    def _listed(self, kind: str) -> list[Any]:
        stem = f"nvmlDeviceGet{kind.capitalize()}RunningProcesses"
        for version in ("_v3", "_v2"):
            try:
                found: list[Any] = getattr(pynvml, stem + version)(self.handle)
            except pynvml.NVMLError as error:
                if error.value != pynvml.NVML_ERROR_FUNCTION_NOT_FOUND or version == "_v2":
                    raise
            else:
                return found
        return []

    def _processes(self, listed: Mapping[str, list[Any] | None]) -> Iterator[Process]:
        used = self._used()
        for kind, found in listed.items():
            for one in found or ():
                yield Process(
                    pid=one.pid,
                    kind=kind,
                    memory_bytes=None if one.usedGpuMemory is None else float(one.usedGpuMemory),
                    sm_percent=used.get(one.pid),
                    gpu_instance=None if one.gpuInstanceId == _NO_INSTANCE else one.gpuInstanceId,
                )

    def _used(self) -> dict[int, float]:
        """The mean share of the multiprocessors by process, in percent, of the samples since the last reading."""
        samples: dict[int, list[int]] = {}
        told = self._asker.ask("used", partial(pynvml.nvmlDeviceGetProcessUtilization, self.handle, self._sampled))
        for one in told or ():
            self._sampled = max(self._sampled, one.timeStamp)
            samples.setdefault(one.pid, []).append(one.smUtil)
        return {pid: sum(found) / len(found) for pid, found in samples.items()}


def _numbers(values: Any) -> dict[str, float]:
    """What isn't a number has no place in JSON; as an impossible one it is counted with the others."""
    return {
        key: float(value) if math.isfinite(value) else sys.float_info.max for key, value in values if value is not None
    }


_VALUES = {
    pynvml.NVML_VALUE_TYPE_DOUBLE: "dVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_INT: "siVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_SHORT: "usVal",
}


def _field(value: Any) -> float:
    """A field's value by its type; one of a type that isn't known is impossible."""
    name = _VALUES.get(value.valueType)
    return sys.float_info.max if name is None else float(getattr(value.value, name))


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else ctypes.string_at(value).decode()
