"""The kubelet's PodResources v1 in bytes: the answer to List, read. Pure.

These are the field numbers of k8s.io/kubelet/pkg/apis/podresources/v1/api.proto that Pegel needs; protobuf keeps them
for ever, and whatever else an answer holds (CPUs, memory, topology) is skipped unread:

    ListPodResourcesResponse  1 PodResources, repeated
    PodResources              1 name, 2 namespace, 3 ContainerResources, repeated
    ContainerResources        1 name, 2 ContainerDevices, repeated, 5 DynamicResource, repeated
    ContainerDevices          1 resource_name, 2 device_ids, repeated
    DynamicResource           4 ClaimResource, repeated
    ClaimResource             2 driver_name, 3 pool_name, 4 device_name, 5 share_id

protobuf's own library would do the same with 4 MiB more in a process that has 64, and would have to be of the version
that its generated code asks for. The tests hold this reader equal to it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

LIST = "/v1.PodResourcesLister/List"
"""The method's path in gRPC."""
MAX_DEVICES = 4096
"""An answer may tell of so many devices. 16 GPUs of 7 MIG devices, each shared by 36 containers, are not more."""
MAX_FIELDS = 1 << 18
"""An answer is read up to so many fields, half a second's work. A node of 250 pods of 6 containers needs a fifth."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10


class KubeletUnavailableError(Exception):
    """The kubelet cannot be asked who holds its devices: `reason` says why, and the message adds a detail to it.

    The reason is the same each time that the same thing is wrong.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class UndecodableAnswerError(Exception):
    """The kubelet's answer is no ListPodResourcesResponse; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What one container holds of one resource: the ids that the resource's device plugin gave it.

    What was claimed through Dynamic Resource Allocation has its driver as `resource` and ids POOL/DEVICE, with ::SHARE
    where others may have claimed the same device.
    """

    namespace: str
    pod: str
    container: str
    resource: str
    device_ids: tuple[str, ...]


def read_list(answer: bytes, *, vendor: str = "", driver: str = "") -> Iterator[Holding]:
    """What every container holds of the resources whose names begin with `vendor`, and of what `driver` gave to claims,
    in the answer's order.

    Raises UndecodableAnswerError, also for an answer that is larger than any node's.
    """
    reader = _Reader()
    for pod in reader.messages(memoryview(answer), 1):
        name, namespace = reader.text(pod, 1), reader.text(pod, 2)
        for container in reader.messages(pod, 3):
            container_name = reader.text(container, 1)
            for devices in reader.messages(container, 2):
                resource = reader.text(devices, 1)
                if not resource.startswith(vendor):
                    continue
                ids = reader.devices(_decode(value) for value in reader.messages(devices, 2))
                yield Holding(namespace, name, container_name, resource, ids)
            for claim in reader.messages(container, 5):
                if ids := reader.devices(_claimed(reader, claim, driver)):
                    yield Holding(namespace, name, container_name, driver, ids)


def _claimed(reader: "_Reader", claim: memoryview, driver: str) -> Iterator[str]:
    """The devices of a claim that are this driver's."""
    for device in reader.messages(claim, 4):
        if reader.text(device, 2) == driver:
            share = reader.text(device, 5)
            yield f"{reader.text(device, 3)}/{reader.text(device, 4)}" + (f"::{share}" if share else "")


class _Reader:
    """Reads one answer, and gives up when that takes too many fields."""

    def __init__(self) -> None:
        self._left = MAX_FIELDS
        self._devices_left = MAX_DEVICES

    def devices(self, ids: Iterator[str]) -> tuple[str, ...]:
        """These ids, as long as all of an answer are not too many."""
        found = tuple(islice(ids, self._devices_left + 1))
        self._devices_left -= len(found)
        if self._devices_left < 0:
            raise UndecodableAnswerError(f"it tells of more than {MAX_DEVICES} devices")
        return found

    def text(self, message: memoryview, number: int) -> str:
        """A field of type string: the last one counts, and a missing one is empty."""
        text = ""
        for value in self.messages(message, number):
            text = _decode(value)
        return text

    def messages(self, message: memoryview, wanted: int) -> Iterator[memoryview]:
        """The values of a field that has a length: strings and messages. Fields of another kind are not this one."""
        at = 0
        while at < len(message):
            self._left -= 1
            if self._left < 0:
                raise UndecodableAnswerError("it has too many fields")
            key, at = _varint(message, at)
            number, kind = key >> 3, key & 7
            start = at
            if kind == _VARINT:
                _, at = _varint(message, at)
            elif kind == _BYTES:
                length, start = _varint(message, at)
                at = start + length
            elif kind in (_FIXED64, _FIXED32):
                at += 8 if kind == _FIXED64 else 4
            else:
                raise UndecodableAnswerError(f"it has a field of the unknown kind {kind}")
            if at > len(message):
                raise UndecodableAnswerError("it ends within a field")
            if number == 0:
                raise UndecodableAnswerError("it has a field without a number")
            if number == wanted and kind == _BYTES:
                yield message[start:at]


def _decode(value: memoryview) -> str:
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise UndecodableAnswerError("a name in it is no UTF-8") from None


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and where it ends."""
    number = 0
    for place, byte in enumerate(message[at : at + _LONGEST_VARINT]):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, at + place + 1
    raise UndecodableAnswerError("it ends within a number, or the number has no end")
