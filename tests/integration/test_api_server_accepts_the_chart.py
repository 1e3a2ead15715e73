"""Every render of the chart on a real API server, and what its controllers make of it."""

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.apiserver.binaries import binary
from tests.apiserver.cluster import Cluster
from tests.helm.rendering import CHART, NAMES, render

pytestmark = pytest.mark.integration

RUNTIME_CLASS = {
    "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia",
}  # fmt: skip
GPU_NODE = {
    "apiVersion": "v1", "kind": "Node",
    "metadata": {"name": "gpu-node", "labels": {"kubernetes.io/os": "linux", "nvidia.com/gpu.present": "true"}},
    "spec": {"taints": [{"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}]},
}  # fmt: skip


@pytest.fixture
def gpu_node(cluster: Cluster) -> Iterator[None]:
    """A node as the GPU Operator leaves it."""
    cluster.apply(f"{yaml.safe_dump(RUNTIME_CLASS)}---\n{yaml.safe_dump(GPU_NODE)}")
    cluster.kubectl("taint", "node", "gpu-node", "node.kubernetes.io/not-ready-")  # as its kubelet would
    yield
    cluster.kubectl("delete", "node", "gpu-node")


def pods(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    """The pods that the DaemonSet's controller made, as soon as there are any."""

    def look() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = cluster.get("pods", "-n", namespace)
        return found

    return cluster.wait("a pod of the DaemonSet", look)


def events(cluster: Cluster, namespace: str) -> str:
    return " ".join(each.get("message", "") for each in cluster.get("events", "-n", namespace))


@pytest.mark.parametrize("name", NAMES)
def test_every_render_is_applied_with_strict_validation(cluster: Cluster, name: str) -> None:
    manifest = render(name)
    with cluster.namespace(enforce="privileged") as namespace:
        cluster.apply(manifest.replace("namespace: pegel\n", f"namespace: {namespace}\n"), namespace=namespace)


def test_an_unknown_field_would_not_be(cluster: Cluster) -> None:
    manifest = render("everything").replace("honorLabels: true", "honourLabels: true", 1)
    with cluster.namespace(enforce="privileged") as namespace, pytest.raises(AssertionError, match="honourLabels"):
        cluster.apply(manifest.replace("namespace: pegel\n", f"namespace: {namespace}\n"), namespace=namespace)


@pytest.mark.usefixtures("gpu_node")
def test_the_exporters_pod_is_made_on_a_tainted_gpu_node_of_a_restricted_namespace(cluster: Cluster) -> None:
    with cluster.namespace() as namespace:
        installed = helm_install(cluster, namespace)
        assert installed.returncode == 0, installed.stderr
        (pod,) = pods(cluster, namespace)
        assert pod["spec"]["runtimeClassName"] == "nvidia"
        terms = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert terms["nodeSelectorTerms"][0]["matchFields"][0]["values"] == ["gpu-node"]


@pytest.mark.usefixtures("gpu_node")
def test_with_pod_attribution_it_needs_a_namespace_that_allows_the_kubelets_folder(cluster: Cluster) -> None:
    value = "gpu.podAttribution.enabled=true"
    with cluster.namespace() as namespace:
        helm_install(cluster, namespace, "--set", value)
        cluster.wait("the refusal", lambda: "violates PodSecurity" in events(cluster, namespace))
    with cluster.namespace(enforce="privileged") as namespace:
        helm_install(cluster, namespace, "--set", value)
        (pod,) = pods(cluster, namespace)
        assert pod["spec"]["securityContext"]["runAsUser"] == 0
        assert pod["spec"]["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert not [volume for volume in pod["spec"]["volumes"] if "projected" in volume], "it has no token"


@pytest.mark.usefixtures("gpu_node")
def test_with_processes_and_the_api_server_it_sees_the_host_and_has_a_token_until_it_is_uninstalled(
    cluster: Cluster,
) -> None:
    values = ",".join(f"gpu.podAttribution.{name}enabled=true" for name in ("", "processes.", "apiServer."))
    with cluster.namespace(enforce="privileged") as namespace:
        assert helm_install(cluster, namespace, "--set", values).returncode == 0
        (pod,) = pods(cluster, namespace)
        assert pod["spec"]["hostPID"] is True
        token = [volume for volume in pod["spec"]["volumes"] if "projected" in volume]
        assert len(token) == 1
        account = f"system:serviceaccount:{namespace}:pegel-gpu-exporter"
        may = ["auth", "can-i", "watch", "pods", f"--as={account}"]
        assert cluster.kubectl(*may).stdout.strip() == "yes"
        assert helm(cluster, "uninstall", "pegel", "--namespace", namespace).returncode == 0
        cluster.wait("the end of its rights", lambda: cluster.kubectl(*may).stdout.strip() == "no")


def test_auto_finds_the_operators_kinds_and_uninstalling_leaves_nothing(cluster: Cluster) -> None:
    with cluster.namespace() as namespace:
        installed = helm_install(cluster, namespace, "--set", "gpu.simulate=dgx-a100")
        assert installed.returncode == 0, installed.stderr
        assert cluster.get("servicemonitors", "-n", namespace)
        assert cluster.get("prometheusrules", "-n", namespace)
        assert helm(cluster, "uninstall", "pegel", "--namespace", namespace).returncode == 0
        kinds = "daemonsets,services,configmaps,networkpolicies,servicemonitors,podmonitors,prometheusrules"
        cluster.wait("the end", lambda: not cluster.get(kinds, "-n", namespace))


def helm_install(cluster: Cluster, namespace: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """helm install with a cluster to ask."""
    return helm(cluster, "install", "pegel", str(CHART), "--namespace", namespace, *arguments)


def helm(cluster: Cluster, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [binary("helm"), "--kubeconfig", cluster.kubeconfig, *arguments],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
