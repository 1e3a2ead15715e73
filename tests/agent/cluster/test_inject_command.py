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
        "has no port 'grpc', which pegel.dev/port asks for (it has http (8080 of model))",
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
    "no containers": (deployment("{containers: []}"), "has no containers"),
    "ports of the wrong type": (
        deployment("{containers: [{name: model, ports: [{containerPort: '8080'}]}]}"),
        "is not as Kubernetes knows it: Expected `int`, got `str` - at `$.spec.containers[0].ports[0].containerPort`",
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
    assert (result.return_value, "Service by-number: targetPort 8501 is a number" in result.stderr) == (0, True)
    assert result.stdout
    checked = run(manifest, ["--check"])
    assert (checked.return_value, checked.stdout) == (1, "")
    assert "Service by-number: targetPort 8501 is a number" in checked.stderr


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
    assert f"{names[0]}: Service by-number: targetPort 8501" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kubernetes", "1.26"], "--kubernetes 1.26: write a version from 1.27 on"),
        (["--kubernetes", "new"], "--kubernetes new: write a version"),
        (["--memory", "much"], "--memory much: write a quantity"),
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
