"""NVML to readings: the program of the worker process. With `probes` and `events` the only importers of pynvml.

A call may hang for ever when a driver dies, so nothing but the worker process runs these modules:

    python -m pegel_exporters.gpu.devices PARENT

answers each line on standard input with one line of JSON, and ends with its input or its parent process.
"""

import ctypes
import json
import os
import signal
import sys
import time

import pynvml

from pegel_exporters.errors import OUR_FAILURE, place_of
from pegel_exporters.gpu.events import XidEvents
from pegel_exporters.gpu.probes import DRIVER_GONE, Device
from pegel_exporters.gpu.readings import DriverUnavailableError, Node, Reading

_PR_SET_PDEATHSIG = 1


class Devices:
    """The driver's GPUs. Raises DriverUnavailableError when NVML cannot be loaded or answers no more."""

    def __init__(self) -> None:
        try:
            pynvml.nvmlInit()
            self._driver_version: str = pynvml.nvmlSystemGetDriverVersion()
            cuda = pynvml.nvmlSystemGetCudaDriverVersion()
            self._devices = [_open(index) for index in range(pynvml.nvmlDeviceGetCount())]
            self._events = XidEvents(device for device in self._devices if isinstance(device, Device))
        except pynvml.NVMLError as error:
            raise DriverUnavailableError(str(error)) from error
        self._cuda_version = f"{cuda // 1000}.{cuda % 1000 // 10}"

    def read(self) -> Node:
        """One reading of each GPU; a lost one carries its error. Raises DriverUnavailableError."""
        self._follow()
        return Node(
            time=time.time(),
            driver_version=self._driver_version,
            cuda_version=self._cuda_version,
            simulated=False,
            gpus=tuple(_read(device) for device in self._devices),
            xids=self._events.taken(),
        )

    def _follow(self) -> None:
        """Open all GPUs anew when one was added or taken away."""
        try:
            count = pynvml.nvmlDeviceGetCount()
            if count == len(self._devices):
                return
            self._devices = [_open(index) for index in range(count)]
        except pynvml.NVMLError as error:
            raise DriverUnavailableError(str(error)) from error
        for device in self._devices:
            if isinstance(device, Device):
                self._events.watch(device)


def _open(index: int) -> Device | Reading:
    """A device, or what can be told of one that cannot be opened."""
    try:
        return Device(index)
    except pynvml.NVMLError as error:
        if error.value in DRIVER_GONE:
            raise
        return Reading(uuid="", gpu=str(index), error=str(error))


def _read(device: Device | Reading) -> Reading:
    if isinstance(device, Reading):
        return device
    try:
        return device.read()
    except pynvml.NVMLError as error:
        if error.value in DRIVER_GONE:
            raise DriverUnavailableError(str(error)) from error
        return Reading(uuid=device.uuid, gpu=device.gpu, error=str(error))


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
        except Exception as error:
            print(f"pegel: the GPUs can't be read: {place_of(error)}", file=sys.stderr)
            sys.exit(OUR_FAILURE)


if __name__ == "__main__":
    main()
