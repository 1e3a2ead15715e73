"""Injection of pods that nobody has thought of."""

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pegel_agent.cluster.injection import eject, inject
from pegel_agent.cluster.pods import CannotInjectError
from pegel_agent.cluster.sidecar import Settings

SETTINGS = Settings(image="pegel/sidecar:1", version="1")
names = st.sampled_from(["http", "grpc", "metrics", "one", "two", None])
ports = st.fixed_dictionaries(
    {"containerPort": st.sampled_from([80, 8080, 8501, 9000, 9001, 9002, 9003, 15080])},
    optional={"name": names, "protocol": st.sampled_from(["TCP", "UDP"]), "hostPort": st.just(80)},
)
handlers = st.fixed_dictionaries({"httpGet": st.fixed_dictionaries({"port": st.one_of(names, st.just(8080))})})
quantities = st.dictionaries(st.sampled_from(["cpu", "memory"]), st.sampled_from(["1", 1, "2Gi"]))
containers = st.fixed_dictionaries(
    {"name": st.sampled_from(["model", "proxy", "cache", "log", "pegel-sidecar"])},
    optional={
        "ports": st.lists(ports, max_size=4),
        "readinessProbe": handlers,
        "lifecycle": st.fixed_dictionaries({}, optional={"preStop": handlers}),
        "resources": st.fixed_dictionaries({}, optional={"requests": quantities, "limits": quantities}),
        "restartPolicy": st.just("Always"),
    },
)
several = st.lists(containers, min_size=1, max_size=3, unique_by=lambda each: each["name"])
annotations = st.fixed_dictionaries(
    {},
    optional={
        "pegel.dev/port": st.sampled_from(["http", "8501", "http,grpc", "80"]),
        "pegel.dev/mode": st.sampled_from(["proxy", "sink"]),
        "pegel.dev/inject": st.sampled_from(["true", "false"]),
        "note": st.just("x"),
    },
)
pods = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries({"labels": st.just({"app": "x"})}, optional={"annotations": annotations}),
        "spec": st.fixed_dictionaries(
            {"containers": several},
            optional={
                "initContainers": several,
                "volumes": st.just([{"name": "own", "emptyDir": {}}]),
                "restartPolicy": st.sampled_from(["Always", "Never"]),
            },
        ),
    }
)


def with_order(value: Any) -> Any:
    """A value whose equality minds the order of keys."""
    if isinstance(value, dict):
        return [(key, with_order(each)) for key, each in value.items()]
    return [with_order(each) for each in value] if isinstance(value, list) else value


@given(pods)
@settings(max_examples=500)
def test_a_pod_is_refused_or_injected_once_and_comes_back(pod: dict[str, Any]) -> None:
    before = copy.deepcopy(pod)
    try:
        injection = inject(pod, SETTINGS)
    except CannotInjectError:
        assert pod == before
        return
    assert pod == before
    again = inject(injection.pod, SETTINGS)
    assert again.pod == injection.pod
    if not injection.unchanged:
        assert again.unchanged
        assert again.ports == injection.ports
    assert with_order(eject(injection.pod).pod) == with_order(_without_empty_lists(before))


def _without_empty_lists(pod: dict[str, Any]) -> dict[str, Any]:
    """An empty map or list of annotations says nothing, and does not come back."""
    pod = copy.deepcopy(pod)
    if pod["metadata"].get("annotations") == {}:
        del pod["metadata"]["annotations"]
    return pod


@given(pods)
@settings(max_examples=500)
def test_the_names_of_the_ports_go_to_the_sidecar_and_to_nobody_else(pod: dict[str, Any]) -> None:
    try:
        injection = inject(pod, SETTINGS)
    except CannotInjectError:
        return
    spec = injection.pod["spec"]
    native = [each for each in spec.get("initContainers") or [] if "restartPolicy" in each]
    everyone = [*native, *spec["containers"]]  # the ports of an init container that ends lead nowhere
    for taken in injection.ports:
        owners = [
            (each["name"], port["containerPort"])
            for each in everyone
            for port in each.get("ports") or []
            if port.get("name") == taken.name and port.get("protocol", "TCP") == "TCP"
        ]
        assert owners == [("pegel-sidecar", taken.listen)]
        model = next(each for each in everyone if each["name"] == taken.container)
        assert not taken.named or taken.name not in {handler["port"] for handler in _handlers(model)}


def _handlers(container: dict[str, Any]) -> list[dict[str, Any]]:
    found = [container.get("readinessProbe"), (container.get("lifecycle") or {}).get("preStop")]
    return [each["httpGet"] for each in found if each]
