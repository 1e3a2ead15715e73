"""Ways to a model past its sidecar: Services and NetworkPolicies that go by the port's number instead of its name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from pegel_agent.cluster.pods import CannotInjectError, Json
from pegel_agent.cluster.ports import Taken
from pegel_agent.cluster.sidecar import METRICS_PORT

_FIXED = "pegel.dev/target-ports"
"""The annotation of a Service whose targetPorts were numbers: port to the number that was there, 0 for none."""


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """A workload whose ports were taken over, and its pods' labels. `title` names it, `where` with its file; `admin` is
    the sidecar's port for operators."""

    where: str
    title: str
    namespace: str
    labels: Mapping[str, str]
    ports: tuple[Taken, ...]
    admin: int

    def selected(self, namespace: str, selector: object) -> bool:
        """Whether a selector by labels in a namespace means these pods. An empty one means all."""
        if namespace != self.namespace or not isinstance(selector, dict):
            return False
        return all(self.labels.get(key) == value for key, value in selector.items())


def by_number(service: Json, namespace: str, workloads: Sequence[Workload], *, fix: bool) -> list[str]:
    """What is wrong with a Service's ports; those that have a number get the name where `fix` says so, and nothing is
    wrong with them any more. Raises CannotInjectError for what is no Service."""
    spec = _mapping(service.get("spec"), "spec")
    warnings = []
    for workload in workloads:
        if not _leads_to(spec, namespace, workload):
            continue
        for port in _ports(spec):
            number = port.get("port")
            target = port.get("targetPort") or number
            taken = next((each for each in workload.ports if target == each.port), None)
            if spec.get("clusterIP") == "None":
                # Its name is the pods' own addresses, so no targetPort turns its clients.
                if taken or number in {each.port for each in workload.ports}:
                    warnings.append(
                        f"is headless, so its clients choose the port themselves; those that use {number} go past the "
                        f"sidecar of {workload.title}"
                    )
            elif taken and fix:
                _remember(service, number, port.get("targetPort") or 0)
                port["targetPort"] = taken.name
            elif taken:
                warnings.append(
                    f"has targetPort {target}, a number, so its clients go past the sidecar of {workload.title}: make it "
                    f"targetPort: {taken.name}, or let --fix-services do it"
                )
    return warnings


def give_back(service: Json) -> None:
    """Undo what `by_number` fixed. Raises CannotInjectError for an annotation that isn't its."""
    annotations = (service.get("metadata") or {}).get("annotations") or {}
    if _FIXED not in annotations:
        return
    try:
        fixed = msgspec.json.decode(annotations[_FIXED], type=dict[str, int])
    except msgspec.DecodeError as error:
        raise CannotInjectError(f"has an annotation {_FIXED} that is not from `pegel inject`: {error}") from error
    for port in _ports(_mapping(service.get("spec"), "spec")):
        number = fixed.get(str(port.get("port")))
        if number:
            port["targetPort"] = number
        elif number == 0:
            port.pop("targetPort", None)
    del annotations[_FIXED]
    if not annotations:
        del service["metadata"]["annotations"]


def targets(service: Json, namespace: str, workload: Workload) -> set[Any]:
    """The targetPorts by which a Service leads to a workload."""
    spec = _mapping(service.get("spec"), "spec")
    if not _leads_to(spec, namespace, workload):
        return set()
    return {port.get("targetPort") or port.get("port") for port in _ports(spec)}


def _leads_to(service: Json, namespace: str, workload: Workload) -> bool:
    # A Service without a selector leads to what somebody else writes into its endpoints.
    return bool(service.get("selector")) and workload.selected(namespace, service["selector"])


def shut_out(policy: Json, namespace: str, workloads: Sequence[Workload]) -> list[str]:
    """Where a NetworkPolicy lets clients in to a number that isn't the sidecar's, or nobody in to its metrics."""
    spec = _mapping(policy.get("spec"), "spec")
    selector = _mapping(spec.get("podSelector") or {}, "spec.podSelector")
    if "matchExpressions" in selector or "Ingress" not in (spec.get("policyTypes") or ["Ingress"]):
        return []
    rules = [rule for rule in spec.get("ingress") or [] if isinstance(rule, dict)]
    if any(not rule.get("ports") for rule in rules):
        return []
    allowed = {port.get("port") for rule in rules for port in rule["ports"] if isinstance(port, dict)}
    warnings = []
    for workload in workloads:
        if not workload.selected(namespace, selector.get("matchLabels") or {}):
            continue
        warnings += [
            f"lets clients in to port {taken.port} of {workload.title}, but they come to {taken.listen} now: allow "
            f"port {taken.name}, by name"
            for taken in workload.ports
            if taken.port in allowed and not allowed & {taken.listen, taken.name}
        ]
        if not allowed & {METRICS_PORT, workload.admin}:
            warnings.append(
                f"lets nobody in to the sidecar of {workload.title} for metrics and labels: where no other policy "
                f"does, allow Prometheus port {METRICS_PORT}"
            )
    return warnings


def named_by_number(value: Json, namespace: str, workloads: Sequence[Workload]) -> list[str]:
    """Where an object of a service mesh or network plug-in speaks of a port by its number, in whatever way it does."""
    return [
        f"speaks of port {taken.port}, but clients of {workload.title} come to {taken.listen} now"
        for workload in workloads
        if namespace == workload.namespace
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


def _remember(service: Json, number: object, target: int) -> None:
    metadata = service.setdefault("metadata", {})
    if metadata.get("annotations") is None:
        metadata["annotations"] = {}
    annotations = metadata["annotations"]
    fixed = msgspec.json.decode(annotations.get(_FIXED, "{}"), type=dict[str, int])
    annotations[_FIXED] = msgspec.json.encode({**fixed, str(number): target}).decode()


def _ports(spec: Json) -> list[Json]:
    found = spec.get("ports") or []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise CannotInjectError("has ports that are no list of ports")
    return [each for each in found if each.get("protocol", "TCP") == "TCP"]


def _mapping(value: object, name: str) -> Json:
    if not isinstance(value, dict):
        raise CannotInjectError(f"has no {name}")
    return value
