"""By which name a pod's model is served, as `pegel inject` reads it: told, or left to be found."""

import pytest
import yaml
from pegel_agent.cluster.sidecar import CONTAINER

from tests.agent.cluster.shapes import PORT, deployment, run


def told(container: str, annotations: str = "{}", *options: str) -> tuple[str | None, str]:
    """The sidecar's --served-model, and what the command said."""
    result = run(
        deployment(f"containers: [{{name: model, ports: [{PORT}], {container}}}]".join("{}"), annotations), options
    )
    assert result.exception is None, result.exception
    spec = yaml.safe_load(result.stdout)["spec"]["template"]["spec"]
    (sidecar,) = (each for each in [*spec.get("initContainers", []), *spec["containers"]] if each["name"] == CONTAINER)
    found = [word.partition("=")[2] for word in sidecar["args"] if word.startswith("--served-model=")]
    return (found[0] if found else None), result.stderr


@pytest.mark.parametrize(
    ("container", "names", "source"),
    [
        ("env: [{name: MODEL_NAME, value: churn}]", "churn", "MODEL_NAME of model"),
        ("env: [{name: MLSERVER_MODEL_NAME, value: churn}]", "churn", "MLSERVER_MODEL_NAME of model"),
        ("args: [--port=8080, --model_name=churn]", "churn", "--model_name of model"),
        ("args: [--model_name, churn, --port, '8080']", "churn", "--model_name of model"),
        ("command: [python, -m, server, --model-name, churn]", "churn", "--model-name of model"),
        ("args: [serve, --served-model-name, a, b, --port, '80']", "a,b", "--served-model-name of model"),
        ("args: [--served-model-name=a]", "a", "--served-model-name of model"),
        ("args: [--model-control-mode=explicit, --load-model=churn]", "churn", "--load-model of model"),
        ("args: ['--model_name=$(NAME)'], env: [{name: NAME, value: churn}]", "churn", "--model_name of model"),
        (
            "args: ['--model_name=$(B)'], env: [{name: A, value: ch}, {name: B, value: $(A)urn}]",
            "churn", "--model_name of model",
        ),
        (
            "args: [--model_name=churn], env: [{name: MODEL_NAME, value: churn}]",
            "churn", "--model_name and MODEL_NAME of model",
        ),
        ("args: ['--model_name=$(NAME)'], env: [{name: NAME, value: 'a/b.c-1'}]", "a/b.c-1", "--model_name of model"),
    ],
)  # fmt: skip
def test_what_a_container_says_is_told(container: str, names: str, source: str) -> None:
    found, said = told(container)
    assert found == names
    assert f"served as {names.replace(',', ', ')}, by {source}" in said


@pytest.mark.parametrize(
    "container",
    [
        "args: [--model_name=a], env: [{name: MODEL_NAME, value: b}]",
        "args: [--model_name=a, --model_name=b]",
        "args: [--load-model=a, --load-model=b]",
        "args: ['--load-model=*']",
        "args: [--model_config_file=/models.config], env: [{name: MODEL_NAME, value: a}]",
        "args: ['--model_name=$(ELSEWHERE)']",
        "args: ['--model_name=$(NAME)'], env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]",
        "args: ['--model_name=$(B)'], env: [{name: B, value: $(A)}, {name: A, value: later}]",
        "args: ['--model_name=$$(NAME)'], env: [{name: NAME, value: a}]",
        "args: ['--model_name=${NAME}']",
        "env: [{name: MODEL_NAME, valueFrom: {configMapKeyRef: {name: a, key: b}}}]",
        "env: [{name: MODEL_NAME, value: ''}]",
        "env: [{name: MODEL_NAME}]",
        "env: [{name: MODEL_NAME, value: 'a,b'}]",
        "env: [{name: MODEL_NAME, value: 7}]",
        "args: [--model_name]",
        "args: [--model_name, --port=80]",
    ],
)
def test_what_is_not_clear_is_not_guessed_and_said(container: str) -> None:
    found, said = told(container)
    assert found is None
    assert "by which name it is served will be found in its traffic, as" in said


@pytest.mark.parametrize(
    "container",
    [
        "image: x",
        "args: null, command: null, env: null",
        "command: [sh, -c, 'serve --model_name=churn']",
        "args: [serve, --model, org/name, --model_name_or_path=x]",
        "args: text, env: {MODEL_NAME: x}",
        "env: [null, 7, {value: a}, {name: THE_MODEL_NAME, value: a}]",
    ],
)
def test_where_nothing_says_it_nothing_is_said(container: str) -> None:
    found, said = told(container)
    assert (found, "served" in said) == (None, False)


def test_the_annotation_goes_before_what_the_container_says() -> None:
    found, said = told("env: [{name: MODEL_NAME, value: a}]", "{pegel.dev/served-model: 'b,c'}")
    assert found == "b,c"
    assert "served as b,c, by pegel.dev/served-model" in said
    assert "doesn't know" not in said


def test_only_the_container_whose_port_is_taken_says_it() -> None:
    result = run(
        deployment(
            f"{{containers: [{{name: model, ports: [{PORT}]}},"
            " {name: other, env: [{name: MODEL_NAME, value: a}], args: [--model_name=b]}]}"
        )
    )
    assert "--served-model" not in result.stdout


def test_a_sink_goes_by_its_inference_service() -> None:
    text = """
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {serving.kserve.io/inferenceservice: churn}}
spec: {containers: [{name: kserve-container, env: [{name: MODEL_NAME, value: other}]}]}
"""
    result = run(text, ["--mode", "sink"])
    assert "--served-model=churn" in result.stdout
    assert "served as churn, by the label serving.kserve.io/inferenceservice" in result.stderr
