"""What the API server tells of a node's pods and of the devices that can be claimed there. Pure.

Of pods only labels that were asked for are kept: a team, by one label's name, and those of a list, which become label
names as kube-state-metrics writes them.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from pegel_exporters.errors import UserError

PodName = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """`teams` by pod, empty where it has none; `labels` by pod, in the order of `label_names`; the UUIDs of `devices`
    by POOL/DEVICE.

    `errors` says by resource why the API server does not tell it, empty where it does. One that it doesn't have, or
    that nobody asks for, is not there.
    """

    teams: Mapping[PodName, str] = field(default_factory=dict)
    label_names: tuple[str, ...] = ()
    labels: Mapping[PodName, tuple[str, ...]] = field(default_factory=dict)
    devices: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)


NO_CLUSTER = Cluster()


class Metadata(msgspec.Struct, frozen=True, gc=False):
    """What Pegel reads of any object's metadata."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = msgspec.field(name="resourceVersion", default="")
    labels: dict[str, str] | None = None


class Pod(msgspec.Struct, frozen=True, gc=False):
    """A pod's metadata, which is all that is asked for of it."""

    metadata: Metadata


class _Attribute(msgspec.Struct, frozen=True, gc=False):
    string: str | None = None


class _Basic(msgspec.Struct, frozen=True, gc=False):
    attributes: dict[str, _Attribute] | None = None


class _Device(msgspec.Struct, frozen=True, gc=False):
    name: str
    attributes: dict[str, _Attribute] | None = None
    basic: _Basic | None = None
    """Where v1beta1 has the attributes."""


class _Pool(msgspec.Struct, frozen=True, gc=False):
    name: str
    generation: int = 0


class _SliceSpec(msgspec.Struct, frozen=True, gc=False):
    driver: str
    pool: _Pool
    devices: list[_Device] | None = None


class Slice(msgspec.Struct, frozen=True, gc=False):
    """A ResourceSlice: some devices of a driver's pool."""

    metadata: Metadata
    spec: _SliceSpec


def label_names(labels: Sequence[str]) -> tuple[str, ...]:
    """The names that Kubernetes labels have on metrics. Raises UserError where two have the same, or one can't be."""
    for label in labels:
        if not re.fullmatch(r"([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?", label):
            raise UserError(f"{label!r} is no name of a label, such as app.kubernetes.io/name")
    names = tuple(f"label_{re.sub('[^a-zA-Z0-9_]', '_', label)}" for label in labels)
    for name, times in Counter(names).items():
        if times > 1:
            raise UserError(f"two labels would be {name!r}: {', '.join(labels)}")
    return names


def labels_of(pods: Iterable[Pod], labels: Sequence[str]) -> dict[PodName, tuple[str, ...]]:
    """The values of these labels of each pod, empty where it has none of the name; the last pod of a name counts."""
    if not labels:
        return {}
    of_pods = ((pod.metadata, pod.metadata.labels or {}) for pod in pods)
    return {(one.namespace, one.name): tuple(own.get(label, "") for label in labels) for one, own in of_pods}


def devices_of(slices: Iterable[Slice], driver: str) -> dict[str, str]:
    """The UUIDs of a driver's devices by POOL/DEVICE, of each pool's newest generation alone.

    A MIG device that is made only when it is claimed has none before.
    """
    own = [one.spec for one in slices if one.spec.driver == driver]
    newest: dict[str, int] = {}
    for spec in own:
        newest[spec.pool.name] = max(spec.pool.generation, newest.get(spec.pool.name, 0))
    found = {}
    for spec in own:
        for device in spec.devices or () if spec.pool.generation == newest[spec.pool.name] else ():
            uuid = (device.attributes or (device.basic.attributes if device.basic else None) or {}).get("uuid")
            if uuid is not None and uuid.string:
                found[f"{spec.pool.name}/{device.name}"] = uuid.string
    return found
