"""Who holds which GPU: the kubelet's device ids, given to the GPUs of this node. Pure.

A device plugin invents its ids. The forms that are known stand in one table; an id of another form, or one that names
no GPU of this node, is counted and shown as it is, and never guessed at. What was measured of a GPU is not split
between its holders here: this says who holds what, nothing of who uses it.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from pegel_exporters.exposition import LabelValues
from pegel_exporters.gpu.cluster import NO_CLUSTER, Cluster
from pegel_exporters.gpu.podresources import Holding
from pegel_exporters.gpu.readings import Reading

Attribution = Literal["exclusive", "mig", "process", "equal_share"]

VENDOR = "nvidia.com/"
DRA_DRIVER = "gpu.nvidia.com"
"""NVIDIA's driver of Dynamic Resource Allocation."""
_GPU_RESOURCE = re.compile(r"nvidia\.com/(gpu|gpu\.shared|mig-.+)")

_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_FORMS: tuple[re.Pattern[str], ...] = tuple(
    re.compile(form, re.ASCII)
    for form in (
        rf"(?P<uuid>GPU-{_UUID})(?P<replica>::\d+)?",  # NVIDIA's plugin; a replica is a place in time-slicing or MPS
        rf"(?P<mig_uuid>MIG-{_UUID})(?P<replica>::\d+)?",
        rf"(?P<mig_uuid>MIG-(?P<uuid>GPU-{_UUID})/\d+/\d+)(?P<replica>::\d+)?",  # drivers before 470
        r"nvidia(?P<minor>\d+)(?P<instance>/gi\d+)?(?P<replica>/vgpu\d+)?",  # GKE's plugin: the file in /dev
        r"(?P<index>\d+)",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceId:
    """What a device id says: a GPU by its UUID, minor number or index, or a part of one; the rest is empty.

    A MIG device is known by a UUID of its own, or by the instance of its GPU. `replica` tells that others may hold the
    same device.
    """

    uuid: str = ""
    mig_uuid: str = ""
    minor: str = ""
    index: str = ""
    instance: str = ""
    replica: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Allocation:
    """One container and one device that it holds. `uuid` is the GPU's, empty for a MIG device whose GPU isn't known.

    `attribution` says how: alone (exclusive, mig), or with others, of whom nothing but their number is known
    (equal_share) or also what their processes use (process).
    """

    namespace: str
    pod: str
    container: str
    uuid: str
    mig_uuid: str
    mig_profile: str = ""
    team: str = ""
    attribution: Attribution

    @property
    def labels(self) -> LabelValues:
        """As all metrics of pods have them."""
        return *self.holder, self.mig_profile, self.team, self.attribution

    @property
    def holder(self) -> LabelValues:
        """Which container and which device."""
        return self.namespace, self.pod, self.container, self.uuid, self.mig_uuid


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocations:
    """All that is held, in the order of names; `unknown` are the ids of devices that could not be told, likewise."""

    held: tuple[Allocation, ...] = ()
    unknown: tuple[str, ...] = ()


def read_device_id(text: str) -> DeviceId | None:
    """What a device id says, None when its form is not known."""
    for form in _FORMS:
        if match := form.fullmatch(text):
            said = match.groupdict(default="")
            return DeviceId(**{**said, "replica": bool(said.get("replica"))})  # type: ignore[arg-type]
    return None


def allocations(holdings: Iterable[Holding], gpus: Iterable[Reading], cluster: Cluster = NO_CLUSTER) -> Allocations:
    """Who holds which GPU or MIG device; `gpus` tell the UUIDs of minor numbers and indices, and their MIG devices.

    `cluster` tells the teams of pods, and the UUIDs of devices that were claimed. A UUID is taken at its word, whether
    or not the driver lists it: a lost GPU is still held.
    """
    known = tuple(gpus)
    minors = {gpu.minor_number: gpu.uuid for gpu in known}
    indices = {gpu.gpu: gpu.uuid for gpu in known}
    migs = {mig.uuid: (gpu.uuid, mig) for gpu in known for mig in gpu.instances}
    by_instance = {(gpu.uuid, f"/gi{mig.gpu_instance}"): mig for gpu in known for mig in gpu.instances}
    holders: dict[DeviceId, set[tuple[str, str, str]]] = defaultdict(set)
    unknown: set[str] = set()
    for holding, text in ((one, text) for one in holdings for text in one.device_ids):
        claimed = holding.resource == DRA_DRIVER
        device = _claimed(text, cluster) if claimed else read_device_id(text)
        if not claimed and not _is_gpu(holding.resource, device):
            continue
        if device and (device.minor or device.index):
            uuid = minors.get(device.minor, "") if device.minor else indices.get(device.index, "")
            mig = by_instance.get((uuid, device.instance))
            device = replace(device, uuid=uuid, minor="", index="", mig_uuid=mig.uuid if mig else "")
        elif device and device.mig_uuid in migs:
            device = replace(device, uuid=migs[device.mig_uuid][0])
        if device and (device.uuid or device.mig_uuid):
            holders[device].add((holding.namespace, holding.pod, holding.container))
        else:
            unknown.add(text)
    held = {
        Allocation(
            namespace=namespace,
            pod=pod,
            container=container,
            uuid=device.uuid,
            mig_uuid=device.mig_uuid,
            mig_profile=migs[device.mig_uuid][1].profile if device.mig_uuid in migs else "",
            team=cluster.teams.get((namespace, pod), ""),
            attribution=_attribution(device, len(who)),
        )
        for device, who in holders.items()
        for namespace, pod, container in who
    }
    return Allocations(held=tuple(sorted(held)), unknown=tuple(sorted(unknown)))


def _claimed(text: str, cluster: Cluster) -> DeviceId | None:
    """The device of a claim, POOL/DEVICE with ::SHARE; None when no ResourceSlice tells of it."""
    name, shared, _ = text.partition("::")
    device = read_device_id(cluster.devices.get(name, ""))
    return replace(device, replica=bool(shared)) if device else None


def _is_gpu(resource: str, device: DeviceId | None) -> bool:
    """Whether a resource is a GPU's. A plugin's configuration may rename its resources: then only a UUID tells."""
    if _GPU_RESOURCE.fullmatch(resource):
        return True
    return resource.startswith(VENDOR) and device is not None and bool(device.uuid or device.mig_uuid)


def _attribution(device: DeviceId, holders: int) -> Attribution:
    if device.replica or holders > 1:
        return "equal_share"
    return "mig" if device.mig_uuid or device.instance else "exclusive"
