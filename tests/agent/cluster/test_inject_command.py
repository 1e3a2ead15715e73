"""What `pegel inject` refuses, warns about and says."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from pegel_agent.cli.main import pegel
from pegel_exporters.errors import UserError

from tests.agent.cluster.shapes import injected, run

SHAPES = Path(__file__).with_name("shapes")


def deployment(spec: str, annotations: str = "{}") -> str:
    return f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: scorer, namespace: shop}}
spec:
  template:
    metadata: {{labels: {{app: scorer}}, annotations: {annotations}}}
    spec: {spec}
"""


PORT = "{name: http, containerPort: 8080}"
MODEL = f"containers: [{{name: model, ports: [{PORT}]}}]"
REFUSED = {
    "a Deployment without ports": (
        deployment("{containers: [{name: model}]}"),
        "Deployment shop/scorer declares no port for the model; give it one with a name, or say which in the "
        "annotation pegel.dev/port, by name or number",
    ),
    "only a metrics port": (
        deployment("{containers: [{name: model, ports: [{name: metrics, containerPort: 9100}]}]}"),
        "declares no port for the model (it has metrics (9100 of model))",
    ),
    "several ports": (
        deployment("{containers: [{name: model, ports: [{name: a, containerPort: 1}, {name: b, containerPort: 2}]}]}"),
        "has several ports that may be the model's: a (1 of model), b (2 of model); say which",
    ),
    "a port that is not there": (
        deployment(f"{{{MODEL}}}", "{pegel.dev/port: grpc}"),
        "has no port 'grpc', which pegel.dev/port or --port asks for (it has http (8080 of model))",
    ),
    "two containers with the same port": (
        deployment(f"{{containers: [{{name: one, ports: [{PORT}]}}, {{name: two, ports: [{PORT}]}}]}}"),
        "has port 8080 in two containers, one and two; only one can listen on it",
    ),
    "two ports of one name": (
        deployment(
            f"{{containers: [{{name: one, ports: [{PORT}]}}, "
            "{name: two, ports: [{name: http, containerPort: 81}]}]}",
            "{pegel.dev/port: '81'}",
        ),
        "has two ports named http: a Service can't tell which it means",
    ),
    "hostNetwork": (deployment(f"{{hostNetwork: true, {MODEL}}}"), "uses hostNetwork"),
    "hostNetwork in YAML's other words": (deployment(f"{{hostNetwork: yes, {MODEL}}}"), "uses hostNetwork"),
    "a hostPort": (
        deployment("{containers: [{name: model, ports: [{name: http, containerPort: 8080, hostPort: 80}]}]}"),
        "opens port http (8080 of model) on the node (hostPort 80), past the sidecar",
    ),
    "the sidecar's port in use": (
        deployment(f"{{containers: [{{name: model, ports: [{PORT}, {{name: own, containerPort: 9466}}]}}]}}"),
        "uses port own (9466 of model), which the sidecar needs: give it another with --listen-port or --admin-port",
    ),
    "Windows": (deployment(f"{{os: {{name: windows}}, {MODEL}}}"), "runs on Windows"),
    "another's container of our name": (
        deployment(f"{{containers: [{{name: pegel-sidecar}}, {{name: model, ports: [{PORT}]}}]}}"),
        "has a container pegel-sidecar that is not from `pegel inject`",
    ),
    "another's volume of our name": (
        deployment(f"{{volumes: [{{name: pegel-tmp, emptyDir: {{}}}}], {MODEL}}}"),
        "has a volume of its own named pegel-tmp",
    ),
    "another's annotation": (
        deployment(f"{{{MODEL}}}", "{pegel.dev/injected: 'yes'}"),
        "has an annotation pegel.dev/injected that is not from `pegel inject`",
    ),
    "an unknown mode": (deployment(f"{{{MODEL}}}", "{pegel.dev/mode: mirror}"), "asks for pegel.dev/mode 'mirror'"),
    "an opt-out in other words": (
        deployment(f"{{{MODEL}}}", "{pegel.dev/inject: 'no'}"),
        'says pegel.dev/inject: "no"; write "true" or "false"',
    ),
    "a number that should be a text": (deployment(f"{{{MODEL}}}", "{pegel.dev/port: 8080}"), "write it in quotes"),
    "a profile that is no name": (
        deployment(f"{{{MODEL}}}", "{pegel.dev/profile: Foo Bar}"),
        "asks for the profile 'Foo Bar', which is no ConfigMap's name",
    ),
    "no containers": (deployment("{containers: []}"), "has no containers"),
    "ports of the wrong type": (
        deployment("{containers: [{name: model, ports: [{containerPort: '8080'}]}]}"),
        "is not as Kubernetes knows it: Expected `int`, got `str` - at "
        "`the pod's spec.containers[0].ports[0].containerPort`",
    ),
    "no template": ("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: empty}\nspec: {}", "has no spec.template"),
    "a template of Helm's": ("kind: Deployment\nreplicas: {{ .Values.replicas }}\n", "which must be rendered first"),
    "no YAML": ("a: b\n---\nkind: Pod\n  name: x\n", "standard input, line 4: this is not YAML"),
    "a key that is there twice": ("kind: Pod\nspec: {}\nspec: {}\n", "line 3: this is not YAML: 'spec' is given twice"),
    "an alias that contains itself": ("kind: Pod\nspec: &x {x: *x}\n", "an alias contains itself"),
    "an alias to nothing": ("kind: Pod\nspec: *x\n", "line 2: this is not YAML: found undefined alias"),
    "aliases that grow without end": (
        "kind: Pod\na: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{n}: &{n} [{', '.join(['*' + p] * 9)}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)),
        "its aliases make it too large",
    ),
    "no object": ("just: a mapping\n", "line 1: this is no Kubernetes object; it has no kind"),
    "a text": ("---\nkind: ConfigMap\n---\nhello\n", "line 3: this is no Kubernetes object"),
    "a List without items": ("kind: List\napiVersion: v1\n", "this List has no list of items"),
    "a List of texts": ("kind: List\nitems: [hello]\n", "item 0 of this List is no Kubernetes object"),
    "empty documents only": ("---\n# nothing\n---\n", "there is no object in it"),
    "nothing": ("", "there is no object in it"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_injected_is_named_and_nothing_is_printed(what: str) -> None:
    text, message = REFUSED[what]
    good = (SHAPES / "a-bare-pod.yaml").read_text()
    for manifest in (text, f"{good}---\n{text}") if "empty" not in what and what != "nothing" else (text,):
        result = run(manifest)
        assert isinstance(result.exception, UserError)
        assert result.stdout == ""
        assert str(result.exception).startswith("standard input")
    assert message in str(run(text).exception)


def test_a_job_is_refused_where_there_are_no_native_sidecars() -> None:
    result = run((SHAPES / "a-job.yaml").read_text(), ["--kubernetes", "1.28"])
    assert "Job batch-scoring would never end beside a sidecar before Kubernetes 1.29" in str(result.exception)
    assert result.stdout == ""


def test_one_bad_item_of_a_list_leaves_all_of_it_unprinted() -> None:
    items = [yaml.safe_load(deployment(f"{{{MODEL}}}")), yaml.safe_load(deployment("{containers: [{name: model}]}"))]
    result = run(yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items}))
    assert "Deployment shop/scorer declares no port" in str(result.exception)
    assert result.stdout == ""


def test_a_numeric_target_port_is_a_warning_and_fails_only_the_check() -> None:
    manifest = (SHAPES / "a-service-with-a-number.yaml").read_text()
    result = run(manifest)
    assert (result.return_value, "Service by-number has targetPort 8501, a number" in result.stderr) == (0, True)
    assert result.stdout
    checked = run(manifest, ["--check"])
    assert (checked.return_value, checked.stdout) == (1, "")
    assert "Service by-number has targetPort 8501, a number" in checked.stderr


def test_an_injected_manifest_with_a_numeric_target_port_still_fails_the_check() -> None:
    assert run(injected((SHAPES / "a-service-with-a-number.yaml").read_text()), ["--check"]).return_value == 1


def test_a_check_of_what_is_in_order_says_so_with_0() -> None:
    manifest = (SHAPES / "the-guides-deployment.yaml").read_text()
    assert run(manifest, ["--check"]).return_value == 0
    assert run(injected(manifest), ["--check"]).return_value == 0


def test_a_service_of_another_namespace_or_of_other_pods_is_left_alone() -> None:
    manifest = (SHAPES / "a-service-with-a-number.yaml").read_text()
    elsewhere = manifest.replace("name: by-number\n", "name: by-number\n  namespace: elsewhere\n")
    others = manifest.replace("  selector:\n    app: by-number", "  selector:\n    app: others")
    assert run(manifest, ["--check"]).return_value == 1
    assert run(elsewhere, ["--check"]).return_value == 0
    assert run(others, ["--check"]).return_value == 0


def test_files_are_put_together_and_a_service_in_one_is_seen_from_the_other(tmp_path: Path) -> None:
    workload, _, service = (SHAPES / "a-service-with-a-number.yaml").read_text().partition("---\n")
    (tmp_path / "service.yaml").write_text(service)
    (tmp_path / "workload.yaml").write_text(workload)
    names = [str(tmp_path / "service.yaml"), str(tmp_path / "workload.yaml")]
    result = CliRunner().invoke(pegel, ["inject", "-f", names[0], "-f", names[1]], prog_name="pegel")
    assert [each["kind"] for each in yaml.safe_load_all(result.stdout)] == ["Service", "Deployment"]
    assert f"{names[0]}: Service by-number has targetPort 8501" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kubernetes", "1.26"], "--kubernetes 1.26: write a version from 1.27 on"),
        (["--kubernetes", "new"], "--kubernetes new: write a version"),
        (["--memory", "much"], "--memory much: write a quantity"),
        (["--memory", "10"], "--memory 10: write at least 128Mi"),
        (["--cpu-limit", "all"], "--cpu-limit all: write a quantity"),
        (["--profile", "profile.json"], "--profile profile.json: give the name of a ConfigMap"),
        (["--image", "Bad Image"], "an image has no space"),
        (["--window", "5x"], "--window, --false-alarms: '5x' is not a duration"),
        (["--window", "500", "--false-alarms", "1/30d"], "a window of 500 rows has no clock"),
        (["--profile", "Not A Name"], "--profile Not A Name: that is no name of an object"),
        (["--listen-port", "9466"], "--listen-port and --admin-port are the same"),
        (["--undo", "--fix-services"], "--fix-services: --undo undoes that too"),
    ],
)  # fmt: skip
def test_options_that_cannot_work_are_named(arguments: list[str], message: str) -> None:
    assert message in str(run((SHAPES / "a-bare-pod.yaml").read_text(), arguments).exception)


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, message in (("missing", "cannot read"), ("binary", "is not text in UTF-8")):
        result = CliRunner().invoke(pegel, ["inject", "-f", str(tmp_path / name)], prog_name="pegel")
        assert message in str(result.exception)


def test_windows_line_ends_stay() -> None:
    manifest = (SHAPES / "a-bare-pod.yaml").read_text().replace("\n", "\r\n")
    result = CliRunner().invoke(pegel, ["inject", "-f", "-"], input=manifest.encode(), prog_name="pegel")
    lines = result.stdout_bytes.split(b"\n")
    assert len(lines) > 60
    assert all(line.endswith(b"\r") for line in lines[:-1])


def test_comments_quotes_and_untouched_documents_stay_as_they_were() -> None:
    text = injected((SHAPES / "empty-documents.yaml").read_text())
    assert text.startswith("---\n# nothing here\n---\n")
    assert 'keep:   "as it is"   # with its spaces' in text
    assert "name: model  # the only one" in injected((SHAPES / "a-bare-pod.yaml").read_text())


def test_all_objects_that_cannot_be_injected_are_named_at_once() -> None:
    bad = deployment("{containers: [{name: model}]}")
    result = run(f"{bad}---\n{bad.replace('scorer', 'ranker')}")
    assert "Deployment shop/scorer declares no port" in str(result.exception)
    assert "Deployment shop/ranker declares no port" in str(result.exception)


def test_who_says_true_is_injected_and_the_others_are_left_alone() -> None:
    model = deployment(f"{{{MODEL}}}", "{pegel.dev/inject: 'true'}")
    cache = deployment("{containers: [{name: redis}]}").replace("scorer", "cache")
    once = injected(f"{model}---\n{cache}")
    assert once.count("pegel-sidecar") == 1
    assert injected(once) == once
    assert run(f"{model}---\n{cache}").stderr.count('left alone, as others say pegel.dev/inject: "true"') == 1


@pytest.mark.parametrize("kind", ["annotations", "labels"])
def test_a_workload_may_opt_out_in_its_own_metadata(kind: str) -> None:
    manifest = deployment("{containers: [{name: model}]}").replace(
        "namespace: shop}", f"namespace: shop, {kind}: {{pegel.dev/inject: 'false'}}}}"
    )
    result = run(manifest)
    assert result.stdout == manifest
    assert "left alone, as pegel.dev/inject is false" in result.stderr


def test_a_word_of_ours_that_nobody_knows_is_a_warning() -> None:
    result = run(deployment(f"{{{MODEL}}}", "{pegel.dev/prot: http, pegel.dev/window: '500'}"), ["--check"])
    assert "says pegel.dev/prot, which Pegel doesn't know; pegel.dev/port?" in result.stderr
    assert "says pegel.dev/window, which Pegel doesn't know" in result.stderr
    assert result.return_value == 1


def test_injecting_with_other_options_changes_nothing_and_says_so() -> None:
    once = injected((SHAPES / "a-bare-pod.yaml").read_text())
    again = run(once, ["--window", "500"])
    assert again.stdout == once
    assert "already injected, by Pegel 0.1.0; other options would make it another: --undo first" in again.stderr
    assert "other options" not in run(once).stderr


def test_a_model_whose_port_has_changed_since_is_warned_about() -> None:
    once = injected((SHAPES / "a-bare-pod.yaml").read_text())
    result = run(once.replace("containerPort: 8080", "containerPort: 9090"), ["--check"])
    assert result.return_value == 1
    assert "was injected for port 8080 of model, which it no longer has" in result.stderr


def test_kinds_that_make_pods_in_their_own_way_are_said_to_be_left_alone() -> None:
    service = "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: iris}\nspec: {}\n"
    rollout = (
        "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: canary}\n"
        "spec: {workloadRef: {kind: Deployment, name: scorer}}\n"
    )
    result = run(f"{service}---\n{rollout}")
    assert result.stdout == f"{service}---\n{rollout}"
    assert "InferenceService iris: left alone, as its pods are made by its controller" in result.stderr
    assert "Rollout canary: left alone, as its pods are those of its workloadRef" in result.stderr


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


LAYOUTS = {
    "4 columns": """\
kind: Pod
apiVersion: v1
metadata:
    name: x
spec:
    containers:
    - name: model
      ports:
      - name: http
        containerPort: 80
""",
    "lists at 4 columns": """\
kind: Pod
apiVersion: v1
spec:
  containers:
      - name: model
        ports:
            - name: http
              containerPort: 80
""",
    "in braces": """\
kind: Pod
apiVersion: v1
spec:
  containers:
  - {name: model, ports: [{name: http, containerPort: 80}]}
""",
    "comments": """\
kind: Pod # a
apiVersion: v1
spec: # b
  containers:
  - name: model # c
    ports:
    - name: http
      containerPort: 80
""",
    "a directive": """\
%YAML 1.1
---
kind: Pod
apiVersion: v1
spec:
  containers:
  - name: model
    ports:
    - name: http
      containerPort: 80
""",
    "kubectl's JSON": """\
{
    "kind": "Pod",
    "apiVersion": "v1",
    "spec": {
        "containers": [
            {
                "name": "model",
                "ports": [
                    {
                        "name": "http",
                        "containerPort": 80
                    }
                ]
            }
        ]
    }
}
""",
}


@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["unix", "windows"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_manifest_keeps_its_layout_through_injection_and_undo(layout: str, line_end: str) -> None:
    manifest = LAYOUTS[layout].replace("\n", line_end).encode()
    command = ["inject", "-f", "-"]
    result = CliRunner().invoke(pegel, command, input=manifest, prog_name="pegel")
    assert b"pegel-sidecar" in result.stdout_bytes
    assert b"\r\r" not in result.stdout_bytes
    back = CliRunner().invoke(pegel, [*command, "--undo"], input=result.stdout_bytes, prog_name="pegel")
    assert back.stdout_bytes == manifest
