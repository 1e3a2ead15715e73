"""What grafanalib 0.7.1 lacks for a Grafana of today, in one place.

It writes schema version 12, no refIds, a string for a data source, and 100 data points a panel at most. Panels are
made with it, then mended: schema version 39 (classic JSON), refIds A, B, …, the data source of the dashboard's
variable, choices that begin with "All" as Grafana means it, and no field that says nothing.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from grafanalib import core

LONGEST_SCRAPE_INTERVAL = "1m"
"""Grafana takes a rate over four scrapes as the data source is set, which is 15 s by default: where Prometheus scrapes
once a minute such a rate has no value."""
SCHEMA_VERSION = 39
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

_COLUMNS, _HEIGHT = 2, 9
_WIDTH = 24 // _COLUMNS


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A PromQL expression and the name of its lines. `bound` draws them dashed: not a measurement but a limit."""

    expr: str
    legend: str
    bound: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Lines over time. `unit` is one of Grafana's; `least` and `most` are the axis' ends, None what the data has."""

    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    least: float | None = 0
    most: float | None = None
    stacked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A choice of label values above the dashboard. `query` is Grafana's `label_values(…)`.

    `several` may be chosen at once, and are all of them at first; else it is one, at first the first.
    """

    name: str
    label: str
    query: str
    several: bool = True


def dashboard(
    *, title: str, uid: str, description: str, variables: Sequence[Variable], panels: Sequence[Panel]
) -> dict[str, Any]:
    """A dashboard as plain JSON data, panels two in a row."""
    made = core.Dashboard(
        title=title,
        uid=uid,
        description=description,
        tags=["pegel"],
        timezone="browser",
        time=core.Time("now-6h", "now"),
        refresh="30s",
        graphTooltip=core.GRAPH_TOOLTIP_MODE_SHARED_CROSSHAIR,
        schemaVersion=SCHEMA_VERSION,
        templating=core.Templating(list=[_datasource(), *map(_variable, variables)]),
        panels=[_panel(panel, position) for position, panel in enumerate(panels)],
    ).auto_panel_ids()
    data = json.loads(json.dumps(made.to_json_data(), default=lambda part: part.to_json_data()))
    for old in ("__inputs", "hideControls", "rows", "sharedCrosshair", "style", "gnetId"):
        del data[old]
    for choice in data["templating"]["list"]:
        choice["current"] = {"text": ["All"], "value": ["$__all"]} if choice["includeAll"] else {}
    for panel in data["panels"]:
        del panel["maxDataPoints"]
        for target in panel["targets"]:
            for old in ("intervalFactor", "metric", "query", "step", "target"):
                del target[old]
    cleaned = _said(data)
    assert isinstance(cleaned, dict)
    return cleaned


def _datasource() -> Any:
    return core.Template(name="datasource", label="Data source", type="datasource", query="prometheus")


def _variable(variable: Variable) -> Any:
    # `.*` also finds series without the label, as on a machine outside Kubernetes.
    return core.Template(
        name=variable.name, label=variable.label, type="query", query=variable.query, dataSource=DATASOURCE,
        includeAll=variable.several, multi=variable.several, allValue=".*" if variable.several else None,
        refresh=core.REFRESH_ON_TIME_RANGE_CHANGE,
    )  # fmt: skip


def _panel(panel: Panel, position: int) -> Any:
    row, column = divmod(position, _COLUMNS)
    ids = dict(zip(ascii_uppercase, panel.queries, strict=False))
    return core.TimeSeries(
        title=panel.title,
        description=panel.description,
        dataSource=DATASOURCE,
        gridPos=core.GridPos(h=_HEIGHT, w=_WIDTH, x=column * _WIDTH, y=row * _HEIGHT),
        unit=panel.unit,
        valueMin=panel.least,
        valueMax=panel.most,
        showPoints="never",
        fillOpacity=30 if panel.stacked else 0,
        stacking={"mode": "normal", "group": "A"} if panel.stacked else {"mode": "none", "group": "A"},
        tooltipMode="multi",
        tooltipSort="desc",
        targets=[
            core.Target(
                refId=ref,
                expr=query.expr,
                legendFormat=query.legend,
                datasource=DATASOURCE,
                interval=LONGEST_SCRAPE_INTERVAL if "$__rate_interval" in query.expr else "",
            )
            for ref, query in ids.items()
        ],
        overrides=[_dashed(ref) for ref, query in ids.items() if query.bound],
    )


def _dashed(ref: str) -> dict[str, Any]:
    return {
        "matcher": {"id": "byFrameRefID", "options": ref},
        "properties": [{"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [10, 10]}}],
    }


def _said(value: Any) -> Any:
    """The same JSON value without the fields that are null."""
    if isinstance(value, dict):
        return {key: _said(inner) for key, inner in value.items() if inner is not None}
    return [_said(inner) for inner in value] if isinstance(value, list) else value
