"""Ways past the sidecar that `pegel inject` warns about, mends, or says it leaves alone."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from pegel_agent.cli.main import pegel

from tests.agent.cluster.shapes import MODEL, deployment, injected, run, shape


def test_a_numeric_target_port_is_a_warning_and_fails_only_the_check() -> None:
    manifest = shape("a-service-with-a-number")
    result = run(manifest)
    assert (result.return_value, "Service by-number has targetPort 8501, a number" in result.stderr) == (0, True)
    assert result.stdout
    checked = run(manifest, ["--check"])
    assert (checked.return_value, checked.stdout) == (1, "")
    assert "Service by-number has targetPort 8501, a number" in checked.stderr


def test_an_injected_manifest_with_a_numeric_target_port_still_fails_the_check() -> None:
    assert run(injected(shape("a-service-with-a-number")), ["--check"]).return_value == 1


def test_a_service_of_another_namespace_or_of_other_pods_is_left_alone() -> None:
    manifest = shape("a-service-with-a-number")
    elsewhere = manifest.replace("name: by-number\n", "name: by-number\n  namespace: elsewhere\n").replace(
        "name: by-number-service\n", "name: by-number-service\n  namespace: shop\n"
    )
    others = manifest.replace("  selector:\n    app: by-number", "  selector:\n    app: others")
    assert run(manifest, ["--check"]).return_value == 1
    assert run(elsewhere, ["--check"]).return_value == 0
    assert run(others, ["--check"]).return_value == 0


def test_files_are_put_together_and_a_service_in_one_is_seen_from_the_other(tmp_path: Path) -> None:
    workload, _, service = shape("a-service-with-a-number").partition("---\n")
    (tmp_path / "service.yaml").write_text(service)
    (tmp_path / "workload.yaml").write_text(workload)
    names = [str(tmp_path / "service.yaml"), str(tmp_path / "workload.yaml")]
    result = CliRunner().invoke(pegel, ["inject", "-f", names[0], "-f", names[1]], prog_name="pegel")
    assert [each["kind"] for each in yaml.safe_load_all(result.stdout)] == ["Service", "Deployment"]
    assert f"{names[0]}: Service by-number has targetPort 8501" in result.stderr


MESH = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-the-shop, namespace: shop}
spec: {rules: [{to: [{operation: {ports: ["8080"]}}]}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: shop}
spec: {portLevelMtls: {8080: {mode: STRICT}}}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: shop, namespace: shop}
spec: {ingress: [{toPorts: [{ports: [{port: "8080"}]}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: other-port, namespace: shop}
spec: {http: [{timeout: 8080s, route: [{destination: {port: {number: 80}}}]}]}
"""


def test_a_meshs_objects_that_speak_of_the_port_by_number_are_warned_about() -> None:
    said = run(f"{deployment(f'{{{MODEL}}}')}---{MESH}").stderr
    for name in (
        "AuthorizationPolicy shop/only-the-shop",
        "PeerAuthentication shop/strict",
        "CiliumNetworkPolicy shop/shop",
    ):
        assert f"{name} speaks of port 8080, but clients of Deployment shop/scorer come to 15080 now" in said
    assert "other-port" not in said


@pytest.mark.parametrize(
    ("ingress", "warned"),
    [
        ("[{ports: [{port: http}]}]", True),
        ("[{ports: [{port: http}, {port: pegel-metrics}]}]", False),
        ("[{ports: [{port: http}, {port: 9466}]}]", False),
        ("[{from: [{podSelector: {}}]}]", False),
        ("[]", True),
    ],
)
def test_a_network_policy_that_keeps_prometheus_out_is_warned_about(ingress: str, warned: bool) -> None:
    policy = (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny, namespace: shop}\n"
        f"spec: {{podSelector: {{}}, ingress: {ingress}}}\n"
    )
    said = run(f"{deployment(f'{{{MODEL}}}')}---\n{policy}").stderr
    assert ("NetworkPolicy shop/deny lets nobody in to the sidecar of Deployment shop/scorer" in said) is warned


SHARED = """
apiVersion: v1
kind: Service
metadata: {name: both, namespace: shop}
spec: {selector: {app: scorer}, ports: [{port: 80, targetPort: 8080}]}
"""


@pytest.mark.parametrize(
    "other",
    [
        deployment("{containers: [{name: model, ports: [{name: rest, containerPort: 8080}]}]}"),
        deployment(f"{{{MODEL}}}", "{pegel.dev/inject: 'false'}"),
    ],
    ids=["of another name", "without a sidecar"],
)
def test_a_service_that_leads_to_others_too_is_not_fixed_but_warned_about(other: str) -> None:
    manifest = f"{deployment(f'{{{MODEL}}}')}---{other.replace('name: scorer', 'name: other')}---{SHARED}"
    result = run(manifest, ["--fix-services"])
    assert list(yaml.safe_load_all(result.stdout))[-1] == yaml.safe_load(SHARED)
    assert "it leads to Deployment shop/other too, whose pods have no sidecar at a port http" in result.stderr


@pytest.mark.parametrize(
    "service",
    [
        "spec: {selector: {app: scorer, statefulset.kubernetes.io/pod-name: scorer-0}, ports: [{port: 8080}]}",
        "spec: {selector: {app: scorer}, ports: [{port: 8080, protocol: null}]}",
        "spec: {selector: {app: scorer}, ports: [{port: 80, targetPort: 8080, protocol: ''}]}",
        "spec: {selector: {app: scorer}, clusterIP: None}",
        "spec: {selector: {app: scorer}, clusterIP: None, ports: [{port: 8080, targetPort: http}]}",
    ],
)
@pytest.mark.parametrize("namespace", ["shop", ""])
def test_every_way_past_the_sidecar_is_warned_about(service: str, namespace: str) -> None:
    where = f", namespace: {namespace}" if namespace else ""
    manifest = (
        f"{deployment(f'{{{MODEL}}}')}---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{where}}}\n{service}\n"
    )
    result = run(manifest, ["--check"])
    assert (result.return_value, "past the sidecar" in result.stderr) == (1, True)


IN = "{matchExpressions: [{key: app, operator: In, values: [scorer]}]}"
EXISTS = "{matchExpressions: [{key: app, operator: Exists}]}"
NOT_IN = "{matchExpressions: [{key: app, operator: NotIn, values: [scorer]}]}"
NUMBER = "[{ports: [{port: 8080}]}]"
CLIENT = "podSelector: {matchLabels: {app: client}}, policyTypes: [Egress]"


@pytest.mark.parametrize(
    ("spec", "warned"),
    [
        (f"{{podSelector: {IN}, ingress: {NUMBER}}}", True),
        (f"{{podSelector: {EXISTS}, ingress: {NUMBER}}}", True),
        (f"{{podSelector: {NOT_IN}, ingress: {NUMBER}}}", False),
        ("{podSelector: {}, ingress: [{ports: [{port: 8000, endPort: 9000}]}]}", True),
        ("{podSelector: {}, ingress: [{ports: [{port: 8000, endPort: 16000}]}]}", False),
        ("{podSelector: {}, ingress: [{ports: [{port: http}]}, {ports: [{port: 8080}]}]}", True),
        (f"{{{CLIENT}, egress: {NUMBER}}}", True),
        (f"{{{CLIENT}, egress: [{{ports: [{{port: 15080}}, {{port: 8080}}]}}]}}", False),
    ],
)
def test_a_network_policy_that_cuts_clients_off_is_warned_about(spec: str, warned: bool) -> None:
    policy = (
        f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: n, namespace: shop}}\nspec: {spec}\n"
    )
    said = run(f"{deployment(f'{{{MODEL}}}')}---\n{policy}").stderr
    assert ("port 8080 of Deployment shop/scorer, but they" in said) is warned


def test_undo_says_which_services_lose_their_way() -> None:
    manifest = deployment("{containers: [{name: model, ports: [{containerPort: 8080}]}]}")
    once = injected(f"{manifest}---{SHARED.replace('8080', 'http')}")
    assert (
        "has targetPort http, a name that Deployment shop/scorer lost with the sidecar" in run(once, ["--undo"]).stderr
    )
