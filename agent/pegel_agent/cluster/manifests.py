"""Injection for manifests: the pods of every workload in a stream of objects, and the Services that lead to them.

Nothing is asked of a cluster. What an object outside of the stream does to the traffic is not known here.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pegel_exporters.errors import UserError

from pegel_agent.cluster import documents, routes
from pegel_agent.cluster.injection import OPT_IN, Injection, eject, inject
from pegel_agent.cluster.objects import Object, objects_of
from pegel_agent.cluster.pods import CannotInjectError, Json
from pegel_agent.cluster.ports import Taken
from pegel_agent.cluster.routes import Workload
from pegel_agent.cluster.sidecar import Settings

_NETWORKS = {"security.istio.io", "networking.istio.io", "cilium.io", "projectcalico.org", "crd.projectcalico.org",
             "policy.linkerd.io", "policy.networking.k8s.io"}  # fmt: skip
"""API groups whose objects speak of pods' ports."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a stream. `done` has a line for each workload, `warnings` one for each way past the sidecar."""

    text: str
    done: tuple[str, ...]
    warnings: tuple[str, ...]


def inject_all(sources: Sequence[tuple[str, str]], settings: Settings, *, fix_services: bool = False) -> Outcome:
    """Inject the workloads in files, given as (name, text): those that say `pegel.dev/inject: "true"`, or, where none
    does, all that don't say "false".

    `fix_services` lets Services with a numeric targetPort use the name. Raises UserError, which names every object that
    can't be injected, and then nothing is changed.
    """
    done: list[str] = []
    warnings: list[str] = []
    workloads: list[Workload] = []
    stream = _Stream(sources)
    some_opted_in = any(each.opted == "true" for each in stream.objects)

    def change(each: Object, pod: Json) -> Json:
        if not each.injected and (each.opted == "false" or (some_opted_in and not each.opted)):
            why = f"{OPT_IN} is false" if each.opted else f'others say {OPT_IN}: "true"'
            done.append(f"{each.where}: left alone, as {why}")
            workloads.append(_workload(each, pod, (), settings.admin_port))
            return pod
        injection = inject(pod, settings, name=each.name)
        warnings.extend(f"{each.where} {warning}" for warning in injection.warnings)
        done.append(f"{each.where}: {injection.unchanged or _said(injection, settings)}")
        workloads.append(_workload(each, injection.pod, injection.ports, settings.admin_port))
        return injection.pod

    stream.change_pods(change)
    done += [f"{each.where}: left alone, as {why}" for each in stream.objects if (why := each.out_of_reach)]
    for each in stream.objects:
        warnings += [f"{each.where} {warning}" for warning in _around(each, workloads, fix_services)]
    for workload in workloads:
        if workload.ports:
            _tell_of_services(workload, stream.objects, done, warnings)
    if not done:
        done.append("there is no Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob or Rollout in it")
    return Outcome(stream.text(), tuple(done), tuple(warnings))


def eject_all(sources: Sequence[tuple[str, str]]) -> Outcome:
    """Take the sidecar out of every workload and what --fix-services did out of every Service. Raises UserError."""
    done: list[str] = []
    warnings: list[str] = []
    workloads: list[Workload] = []

    def change(each: Object, pod: Json) -> Json:
        ejection = eject(pod)
        done.append(f"{each.where}: {'not injected' if ejection.pod is pod else 'the sidecar is taken out'}")
        warnings.extend(
            f"{each.where} no longer has the port to give its name back to: {lost}" for lost in ejection.lost
        )
        unnamed = tuple(port for port in ejection.ports if not port.named)
        workloads.append(_workload(each, ejection.pod, unnamed, 0))
        return ejection.pod

    stream = _Stream(sources)
    stream.change_pods(change)
    for each in stream.objects:
        if each.key == ("", "Service"):
            with _naming(each):
                warnings += [f"{each.where} {lost}" for lost in routes.give_back(each.value)]
                warnings += [
                    f"{each.where} has targetPort {port.name}, a name that {workload.title} lost with the sidecar; its "
                    f"port is {port.port}"
                    for workload in workloads
                    for port in workload.ports
                    if port.name in routes.targets(each.value, each.namespace, workload)
                ]
    return Outcome(stream.text(), tuple(done), tuple(warnings))


def _workload(each: Object, pod: Json, ports: tuple[Taken, ...], admin: int) -> Workload:
    labels = (pod.get("metadata") or {}).get("labels") or {}
    return Workload(each.where, each.title, each.namespace, labels, ports, admin)


class _Stream:
    """Files as documents, and the objects in them; changes are made to the objects and written at the end."""

    def __init__(self, sources: Sequence[tuple[str, str]]) -> None:
        self._files = [documents.split(name, text) for name, text in sources]
        self._values = [[copy.deepcopy(each.value) for each in file] for file in self._files]
        self.objects = [
            found
            for file, values in zip(self._files, self._values, strict=True)
            for document, value in zip(file, values, strict=True)
            for found in objects_of(document, value)
        ]
        if not self.objects:
            raise UserError(f"{', '.join(name for name, _ in sources)}: there is no object in it")

    def change_pods(self, change: Callable[[Object, Json], Json]) -> None:
        """Replace the pod, or the template of one, of every workload. Raises UserError with all that went wrong."""
        errors = []
        for each in self.objects:
            if each.makes_pods:
                try:
                    with _naming(each):
                        each.pod = change(each, each.pod)
                except UserError as error:
                    errors.append(str(error))
        if errors:
            raise UserError("; ".join(errors))

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
def _naming(each: Object) -> Iterator[None]:
    """Errors with the name of the object that they are about."""
    try:
        yield
    except CannotInjectError as error:
        raise UserError(f"{each.where} {error}") from error


def _around(each: Object, workloads: Sequence[Workload], fix_services: bool) -> list[str]:
    """What an object that makes no pods means for those that were injected. Raises UserError."""
    with _naming(each):
        if each.key == ("", "Service"):
            return routes.by_number(each.value, each.namespace, workloads, fix=fix_services)
        if each.key[0] in {"networking.k8s.io", "extensions"} and each.key[1] == "NetworkPolicy":
            return routes.shut_out(each.value, each.namespace, workloads)
        if each.key[0] in _NETWORKS:
            return routes.named_by_number(each.value, each.namespace, workloads)
        return []


def _tell_of_services(workload: Workload, objects: Sequence[Object], done: list[str], warnings: list[str]) -> None:
    targets = {
        target
        for each in objects
        if each.key == ("", "Service")
        for target in routes.targets(each.value, each.namespace, workload)
    }
    warnings += [
        f"{workload.where} has no name for port {port.port}, so a Service can only lead past the sidecar; let it have "
        f"targetPort: {port.name}"
        for port in workload.ports
        if not port.named and not targets & {port.port, port.name}
    ]
    if not targets and all(port.named for port in workload.ports):
        done.append(f"{workload.where}: no Service here leads to it; those elsewhere must use the port's name")


def _said(injection: Injection, settings: Settings) -> str:
    since = ".".join(map(str, settings.kubernetes))
    if not injection.ports:
        what = "injected as a sink; nothing of the model's traffic is changed"
    else:
        how = f"as a native sidecar, for Kubernetes {since} or newer" if injection.native else "as a container"
        what = f"injected {how}: " + ", ".join(
            f"{each.name} ({each.port}) now at {each.listen}" for each in injection.ports
        )
    if injection.served:
        what += f"; {injection.served}"
    if injection.before != injection.after:
        return f"{what}; QoS class {injection.before} becomes {injection.after}"
    if injection.after == "Guaranteed":
        return f"{what}; QoS class stays Guaranteed, so the sidecar has no more than {settings.guaranteed_cpu} of cpu"
    return what
