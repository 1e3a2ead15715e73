"""Objects of the Kubernetes API in manifests: how they are called, and where the pods are that they make."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pegel_exporters.errors import UserError

from pegel_agent.cluster.documents import Document
from pegel_agent.cluster.injection import OPT_IN, STATUS, labelled_by_us
from pegel_agent.cluster.pods import CannotInjectError, Json

_TEMPLATES: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "Pod"): (),
    ("", "ReplicationController"): ("spec", "template"),
    **{("apps", kind): ("spec", "template") for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")},
    ("batch", "Job"): ("spec", "template"),
    ("batch", "CronJob"): ("spec", "jobTemplate", "spec", "template"),
    ("argoproj.io", "Rollout"): ("spec", "template"),
}
"""API group and kind to where the pod's template is."""
_OTHERS_PODS = {
    "InferenceService", "InferenceGraph", "ServingRuntime", "ClusterServingRuntime", "SeldonDeployment",
    "LeaderWorkerSet", "RayService", "RayCluster", "TrainedModel",
}  # fmt: skip
"""Kinds whose pods are made of more than a template."""


@dataclass(slots=True)
class Object:
    """One object of a file, which may be an item of a List."""

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
        """API group and kind."""
        return (str(self.value.get("apiVersion")).rpartition("/")[0], str(self.value.get("kind")))

    @property
    def name(self) -> str:
        metadata = _mapping(self.value.get("metadata"))
        return str(metadata.get("name") or metadata.get("generateName") or "")

    @property
    def namespace(self) -> str:
        return str(_mapping(self.value.get("metadata")).get("namespace") or "")

    @property
    def makes_pods(self) -> bool:
        """Whether it is a pod, or has a template of one that can be injected."""
        return self.key in _TEMPLATES and not self.out_of_reach

    @property
    def out_of_reach(self) -> str:
        """Why the pods that it has can't be injected in this manifest; empty when they can, or there are none."""
        if self.key[1] in _OTHERS_PODS or self.key == ("serving.knative.dev", "Service"):
            return "its pods are made by its controller; sink mode can watch them"
        spec = _mapping(self.value.get("spec"))
        if self.key[1] == "Rollout" and "workloadRef" in spec and "template" not in spec:
            return "its pods are those of its workloadRef"
        return ""

    @property
    def injected(self) -> bool:
        """Whether its pods have the sidecar."""
        return bool(_said(self._pod_or_nothing(), STATUS))

    @property
    def opted(self) -> str:
        """What its pods, or else it itself, say of injection: true, false, something else or nothing."""
        pod = self._pod_or_nothing()
        kinds = ("annotations",) if labelled_by_us(_said(pod, STATUS)) else ("annotations", "labels")
        return _said(pod, OPT_IN, kinds) or _said(self.value, OPT_IN, kinds)

    @property
    def pod(self) -> Json:
        """The pod, or the template of one. Raises CannotInjectError when there is none."""
        found: Any = self.value
        path = _TEMPLATES[self.key]
        for place, key in enumerate(path):
            found = found.get(key)
            if not isinstance(found, dict):
                raise CannotInjectError(f"has no {'.'.join(path[: place + 1])}")
        pod: Json = found
        return pod

    @pod.setter
    def pod(self, pod: Json) -> None:
        place = self.pod
        if pod is not place:
            place.clear()
            place.update(pod)

    def _pod_or_nothing(self) -> Json:
        try:
            return self.pod if self.key in _TEMPLATES else {}
        except CannotInjectError:
            return {}


def objects_of(document: Document, value: Any) -> Iterator[Object]:
    """The objects of a document that says `value`; those of a List are its items. Raises UserError."""
    at = f"{document.source}, line {document.line}"
    if value is None:
        return
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        raise UserError(f"{at}: this is no Kubernetes object; it has no kind")
    items = value.get("items")
    if value["kind"] != "List" and not (value["kind"].endswith("List") and isinstance(items, list)):
        yield Object(document.source, value)
        return
    if not isinstance(items, list):
        raise UserError(f"{at}: this {value['kind']} has no list of items")
    for place, item in enumerate(items):
        if not isinstance(item, dict):
            raise UserError(f"{at}: item {place} of this {value['kind']} is no Kubernetes object")
        if isinstance(item.get("kind"), str):
            yield from objects_of(document, item)
        elif value["kind"] == "List":
            raise UserError(f"{at}: item {place} of this List is no Kubernetes object; it has no kind")


def _said(holder: Json, name: str, kinds: tuple[str, ...] = ("annotations", "labels")) -> str:
    metadata = _mapping(holder.get("metadata"))
    for kind in kinds:
        said = _mapping(metadata.get(kind)).get(name)
        if said is not None:
            return str(said)
    return ""


def _mapping(value: object) -> Json:
    return value if isinstance(value, dict) else {}
