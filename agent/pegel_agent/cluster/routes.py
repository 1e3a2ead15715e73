"""Ways to a model past its sidecar: Services and policies that go by the port's number instead of its name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from pegel_agent.cluster.pods import CannotInjectError, Json, read_as
from pegel_agent.cluster.ports import Taken
from pegel_agent.cluster.sidecar import METRICS_PORT

_FIXED = "pegel.dev/target-ports"
"""The annotation of a Service whose targetPorts were numbers: port to the number that was there, 0 for none."""
_SET_BY_CONTROLLERS = {
    "pod-template-hash", "controller-revision-hash", "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index", "job-name", "controller-uid", "batch.kubernetes.io/job-name",
    "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-completion-index",
}  # fmt: skip
"""Labels that pods get beside those of their template."""


class _ServicePort(msgspec.Struct, frozen=True, rename="camel"):
    port: int
    target_port: int | str | None = None
    protocol: str | None = None

    @property
    def target(self) -> int | str:
        return self.target_port or self.port


class _ServiceSpec(msgspec.Struct, frozen=True):
    selector: dict[str, str] | None = None
    ports: list[_ServicePort] | None = None
    cluster_ip: str | None = msgspec.field(default=None, name="clusterIP")


class _Service(msgspec.Struct, frozen=True):
    spec: _ServiceSpec

    def tcp(self) -> list[tuple[int, _ServicePort]]:
        """Its ports for TCP, with their places."""
        return [(place, each) for place, each in enumerate(self.spec.ports or []) if (each.protocol or "TCP") == "TCP"]


class _Expression(msgspec.Struct, frozen=True):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str] | None = None

    def holds(self, labels: Mapping[str, str]) -> bool:
        if self.operator == "In":
            return labels.get(self.key) in (self.values or [])
        if self.operator == "NotIn":
            return labels.get(self.key) not in (self.values or [])
        return (self.key in labels) == (self.operator == "Exists")


class _Selector(msgspec.Struct, frozen=True, rename="camel"):
    match_labels: dict[str, str] | None = None
    match_expressions: list[_Expression] | None = None


class _PolicyPort(msgspec.Struct, frozen=True, rename="camel"):
    port: int | str | None = None
    end_port: int | None = None
    protocol: str | None = None

    def lets(self, number: int, name: str) -> bool:
        """Whether it is open for a port with this number and name."""
        if (self.protocol or "TCP") != "TCP":
            return False
        if isinstance(self.port, int):
            return self.port <= number <= (self.end_port or self.port)
        return self.port is None or self.port == name


class _Rule(msgspec.Struct, frozen=True):
    ports: list[_PolicyPort] | None = None

    def lets(self, number: int, name: str) -> bool:
        return not self.ports or any(each.lets(number, name) for each in self.ports)


class _PolicySpec(msgspec.Struct, frozen=True, rename="camel"):
    pod_selector: _Selector | None = None
    policy_types: list[str] | None = None
    ingress: list[_Rule] | None = None
    egress: list[_Rule] | None = None


class _Policy(msgspec.Struct, frozen=True):
    spec: _PolicySpec


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """A workload's pods: their labels, and the ports that were taken over, none where it isn't injected. `title` names
    it, `where` with its file; `admin` is the sidecar's port for operators."""

    where: str
    title: str
    namespace: str
    labels: Mapping[str, str]
    ports: tuple[Taken, ...]
    admin: int

    def selected(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether a selector by labels in a namespace means these pods. An empty one means all.

        An object without a namespace may be put into any; a label that a controller sets may have any value.
        """
        if namespace and self.namespace and namespace != self.namespace:
            return False
        return all(self.labels.get(key) == value for key, value in labels.items() if key not in _SET_BY_CONTROLLERS)


def by_number(service: Json, namespace: str, workloads: Sequence[Workload], *, fix: bool) -> list[str]:
    """What is wrong with a Service's ports. Those that have a number get the name where `fix` says so and all the pods
    that the Service leads to know it; then nothing is wrong with them. Raises CannotInjectError for what is no Service.
    """
    view = read_as(_Service, service)
    meant = _meant(view, namespace, workloads)
    if view.spec.cluster_ip == "None":
        return [
            f"is headless, so its clients choose the port themselves; those that use {taken.port} go past the sidecar "
            f"of {workload.title}"
            for workload in meant
            for taken in workload.ports
            if not view.tcp() or any(taken.port in {each.port, each.target} for _, each in view.tcp())
        ]
    warnings = []
    for place, port in view.tcp():
        past = [(each, taken) for each in meant for taken in each.ports if taken.port == port.target]
        if not past:
            continue
        name = past[0][1].name
        strangers = [each.title for each in meant if name not in {taken.name for taken in each.ports}]
        if fix and not strangers:
            _remember(service, port.port, port.target_port or 0)
            service["spec"]["ports"][place]["targetPort"] = name
            continue
        advice = f"make it targetPort: {name}, or let --fix-services do it"
        if strangers:
            advice = f"it leads to {', '.join(strangers)} too, whose pods have no sidecar at a port {name}"
        warnings += [
            f"has targetPort {port.target}, a number, so its clients go past the sidecar of {each.title}: {advice}"
            for each, _ in past
        ]
    return warnings


def targets(service: Json, namespace: str, workload: Workload) -> set[int | str]:
    """The targetPorts by which a Service leads to a workload."""
    view = read_as(_Service, service)
    return {port.target for _, port in view.tcp()} if _meant(view, namespace, [workload]) else set()


def _meant(service: _Service, namespace: str, workloads: Sequence[Workload]) -> list[Workload]:
    # A Service without a selector leads to what somebody else writes into its endpoints.
    selector = service.spec.selector
    return [each for each in workloads if each.selected(namespace, selector)] if selector else []


def give_back(service: Json) -> list[str]:
    """Undo what `by_number` fixed; what could not be. Raises CannotInjectError for an annotation that isn't its."""
    annotations = (service.get("metadata") or {}).get("annotations") or {}
    if _FIXED not in annotations:
        return []
    view = read_as(_Service, service)
    try:
        fixed = msgspec.json.decode(annotations[_FIXED], type=dict[int, int])
    except (msgspec.DecodeError, TypeError) as error:
        raise CannotInjectError(f"has an annotation {_FIXED} that is not from `pegel inject`: {error}") from error
    for place, port in view.tcp():
        number = fixed.pop(port.port, None)
        if number:
            service["spec"]["ports"][place]["targetPort"] = number
        elif number == 0:
            service["spec"]["ports"][place].pop("targetPort", None)
    del annotations[_FIXED]
    if not annotations:
        del service["metadata"]["annotations"]
    return [
        f"has no port {port} any more, whose targetPort was {number or 'not given'}" for port, number in fixed.items()
    ]


def _remember(service: Json, number: int, target: int | str) -> None:
    if service.get("metadata") is None:
        service["metadata"] = {}
    metadata = service["metadata"]
    if metadata.get("annotations") is None:
        metadata["annotations"] = {}
    annotations = metadata["annotations"]
    fixed = msgspec.json.decode(annotations.get(_FIXED, "{}"), type=dict[int, int | str])
    annotations[_FIXED] = msgspec.json.encode({**fixed, number: target}).decode()


def shut_out(policy: Json, namespace: str, workloads: Sequence[Workload]) -> list[str]:
    """Where a NetworkPolicy lets clients through to a number that isn't the sidecar's, or nobody to its metrics.

    Raises CannotInjectError for what is no NetworkPolicy.
    """
    spec = read_as(_Policy, policy).spec
    injected = [each for each in workloads if each.ports]
    warnings = [
        f"lets clients out to port {taken.port} of {workload.title}, but they go to {taken.listen} now: allow that too"
        for workload in injected
        for taken in workload.ports
        for rule in spec.egress or []
        if rule.ports and rule.lets(taken.port, "") and not rule.lets(taken.listen, taken.name)
    ]
    if "Ingress" not in (spec.policy_types or ["Ingress"]):
        return list(dict.fromkeys(warnings))
    selector = spec.pod_selector or _Selector()
    for workload in injected:
        if not workload.selected(namespace, selector.match_labels or {}) or not all(
            each.holds(workload.labels) for each in selector.match_expressions or []
        ):
            continue
        warnings += [
            f"lets clients in to port {taken.port} of {workload.title}, but they come to {taken.listen} now: allow "
            f"port {taken.name}, by name"
            for taken in workload.ports
            for rule in spec.ingress or []
            if rule.lets(taken.port, "") and not rule.lets(taken.listen, taken.name)
        ]
        if not any(rule.lets(workload.admin, METRICS_PORT) for rule in spec.ingress or []):
            warnings.append(
                f"lets nobody in to the sidecar of {workload.title} for metrics and labels: where no other policy "
                f"does, allow Prometheus port {METRICS_PORT}"
            )
    return list(dict.fromkeys(warnings))


def named_by_number(value: Json, namespace: str, workloads: Sequence[Workload]) -> list[str]:
    """Where an object of a service mesh or network plug-in speaks of a port by its number, in whatever way it does."""
    return [
        f"speaks of port {taken.port}, but clients of {workload.title} come to {taken.listen} now"
        for workload in workloads
        if workload.selected(namespace, {})
        for taken in workload.ports
        if _speaks_of(value.get("spec"), taken.port)
    ]


def _speaks_of(value: object, port: int, *, among_ports: bool = False) -> bool:
    """Whether a port's number is below a key that has to do with ports."""
    if isinstance(value, dict):
        return any(
            (among_ports and str(key) == str(port))
            or _speaks_of(each, port, among_ports=among_ports or "port" in str(key).lower())
            for key, each in value.items()
        )
    if isinstance(value, list):
        return any(_speaks_of(each, port, among_ports=among_ports) for each in value)
    return among_ports and str(value) == str(port)
