"""The dashboards as Grafana gets them."""

import json
import re

import pytest
import yaml
from pegel_dashboards import dashboards, files, queries
from pegel_dashboards.grafana import Panel, Query, dashboard
from pegel_exporters.catalogue import CATALOGUE
from pegel_rules import Record, Settings, groups
from pegel_rules.promql import THRESHOLD

ALL = list(dashboards().values())
RECORDED = {rule.name for group in groups(Settings()) for rule in group.rules if isinstance(rule, Record)} - {THRESHOLD}
PANELS = [panel for one in ALL for panel in one["panels"]]
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def test_the_seeds_three_panels_come_first():
    board = dashboards()["ml-operations.json"]
    assert board["title"] == "ML Operations Dashboard"
    assert [panel["title"] for panel in board["panels"]][:3] == [
        "Model Inference Latency",
        "GPU Utilization",
        "Model Accuracy Drift",
    ]


def test_every_metric_in_a_query_is_in_the_catalogue_or_recorded():
    known = {metric.name for metric in CATALOGUE} | {f"{m.name}_bucket" for m in CATALOGUE if m.type == "histogram"}
    for one in ALL:
        for title, ref, expr in queries(one):
            used = set(re.findall(r"\b(?:ml|nvidia|inference|pegel|namespace)_[\w:]+", expr))
            assert used, (title, ref)
            assert used <= known | RECORDED | {THRESHOLD}, (title, ref)


def test_every_metric_in_a_variable_is_in_the_catalogue_or_recorded():
    known = {metric.name for metric in CATALOGUE}
    asked = [v["query"] for one in ALL for v in one["templating"]["list"] if v["type"] == "query"]
    assert asked
    assert {re.match(r"label_values\(([\w:]+)", query)[1] for query in asked} <= known | RECORDED


def test_the_threshold_shown_is_that_of_an_alert_that_exists():
    shown = re.findall(THRESHOLD + r'\{alert="(\w+)"', " ".join(expr for one in ALL for _, _, expr in queries(one)))
    assert shown == ["ModelAccuracyDrift"]
    assert set(shown) <= {rule.name for group in groups(Settings()) for rule in group.rules}


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_has_all_that_grafanalib_leaves_out(panel):
    assert panel["title"]
    assert len(panel["description"]) > 20
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert "maxDataPoints" not in panel
    assert panel["datasource"] == DATASOURCE
    assert all(target["datasource"] == DATASOURCE for target in panel["targets"])
    assert "".join(target["refId"] for target in panel["targets"]) == "ABCD"[: len(panel["targets"])]
    assert all(target["legendFormat"] for target in panel["targets"])


@pytest.mark.parametrize("board", ALL, ids=lambda board: board["title"])
def test_a_dashboard_is_todays_classic_json(board):
    assert board["schemaVersion"] == 39
    assert re.fullmatch(r"pegel-[a-z-]{1,34}", board["uid"])
    assert board["templating"]["list"][0]["name"] == "datasource"
    assert not {"rows", "__inputs", "sharedCrosshair"} & set(board)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    assert "null" not in re.sub(r'"[^"]*"', "", json.dumps(board))


@pytest.mark.parametrize("board", ALL, ids=lambda board: board["title"])
def test_panels_fill_the_width_and_never_overlap(board):
    taken = [
        (x, y)
        for spot in (panel["gridPos"] for panel in board["panels"])
        for x in range(spot["x"], spot["x"] + spot["w"])
        for y in range(spot["y"], spot["y"] + spot["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) == 23


def test_every_variable_that_a_query_uses_is_on_its_dashboard():
    for one in ALL:
        own = {variable["name"] for variable in one["templating"]["list"]}
        used = {name for _, _, expr in queries(one) for name in re.findall(r"\$([a-z_]\w*)", expr)}
        assert used <= own | {"__rate_interval"}
        assert used >= own - {"datasource"}


def test_queries_put_values_in_the_place_of_variables_and_leave_regex_groups_alone():
    panel = Panel(
        title="t",
        description="d",
        unit="s",
        queries=[Query(expr='a{b=~"$b|${b}_c"}[$__rate_interval] "$1"', legend="l"), Query(expr="d", legend="l")],
    )
    board = dashboard(title="t", uid="u", description="d", variables=[], panels=[panel])
    assert queries(board, {"b": "x", "__rate_interval": "1m"}) == [
        ("t", "A", 'a{b=~"x|x_c"}[1m] "$1"'),
        ("t", "B", "d"),
    ]
    with pytest.raises(KeyError, match="__rate_interval"):
        queries(board, {"b": "x"})


@pytest.mark.parametrize("form", ["json", "configmap"])
def test_the_same_dashboards_give_the_same_bytes(form):
    assert files(form=form) == files(form=form)


def test_a_json_file_holds_the_dashboard():
    assert {name: json.loads(text) for name, text in files().items()} == dashboards()


def test_a_config_map_holds_the_json_file_and_grafanas_label():
    plain = files()
    for name, text in files(form="configmap").items():
        assert text.startswith("# Generated by `pegel dashboards`.")
        document = yaml.safe_load(text)
        assert (document["apiVersion"], document["kind"]) == ("v1", "ConfigMap")
        assert document["metadata"]["labels"]["grafana_dashboard"] == "1"
        stem = name.removesuffix(".yaml")
        assert document["metadata"]["name"] == f"pegel-dashboard-{stem}"
        assert document["data"] == {f"{stem}.json": plain[f"{stem}.json"]}
