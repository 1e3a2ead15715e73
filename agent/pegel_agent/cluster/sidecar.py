"""The sidecar for one pod: its container and its volumes."""

import re
from dataclasses import dataclass
from typing import Literal

import msgspec

from pegel_agent.cluster.pods import CannotInjectError, Json, Pod
from pegel_agent.cluster.ports import Taken, choose
from pegel_agent.cluster.served import ServedNames, by_container, by_inference_service, told

CONTAINER = "pegel-sidecar"
LABEL = "pegel.dev/"
SERVED_MODEL = LABEL + "served-model"
TEMPORARY_VOLUME = "pegel-tmp"
PROFILE_VOLUME = "pegel-profile"
TOKEN_VOLUME = "pegel-feedback-token"  # noqa: S105 - a volume's name
NATIVE_SINCE = (1, 29)
NATIVE_PORTS_SINCE = (1, 32)
"""Until then Services did not see the port names of native sidecars (kubernetes/kubernetes#127958)."""
OBJECT_NAME = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
METRICS_PORT = "pegel-metrics"
_PROFILE_FOLDER = "/etc/pegel/profile"
_TOKEN_FOLDER = "/etc/pegel/feedback"  # noqa: S105 - a folder
_LEAVE_FILE = "/tmp/pegel-leaving"  # noqa: S108 - the pod's own
_DEFAULT_GRACE_SECONDS = 30
_MOST_NOTICE_SECONDS = 5
_NON_ROOT = 65532
_USUAL_NAMES = ("app.kubernetes.io/name", "app")


class Settings(msgspec.Struct, frozen=True):
    """How pods are injected where they don't say otherwise.

    `kubernetes` is the oldest version that the pods must run on. `port`, `profile` (a ConfigMap with the key
    profile.json) and `feedback_secret` (a Secret with the key token) are names; empty is none. The sidecar requests
    `cpu` and is limited to `cpu_limit`, empty for no limit; in a pod that is Guaranteed it gets `guaranteed_cpu`, so
    that the pod stays so. `memory` is request and limit.
    """

    image: str
    version: str
    mode: Literal["proxy", "sink"] = "proxy"
    port: str = ""
    model_name: str = ""
    model_version: str = ""
    profile: str = ""
    window: str = ""
    false_alarms: str = ""
    feedback_secret: str = ""
    kubernetes: tuple[int, int] = NATIVE_PORTS_SINCE
    listen_port: int = 15080
    admin_port: int = 9466
    cpu: str = "50m"
    cpu_limit: str = ""
    guaranteed_cpu: str = "500m"
    memory: str = "192Mi"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pod gets. `native`: the container is an init container that goes on running. `served` says by which name
    its model is served and how that is known; empty where nothing says anything."""

    mode: str
    ports: tuple[Taken, ...]
    native: bool
    served: str
    container: Json
    volumes: tuple[Json, ...]


def plan(pod: Pod, settings: Settings, name: str) -> Plan:
    """What to add to a pod whose model is called `name` where nothing else names it. Raises CannotInjectError."""
    mode = pod.says(LABEL + "mode") or settings.mode
    if mode not in {"proxy", "sink"}:
        raise CannotInjectError(f"asks for pegel.dev/mode {mode!r}; there is proxy and sink")
    profile = pod.says(LABEL + "profile") or settings.profile
    if profile and not re.fullmatch(OBJECT_NAME, profile):
        raise CannotInjectError(f"asks for the profile {profile!r}, which is no ConfigMap's name")
    ports: tuple[Taken, ...] = ()
    if mode == "proxy":
        wanted = pod.says(LABEL + "port") or settings.port
        ports = choose(pod, wanted, settings.listen_port, settings.admin_port)
    native = _native(pod, mode, settings.kubernetes)
    ending = _ending(pod)
    names = _served(pod, ports)

    volumes: list[Json] = [{"name": TEMPORARY_VOLUME, "emptyDir": {"sizeLimit": "16Mi"}}]
    mounts: list[Json] = [{"name": TEMPORARY_VOLUME, "mountPath": "/tmp"}]  # noqa: S108 - the pod's own
    if profile:
        volumes.append({"name": PROFILE_VOLUME, "configMap": {"name": profile}})
        mounts.append({"name": PROFILE_VOLUME, "mountPath": _PROFILE_FOLDER, "readOnly": True})
    if settings.feedback_secret:
        volumes.append({"name": TOKEN_VOLUME, "secret": {"secretName": settings.feedback_secret}})
        mounts.append({"name": TOKEN_VOLUME, "mountPath": _TOKEN_FOLDER, "readOnly": True})
    container: Json = {
        "name": CONTAINER,
        "image": settings.image,
        **({"restartPolicy": "Always"} if native else {}),
        "args": [
            "sidecar",
            *_traffic(mode, ports, settings.listen_port),
            f"--admin=:{settings.admin_port}",
            *ending.options,
            *_options(pod, settings, profile, name),
            *([f"--served-model={','.join(names.names)}"] if names.names else []),
        ],
        "ports": [
            *({"name": each.name, "containerPort": each.listen, "protocol": "TCP"} for each in ports),
            {"name": METRICS_PORT, "containerPort": settings.admin_port, "protocol": "TCP"},
        ],
        # The start never waits for the model: a native sidecar that did would keep the model from starting.
        "startupProbe": _probe("/healthz", periodSeconds=1, failureThreshold=60),
        "readinessProbe": _probe("/readyz", periodSeconds=5, failureThreshold=3),
        "livenessProbe": _probe("/healthz", periodSeconds=10, failureThreshold=6),
        **ending.hook,
        "resources": _resources(pod, settings),
        "securityContext": _security(pod),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    return Plan(mode, ports, native, names.said, container, tuple(volumes))


def _served(pod: Pod, ports: tuple[Taken, ...]) -> ServedNames:
    if names := pod.says(SERVED_MODEL):
        return told((names,), SERVED_MODEL)
    if not ports:
        return by_inference_service(pod)
    return by_container(next(each for each in pod.running if each.name == ports[0].container))


def _native(pod: Pod, mode: str, kubernetes: tuple[int, int]) -> bool:
    native = kubernetes >= (NATIVE_SINCE if pod.ends or mode == "sink" else NATIVE_PORTS_SINCE)
    if pod.ends and not native:
        raise CannotInjectError("would never end beside a sidecar before Kubernetes 1.29, which has native sidecars")
    return native


@dataclass(frozen=True, slots=True)
class _Ending:
    """What the sidecar is told of its pod's end: options for it, and its container's hook."""

    options: tuple[str, ...]
    hook: Json


def _ending(pod: Pod) -> _Ending:
    """Notice, lame duck time and drain within the time that the pod has for its end.

    The hook tells the sidecar that the pod is leaving, in time for clients and load balancers to hear of it, and lasts
    so long: SIGTERM comes to a native sidecar only when the model has ended. It is a program of the image's and no
    sleep of Kubernetes', which would tell nothing. Where a pod ends by itself nobody waits for notice.
    """
    grace = pod.spec.termination_grace_period_seconds
    grace = _DEFAULT_GRACE_SECONDS if grace is None else grace
    notice = min(_MOST_NOTICE_SECONDS, grace // 6)
    # What is left over is for the hook to start and to be heard, and for the process to end.
    drain = max(0, grace - 2 * notice - (0 if notice == _MOST_NOTICE_SECONDS else 2))
    options = (
        () if grace == _DEFAULT_GRACE_SECONDS else (f"--lame-duck={_seconds(notice)}", f"--drain={_seconds(drain)}")
    )
    if not notice or pod.ends:
        return _Ending(options, {})
    command = ["python3", "-m", "pegel_agent.sidecar.leave", _LEAVE_FILE, str(notice)]
    hook = {"lifecycle": {"preStop": {"exec": {"command": command}}}}
    return _Ending((*options, f"--leave-file={_LEAVE_FILE}"), hook)


def _seconds(number: int) -> str:
    return f"{number}s" if number else "0"


def _traffic(mode: str, ports: tuple[Taken, ...], listen_port: int) -> list[str]:
    if mode == "sink":
        return ["--mode=sink", f"--listen=127.0.0.1:{listen_port}"]  # KServe's logger is in the same pod
    watched, *others = dict.fromkeys((each.listen, each.port) for each in ports)
    return [
        f"--listen=:{watched[0]}",
        f"--upstream=127.0.0.1:{watched[1]}",
        *(f"--forward=:{listen}=127.0.0.1:{port}" for listen, port in others),
    ]


def _options(pod: Pod, settings: Settings, profile: str, name: str) -> list[str]:
    model_name = pod.says(LABEL + "model-name") or settings.model_name
    if not model_name and not profile:  # a profile knows its model's name
        model_name = next(filter(None, map(pod.says, _USUAL_NAMES)), name)
    options = {
        "model-name": model_name,
        "model-version": pod.says(LABEL + "model-version") or settings.model_version,
        "profile": f"{_PROFILE_FOLDER}/profile.json" if profile else "",
        "window": settings.window,
        "false-alarms": settings.false_alarms,
        "feedback-token": f"{_TOKEN_FOLDER}/token" if settings.feedback_secret else "",
    }
    return [f"--{option}={value}" for option, value in options.items() if value]


def _probe(path: str, **timing: int) -> Json:
    return {"httpGet": {"path": path, "port": METRICS_PORT}, "timeoutSeconds": 3, **timing}


def _resources(pod: Pod, settings: Settings) -> Json:
    if pod.qos == "Guaranteed":
        quantities = {"cpu": settings.guaranteed_cpu, "memory": settings.memory}
        return {"requests": quantities, "limits": dict(quantities)}
    # At a limit on cpu the kernel stops the model's traffic for the rest of its period: there is none unless asked for.
    limits = {"cpu": settings.cpu_limit} if settings.cpu_limit else {}
    return {
        "requests": {"cpu": settings.cpu, "memory": settings.memory},
        "limits": {**limits, "memory": settings.memory},
    }


def _security(pod: Pod) -> Json:
    """All that Pod Security `restricted` asks for, whatever the pod says. The image's user is a number and not root, so
    none is set, as OpenShift assigns its own; but a pod's user 0 would be inherited."""
    root = pod.spec.security_context is not None and pod.spec.security_context.run_as_user == 0
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        **({"runAsUser": _NON_ROOT} if root else {}),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
