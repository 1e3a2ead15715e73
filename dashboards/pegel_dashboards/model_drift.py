"""The Model Drift dashboard: which feature has moved, how far beyond chance, and which of its bins."""

from typing import Any

from pegel_exporters.catalogue import FEATURE_ROWS, REFERENCE_INFO

from pegel_dashboards.grafana import Panel, Query, Variable, dashboard
from pegel_dashboards.models import CHOSEN, MODEL, NAME, evidence, strongest_features, variables

FILE = "model-drift.json"

_OF_FEATURE = f'{CHOSEN},feature=~"$feature",window=~"$window"'
_FEATURE_NAME = "{{feature}} over {{window}} of " + NAME

_PSI = "namespace_feature:ml_feature_drift:psi"
_LIMIT = "namespace_feature:ml_feature_drift_limit:psi"


def build() -> dict[str, Any]:
    """The dashboard as plain JSON data."""
    return dashboard(
        title="Model Drift",
        uid="pegel-model-drift",
        description="How far each model's data is from its reference, over all replicas and four windows.",
        variables=(
            *variables(FEATURE_ROWS),
            Variable(
                name="feature",
                label="Feature",
                query=f"label_values({FEATURE_ROWS.name}{{{CHOSEN}}}, feature)",
                several=False,
            ),
            Variable(name="window", label="Window", query=f"label_values({_PSI}{{{CHOSEN}}}, window)"),
        ),
        panels=(
            _furthest(), _beside_limit(), _bins(), _distances(), evidence(), strongest_features(), _rows(), _replicas(),
        ),
    )  # fmt: skip


def _recorded(name: str, chosen: str = _OF_FEATURE) -> str:
    """What a rule records every five minutes, which is as long as a plain selector looks back."""
    return f"last_over_time({name}{{{chosen}}}[10m])"


def _furthest() -> Panel:
    every = f'{CHOSEN},window=~"$window"'
    return Panel(
        title="Furthest beyond Their Limit",
        description="PSI over its limit of the ten features and windows where it is largest, over all replicas. "
        "DataDriftFleet fires above 1 and ends at 0.8. A window with fewer than 20 rows for each of a feature's bins "
        "is left out.",
        unit="none",
        queries=(Query(expr=f"topk(10, {_recorded(_PSI, every)} / {_recorded(_LIMIT, every)})", legend=_FEATURE_NAME),),
    )


def _beside_limit() -> Panel:
    return Panel(
        title="PSI beside Its Limit",
        description="PSI of the chosen feature over all replicas, and what it stays below without drift: the more rows "
        "a window has, the lower.",
        unit="none",
        queries=(
            Query(expr=_recorded(_PSI), legend=_FEATURE_NAME),
            Query(expr=_recorded(_LIMIT), legend=f"limit of {_FEATURE_NAME}", bound=True),
        ),
    )


def _bins() -> Panel:
    of_bin = f"avg by ({MODEL}, feature, reference, bin)"  # one for all windows, but for hours of the day
    reference = _recorded("namespace_bin:ml_feature_reference_rows:share", f'{CHOSEN},feature=~"$feature"')
    return Panel(
        title="Share of Each Bin",
        description="Where the rows of the chosen feature fall, over all replicas, beside the reference's shares.",
        unit="percentunit",
        queries=(
            Query(expr=_recorded("namespace_bin:ml_feature_rows:share"), legend=f"{{{{bin}}}}, {_FEATURE_NAME}"),
            Query(
                expr=f"{of_bin} ({reference})",
                legend=f"{{{{bin}}}} in the reference, {{{{feature}}}} of {NAME}",
                bound=True,
            ),
        ),
    )


def _distances() -> Panel:
    return Panel(
        title="Distance from the Reference",
        description="Jensen–Shannon distance and total variation of the chosen feature, 0 to 1, over all "
        "replicas. Neither is zero without drift: chance alone moves rows between bins.",
        unit="percentunit",
        queries=(
            Query(expr=_recorded("namespace_feature:ml_feature_drift:js"), legend=f"JS of {_FEATURE_NAME}"),
            Query(
                expr=_recorded("namespace_feature:ml_feature_drift:tvd"), legend=f"total variation of {_FEATURE_NAME}"
            ),
        ),
    )


def _rows() -> Panel:
    return Panel(
        title="Rows in the Windows",
        description="Rows of the chosen feature over all replicas. A window that has too few to be judged isn't shown.",
        unit="short",
        queries=(Query(expr=_recorded("namespace_feature:ml_feature_rows:sum"), legend=_FEATURE_NAME),),
    )


def _replicas() -> Panel:
    return Panel(
        title="Replicas by Reference",
        description="How many replicas compare with which reference. Two at once are a rollout; a learned one is a "
        "replica's own, and has no part in what is shown above over all replicas.",
        unit="short",
        stacked=True,
        queries=(
            Query(
                expr=f"count by ({MODEL}, reference, source) ({REFERENCE_INFO.name}{{{CHOSEN}}})",
                legend=f"{{{{reference}}}} ({{{{source}}}}) of {NAME}",
            ),
        ),
    )
