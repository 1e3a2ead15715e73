"""The chart as a whole: what helm makes of it, and that it always makes the same."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from pegel_dashboards import files as dashboard_files
from pegel_rules import Settings, groups
from pegel_rules import files as rule_files

from tests.helm.rendering import (
    CHART,
    GOLDEN,
    NAMES,
    OPERATOR,
    ROOT,
    VALUES,
    changes,
    helm,
    objects,
    of_kind,
    operator_arguments,
    render,
    template,
)

pytestmark = pytest.mark.integration

META = yaml.safe_load((CHART / "Chart.yaml").read_text())
ANEW = "PEGEL_WRITE_CHART=1 pytest tests/helm writes it anew"


@pytest.mark.parametrize("name", NAMES)
def test_helm_finds_nothing_to_say_about_the_chart(name):
    answer = helm("lint", "--strict", CHART, "--values", VALUES / f"{name}.yaml")
    assert answer.returncode == 0, answer.stdout
    assert not re.search(r"WARNING|ERROR", answer.stdout), answer.stdout


@pytest.mark.parametrize("name", NAMES)
def test_a_render_is_the_one_that_is_committed(name):
    assert not changes(GOLDEN / f"{name}.yaml", render(name)), ANEW


def test_every_committed_render_belongs_to_a_values_file():
    assert sorted(path.stem for path in GOLDEN.glob("*.yaml")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_same_values_give_the_same_bytes(name):
    assert render(name) == render(name)


def test_no_template_asks_the_cluster_the_clock_or_chance():
    for path in sorted(CHART.glob("templates/**/*")):
        if path.is_file():
            actions = " ".join(re.findall(r"\{\{.*?\}\}", path.read_text(), re.DOTALL))
            assert not re.search(r"\b(lookup|rand\w+|uuidv4|gen\w+Cert|genCA\w*|genPrivateKey|now|date\w*)\b", actions)


def test_the_chart_installs_the_version_it_was_made_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert META["appVersion"] == project["version"]
    assert META["kubeVersion"] == ">=1.27.0-0"


def test_a_cluster_that_is_too_old_is_refused():
    answer = helm("template", "pegel", CHART, "--kube-version", "1.26.9")
    assert answer.returncode != 0
    assert ">=1.27.0-0" in answer.stderr
    assert template("--kube-version", "1.27.0-gke.100") == template("--kube-version", "1.27.0")


def test_the_rules_in_the_chart_are_the_generated_ones():
    """All but the thresholds, which the chart makes from its values."""
    wanted = {name: text for name, text in rule_files(groups(Settings())).items() if name != "pegel-thresholds.yaml"}
    assert not [name for name, text in wanted.items() if changes(CHART / "files/rules" / name, text)], ANEW
    assert {path.name for path in (CHART / "files/rules").iterdir()} == set(wanted)


def test_the_dashboards_in_the_chart_are_the_generated_ones():
    wanted = dashboard_files()
    assert not [name for name, text in wanted.items() if changes(CHART / "files/dashboards" / name, text)], ANEW
    assert {path.name for path in (CHART / "files/dashboards").iterdir()} == set(wanted)


def test_the_operators_objects_hold_the_generated_rules_unchanged():
    """Double braces are Prometheus' templates too, and must not be helm's."""
    wanted = [yaml.safe_load(text) for text in rule_files(groups(Settings())).values()]
    rendered = [rule["spec"] for rule in of_kind(render("kube-prometheus-stack"), "PrometheusRule")]
    assert sorted(rendered, key=str) == sorted(
        (_as_text(spec) if spec["groups"][0]["name"] == "pegel-thresholds" else spec for spec in wanted), key=str
    )


def _as_text(spec):
    """Thresholds as the operator takes them."""
    return {
        "groups": [
            {**group, "rules": [{**rule, "expr": str(rule["expr"])} for rule in group["rules"]]}
            for group in spec["groups"]
        ]
    }


def test_config_maps_hold_the_generated_dashboards_unchanged():
    boards = [one for one in of_kind(render("default"), "ConfigMap") if "prices.yaml" not in one["data"]]
    assert {name: text for board in boards for name, text in board["data"].items()} == dashboard_files()
    assert all(board["metadata"]["labels"]["grafana_dashboard"] == "1" for board in boards)


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PodMonitor", "PrometheusRule"])
def test_the_operators_kinds_are_rendered_where_the_cluster_knows_them_or_a_value_says_so(kind):
    value = {"ServiceMonitor": "serviceMonitor", "PodMonitor": "podMonitor", "PrometheusRule": "rules"}[kind]
    (known,) = [version for version in OPERATOR if version.endswith(kind)]
    setting = f"monitoring.{value}.enabled"
    assert not of_kind(template(), kind)
    assert of_kind(template("--api-versions", known), kind)
    assert of_kind(template("--set", f"{setting}=true"), kind)
    assert not of_kind(template(*operator_arguments(), "--set", f"{setting}=false"), kind)


def test_a_parent_chart_can_hold_it(tmp_path: Path):
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / "pegel").symlink_to(CHART)
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: platform\nversion: 1.0.0\n")
    (tmp_path / "values.yaml").write_text("global: {domain: example.com}\npegel: {gpu: {simulate: v100}}\n")
    (daemonset,) = of_kind(template(chart=tmp_path), "DaemonSet")
    arguments = daemonset["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[arguments.index("--simulate") + 1] == "v100"


@pytest.mark.parametrize("release", ["pegel", "gpu", "a" * 53])
def test_names_fit_into_a_label_whatever_the_release_is_called(release):
    answer = helm("template", release, CHART, *operator_arguments())
    assert answer.returncode == 0, answer.stderr
    for one in objects(answer.stdout):
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", one["metadata"]["name"])
        assert one["kind"] == "ConfigMap" or len(one["metadata"]["name"]) <= 63
        assert all(len(value) <= 63 for value in one["metadata"]["labels"].values())
