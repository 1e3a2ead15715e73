"""What injection reads of a pod template, checked. Fields that it doesn't read are nobody's business here."""

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
Json = dict[str, Any]
"""An object of the Kubernetes API as YAML gives it."""


class CannotInjectError(Exception):
    """This pod can't be given the sidecar; the message says why and what to do, and follows the object's name."""


class Port(msgspec.Struct, frozen=True, rename="camel"):
    """A container's port. `name` is empty where it has none."""

    container_port: int
    name: str | None = None
    protocol: str | None = None
    host_port: int | None = None


class Resources(msgspec.Struct, frozen=True):
    """Quantities by resource, as written."""

    requests: dict[str, str | int | float] | None = None
    limits: dict[str, str | int | float] | None = None


class Handler(msgspec.Struct, frozen=True):
    """What a probe or hook asks."""

    port: int | str | None = None


class Probe(msgspec.Struct, frozen=True, rename="camel"):
    """A probe, or a hook of the container's life."""

    http_get: Handler | None = None
    tcp_socket: Handler | None = None


class Lifecycle(msgspec.Struct, frozen=True, rename="camel"):
    """The hooks of a container's life."""

    post_start: Probe | None = None
    pre_stop: Probe | None = None


class VolumeMount(msgspec.Struct, frozen=True):
    """Which volume is mounted; not where."""

    name: str


class Container(msgspec.Struct, frozen=True, rename="camel"):
    """A container, init container or native sidecar. Its words and variables are looked at, not checked."""

    name: str
    command: Any = None
    args: Any = None
    env: Any = None
    ports: list[Port] | None = None
    resources: Resources | None = None
    restart_policy: str | None = None
    startup_probe: Probe | None = None
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    volume_mounts: list[VolumeMount] | None = None


class SecurityContext(msgspec.Struct, frozen=True, rename="camel"):
    """The pod's own."""

    run_as_user: int | None = None


class OperatingSystem(msgspec.Struct, frozen=True):
    """`name` is linux or windows."""

    name: str | None = None


class Volume(msgspec.Struct, frozen=True):
    """A volume's name; what it is made of does not matter."""

    name: str


class Spec(msgspec.Struct, frozen=True, rename="camel"):
    """A pod's spec."""

    containers: list[Container]
    init_containers: list[Container] | None = None
    volumes: list[Volume] | None = None
    host_network: bool | None = None
    security_context: SecurityContext | None = None
    os: OperatingSystem | None = None
    resources: Resources | None = None
    restart_policy: str | None = None
    termination_grace_period_seconds: int | None = None


class Metadata(msgspec.Struct, frozen=True):
    """An object's labels and annotations."""

    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Pod(msgspec.Struct, frozen=True):
    """A pod, or a workload's template of one."""

    spec: Spec
    metadata: Metadata | None = None

    def says(self, name: str) -> str:
        """What the annotation, else the label, `name` says; empty when there is neither."""
        metadata = self.metadata or Metadata()
        return (metadata.annotations or {}).get(name) or (metadata.labels or {}).get(name) or ""

    @property
    def running(self) -> list[Container]:
        """The containers that run together: not the init containers that end before the others start."""
        native = [each for each in self.spec.init_containers or [] if each.restart_policy == "Always"]
        return native + self.spec.containers

    @property
    def ends(self) -> bool:
        """Whether the pod ends by itself, as a Job's does."""
        return self.spec.restart_policy in {"Never", "OnFailure"}

    @property
    def qos(self) -> str:
        """The QoS class that Kubernetes gives the pod: Guaranteed, Burstable or BestEffort.

        Quantities are compared as they are written, so 1 and 1000m are not seen to be equal.
        """
        whole = self.spec.resources
        given = [whole] if whole is not None and (whole.limits or whole.requests) else [
            each.resources or Resources() for each in [*(self.spec.init_containers or []), *self.spec.containers]
        ]  # fmt: skip
        if all(_is_guaranteed(each) for each in given):
            return "Guaranteed"
        return (
            "Burstable"
            if any(_QOS & {*(each.limits or {}), *(each.requests or {})} for each in given)
            else "BestEffort"
        )


_QOS = {"cpu", "memory"}


def _is_guaranteed(resources: Resources) -> bool:
    limits, requests = resources.limits or {}, resources.requests or {}
    # A limit without a request is a request too.
    return all(name in limits and str(requests.get(name, limits[name])) == str(limits[name]) for name in _QOS)


def read(pod: Json) -> Pod:
    """The parts of a pod that injection looks at. Raises CannotInjectError, which says where it is no pod."""
    view = read_as(Pod, pod, "the pod's ")
    if not view.spec.containers:
        raise CannotInjectError("has no containers")
    return view


def read_as(kind: type[T], value: Json, whose: str = "its ") -> T:
    """An object's parts that matter here. Raises CannotInjectError, which says where it is not what it should be."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        said = str(error).replace("`$.", f"`{whose}").replace("`$`", "it")
        quote = ": write it in quotes" if "annotations" in said or "labels" in said else ""
        raise CannotInjectError(f"is not as Kubernetes knows it: {said}{quote}") from error
