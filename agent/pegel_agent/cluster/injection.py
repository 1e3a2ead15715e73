"""Pegel's sidecar into a pod, and out again: pure functions of the pod, behind the command and the webhook.

In proxy mode the sidecar takes over the model's port by its name. A Service whose targetPort is that name follows it to
whichever container owns it; the model keeps its number. What was changed is written into the annotation
`pegel.dev/injected`, from which `eject` gives the original back.
"""

import contextlib
import copy
import difflib
from dataclasses import dataclass
from typing import Any

import msgspec

from pegel_agent.cluster import pods, sidecar
from pegel_agent.cluster.pods import CannotInjectError, Json
from pegel_agent.cluster.ports import Taken
from pegel_agent.cluster.sidecar import CONTAINER, LABEL, PROFILE_VOLUME, TEMPORARY_VOLUME, TOKEN_VOLUME, Settings

STATUS = LABEL + "injected"
"""The annotation that says a pod is injected, and what `eject` needs to know."""
OPT_IN = LABEL + "inject"
_KNOWN = {
    STATUS,
    *(
        LABEL + name
        for name in ("inject", "port", "profile", "mode", "model-name", "model-version", "served-model", "team")
    ),
}
_VOLUMES = {TEMPORARY_VOLUME, PROFILE_VOLUME, TOKEN_VOLUME}
_HANDLERS = ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle.postStart", "lifecycle.preStop")


@dataclass(frozen=True, slots=True)
class Injection:
    """The pod with the sidecar, and the ports that were taken over (none in sink mode). `before` and `after` are the
    pod's QoS classes. `unchanged` says why nothing was done, and is empty otherwise; `warnings` what may not be meant;
    `native` whether the sidecar is an init container that goes on running; `served` by which name the model is served
    and how that is known, as far as anything says it.
    """

    pod: Json
    ports: tuple[Taken, ...]
    before: str
    after: str
    unchanged: str = ""
    warnings: tuple[str, ...] = ()
    native: bool = False
    served: str = ""


class _Moved(msgspec.Struct, frozen=True, omit_defaults=True):
    """A name that a container gave up: of its port, the `index`th, where it was the `at`th key; or of the port that a
    probe asks, where `handler` says which."""

    container: str
    name: str
    port: int
    index: int = 0
    at: int = 0
    handler: str = ""


class _Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the status annotation holds. `labelled`: the opt-in label is ours."""

    version: str
    mode: str
    ports: tuple[Taken, ...] = ()
    moved: tuple[_Moved, ...] = ()
    labelled: bool = False


def inject(pod: Json, settings: Settings, *, name: str = "") -> Injection:
    """Give a pod, or a template of one, the sidecar. The argument stays as it is.

    What the pod says of itself under `pegel.dev/` goes before the settings. `name` names the model where nothing else
    does. Raises CannotInjectError.
    """
    view = pods.read(pod)
    if view.says(STATUS):
        return _already(pod, view, settings, name)
    wanted = view.says(OPT_IN)
    if wanted == "false":
        return Injection(pod, (), view.qos, view.qos, f"left alone, as {OPT_IN} is false")
    if wanted not in {"", "true"}:
        raise CannotInjectError(f'says {OPT_IN}: "{wanted}"; write "true" or "false"')
    _refuse(view)
    plan = sidecar.plan(view, settings, name)
    patched = copy.deepcopy(pod)
    spec = patched["spec"]
    moved = [each for container in _running(spec) for each in _give_up_names(container, plan.ports)]
    _append(spec, "initContainers" if plan.native else "containers", plan.container)
    for volume in plan.volumes:
        _append(spec, "volumes", volume)
    metadata = _mapping(patched, "metadata", at=0)
    labels = _mapping(metadata, "labels")
    labelled = OPT_IN not in labels
    labels.setdefault(OPT_IN, "true")
    record = _Record(settings.version, plan.mode, plan.ports, tuple(moved), labelled)
    _mapping(metadata, "annotations")[STATUS] = msgspec.json.encode(record).decode()
    after = pods.read(patched).qos
    return Injection(
        patched,
        plan.ports,
        view.qos,
        after,
        warnings=_doubts(view, plan.ports),
        native=plan.native,
        served=plan.served,
    )


def _already(pod: Json, view: pods.Pod, settings: Settings, name: str) -> Injection:
    record = _record(view)
    unchanged = f"already injected, by Pegel {record.version}"
    warnings = [
        f"was injected for port {each.port} of {each.container}, which it no longer has: --undo, and inject again"
        for each in record.ports
        if each.named and not _declares(view, each)
    ]
    if not warnings and _would_be(pod, settings, name) != pod:
        unchanged += "; other options would make it another: --undo first, then inject"
    return Injection(pod, record.ports, view.qos, view.qos, unchanged, tuple(warnings))


def _would_be(pod: Json, settings: Settings, name: str) -> Json | None:
    with contextlib.suppress(CannotInjectError):
        return inject(eject(pod).pod, settings, name=name).pod
    return None


def _doubts(view: pods.Pod, ports: tuple[Taken, ...]) -> tuple[str, ...]:
    """What is accepted, and may not be meant."""
    metadata = view.metadata or pods.Metadata()
    said = {*(metadata.labels or {}), *(metadata.annotations or {})}
    unknown = sorted(key for key in said if key.startswith(LABEL) and key not in _KNOWN)
    near = {key: difflib.get_close_matches(key, _KNOWN, 1) for key in unknown}
    return (
        *(f"says {key}, which Pegel doesn't know" + (f"; {near[key][0]}?" if near[key] else "") for key in unknown),
        *(
            f"declares no port {each.port}; is that the model's?"
            for each in ports
            if not each.named and not _declares(view, each) and any(other.ports for other in view.running)
        ),
    )


def _declares(view: pods.Pod, taken: Taken) -> bool:
    return any(
        port.container_port == taken.port
        for each in view.running
        if each.name == taken.container
        for port in each.ports or []
    )


@dataclass(frozen=True, slots=True)
class Ejection:
    """The pod without the sidecar; the very same where it isn't injected. `ports` are those that the sidecar had taken;
    `lost` says which names could not be given back, as their ports are gone."""

    pod: Json
    ports: tuple[Taken, ...] = ()
    lost: tuple[str, ...] = ()


def eject(pod: Json) -> Ejection:
    """Take the sidecar out: the pod as it was before `inject`. The argument stays as it is.

    Raises CannotInjectError when the status annotation can't be read, or a container uses what is the sidecar's.
    """
    view = pods.read(pod)
    if not view.says(STATUS):
        return Ejection(pod)
    record = _record(view)
    for each in view.running:
        mounted = {mount.name for mount in each.volume_mounts or []} & _VOLUMES
        if each.name != CONTAINER and mounted:
            raise CannotInjectError(
                f"mounts {min(mounted)}, a volume of the sidecar's, in {each.name}; take that out first"
            )
    original = copy.deepcopy(pod)
    spec = original["spec"]
    for group in ("containers", "initContainers"):
        _drop(spec, group, {CONTAINER})
    _drop(spec, "volumes", _VOLUMES)
    lost = [
        f"{moved.name} of {moved.container} (port {moved.port})"
        for moved in record.moved
        if not any(_take_back_name(each, moved) for each in _running(spec) if each["name"] == moved.container)
    ]
    metadata = original["metadata"]
    _drop_key(metadata, "annotations", STATUS)
    if record.labelled:
        _drop_key(metadata, "labels", OPT_IN)
    if not metadata:
        del original["metadata"]
    return Ejection(original, record.ports, tuple(lost))


def labelled_by_us(status: str) -> bool:
    """Whether a pod's opt-in label came with the injection that its status annotation tells of."""
    try:
        return msgspec.json.decode(status, type=_Record).labelled
    except msgspec.DecodeError:
        return False


def _refuse(view: pods.Pod) -> None:
    if any(each.name == CONTAINER for each in [*(view.spec.init_containers or []), *view.spec.containers]):
        raise CannotInjectError(f"has a container {CONTAINER} that is not from `pegel inject`; remove or rename it")
    if view.spec.os is not None and view.spec.os.name == "windows":
        raise CannotInjectError("runs on Windows, where the sidecar does not")
    if view.spec.host_network:
        raise CannotInjectError("uses hostNetwork, where the sidecar's ports would be the node's")
    volumes = {each.name for each in view.spec.volumes or []} & _VOLUMES
    if volumes:
        raise CannotInjectError(f"has a volume of its own named {min(volumes)}, as the sidecar's; rename it")


def _record(view: pods.Pod) -> _Record:
    try:
        return msgspec.json.decode(view.says(STATUS), type=_Record)
    except msgspec.DecodeError as error:
        raise CannotInjectError(f"has an annotation {STATUS} that is not from `pegel inject`: {error}") from error


def _running(spec: Json) -> list[Json]:
    return [*(spec.get("initContainers") or []), *spec["containers"]]


def _give_up_names(container: Json, ports: tuple[Taken, ...]) -> list[_Moved]:
    """Take the names of the ports from the container, and let its probes use the numbers."""
    numbers = {each.name: each.port for each in ports if each.named and each.container == container["name"]}
    moved = []
    for index, port in enumerate(container.get("ports") or []):
        name = port.get("name")
        if name in numbers and port["containerPort"] == numbers[name]:
            moved.append(_Moved(container["name"], name, port["containerPort"], index, list(port).index("name")))
            del port["name"]
    for at in _HANDLERS:
        for handler in _handlers(container, at):
            name = handler.get("port")
            if name in numbers:
                moved.append(_Moved(container["name"], name, numbers[name], handler=at))
                handler["port"] = numbers[name]
    return moved


def _take_back_name(container: Json, moved: _Moved) -> bool:
    """Whether the name could be given back; a probe may have been changed since, which is nobody's loss."""
    if moved.handler:
        for handler in _handlers(container, moved.handler):
            if handler.get("port") == moved.port:
                handler["port"] = moved.name
        return True
    ports = container.get("ports") or []
    for port in [*ports[moved.index : moved.index + 1], *ports]:  # somebody may have added a port since
        if port["containerPort"] == moved.port and "name" not in port:
            _insert(port, moved.at, "name", moved.name)
            return True
    return False


def _handlers(container: Json, at: str) -> list[Json]:
    """The parts of a probe or lifecycle hook that may name a port."""
    found: Any = container
    for key in at.split("."):
        found = (found or {}).get(key)
    return [found[kind] for kind in ("httpGet", "tcpSocket") if found and found.get(kind)]


def _append(parent: Json, key: str, item: Json) -> None:
    parent[key] = [*(parent.get(key) or []), item]


def _mapping(parent: Json, key: str, *, at: int | None = None) -> Json:
    """The mapping at a key, made at a place among the keys, the last by default, where there is none."""
    if parent.get(key) is None:
        parent.pop(key, None)
        _insert(parent, len(parent) if at is None else at, key, {})
    mapping: Json = parent[key]
    return mapping


def _insert(mapping: Json, at: int, key: str, value: object) -> None:
    items = list(mapping.items())
    mapping.clear()
    mapping.update([*items[:at], (key, value), *items[at:]])


def _drop(parent: Json, key: str, names: set[str]) -> None:
    kept = [each for each in parent.get(key) or [] if each.get("name") not in names]
    if kept:
        parent[key] = kept
    else:
        parent.pop(key, None)


def _drop_key(parent: Json, key: str, inner: str) -> None:
    parent[key].pop(inner, None)
    if not parent[key]:
        del parent[key]
