"""Which of a pod's ports the sidecar takes over."""

import re
from dataclasses import dataclass

import msgspec

from pegel_agent.cluster.pods import CannotInjectError, Pod, Port

_HTTP = re.compile(r"(?:http1?|rest|predict|inference)(?:-.+)?")
_GRPC = re.compile(r"(?:grpc|h2c|http2)(?:-.+)?")
_OPERATORS = re.compile(r"(?:.+-)?(?:metrics|prom|prometheus|monitoring|health|debug|admin)(?:-.+)?")
_SAY_WHICH = "say which in the annotation pegel.dev/port, by name or number"


class Taken(msgspec.Struct, frozen=True, omit_defaults=True):
    """A port that the sidecar takes over: its name, the number that the model's container keeps, and where the sidecar
    listens instead. `named` is False where the port had no name and this one is new."""

    name: str
    container: str
    port: int
    listen: int
    named: bool = True


@dataclass(frozen=True, slots=True)
class _Open:
    """A port that a container declares."""

    container: str
    number: int
    port: Port

    def __str__(self) -> str:
        return f"{self.port.name or 'unnamed'} ({self.number} of {self.container})"

    def named(self, pattern: re.Pattern[str]) -> bool:
        return pattern.fullmatch(self.port.name or "") is not None


def choose(pod: Pod, wanted: str, listen: int, admin: int) -> tuple[Taken, ...]:
    """The ports to take over: first the one that is watched, then those that are forwarded, as gRPC is.

    `wanted` names or numbers ports, with commas; where it is empty the names that ports usually have decide. The
    sidecar listens on `listen` and the numbers after it, and for operators on `admin`. Raises CannotInjectError.
    """
    declared = [
        _Open(container.name, port.container_port, port)
        for container in pod.running
        for port in container.ports or []
        if (port.protocol or "TCP") == "TCP"
    ]
    _refuse_twins(declared)
    numbers = _wanted(pod, declared, wanted) if wanted else _usual(declared)
    taken = [each for place, number in enumerate(numbers) for each in _take(pod, declared, number, listen + place)]
    names = [each.name for each in taken]
    own = [*dict.fromkeys(each.listen for each in taken), admin]
    if max(own) > 65535 or len(set(own)) < len(own) or set(own) & set(numbers):
        raise CannotInjectError(
            f"would have the sidecar listen on {', '.join(map(str, own))} for {', '.join(map(str, numbers))}: give it "
            "others with --listen-port or --admin-port"
        )
    for each in declared:
        if each.number in {*(t.listen for t in taken), admin}:
            raise CannotInjectError(
                f"uses port {each}, which the sidecar needs: give it another with --listen-port or --admin-port"
            )
        if each.port.name in names and [other.port.name for other in declared].count(each.port.name) > 1:
            raise CannotInjectError(f"has two ports named {each.port.name}: a Service can't tell which it means")
    return tuple(taken)


def _refuse_twins(declared: list[_Open]) -> None:
    owners: dict[int, str] = {}
    for each in declared:
        owner = owners.setdefault(each.number, each.container)
        if owner != each.container:
            raise CannotInjectError(
                f"has port {each.number} in two containers, {owner} and {each.container}; only one can listen on it"
            )


def _wanted(pod: Pod, declared: list[_Open], wanted: str) -> list[int]:
    numbers: list[int] = []
    for text in (part.strip() for part in wanted.split(",")):
        found = [each.number for each in declared if text in {each.port.name, str(each.number)}]
        if len(set(found)) > 1:
            raise CannotInjectError(f"has two ports named {text}: a Service can't tell which it means")
        if not found and not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
            raise CannotInjectError(f"has no port {text!r}, which pegel.dev/port or --port asks for{_listed(declared)}")
        numbers.append(found[0] if found else int(text))
    return list(dict.fromkeys(numbers))


def _usual(declared: list[_Open]) -> list[int]:
    """HTTP by its name, or the only port that is left; and the gRPC ports of the same container."""
    mine = [each for each in declared if not each.named(_OPERATORS)]
    if not mine:
        raise CannotInjectError(
            f"declares no port for the model{_listed(declared)}; give it one with a name, or {_SAY_WHICH}"
        )
    grpc = [each for each in mine if each.named(_GRPC)]
    http = [each for each in mine if each.named(_HTTP)] or [each for each in mine if each not in grpc] or grpc
    if len({each.number for each in http}) > 1:
        raise CannotInjectError(f"has several ports that may be the model's: {', '.join(map(str, http))}; {_SAY_WHICH}")
    beside = [each.number for each in grpc if each.container == http[0].container]
    return list(dict.fromkeys([http[0].number, *beside]))


def _take(pod: Pod, declared: list[_Open], number: int, listen: int) -> list[Taken]:
    """A number with all the names that it has."""
    mine = [each for each in declared if each.number == number]
    on_node = next((each for each in mine if each.port.host_port), None)
    if on_node:
        raise CannotInjectError(
            f"opens port {on_node} on the node (hostPort {on_node.port.host_port}), past the sidecar"
        )
    named = [Taken(each.port.name, each.container, number, listen) for each in mine if each.port.name]
    if len(mine) > 1:
        raise CannotInjectError(
            f"has port {number} twice, {' and '.join(map(str, mine))}: `kubectl apply` keeps ports by number, and "
            "would leave a name with the model; give it one"
        )
    if named:
        return named
    container = mine[0].container if mine else pod.spec.containers[0].name
    used = {each.port.name for each in declared}
    name = next(free for free in ("http", "pegel-http", f"pegel-{number}") if free not in used)
    return [Taken(name, container, number, listen, named=False)]


def _listed(declared: list[_Open]) -> str:
    return f" (it has {', '.join(map(str, declared))})" if declared else ""
