"""XID errors as the driver reports them, waited for in a thread of the worker process."""

import ctypes
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

import pynvml

from pegel_exporters.gpu.probes import Device
from pegel_exporters.gpu.readings import Xid

_WAIT_MILLISECONDS = 1000
_MOST_KEPT = 10_000
_PAUSE_SECONDS = 1.0


class XidEvents:
    """Waits for errors of some GPUs from when it is made; `taken` hands out those that came since."""

    def __init__(self, devices: Iterable[Device]) -> None:
        """A GPU whose driver reports no errors is passed over."""
        self._found: deque[Xid] = deque(maxlen=_MOST_KEPT)
        try:
            self._set = pynvml.nvmlEventSetCreate()
        except pynvml.NVMLError:
            return
        self._uuids: dict[int | None, str] = {}
        """By the driver's handle: a GPU that has just been lost can't be asked for its UUID any more."""
        for device in devices:
            self.watch(device)
        threading.Thread(target=self._wait, daemon=True).start()

    def watch(self, device: Device) -> None:
        """Wait for a GPU's errors as well."""
        try:
            pynvml.nvmlDeviceRegisterEvents(device.handle, pynvml.nvmlEventTypeXidCriticalError, self._set)
        except (pynvml.NVMLError, AttributeError):
            return
        self._uuids[_address(device.handle)] = device.uuid

    def taken(self) -> tuple[Xid, ...]:
        """The errors since the last call."""
        return tuple(self._found.popleft() for _ in range(len(self._found)))

    def _wait(self) -> None:
        while True:
            if not self._uuids:  # a wait on an empty set returns at once
                time.sleep(_PAUSE_SECONDS)
                continue
            try:
                event = pynvml.nvmlEventSetWait_v2(self._set, _WAIT_MILLISECONDS)
                if event.eventType == pynvml.nvmlEventTypeXidCriticalError:
                    uuid = self._uuids.get(_address(event.device)) or pynvml.nvmlDeviceGetUUID(event.device)
                    self._found.append(Xid(uuid=uuid, code=int(event.eventData), time=time.time()))
            except pynvml.NVMLError as error:
                if error.value != pynvml.NVML_ERROR_TIMEOUT:  # a lost GPU: the reading tells of it
                    time.sleep(_PAUSE_SECONDS)


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value
