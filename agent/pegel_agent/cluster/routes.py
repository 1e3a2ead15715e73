"""Ways to a model past its sidecar: Services and NetworkPolicies that go by the port's number instead of its name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from pegel_agent.cluster.pods import CannotInjectError, Json
from pegel_agent.cluster.ports import Taken

_FIXED = "pegel.dev/target-ports"
"""The annotation of a Service whose targetPorts were numbers: port to the number that was there, 0 for none."""


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """A workload whose ports were taken over, and its pods' labels. `title` names it in warnings, `source` its file."""

    source: str
    title: str
    namespace: str
    labels: Mapping[str, str]
    ports: tuple[Taken, ...]

    def selected(self, namespace: str, selector: object) -> bool:
        """Whether a selector by labels in a namespace means these pods."""
        if namespace != self.namespace or not isinstance(selector, dict) or not selector:
            return False
        return all(self.labels.get(key) == value for key, value in selector.items())


def by_number(service: Json, namespace: str, workloads: Sequence[Workload], *, fix: bool) -> list[str]:
    """What is wrong with a Service's ports; those that have a number get the name where `fix` says so, and nothing is
    wrong with them any more. Raises CannotInjectError for what is no Service."""
    spec = _mapping(service.get("spec"), "spec")
    warnings = []
    for workload in workloads:
        if not workload.selected(namespace, spec.get("selector")):
            continue
        for port in _ports(spec):
            number = port.get("port")
            target = port.get("targetPort", number)
            taken = next((each for each in workload.ports if target == each.port), None)
            if taken and fix:
                _remember(service, number, port.get("targetPort", 0))
                port["targetPort"] = taken.name
                target = taken.name
            elif taken:
                warnings.append(
                    f"targetPort {target} is a number, so its clients go past the sidecar of {workload.title}: make it "
                    f"targetPort: {taken.name}, or let --fix-services do it"
                )
                continue
            if spec.get("clusterIP") == "None" and number in {each.port for each in workload.ports}:
                warnings.append(
                    f"is headless, so its clients choose the port themselves; those that use {number} go past the "
                    f"sidecar of {workload.title}"
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


def names(service: Json, namespace: str, workload: Workload) -> set[Any]:
    """The targetPorts by which a Service leads to a workload."""
    spec = _mapping(service.get("spec"), "spec")
    if not workload.selected(namespace, spec.get("selector")):
        return set()
    return {port.get("targetPort", port.get("port")) for port in _ports(spec)}


def shut_out(policy: Json, namespace: str, workloads: Sequence[Workload]) -> list[str]:
    """Where a NetworkPolicy lets clients in to a number at which the sidecar doesn't listen."""
    spec = _mapping(policy.get("spec"), "spec")
    pods = _mapping(spec.get("podSelector") or {}, "spec.podSelector")
    allowed = {
        port.get("port")
        for rule in spec.get("ingress") or []
        if isinstance(rule, dict)
        for port in rule.get("ports") or []
        if isinstance(port, dict)
    }
    return [
        f"lets clients in to port {taken.port} of {workload.title}, but they come to {taken.listen} now: allow "
        f"port {taken.name}, by name"
        for workload in workloads
        if workload.selected(namespace, pods.get("matchLabels"))
        for taken in workload.ports
        if taken.port in allowed and not allowed & {taken.listen, taken.name}
    ]


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
