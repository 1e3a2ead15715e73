"""Injection for manifests: the pods of every workload in a stream of objects, and the Services that lead to them.

Nothing is asked of a cluster. What an object outside of the stream does to the traffic is not known here.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pegel_exporters.errors import UserError

from pegel_agent.cluster import documents, pods, routes
from pegel_agent.cluster.documents import Document
from pegel_agent.cluster.injection import eject, inject
from pegel_agent.cluster.pods import CannotInjectError, Json
from pegel_agent.cluster.ports import Taken
from pegel_agent.cluster.routes import Workload
from pegel_agent.cluster.sidecar import Settings

_TEMPLATES: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "Pod"): (),
    **{("apps", kind): ("spec", "template") for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")},
    ("batch", "Job"): ("spec", "template"),
    ("batch", "CronJob"): ("spec", "jobTemplate", "spec", "template"),
    ("argoproj.io", "Rollout"): ("spec", "template"),
}
"""API group and kind to where the pod's template is."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a stream. `done` has a line for each workload, `warnings` one for each way past the sidecar."""

    text: str
    done: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(slots=True)
class _Object:
    """One object of the stream, which may be an item of a List."""

    source: str
    value: Json

    @property
    def title(self) -> str:
        """Kind, namespace and name."""
        namespace = f"{self.namespace}/" if self.namespace else ""
        return f"{self.value['kind']} {namespace}{self.name or '(without a name)'}"

    @property
    def where(self) -> str:
        """The title with the file."""
        return f"{self.source}: {self.title}"

    @property
    def key(self) -> tuple[str, str]:
        version, kind = self.value.get("apiVersion"), self.value.get("kind")
        return (str(version).rpartition("/")[0], str(kind))

    @property
    def name(self) -> str:
        return str(self._metadata.get("name") or self._metadata.get("generateName") or "")

    @property
    def namespace(self) -> str:
        return str(self._metadata.get("namespace") or "")

    @property
    def _metadata(self) -> Json:
        metadata = self.value.get("metadata")
        return metadata if isinstance(metadata, dict) else {}


def inject_all(sources: Sequence[tuple[str, str]], settings: Settings, *, fix_services: bool = False) -> Outcome:
    """Inject every workload in files, given as (name, text), that doesn't say `pegel.dev/inject: "false"`.

    `fix_services` lets Services with a numeric targetPort use the name. Raises UserError, naming the object, and then
    nothing is changed.
    """
    done: list[str] = []
    warnings: list[str] = []
    workloads: list[Workload] = []

    def change(each: _Object, pod: Json) -> Json:
        injection = inject(pod, settings, name=each.name)
        if injection.ports:
            metadata = pods.read(injection.pod).metadata or pods.Metadata()
            workloads.append(Workload(each.source, each.title, each.namespace, metadata.labels or {}, injection.ports))
        done.append(f"{each.where}: {injection.unchanged or _said(injection.ports, injection.before, injection.after)}")
        return injection.pod

    stream = _Stream(sources)
    stream.change_pods(change)
    leads: dict[Workload, set[Any]] = {each: set() for each in workloads}
    for each in stream.objects:
        with _naming(each):
            if each.key == ("", "Service"):
                for workload in workloads:
                    leads[workload] |= routes.names(each.value, each.namespace, workload)
                found = routes.by_number(each.value, each.namespace, workloads, fix=fix_services)
                warnings += [f"{each.where}: {warning}" for warning in found]
            elif each.key == ("networking.k8s.io", "NetworkPolicy"):
                found = routes.shut_out(each.value, each.namespace, workloads)
                warnings += [f"{each.where}: {warning}" for warning in found]
    warnings += [
        f"{workload.source}: {workload.title}: port {port.port} has no name, so a Service can only lead past the "
        f"sidecar; let it have targetPort: {port.name}"
        for workload, targets in leads.items()
        for port in workload.ports
        if not port.named and not targets & {port.port, port.name}
    ]
    if not done:
        done.append("there is no Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob or Rollout in it")
    return Outcome(stream.text(), tuple(done), tuple(warnings))


def eject_all(sources: Sequence[tuple[str, str]]) -> Outcome:
    """Take the sidecar out of every workload and what --fix-services did out of every Service. Raises UserError."""
    done: list[str] = []

    def change(each: _Object, pod: Json) -> Json:
        original = eject(pod)
        done.append(f"{each.where}: {'not injected' if original is pod else 'as it was before injection'}")
        return original

    stream = _Stream(sources)
    stream.change_pods(change)
    for each in stream.objects:
        if each.key == ("", "Service"):
            with _naming(each):
                routes.give_back(each.value)
    return Outcome(stream.text(), tuple(done), ())


class _Stream:
    """Files as documents, and the objects in them; changes are made to the objects and written at the end."""

    def __init__(self, sources: Sequence[tuple[str, str]]) -> None:
        self._files = [documents.split(name, text) for name, text in sources]
        self._values = [[copy.deepcopy(each.value) for each in file] for file in self._files]
        self.objects = [
            found
            for file, values in zip(self._files, self._values, strict=True)
            for document, value in zip(file, values, strict=True)
            for found in _objects(document, value)
        ]
        if not self.objects:
            raise UserError(f"{', '.join(name for name, _ in sources)}: there is no object in it")

    def change_pods(self, change: Callable[[_Object, Json], Json]) -> None:
        """Replace the pod, or the template of one, in every workload."""
        for each in self.objects:
            path = _TEMPLATES.get(each.key)
            if path is None:
                continue
            with _naming(each):
                pod = change(each, _template(each.value, path))
            if path:
                _template(each.value, path[:-1])[path[-1]] = pod
            elif pod is not each.value:
                each.value.clear()
                each.value.update(pod)

    def text(self) -> str:
        """All files as one stream."""
        whole = ""
        for file, values in zip(self._files, self._values, strict=True):
            text = "".join(map(documents.with_value, file, values))
            if whole and not text.startswith("---"):
                whole += "---\n"
            whole += text if text.endswith("\n") or not text else text + "\n"
        return whole


@contextlib.contextmanager
def _naming(each: _Object) -> Iterator[None]:
    """Errors with the name of the object that they are about."""
    try:
        yield
    except CannotInjectError as error:
        raise UserError(f"{each.where} {error}") from error


def _objects(document: Document, value: Any) -> Iterator[_Object]:
    at = f"{document.source}, line {document.line}"
    if value is None:
        return
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        raise UserError(f"{at}: this is no Kubernetes object; it has no kind")
    items = value.get("items")
    if value["kind"] != "List" and not (value["kind"].endswith("List") and isinstance(items, list)):
        yield _Object(document.source, value)
        return
    if not isinstance(items, list):
        raise UserError(f"{at}: this {value['kind']} has no list of items")
    for place, item in enumerate(items):
        if not isinstance(item, dict):
            raise UserError(f"{at}: item {place} of this {value['kind']} is no Kubernetes object")
        if isinstance(item.get("kind"), str):
            yield _Object(document.source, item)
        elif value["kind"] == "List":
            raise UserError(f"{at}: item {place} of this List is no Kubernetes object; it has no kind")


def _template(value: Json, path: tuple[str, ...]) -> Json:
    found: Any = value
    for place, key in enumerate(path):
        found = found.get(key)
        if not isinstance(found, dict):
            raise CannotInjectError(f"has no {'.'.join(path[: place + 1])}")
    result: Json = found
    return result


def _said(ports: tuple[Taken, ...], before: str, after: str) -> str:
    if not ports:
        what = "injected as a sink; nothing of the model's traffic is changed"
    else:
        what = "injected, " + ", ".join(f"{each.name} ({each.port}) now at {each.listen}" for each in ports)
    return what if before == after else f"{what}; QoS class {before} becomes {after}"
