"""Injected pods on a real API server: accepted under Pod Security `restricted`, made by the real controllers, and
reached by their Services through the sidecar's port.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.agent.cluster.shapes import SHAPES, injected, options, shape
from tests.apiserver.cluster import Cluster

pytestmark = pytest.mark.integration

NOT_RESTRICTED = {"the-pods-user-is-root"}
NEEDS_ARGO = {"an-argo-rollout"}
FOR_THE_API_SERVER = [path for path in SHAPES if path.stem not in NOT_RESTRICTED | NEEDS_ARGO]
_WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"}


def objects(manifest: str) -> list[dict[str, Any]]:
    found = [each for each in yaml.safe_load_all(manifest) if each]
    return [item for each in found for item in (each["items"] if each["kind"] == "List" else [each])]


@pytest.mark.parametrize("path", FOR_THE_API_SERVER, ids=lambda path: path.stem)
def test_an_injected_shape_is_accepted_as_restricted(cluster: Cluster, path: Path) -> None:
    """Workloads pass whatever their pods look like, with a warning; so each template is applied as a pod too."""
    manifest = injected(path.read_text(encoding="utf-8"), options(path))
    with cluster.namespace() as namespace:
        said = cluster.apply(manifest, namespace=namespace)
        assert "violate" not in said
        for each in objects(manifest):
            template = each.get("spec", {}).get("jobTemplate", each).get("spec", {}).get("template")
            if template is None:
                continue
            pod = {"apiVersion": "v1", "kind": "Pod", **template}
            pod["metadata"] = {**template["metadata"], "name": "from-the-template"}
            cluster.apply(yaml.safe_dump(pod), namespace=namespace)


def test_a_pod_of_a_root_user_is_refused_with_or_without_the_sidecar(cluster: Cluster) -> None:
    for manifest in (shape("the-pods-user-is-root"), injected(shape("the-pods-user-is-root"))):
        with cluster.namespace(enforce="baseline") as namespace:
            cluster.apply(manifest, namespace=namespace)
        with cluster.namespace() as namespace:
            assert "violate" in cluster.apply(manifest, namespace=namespace)


def pods_of(cluster: Cluster, namespace: str, count: int) -> list[dict[str, Any]]:
    """The pods that the controllers made, as soon as there are so many."""

    def look() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = cluster.get("pods", "-n", namespace)
        return found if len(found) == count else []

    return cluster.wait(f"{count} pods", look)


def run_on_no_node(cluster: Cluster, namespace: str, pods: list[dict[str, Any]]) -> None:
    """Give pods the node that a scheduler would, and the addresses and the readiness that a kubelet would."""
    cluster.apply(yaml.safe_dump({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "nowhere"}}))
    for number, pod in enumerate(pods, start=1):
        binding = {
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod["metadata"]["name"]},
            "target": {"kind": "Node", "name": "nowhere"},
        }  # fmt: skip
        path = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}/binding"
        bound = cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(binding))
        assert bound.returncode == 0, bound.stderr
        status = {
            "phase": "Running", "podIP": f"10.1.0.{number}", "podIPs": [{"ip": f"10.1.0.{number}"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }  # fmt: skip
        patched = cluster.kubectl(
            "patch", "pod", pod["metadata"]["name"], "-n", namespace, "--subresource=status", "--type=merge",
            "-p", yaml.safe_dump({"status": status}),
        )  # fmt: skip
        assert patched.returncode == 0, patched.stderr


def endpoints(cluster: Cluster, namespace: str, service: str, count: int) -> dict[str, int]:
    """Where a Service leads, once it has so many addresses: the port that clients reach, by name."""

    def look() -> dict[str, int]:
        slices = cluster.get("endpointslices", "-n", namespace, "-l", f"kubernetes.io/service-name={service}")
        addresses = sum(len(each["endpoints"] or []) for each in slices)
        ports = {port["name"]: port["port"] for each in slices for port in each["ports"] or []}
        return ports if addresses == count else {}

    return cluster.wait(f"{count} addresses of {service}", look)


def test_the_guides_pods_are_made_by_the_replicaset_controller_and_reached_through_the_sidecar(
    cluster: Cluster,
) -> None:
    with cluster.namespace() as namespace:
        cluster.apply(injected(shape("the-guides-deployment")), namespace=namespace)
        pods = pods_of(cluster, namespace, 3)
        assert all(pod["metadata"]["ownerReferences"][0]["kind"] == "ReplicaSet" for pod in pods)
        assert all([each["name"] for each in pod["spec"]["initContainers"]] == ["pegel-sidecar"] for pod in pods)
        run_on_no_node(cluster, namespace, pods)
        assert endpoints(cluster, namespace, "ml-inference", 3) == {"http": 15080}


def test_without_the_sidecar_the_same_service_leads_to_the_model(cluster: Cluster) -> None:
    with cluster.namespace() as namespace:
        cluster.apply(shape("the-guides-deployment"), namespace=namespace)
        run_on_no_node(cluster, namespace, pods_of(cluster, namespace, 3))
        assert endpoints(cluster, namespace, "ml-inference", 3) == {"http": 8501}


def test_a_service_with_a_number_goes_past_the_sidecar_until_it_is_fixed(cluster: Cluster) -> None:
    with cluster.namespace() as namespace:
        cluster.apply(injected(shape("a-service-with-a-number")), namespace=namespace)
        run_on_no_node(cluster, namespace, pods_of(cluster, namespace, 3))
        assert endpoints(cluster, namespace, "by-number", 3) == {"http": 8501}
        cluster.apply(injected(shape("a-service-with-a-number"), ["--fix-services"]), namespace=namespace)
        cluster.wait("the sidecar's port", lambda: endpoints(cluster, namespace, "by-number", 3) == {"http": 15080})


def test_http_grpc_and_metrics_each_lead_where_they_should(cluster: Cluster) -> None:
    with cluster.namespace() as namespace:
        cluster.apply(injected(shape("http-and-grpc")), namespace=namespace)
        run_on_no_node(cluster, namespace, pods_of(cluster, namespace, 1))
        assert endpoints(cluster, namespace, "triton", 1) == {"http": 15080, "grpc": 15081, "metrics": 8002}


def test_a_plain_sidecar_is_found_by_its_name_too(cluster: Cluster) -> None:
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "older"},
        "spec": {"selector": {"app": "older"}, "ports": [{"name": "web", "port": 80, "targetPort": "http"}]},
    }  # fmt: skip
    with cluster.namespace() as namespace:
        manifest = injected(shape("before-native-sidecars"), ["--kubernetes", "1.28"])
        cluster.apply(f"{manifest}---\n{yaml.safe_dump(service)}", namespace=namespace)
        run_on_no_node(cluster, namespace, pods_of(cluster, namespace, 1))
        assert endpoints(cluster, namespace, "older", 1) == {"web": 15080}


def test_the_pods_qos_class_is_what_the_command_said(cluster: Cluster) -> None:
    expected = {"guaranteed": "Guaranteed", "best-effort": "Burstable", "resources-of-the-pod": "Guaranteed"}
    for name, qos in expected.items():
        with cluster.namespace() as namespace:
            cluster.apply(injected(shape(name)), namespace=namespace)
            (pod,) = pods_of(cluster, namespace, 1)
            assert (name, pod["status"]["qosClass"]) == (name, qos)


def test_an_injected_manifest_applied_over_the_running_one_leaves_no_name_with_the_model(cluster: Cluster) -> None:
    """`kubectl apply` merges lists: what a container gave up must go from the live object, and return by --undo."""
    for apply in (["apply"], ["apply", "--server-side", "--force-conflicts"]):
        for name in ("http-and-grpc", "probes-by-name", "the-guides-deployment", "nulls"):
            with cluster.namespace() as namespace:

                def live(manifest: str, *, command: list[str] = apply, where: str = namespace) -> Any:
                    done = cluster.kubectl(*command, f"--namespace={where}", "-f", "-", stdin=manifest)
                    assert done.returncode == 0, done.stderr
                    (found,) = cluster.get("deployments", "-n", where)
                    return found["spec"]["template"]

                original, manifest = live(shape(name)), injected(shape(name))
                over = live(manifest)
                cluster.kubectl("delete", "deployments", "--all", "-n", namespace)
                assert live(manifest) == over
                assert live(injected(manifest, ["--undo"])) == original
