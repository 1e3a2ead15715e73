"""Every object of every render: valid to the letter, joined to the right others, without a right that it can spare."""

from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from pegel_exporters.gpu import prices

from tests.apiserver.binaries import custom_resource_definitions
from tests.helm.rendering import NAMES, objects, of_kind, render, template
from tests.rules import promtool

pytestmark = pytest.mark.integration

CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "PriorityClass"}
ASKING = {"chargeback", "everything"}
"""Whose exporter asks the API server."""
OPERATOR_GROUP = "monitoring.coreos.com/v1"


@cache
def rendered(name: str) -> str:
    return render(name)


def closed(schema: Any) -> Any:
    """A CRD's schema that refuses fields it doesn't name, as strict field validation does."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(part) for key, part in schema.items()}
    free = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    return inner if free or not isinstance(schema.get("properties"), dict) else {**inner, "additionalProperties": False}


@cache
def operator_schemas() -> dict[str, Any]:
    """The prometheus-operator's schemas by kind."""
    # Go lets a pattern's flags stand behind its beginning, Python doesn't.
    texts = [path.read_text().replace("^(?i)", "(?i)^") for path in custom_resource_definitions()]
    definitions = [yaml.safe_load(text) for text in texts]
    return {
        definition["spec"]["names"]["kind"]: closed(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
        for definition in definitions
    }


def check_operators_object(document: dict[str, Any]) -> None:
    jsonschema.validate(document, operator_schemas()[document["kind"]], cls=jsonschema.Draft7Validator)


@pytest.mark.parametrize("version", ["1.27", "1.36"])
@pytest.mark.parametrize("name", NAMES)
def test_kubernetes_knows_every_field_of_its_objects(name, version):
    for document in objects(rendered(name)):
        if document["apiVersion"] != OPERATOR_GROUP:
            kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_prometheus_operator_knows_every_field_of_its_objects(name):
    for document in objects(rendered(name)):
        if document["apiVersion"] == OPERATOR_GROUP:
            check_operators_object(document)


def test_these_checks_find_an_unknown_field_and_a_wrong_duration():
    (monitor,) = of_kind(rendered("argo-cd"), "ServiceMonitor")
    with pytest.raises(jsonschema.ValidationError, match="'honourLabels' was unexpected"):
        check_operators_object(yaml.safe_load(yaml.dump(monitor).replace("honorLabels", "honourLabels")))
    rule = of_kind(rendered("argo-cd"), "PrometheusRule")[0]
    with pytest.raises(jsonschema.ValidationError, match="does not match"):
        check_operators_object(yaml.safe_load(yaml.dump(rule).replace("for: 5m", "for: 5 minutes")))
    (daemonset,) = of_kind(rendered("default"), "DaemonSet")
    with pytest.raises(kubernetes_validate.ValidationError, match="hostPort2"):
        kubernetes_validate.validate(
            yaml.safe_load(yaml.dump(daemonset).replace("containerPort:", "hostPort2:")), "1.36", strict=True
        )


@pytest.mark.parametrize("name", NAMES)
def test_prometheus_reads_every_rule(name, tmp_path):
    for rule in of_kind(rendered(name), "PrometheusRule"):
        path = tmp_path / f"{rule['metadata']['name']}.yaml"
        path.write_text(yaml.safe_dump(rule["spec"]))
        answer = promtool.run("check", "rules", path)
        assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize("name", NAMES)
def test_every_object_has_its_namespace_and_a_name_of_its_own(name):
    found = objects(rendered(name))
    assert all(one["kind"] in CLUSTER_WIDE or one["metadata"]["namespace"] == "pegel" for one in found)
    assert len({(one["kind"], one["metadata"]["name"]) for one in found}) == len(found)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_holds_a_secret_or_asks_for_a_right_but_to_read_pods_and_slices_where_that_is_wanted(name):
    text = rendered(name)
    kinds = {one["kind"] for one in objects(text)}
    assert not kinds & {"Role", "RoleBinding", "Secret"}
    assert ("ClusterRole" in kinds) is ("ClusterRoleBinding" in kinds) is (name in ASKING)
    for role, binding in zip(of_kind(text, "ClusterRole"), of_kind(text, "ClusterRoleBinding"), strict=True):
        assert role["rules"] == [
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
            {"apiGroups": ["resource.k8s.io"], "resources": ["resourceslices"], "verbs": ["list", "watch"]},
        ]
        (daemonset,) = of_kind(text, "DaemonSet")
        account = daemonset["spec"]["template"]["spec"]["serviceAccountName"]
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": "pegel"}]
        assert binding["roleRef"]["name"] == role["metadata"]["name"]
    for account in of_kind(rendered(name), "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def pods(name: str) -> list[dict[str, Any]]:
    """The pods' specs of a render."""
    found = objects(rendered(name))
    return [one["spec"] for one in found if one["kind"] == "Pod"] + [
        one["spec"]["template"]["spec"] for one in found if one["kind"] == "DaemonSet"
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_pod_has_a_read_only_root_no_capability_and_a_memory_limit(name):
    for pod in pods(name):
        asks = name in ASKING and pod["containers"][0]["name"] == "gpu-exporter"
        assert pod["automountServiceAccountToken"] is asks
        assert pod.get("hostPID", False) is asks
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostIPC", "shareProcessNamespace"} & set(pod)
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }
            assert "memory" in container["resources"]["limits"]
            assert "cpu" not in container["resources"]["limits"]


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"pod-attribution", *ASKING}))
def test_without_attribution_no_pod_is_root_or_sees_the_host(name):
    for pod in pods(name):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert "runAsUser" not in pod["securityContext"], "OpenShift gives each namespace users of its own"
        assert not [volume for volume in pod.get("volumes", []) if "hostPath" in volume]


def test_with_attribution_only_the_exporter_is_root_and_it_sees_one_folder_of_the_host():
    test, exporter = pods("pod-attribution")
    assert test["securityContext"]["runAsNonRoot"] is True
    assert exporter["securityContext"]["runAsUser"] == 0
    folder = {"path": "/var/lib/kubelet/pod-resources", "type": "Directory"}
    of_host = [volume for volume in exporter["volumes"] if "hostPath" in volume]
    assert of_host == [{"name": "pod-resources", "hostPath": folder}]
    (container,) = exporter["containers"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert all(mount["readOnly"] is True for mount in mounts.values())
    at = container["args"].index("--pod-resources")
    assert container["args"][at + 1] == f"{mounts['pod-resources']['mountPath']}/kubelet.sock"


def test_processes_are_seen_with_the_folder_of_logs_alone_besides():
    (daemonset,) = of_kind(rendered("chargeback"), "DaemonSet")
    pod = daemonset["spec"]["template"]["spec"]
    assert pod["hostPID"] is True
    folders = [volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume]
    assert folders == ["/var/lib/kubelet/pod-resources", "/var/log/pods"]
    assert all(mount["readOnly"] for mount in pod["containers"][0]["volumeMounts"])


def test_the_exporter_reads_the_prices_of_the_values(tmp_path):
    def table(*settings: str) -> prices.Prices:
        text = template(*(word for setting in settings for word in ("--set", setting)))
        (config,) = [one for one in of_kind(text, "ConfigMap") if "prices.yaml" in one["data"]]
        (tmp_path / "prices.yaml").write_text(config["data"]["prices.yaml"])
        (daemonset,) = of_kind(text, "DaemonSet")
        pod = daemonset["spec"]["template"]["spec"]
        assert {"name": "prices", "configMap": {"name": config["metadata"]["name"]}} in pod["volumes"]
        assert pod["containers"][0]["args"][-2:] == ["--prices", "/etc/pegel/prices.yaml"]
        return prices.load(tmp_path / "prices.yaml")

    assert table() == prices.Prices(), "the chart's defaults are the exporter's"
    told = table(
        "gpu.prices.currency=CHF", "gpu.prices.default=0.05", "gpu.prices.gpus.A100=2.25", "gpu.prices.gpus.H100=null",
        r"gpu.prices.profiles.A100 3g\.20gb=0.9",
    )  # fmt: skip
    assert (told.currency, told.default, told.hour("A100"), told.hour("H100")) == ("CHF", 0.05, 2.25, 0.05)
    assert told.device_hour("NVIDIA A100-SXM4", "3g.20gb") == 0.9
    before, after = (of_kind(template(*setting), "DaemonSet")[0] for setting in ((), ("--set", "gpu.prices.default=9")))
    annotations = [one["spec"]["template"]["metadata"]["annotations"]["pegel.dev/prices"] for one in (before, after)]
    assert annotations[0] != annotations[1], "new prices make new pods"


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"no-gpu"}))
def test_selectors_find_what_they_should(name):
    text = rendered(name)
    (daemonset,), (service,) = of_kind(text, "DaemonSet"), of_kind(text, "Service")
    labels = daemonset["spec"]["template"]["metadata"]["labels"].items()
    assert daemonset["spec"]["selector"]["matchLabels"].items() <= labels
    assert service["spec"]["selector"].items() <= labels
    (container,) = daemonset["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    assert port == {"name": "pegel-metrics", "containerPort": service["spec"]["ports"][0]["port"]}
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    assert service["spec"]["clusterIP"] == "None"
    for policy in of_kind(text, "NetworkPolicy"):
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels
        assert policy["spec"]["ingress"][0]["ports"] == [{"port": port["containerPort"]}]
        ports = [{"port": 443}, {"port": 6443}]
        asked = [{"ports": ports, "to": [{"ipBlock": {"cidr": "10.2.0.1/32"}}]}]
        assert policy["spec"]["egress"] == (asked if name in ASKING else [])
    for monitor in of_kind(text, "ServiceMonitor"):
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert monitor["spec"]["namespaceSelector"] == {"matchNames": [service["metadata"]["namespace"]]}
        assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]


def test_a_network_policy_lets_the_named_namespaces_and_the_test_in():
    text = rendered("kube-prometheus-stack")
    (policy,) = of_kind(text, "NetworkPolicy")
    prometheus, test = policy["spec"]["ingress"][0]["from"]
    assert prometheus == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    (pod,) = of_kind(text, "Pod")
    assert test["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


def test_a_series_about_a_pod_keeps_its_name_and_a_sidecar_cannot_take_anothers():
    text = rendered("argo-cd")
    (exporter,), (sidecars,) = of_kind(text, "ServiceMonitor"), of_kind(text, "PodMonitor")
    assert exporter["spec"]["endpoints"][0]["honorLabels"] is True
    assert sidecars["spec"]["podMetricsEndpoints"][0]["honorLabels"] is False


def test_sidecars_are_found_in_all_namespaces_or_the_named_ones():
    (everywhere,) = of_kind(rendered("argo-cd"), "PodMonitor")
    assert everywhere["spec"]["namespaceSelector"] == {"any": True}
    assert everywhere["spec"]["selector"] == {"matchLabels": {"pegel.dev/inject": "true"}}
    assert everywhere["spec"]["podMetricsEndpoints"][0]["port"] == "pegel-metrics"
    (named,) = of_kind(rendered("everything"), "PodMonitor")
    assert named["spec"]["namespaceSelector"] == {"matchNames": ["shop", "lab"]}


def test_the_operators_label_is_on_all_its_objects():
    found = [one for one in objects(rendered("kube-prometheus-stack")) if one["apiVersion"] == OPERATOR_GROUP]
    assert {one["kind"] for one in found} == {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
    assert all(one["metadata"]["labels"]["release"] == "kube-prometheus-stack" for one in found)


def test_without_a_gpu_nothing_of_the_exporter_is_left():
    kinds = {one["kind"] for one in objects(rendered("no-gpu"))}
    assert kinds == {"PodMonitor", "PrometheusRule", "ConfigMap"}


def test_simulated_gpus_need_no_gpu_node_and_no_runtime():
    (daemonset,) = of_kind(rendered("simulate"), "DaemonSet")
    pod = daemonset["spec"]["template"]["spec"]
    assert not {"runtimeClassName", "affinity"} & set(pod)
    assert [variable["name"] for variable in pod["containers"][0]["env"]] == ["NODE_NAME"]


def test_the_exporter_runs_where_a_gpu_is_and_allocates_none():
    (daemonset,) = of_kind(rendered("default"), "DaemonSet")
    pod = daemonset["spec"]["template"]["spec"]
    terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert [expression["key"] for term in terms for expression in term["matchExpressions"]] == [
        "nvidia.com/gpu.present"
    ] * 2
    assert pod["runtimeClassName"] == "nvidia"
    assert pod["containers"][0]["env"] == [
        {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"},
        {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "utility"},
    ]
    assert not [name for name in pod["containers"][0]["resources"]["limits"] if "nvidia" in name]


def test_several_labels_of_gpu_nodes_are_alternatives():
    (daemonset,) = of_kind(template("--set", "gpu.nodeLabels={a,b}"), "DaemonSet")
    affinity = daemonset["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert [term["matchExpressions"][0] for term in terms] == [
        {"key": "a", "operator": "Exists"},
        {"key": "b", "operator": "Exists"},
    ]
    (anywhere,) = of_kind(template("--set-json", "gpu.nodeLabels=[]"), "DaemonSet")
    assert "affinity" not in anywhere["spec"]["template"]["spec"]


def test_a_common_label_cannot_break_a_selector():
    text = template("--set", r"commonLabels.app\.kubernetes\.io/name=mine,gpu.podLabels.team=a")
    (daemonset,) = of_kind(text, "DaemonSet")
    labels = daemonset["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] == daemonset["metadata"]["labels"]["app.kubernetes.io/name"] == "pegel"
    assert labels["team"] == "a"


def test_an_image_is_named_by_its_digest_or_else_its_tag():
    def image(*settings: str) -> str:
        (daemonset,) = of_kind(template("--set", ",".join(("gpu.image.repository=r/p", *settings))), "DaemonSet")
        return daemonset["spec"]["template"]["spec"]["containers"][0]["image"]

    digest = "sha256:" + "ab" * 32
    assert image() == "r/p:0.1.0"
    assert image("gpu.image.tag=nightly") == "r/p:nightly"
    assert image("gpu.image.tag=nightly", f"gpu.image.digest={digest}") == f"r/p@{digest}"


def test_dashboards_can_stand_where_grafana_looks():
    found = of_kind(template("--set", "monitoring.dashboards.namespace=grafana"), "ConfigMap")
    boards = [one for one in found if "prices.yaml" not in one["data"]]
    assert {board["metadata"]["namespace"] for board in boards} == {"grafana"}


def test_an_own_priority_class_pushes_nobody_out():
    text = rendered("pod-attribution")
    (priority,), (daemonset,) = of_kind(text, "PriorityClass"), of_kind(text, "DaemonSet")
    assert priority["preemptionPolicy"] == "Never"
    assert daemonset["spec"]["template"]["spec"]["priorityClassName"] == priority["metadata"]["name"]
