"""Names and values that YAML, helm or Kubernetes take for something else: rendered as they were meant, or refused."""

import json
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from tests.helm.rendering import CHART, helm, objects, of_kind, operator_arguments, refusal, template
from tests.helm.test_objects import OPERATOR_GROUP, check_operators_object
from tests.helm.test_values import DEFAULTS, PATHS, nodes

pytestmark = pytest.mark.integration

EVERYTHING = [*operator_arguments(), "--set", "gpu.priorityClass.create=true"]
LABEL_VALUE = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
SERVICE = "[a-z]([-a-z0-9]{0,61}[a-z0-9])?"


def check_valid(manifests: str) -> None:
    """Every object has the types that Kubernetes wants, and names, labels and selectors as it wants them."""
    found = objects(manifests)
    assert found
    for one in found:
        if one["apiVersion"] == OPERATOR_GROUP:
            check_operators_object(one)
        else:
            kubernetes_validate.validate(one, "1.36", strict=True)
        assert re.fullmatch(SERVICE if one["kind"] == "Service" else SUBDOMAIN, one["metadata"]["name"])
        assert all(re.fullmatch(LABEL_VALUE, value) for value in one["metadata"]["labels"].values())
    (daemonset,), (service,) = of_kind(manifests, "DaemonSet"), of_kind(manifests, "Service")
    labels = daemonset["spec"]["template"]["metadata"]["labels"].items()
    assert daemonset["spec"]["selector"]["matchLabels"].items() <= labels
    assert service["spec"]["selector"].items() <= labels
    assert all(re.fullmatch(LABEL_VALUE, value) for _, value in labels)


@pytest.mark.parametrize("release", ["y", "no", "on", "true", "null", "a.b", "a" * 39 + ".b", "a" * 53, "x.pegel.y"])
def test_a_release_may_be_called_anything_that_begins_with_a_letter(release):
    answer = helm("template", release, CHART, *EVERYTHING)
    assert answer.returncode == 0, answer.stderr
    check_valid(answer.stdout)
    (daemonset,) = of_kind(answer.stdout, "DaemonSet")
    assert daemonset["spec"]["selector"]["matchLabels"]["app.kubernetes.io/instance"] == release


@pytest.mark.parametrize("release", ["123", "1e3", "0x1f", "1.5"])
def test_a_release_that_begins_with_a_digit_needs_a_name_for_its_service(release):
    answer = helm("template", release, CHART)
    assert answer.returncode != 0
    assert f'release "{release}": the name of a Service begins with a letter; set fullnameOverride' in answer.stderr
    answer = helm("template", release, CHART, *EVERYTHING, "--set", "fullnameOverride=gauge")
    assert answer.returncode == 0, answer.stderr
    check_valid(answer.stdout)


@pytest.mark.parametrize("namespace", ["123", "1e3", "on", "null"])
def test_a_namespace_may_look_like_a_number_or_a_boolean(namespace):
    answer = helm("template", "pegel", CHART, "--namespace", namespace, *EVERYTHING)
    assert answer.returncode == 0, answer.stderr
    check_valid(answer.stdout)
    assert {one["metadata"].get("namespace", namespace) for one in objects(answer.stdout)} == {namespace}


NAMES = [
    "nameOverride", "commonLabels.a", "imagePullSecrets.0.name", "gpu.image.repository", "gpu.image.tag",
    "gpu.runtimeClassName", "gpu.nodeLabels.0", "gpu.nodeSelector.a", "gpu.priorityClassName", "gpu.podLabels.a",
    "gpu.serviceAccount.name", "monitoring.labels.a", "monitoring.podMonitor.namespaces.0",
    "monitoring.dashboards.label", "monitoring.dashboards.labelValue", "monitoring.dashboards.namespace",
]  # fmt: skip
"""Values that are names: of what letters, Kubernetes says."""
CHOICES = [
    "fullnameOverride", "gpu.image.digest", "gpu.image.pullPolicy", "gpu.interval", "gpu.metrics.0", "gpu.simulate",
    "gpu.podAttribution.podResourcesPath", "gpu.extraEnv.0.name", "gpu.priorityClass.preemptionPolicy",
    "gpu.updateStrategy.type", "gpu.updateStrategy.rollingUpdate.maxUnavailable",
    "monitoring.serviceMonitor.interval", "monitoring.podMonitor.scrapeTimeout", "thresholds.accuracy.default",
]  # fmt: skip
"""Values of a form or choice of their own."""
TEXTS = [
    "gpu.visibleDevices", "gpu.driverCapabilities", "gpu.extraEnv.0.value", "gpu.podAnnotations.a",
    "gpu.serviceAccount.annotations.a", "monitoring.dashboards.annotations.a",
    "thresholds.accuracy.perModel.0.modelName",
]  # fmt: skip
"""Values that may be any text."""
SMUGGLED = "x\n      hostNetwork: true\n      hostPID: true"


@pytest.mark.parametrize("word", ["123", "1e3", "yes", "on", "true", "null"])
def test_text_that_looks_like_something_else_stays_text(word, tmp_path):
    text = template(*EVERYTHING, "--values", values(tmp_path, dict.fromkeys(NAMES + TEXTS, word)))
    check_valid(text)
    found = strings(objects(text))
    assert found.count(word) >= len(NAMES + TEXTS) - len(["the image's repository and tag"])
    assert f"{word}:{word}" in found


def test_a_name_with_yaml_in_it_is_refused_with_its_place(tmp_path):
    said = refusal(*EVERYTHING, "--values", values(tmp_path, dict.fromkeys(NAMES + CHOICES, SMUGGLED)))
    assert [path for path in NAMES + CHOICES if f"at '/{path.replace('.', '/')}'" not in said] == []


def test_text_that_may_be_anything_stays_where_it_was_put(tmp_path):
    text = template(*EVERYTHING, "--values", values(tmp_path, dict.fromkeys(TEXTS, SMUGGLED)))
    check_valid(text)
    assert strings(objects(text)).count(SMUGGLED) >= len(TEXTS)
    for kind in ("DaemonSet", "Pod"):
        (one,) = of_kind(text, kind)
        assert "hostNetwork" not in one.get("spec", {}).get("template", one)["spec"]


def strings(part: Any) -> list[str]:
    """All text in a document."""
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return [part] if isinstance(part, str) else [text for one in inner for text in strings(one)]


def values(folder: Path, settings: Mapping[str, Any]) -> Path:
    """A values file with these values by path; in a path, 0 is a list's only item."""
    found: dict[str, Any] = {}
    for path, value in settings.items():
        place: Any = found
        keys = [int(key) if key.isdigit() else key for key in path.split(".")]
        for key, following in pairwise(keys):
            inner: Any = [REQUIRED.get(str(key), {}).copy()] if following == 0 else {}
            place = place[0] if key == 0 else place.setdefault(key, inner)
        place[keys[-1]] = value
    file = folder / "values.yml"
    file.write_text(json.dumps(found))
    return file


REQUIRED = {"extraEnv": {"name": "A", "value": "a"}, "perModel": {"modelName": "m", "below": 0.5}}
"""What a list's item can't do without."""
OBJECTS = [path for path, part in nodes() if "[]" not in path and "properties" in part]


def missing(path: str) -> str:
    """How helm says that a value isn't there."""
    parent, _, key = path.rpartition(".")
    return f"at '{'/' if parent else ''}{parent.replace('.', '/')}': missing property '{key}'"


@pytest.mark.parametrize("path", [*PATHS, *OBJECTS])
def test_null_is_refused_with_its_place_or_leaves_nothing_half_said(path, tmp_path):
    """helm takes null, and so an empty line, for `forget the default`."""
    setting = values(tmp_path, {"gpu.priorityClass.create": True, path: None})
    answer = helm("template", "pegel", CHART, *operator_arguments(), "--values", setting)
    if answer.returncode:
        assert missing(path) in answer.stderr
    else:
        assert "<nil>" not in answer.stdout
        assert not [one for one in objects(answer.stdout) if has_null(one)]


def has_null(part: Any) -> bool:
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return part is None or any(has_null(one) for one in inner)


def test_a_threshold_without_a_default_is_refused():
    """Prometheus would be given `<nil>`."""
    for name in DEFAULTS["thresholds"]:
        path = f"thresholds.{name}.default"
        assert missing(path) in refusal("--set-json", f"{path}=null")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('gpu.extraEnv=[{"name":"NVIDIA_VISIBLE_DEVICES","value":"0"}]', 'gpu.extraEnv: a second name "NVIDIA_VIS'),
        ('gpu.extraEnv=[{"name":"A","value":"1"},{"name":"A","value":"2"}]', 'gpu.extraEnv: a second name "A"'),
        ('gpu.extraEnv=[{"name":"A","value":"1","valueFrom":{}}]', "at '/gpu/extraEnv/0'"),
        ('gpu.extraEnv=[{"name":"A=B","value":"1"}]', "at '/gpu/extraEnv/0/name'"),
        ('gpu={"podAttribution":{"enabled":true},"extraVolumes":[{"name":"pod-resources","emptyDir":{}}]}',
         'gpu.extraVolumes: a second name "pod-resources"'),
        ('gpu.extraVolumeMounts=[{"name":"a","mountPath":"/a"},{"name":"b","mountPath":"/a"}]',
         'gpu.extraVolumeMounts: a second mountPath "/a"'),
        ('gpu.interval="0s"', "gpu.interval: between 100ms and 1h, not 0s"),
        ('gpu.interval="99.9ms"', "gpu.interval: between 100ms and 1h, not 99.9ms"),
        ('gpu.interval="61m"', "gpu.interval: between 100ms and 1h, not 61m"),
        ("gpu.updateStrategy.rollingUpdate.maxUnavailable=0", "at '/gpu/updateStrategy/rollingUpdate/maxUnavailable'"),
        ('gpu.updateStrategy.rollingUpdate.maxUnavailable="0%"', "/gpu/updateStrategy/rollingUpdate/maxUnavailable"),
        ('gpu.podAttribution.podResourcesPath="/a/../b"', "at '/gpu/podAttribution/podResourcesPath'"),
        ('monitoring.serviceMonitor.interval="1m1h"', "at '/monitoring/serviceMonitor/interval'"),
        ('monitoring.podMonitor.interval="0s"', "at '/monitoring/podMonitor/interval'"),
        ('monitoring.dashboards.label="a b"', "at '/monitoring/dashboards/label'"),
        ('commonLabels={"a":"b c"}', "at '/commonLabels/a'"),
        ('commonLabels={"a b":"c"}', "invalid propertyName 'a b'"),
    ],
)  # fmt: skip
def test_what_the_api_server_or_the_exporter_would_refuse_is_refused_before(setting, said):
    assert said in refusal("--set-json", setting)


@pytest.mark.parametrize("monitor", ["serviceMonitor", "podMonitor"])
@pytest.mark.parametrize(
    ("timeout", "interval", "fits"),
    [
        ("10s", "5s", False), ("1m", "59s", False), ("1h1ms", "60m", False), ("2m1s", "120s", False),
        ("5s", "5s", True), ("500ms", "1s", True), ("1m30s", "1h30m", True), ("60s", "1m", True), ("10s", "", True),
    ],
)  # fmt: skip
def test_a_scrape_may_not_take_longer_than_the_interval(monitor, timeout, interval, fits):
    set_both = f"monitoring.{monitor}.scrapeTimeout={timeout},monitoring.{monitor}.interval={interval}"
    if fits:
        assert f'scrapeTimeout: "{timeout}"' in template(*EVERYTHING, "--set", set_both)
    else:
        said = f"monitoring.{monitor}: scrapeTimeout {timeout} is longer than interval {interval}"
        assert said in refusal(*EVERYTHING, "--set", set_both)


@pytest.mark.parametrize("interval", ["100ms", "0.5s", "1.5m", "1h"])
def test_an_interval_that_the_exporter_takes_is_given_to_it(interval):
    (daemonset,) = of_kind(template("--set", f"gpu.interval={interval}"), "DaemonSet")
    assert interval in daemonset["spec"]["template"]["spec"]["containers"][0]["args"]


def test_a_node_selector_cannot_ask_for_another_system():
    (daemonset,) = of_kind(template("--set", r"gpu.nodeSelector.kubernetes\.io/os=windows"), "DaemonSet")
    assert daemonset["spec"]["template"]["spec"]["nodeSelector"] == {"kubernetes.io/os": "linux"}
