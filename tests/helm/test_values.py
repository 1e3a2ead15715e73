"""Values: refused when they are wrong, documented when they are right, and none without effect."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from tests.helm.rendering import CHART, VALUES, changes, operator_arguments, refusal, template

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
TEXT = (CHART / "values.yaml").read_text()
DEFAULTS = yaml.safe_load(TEXT)
BEGIN, END = "<!-- values: made by tests/helm/test_values.py from values.schema.json -->", "<!-- end of values -->"

EXAMPLES = yaml.safe_load((VALUES / "everything.yaml").read_text())
"""Values other than the defaults, with those below for what can't be shown together with the rest."""
APART = {
    "gpu.enabled": False,
    "gpu.serviceAccount.create": False,
    "gpu.simulate": "v100",
    "monitoring.serviceMonitor.enabled": False,
    "monitoring.podMonitor.enabled": False,
    "monitoring.rules.enabled": False,
    "monitoring.dashboards.enabled": False,
    "monitoring.dashboards.namespace": "grafana",
}
FREE = {
    "global", "gpu.affinity", "gpu.extraEnv[].valueFrom", "gpu.extraVolumeMounts[]", "gpu.extraVolumes[]",
    "networkPolicy.ingressFrom[].namespaceSelector.matchExpressions[]",
    "networkPolicy.ingressFrom[].podSelector.matchExpressions[]",
    "networkPolicy.apiServer[].namespaceSelector.matchExpressions[]",
    "networkPolicy.apiServer[].podSelector.matchExpressions[]",
}  # fmt: skip
"""Kubernetes' own objects, whose fields the API server knows better."""


def resolved(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema with what it refers to; its own description wins."""
    name = schema.get("$ref", "").rpartition("/")[2]
    return {**SCHEMA["definitions"][name], **schema} if name else dict(schema)


def nodes(schema: Mapping[str, Any] = SCHEMA, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every path in the schema, `[]` for a list's items, with what it asks for."""
    for key, part in resolved(schema).get("properties", {}).items():
        inner = f"{path}.{key}" if path else key
        yield inner, resolved(part)
        yield from nodes(part, inner)
    if "items" in resolved(schema):
        items = resolved(schema)["items"]
        yield f"{path}[]", resolved(items)
        yield from nodes(items, f"{path}[]")


def leaves() -> list[tuple[str, dict[str, Any]]]:
    """The values that a user sets."""
    return [
        (path, part) for path, part in nodes() if "[]" not in path and "properties" not in part and path != "global"
    ]


PATHS = [path for path, _ in leaves()]


def at(values: Mapping[str, Any], path: str) -> Any:
    for key in path.split("."):
        values = values[key]
    return values


def nested(path: str, value: Any) -> dict[str, Any]:
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def table() -> str:
    """The README's table of values."""
    rows = [
        f"| `{path}` | `{json.dumps(at(DEFAULTS, path))}` | {part['description'].replace('|', chr(92) + '|')} |"
        for path, part in leaves()
    ]
    return "\n".join([BEGIN, "", "| value | default | |", "| --- | --- | --- |", *rows, "", END])


def test_every_value_is_in_the_readme_with_its_default():
    readme = (CHART / "README.md").read_text()
    before, _, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, "the README has no place for the table"
    assert not changes(CHART / "README.md", before + table() + after), "PEGEL_WRITE_CHART=1 pytest writes it anew"


def test_values_and_schema_name_the_same():
    def names(values: Mapping[str, Any], path: str = "") -> Iterator[str]:
        for key, value in values.items():
            inner = f"{path}{key}"
            if inner in PATHS or not isinstance(value, dict):
                yield inner
            else:
                yield from names(value, f"{inner}.")

    assert list(names(DEFAULTS)) == PATHS


def test_everything_in_the_schema_has_a_description():
    assert [path for path, part in nodes() if not path.endswith("]") and not part.get("description")] == []


def test_every_value_has_a_comment_above_it():
    lines = TEXT.splitlines()

    def keys(node: yaml.MappingNode, path: str = "") -> Iterator[tuple[str, int]]:
        for key, value in node.value:
            yield f"{path}{key.value}", key.start_mark.line
            if isinstance(value, yaml.MappingNode):
                yield from keys(value, f"{path}{key.value}.")

    bare = [path for path, line in keys(yaml.compose(TEXT)) if not lines[line - 1].lstrip().startswith("#")]
    assert [path for path in bare if path in PATHS] == []


def test_no_object_takes_fields_that_it_does_not_name():
    """Maps take any key, and only text, quantities, prices or what a label may be as values."""
    texts = [{"type": "string"}, {"type": ["string", "number"]}]
    maps = [*texts, {"$ref": "#/definitions/labelValue"}, {"$ref": "#/definitions/price"}]
    opened = {
        path
        for path, part in nodes()
        if part.get("type") == "object"
        and part.get("additionalProperties") is not False
        and part.get("additionalProperties") not in maps
    }
    assert opened == FREE
    assert SCHEMA["additionalProperties"] is False


@pytest.mark.integration
@pytest.mark.parametrize(
    ("setting", "place", "name"),
    [
        ("gpus.enabled=true", "''", "gpus"),
        ("gpu.enbled=true", "/gpu", "enbled"),
        ("gpu.podAttribution.path=/x", "/gpu/podAttribution", "path"),
        ("gpu.updateStrategy.rollingUpdate.partition=1", "/gpu/updateStrategy/rollingUpdate", "partition"),
        ("gpu.tolerations[0].kee=x", "/gpu/tolerations/0", "kee"),
        ("monitoring.serviceMonitor.intervall=5s", "/monitoring/serviceMonitor", "intervall"),
        ("networkPolicy.ingressFrom[0].namespace=x", "/networkPolicy/ingressFrom/0", "namespace"),
        ("thresholds.accuracy.perModel[0].modelVersion=3", "/thresholds/accuracy/perModel/0", "modelVersion"),
    ],
)
def test_an_unknown_key_is_refused_by_name_wherever_it_stands(setting, place, name):
    said = refusal("--set", setting)
    assert f"additional properties '{name}' not allowed" in said
    assert place in said


@pytest.mark.integration
@pytest.mark.parametrize(
    ("setting", "place"),
    [
        ('gpu.enabled="yes"', "/gpu/enabled"),
        ("gpu.port=80", "/gpu/port"),
        ('gpu.interval="5 seconds"', "/gpu/interval"),
        ('gpu.metrics=["prometheus"]', "/gpu/metrics/0"),
        ("gpu.metrics=[]", "/gpu/metrics"),
        ('gpu.image.digest="sha256:abc"', "/gpu/image/digest"),
        ('gpu.image.pullPolicy="always"', "/gpu/image/pullPolicy"),
        ('gpu.podAttribution.podResourcesPath="kubelet"', "/gpu/podAttribution/podResourcesPath"),
        ('gpu.podAnnotations={"prometheus.io/port":9465}', "/gpu/podAnnotations/prometheus.io~1port"),
        ("gpu.extraVolumes=[{}]", "/gpu/extraVolumes/0"),
        ('gpu.updateStrategy.rollingUpdate.maxUnavailable="all"', "/gpu/updateStrategy/rollingUpdate/maxUnavailable"),
        ("gpu.priorityClass.value=2000000000", "/gpu/priorityClass/value"),
        ('imagePullSecrets=["registry"]', "/imagePullSecrets/0"),
        ('monitoring.rules.enabled="yes"', "/monitoring/rules/enabled"),
        ('monitoring.serviceMonitor.interval="1 minute"', "/monitoring/serviceMonitor/interval"),
        ('monitoring.podMonitor.namespaces="shop"', "/monitoring/podMonitor/namespaces"),
        ('thresholds.driftBroad.perModel=[{"modelName":"churn"}]', "/thresholds/driftBroad/perModel/0"),
        ('thresholds.accuracy.perModel=[{"modelName":"","below":0.5}]', "/thresholds/accuracy/perModel/0/modelName"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(setting, place):
    assert f"at '{place}'" in refusal("--set-json", setting)


@pytest.mark.integration
@pytest.mark.parametrize("path", PATHS)
def test_every_value_has_an_effect(path, tmp_path):
    """In a default install, with a PriorityClass, or beside every other value: else it is dead."""
    value, default = APART.get(path, at(EXAMPLES, path)), at(DEFAULTS, path)
    assert value != default, "give an example that differs from the default"

    def rendered(*settings: Mapping[str, Any]) -> str:
        files = [tmp_path / f"{number}.yml" for number in range(len(settings))]
        for file, setting in zip(files, settings, strict=True):
            file.write_text(yaml.safe_dump(setting))
        return template(*operator_arguments(), *(word for file in files for word in ("--values", file)))

    asking = nested("gpu.podAttribution", {"enabled": True, "apiServer": {"enabled": True}})
    bases = ({}, nested("gpu.priorityClass.create", True), EXAMPLES, asking)
    assert any(rendered(base, nested(path, value)) != rendered(base, nested(path, default)) for base in bases)
