"""The kubelet's PodResources v1 in bytes: the answer to List, read. Pure.

These are the field numbers of k8s.io/kubelet/pkg/apis/podresources/v1/api.proto that Pegel needs; protobuf keeps them
for ever, and whatever else an answer holds (CPUs, memory, topology, claims) is skipped unread:

    ListPodResourcesResponse  1 PodResources, repeated
    PodResources              1 name, 2 namespace, 3 ContainerResources, repeated
    ContainerResources        1 name, 2 ContainerDevices, repeated
    ContainerDevices          1 resource_name, 2 device_ids, repeated

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
    """What one container holds of one extended resource: the ids that the resource's device plugin gave it."""

    namespace: str
    pod: str
    container: str
    resource: str
    device_ids: tuple[str, ...]


def read_list(answer: bytes, *, vendor: str = "") -> Iterator[Holding]:
    """What every container holds of the resources whose names begin with `vendor`, in the answer's order.

    Raises UndecodableAnswerError, also for an answer that is larger than any node's.
    """
    reader = _Reader()
    left = MAX_DEVICES
    for pod in reader.messages(memoryview(answer), 1):
        name, namespace = reader.text(pod, 1), reader.text(pod, 2)
        for container in reader.messages(pod, 3):
            container_name = reader.text(container, 1)
            for devices in reader.messages(container, 2):
                resource = reader.text(devices, 1)
                if not resource.startswith(vendor):
                    continue
                ids = tuple(_decode(value) for value in islice(reader.messages(devices, 2), left + 1))
                left -= len(ids)
                if left < 0:
                    raise UndecodableAnswerError(f"it tells of more than {MAX_DEVICES} devices")
                yield Holding(namespace, name, container_name, resource, ids)


class _Reader:
    """Reads one answer, and gives up when that takes too many fields."""

    def __init__(self) -> None:
        self._left = MAX_FIELDS

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
