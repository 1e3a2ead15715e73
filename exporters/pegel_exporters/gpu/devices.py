"""NVML to readings: the only module that imports pynvml, and the program of the worker process.

What a device doesn't support, or the driver's library doesn't know, is absent. That doesn't change while the
driver stays loaded, so it is asked for once. A call may hang for ever when a driver dies, so nothing but the
worker process runs this module:

    python -m pegel_exporters.gpu.devices PARENT

answers each line on standard input with one line of JSON, and ends with its input or its parent process.
"""

import ctypes
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pynvml

from pegel_exporters.gpu.readings import DriverUnavailableError, Node, Reading

_ABSENT = {
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    pynvml.NVML_ERROR_NO_PERMISSION,
}
_DRIVER_GONE = {
    pynvml.NVML_ERROR_UNINITIALIZED,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
}
_DEVICE_GONE = {
    pynvml.NVML_ERROR_GPU_IS_LOST,
    pynvml.NVML_ERROR_RESET_REQUIRED,
    pynvml.NVML_ERROR_GPU_NOT_FOUND,
}
_CLOCKS = {
    "graphics": pynvml.NVML_CLOCK_GRAPHICS,
    "sm": pynvml.NVML_CLOCK_SM,
    "memory": pynvml.NVML_CLOCK_MEM,
    "video": pynvml.NVML_CLOCK_VIDEO,
}
_PR_SET_PDEATHSIG = 1

Call = Callable[[], Any]


class Device:
    """One GPU behind its NVML handle, with what it turned out not to have."""

    def __init__(self, index: int) -> None:
        self._absent: set[str] = set()
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        self._handle = handle
        self.gpu = str(index)
        self.uuid: str = pynvml.nvmlDeviceGetUUID(handle)
        self._name = self._ask("name", lambda: pynvml.nvmlDeviceGetName(handle))
        self._minor = self._ask("minor", lambda: pynvml.nvmlDeviceGetMinorNumber(handle))
        self._bus = self._ask("bus", lambda: _text(pynvml.nvmlDeviceGetPciInfo_v3(handle).busId))

    def _ask(self, key: str, *calls: Call) -> Any:
        """What the first of the calls that this device knows returns; None when it has none or none now."""
        for number, call in enumerate(calls):
            name = f"{key} {number}"
            if name in self._absent:
                continue
            try:
                return call()
            except pynvml.NVMLError as error:
                if error.value in _DRIVER_GONE | _DEVICE_GONE:
                    raise
                if error.value not in _ABSENT:
                    return None
                self._absent.add(name)
        return None

    def read(self) -> Reading:
        """Everything this GPU tells now. Raises NVMLError when it or its driver is gone."""
        # What isn't a number has no place in JSON; as an impossible one it is counted with the others.
        raw = {
            key: float(value) if math.isfinite(value) else sys.float_info.max
            for key, value in self._values()
            if value is not None
        }
        return Reading(
            uuid=self.uuid,
            gpu=self.gpu,
            name=self._name or "",
            minor_number="" if self._minor is None else str(self._minor),
            pci_bus_id=self._bus or "",
            raw=raw,
        )

    def _values(self) -> Iterator[tuple[str, float | None]]:
        handle = self._handle
        if use := self._ask("utilization", lambda: pynvml.nvmlDeviceGetUtilizationRates(handle)):
            yield "utilization", use.gpu
            yield "memory_utilization", use.memory
        if memory := self._ask(
            "memory",
            lambda: pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2),
            lambda: pynvml.nvmlDeviceGetMemoryInfo(handle),
        ):
            yield "memory_used", memory.used
            yield "memory_total", memory.total
        yield (
            "temperature",
            self._ask(
                "temperature",
                lambda: pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU),
                lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
            ),
        )
        yield "power", self._ask("power", lambda: pynvml.nvmlDeviceGetPowerUsage(handle))
        yield "power_limit", self._ask("limit", lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(handle))
        yield "energy", self._ask("energy", lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        yield "field_82", self._ask("memory temperature", lambda: _field(handle, pynvml.NVML_FI_DEV_MEMORY_TEMP))
        for clock, domain in _CLOCKS.items():
            yield f"clock:{clock}", self._ask(f"{clock} clock", partial(pynvml.nvmlDeviceGetClockInfo, handle, domain))


class Devices:
    """The driver's GPUs. Raises DriverUnavailableError when NVML cannot be loaded or answers no more."""

    def __init__(self) -> None:
        try:
            pynvml.nvmlInit()
            self._driver_version: str = pynvml.nvmlSystemGetDriverVersion()
            cuda = pynvml.nvmlSystemGetCudaDriverVersion()
            self._devices = [_open(index) for index in range(pynvml.nvmlDeviceGetCount())]
        except pynvml.NVMLError as error:
            raise DriverUnavailableError(str(error)) from error
        self._cuda_version = f"{cuda // 1000}.{cuda % 1000 // 10}"

    def read(self) -> Node:
        """One reading of each GPU; a lost one carries its error."""
        return Node(
            time=time.time(),
            driver_version=self._driver_version,
            cuda_version=self._cuda_version,
            simulated=False,
            gpus=tuple(_read(device) for device in self._devices),
        )


def _open(index: int) -> Device | Reading:
    """A device, or what can be told of one that cannot be opened."""
    try:
        return Device(index)
    except pynvml.NVMLError as error:
        if error.value in _DRIVER_GONE:
            raise
        return Reading(uuid="", gpu=str(index), error=str(error))


def _read(device: Device | Reading) -> Reading:
    if isinstance(device, Reading):
        return device
    try:
        return device.read()
    except pynvml.NVMLError as error:
        if error.value in _DRIVER_GONE:
            raise DriverUnavailableError(str(error)) from error
        return Reading(uuid=device.uuid, gpu=device.gpu, error=str(error))


def _field(handle: Any, number: int) -> int:
    """A field value of type unsigned int. Raises NVMLError with the field's own code."""
    value = pynvml.nvmlDeviceGetFieldValues(handle, [number])[0]
    if value.nvmlReturn:
        raise pynvml.NVMLError(value.nvmlReturn)
    return int(value.value.uiVal)


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()


def _answer(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Answer each line of standard input with the node's readings, until the input or the driver ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the exporter's to handle
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a worker that hangs must not outlive it
    if os.getppid() != int(sys.argv[1]):  # it ended before that was asked for
        return
    devices: Devices | None = None
    for _ in sys.stdin:
        try:
            devices = devices or Devices()
            _answer(devices.read().to_json())
        except DriverUnavailableError as error:
            # A library that was loaded before the driver changed stays wrong: only a new process loads it anew.
            _answer(json.dumps({"unavailable": str(error)}).encode())
            return


if __name__ == "__main__":
    main()
