"""What `pegel inject` refuses, warns about and says."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from pegel_agent.cli.main import pegel
from pegel_exporters.errors import UserError

from tests.agent.cluster.shapes import MODEL, PORT, deployment, injected, run, shape

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
    "one port with two names": (
        deployment("{containers: [{name: m, ports: [{name: a, containerPort: 80}, {name: b, containerPort: 80}]}]}"),
        "has port 80 twice, a (80 of m) and b (80 of m): `kubectl apply` keeps ports by number",
    ),
    "a probe that is none": (
        deployment(f"{{containers: [{{name: model, readinessProbe: x, ports: [{PORT}]}}]}}"),
        "Expected `object | null`, got `str` - at `the pod's spec.containers[0].readinessProbe`",
    ),
    "a probe's port that is none": (
        deployment(f"{{containers: [{{name: model, readinessProbe: {{httpGet: {{port: [1]}}}}, ports: [{PORT}]}}]}}"),
        "at `the pod's spec.containers[0].readinessProbe.httpGet.port`",
    ),
    "a Service that is none": (
        deployment(f"{{{MODEL}}}") + "---\nkind: Service\napiVersion: v1\nmetadata: {name: s}\n"
        "spec: {ports: [{port: 80, targetPort: [1]}]}\n",
        "Service s is not as Kubernetes knows it: Expected `int | str | null`, got `array` - at "
        "`its spec.ports[0].targetPort`",
    ),
    "a NetworkPolicy that is none": (
        deployment(f"{{{MODEL}}}") + "---\nkind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {name: n}\n"
        "spec: {ingress: 5}\n",
        "NetworkPolicy n is not as Kubernetes knows it",
    ),
    "a pod that asks for the sidecar's own port": (
        deployment("{containers: [{name: model}]}", "{pegel.dev/port: '15080'}"),
        "would have the sidecar listen on 15080, 9466 for 15080: give it others with --listen-port or --admin-port",
    ),
    "merges that grow without end": (
        "kind: Pod\na: &a {" + ", ".join(f"k{n}: v" for n in range(9)) + "}\n"
        + "".join(
            f"{n}: &{n} {{{', '.join(f'k{i}: *{p}' for i in range(9))}}}\n"
            for p, n in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "its aliases make it too large",
    ),
    "lists in lists in lists": ("kind: Pod\na: " + "[" * 300 + "]" * 300 + "\n", ""),
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
    good = shape("a-bare-pod")
    for manifest in (text, f"{good}---\n{text}") if "empty" not in what and what != "nothing" else (text,):
        result = run(manifest)
        assert isinstance(result.exception, UserError)
        assert result.stdout == ""
        assert str(result.exception).startswith("standard input")
    assert message in str(run(text).exception)


def test_a_job_is_refused_where_there_are_no_native_sidecars() -> None:
    result = run(shape("a-job"), ["--kubernetes", "1.28"])
    assert "Job batch-scoring would never end beside a sidecar before Kubernetes 1.29" in str(result.exception)
    assert result.stdout == ""


def test_one_bad_item_of_a_list_leaves_all_of_it_unprinted() -> None:
    items = [yaml.safe_load(deployment(f"{{{MODEL}}}")), yaml.safe_load(deployment("{containers: [{name: model}]}"))]
    result = run(yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items}))
    assert "Deployment shop/scorer declares no port" in str(result.exception)
    assert result.stdout == ""


def test_a_check_of_what_is_in_order_says_so_with_0() -> None:
    manifest = shape("the-guides-deployment")
    assert run(manifest, ["--check"]).return_value == 0
    assert run(injected(manifest), ["--check"]).return_value == 0


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
    assert message in str(run(shape("a-bare-pod"), arguments).exception)


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, message in (("missing", "cannot read"), ("binary", "is not text in UTF-8")):
        result = CliRunner().invoke(pegel, ["inject", "-f", str(tmp_path / name)], prog_name="pegel")
        assert message in str(result.exception)


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
    once = injected(shape("a-bare-pod"))
    again = run(once, ["--window", "500"])
    assert again.stdout == once
    assert "already injected, by Pegel 0.1.0; other options would make it another: --undo first" in again.stderr
    assert "other options" not in run(once).stderr


def test_a_model_whose_port_has_changed_since_is_warned_about() -> None:
    once = injected(shape("a-bare-pod"))
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


def test_undo_says_which_names_it_could_not_give_back() -> None:
    once = injected(shape("a-bare-pod")).replace("containerPort: 8080", "containerPort: 9090")
    assert "no longer has the port to give its name back to: http of model (port 8080)" in run(once, ["--undo"]).stderr


def test_undo_refuses_while_another_container_uses_the_sidecars_volume() -> None:
    once = yaml.safe_load(injected(shape("a-bare-pod")))
    once["spec"]["containers"][0]["volumeMounts"] = [{"name": "pegel-tmp", "mountPath": "/x"}]
    assert "mounts pegel-tmp, a volume of the sidecar's" in str(run(yaml.safe_dump(once), ["--undo"]).exception)
