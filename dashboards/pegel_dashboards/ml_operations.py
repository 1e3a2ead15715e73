"""The ML Operations Dashboard: is the model fast, is the GPU busy, is it right, and is its data what it knows?"""

from typing import Any

from pegel_exporters.catalogue import (
    DRIFT_EVIDENCE,
    DRIFT_EVIDENCE_LIMIT,
    FEATURE_DRIFT_EVIDENCE,
    GPU_DUTY_CYCLE,
    GPU_UTILIZATION,
    INFERENCE_DURATION,
    INFERENCE_REQUESTS,
    JUDGED_LABELS,
    LABELS,
    MODEL_ACCURACY,
    MODEL_ACCURACY_LOWER,
    MODEL_ACCURACY_UPPER,
    MODEL_QUALITY_STATE,
    Metric,
)

from pegel_dashboards.grafana import Panel, Query, Variable, dashboard

FILE = "ml-operations.json"

_CHOSEN = 'namespace=~"$namespace",model_name=~"$model_name"'
_MODEL = "cluster, namespace, model_name, model_version"
_NAME = "{{model_name}} {{model_version}} {{namespace}}"


def build() -> dict[str, Any]:
    """The dashboard as plain JSON data."""
    return dashboard(
        title="ML Operations Dashboard",
        uid="pegel-ml-operations",
        description="Latency, GPU utilisation, accuracy, drift and requests of the models that Pegel watches.",
        variables=(
            Variable(name="namespace", label="Namespace", query=f"label_values({INFERENCE_REQUESTS.name}, namespace)"),
            Variable(
                name="model_name",
                label="Model",
                query=f'label_values({INFERENCE_REQUESTS.name}{{namespace=~"$namespace"}}, model_name)',
            ),
        ),
        panels=(_latency(), _gpus(), _accuracy(), _evidence(), _features(), _requests()),
    )


def _latency() -> Panel:
    buckets = f"rate({INFERENCE_DURATION.name}_bucket{{{_CHOSEN}}}[$__rate_interval])"
    return Panel(
        title="Model Inference Latency",
        description="95 of 100 requests are answered within this time, over all replicas: "
        "from the request's first byte to the answer's last.",
        unit="s",
        queries=(
            Query(expr=f"histogram_quantile(0.95, sum by ({_MODEL}, le) ({buckets}))", legend=f"95 % of {_NAME}"),
        ),
    )


def _gpus() -> Panel:
    # An exporter that only knows the older name counts in percent and numbers GPUs by minor number.
    older = f'label_replace({GPU_DUTY_CYCLE.name} / 100, "gpu", "$1", "minor_number", "(.+)")'
    return Panel(
        title="GPU Utilization",
        description="Share of the time in which the GPU ran anything at all. A GPU can be busy and yet far from its "
        "full power.",
        unit="percentunit",
        most=1,
        queries=(
            Query(
                expr=f"max by (instance, gpu) ({GPU_UTILIZATION.name} or on (instance, uuid) {older})",
                legend="GPU {{gpu}} {{instance}}",
            ),
        ),
    )


def _accuracy() -> Panel:
    threshold = 'max by (model_name) (pegel_threshold{alert="ModelAccuracyDrift",model_name=~"|$model_name"})'
    return Panel(
        title="Model Accuracy Drift",
        description="Share of the recently labelled rows that each version predicted right, with the ends of its 95 % "
        "interval and the threshold below which ModelAccuracyDrift warns. Replicas count by the labels they have "
        "matched; one with too few labels is left out. The ends are means of the replicas' own, so the interval is "
        "wider than one over all rows would be.",
        unit="percentunit",
        least=None,
        most=1,
        queries=(
            Query(expr=_by_labels(MODEL_ACCURACY), legend=_NAME),
            Query(expr=_by_labels(MODEL_ACCURACY_LOWER), legend=f"{_NAME} at least", bound=True),
            Query(expr=_by_labels(MODEL_ACCURACY_UPPER), legend=f"{_NAME} at most", bound=True),
            Query(expr=threshold, legend="threshold {{model_name}}", bound=True),
        ),
    )


def _by_labels(metric: Metric) -> str:
    """A replica's metric as its model's: the mean weighted by matched labels, as the rule of ModelAccuracyDrift has it.

    Replicas without enough labels are left out.
    """
    enough = f'{MODEL_QUALITY_STATE.name}{{state="ok",{_CHOSEN}}} == 1'
    matched = f'clamp_max({LABELS.name}{{outcome="matched",{_CHOSEN}}}, {JUDGED_LABELS})'
    return (
        f"sum by ({_MODEL}) (({metric.name}{{{_CHOSEN}}} and ignoring (state) {enough}) "
        f"* ignoring (outcome) {matched}) "
        f"/ sum by ({_MODEL}) ({matched} and ignoring (outcome, state) {enough})"
    )


def _evidence() -> Panel:
    return Panel(
        title="Data Drift: Evidence",
        description="Evidence that the model's data has drifted from its reference, averaged over replicas, in powers "
        "of ten; 0 is none. DataDriftDetected fires at the limit and ends at half of it. The limit keeps the "
        "false-alarm budget.",
        unit="none",
        queries=(
            Query(
                expr=f"clamp_min(log10(avg by ({_MODEL}) (10 ^ {DRIFT_EVIDENCE.name}{{{_CHOSEN}}})), 0)",
                legend=_NAME,
            ),
            Query(
                expr=f"max by ({_MODEL}) ({DRIFT_EVIDENCE_LIMIT.name}{{{_CHOSEN}}})",
                legend=f"limit of {_NAME}",
                bound=True,
            ),
        ),
    )


def _features() -> Panel:
    evidence = f"avg by ({_MODEL}, feature) (10 ^ {FEATURE_DRIFT_EVIDENCE.name}{{{_CHOSEN}}})"
    return Panel(
        title="Data Drift: Strongest Features",
        description="The ten features with the strongest evidence of drift, averaged over replicas, in powers of ten; "
        "0 is none.",
        unit="none",
        queries=(Query(expr=f"topk(10, clamp_min(log10({evidence}), 0))", legend=f"{{{{feature}}}} of {_NAME}"),),
    )


def _requests() -> Panel:
    return Panel(
        title="Requests by Code",
        description="Requests answered per second, by status code.",
        unit="reqps",
        stacked=True,
        queries=(
            Query(
                expr=f"sum by (code) (rate({INFERENCE_REQUESTS.name}{{{_CHOSEN}}}[$__rate_interval]))",
                legend="{{code}}",
            ),
        ),
    )
