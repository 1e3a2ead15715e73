"""The ML Operations Dashboard: is the model fast, is the GPU busy, is it right, and is its data what it knows?"""

from typing import Any

from pegel_exporters.catalogue import (
    ACCURACY_DROP_EVIDENCE,
    ACCURACY_DROP_EVIDENCE_LIMIT,
    GPU_DUTY_CYCLE,
    GPU_UTILIZATION,
    INFERENCE_DURATION,
    INFERENCE_REQUESTS,
    MODEL_ACCURACY,
    MODEL_ACCURACY_ESTIMATED,
    MODEL_ACCURACY_ESTIMATED_ERROR,
    MODEL_ACCURACY_LABELS,
    MODEL_ACCURACY_LOWER,
    MODEL_ACCURACY_UPPER,
    Metric,
)

from pegel_dashboards.grafana import Panel, Query, dashboard
from pegel_dashboards.models import CHOSEN, MODEL, NAME, evidence, strongest_features, variables

FILE = "ml-operations.json"


def build() -> dict[str, Any]:
    """The dashboard as plain JSON data."""
    return dashboard(
        title="ML Operations Dashboard",
        uid="pegel-ml-operations",
        description="Latency, GPU utilisation, accuracy, drift and requests of the models that Pegel watches.",
        variables=variables(INFERENCE_REQUESTS),
        panels=(_latency(), _gpus(), _accuracy(), evidence(), strongest_features(), _requests(), _drop(), _expected()),
    )


def _latency() -> Panel:
    buckets = f"rate({INFERENCE_DURATION.name}_bucket{{{CHOSEN}}}[$__rate_interval])"
    return Panel(
        title="Model Inference Latency",
        description="95 of 100 requests are answered within this time, over all replicas: "
        "from the request's first byte to the answer's last.",
        unit="s",
        queries=(Query(expr=f"histogram_quantile(0.95, sum by ({MODEL}, le) ({buckets}))", legend=f"95 % of {NAME}"),),
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
        "interval and the threshold below which ModelAccuracyDrift warns. Replicas count by the labels that "
        "theirs rests on; one with too few is left out. The ends are means of the replicas' own, so the interval is "
        "wider than one over all rows would be.",
        unit="percentunit",
        least=None,
        most=1,
        queries=(
            Query(expr=_by_labels(MODEL_ACCURACY), legend=NAME),
            Query(expr=_by_labels(MODEL_ACCURACY_LOWER), legend=f"{NAME} at least", bound=True),
            Query(expr=_by_labels(MODEL_ACCURACY_UPPER), legend=f"{NAME} at most", bound=True),
            Query(expr=threshold, legend="threshold {{model_name}}", bound=True),
        ),
    )


def _by_labels(metric: Metric) -> str:
    """A replica's metric as its model's: the mean weighted by labels, as the rule of ModelAccuracyDrift has it.

    A replica without enough labels has no accuracy.
    """
    labels = f"{MODEL_ACCURACY_LABELS.name}{{{CHOSEN}}}"
    return f"sum by ({MODEL}) ({metric.name}{{{CHOSEN}}} * {labels}) / sum by ({MODEL}) ({labels})"


def _expected() -> Panel:
    return Panel(
        title="Accuracy Expected without Labels",
        description="Accuracy to expect of the latest predictions by their scores, with twice its standard error "
        "either side. It comes long before labels do, and cannot see that scores have come to mean something else.",
        unit="percentunit",
        least=None,
        most=1,
        queries=(
            Query(expr=_expected_and(0), legend=NAME),
            Query(expr=_expected_and(-2), legend=f"{NAME} at least", bound=True),
            Query(expr=_expected_and(2), legend=f"{NAME} at most", bound=True),
        ),
    )


def _expected_and(errors: int) -> str:
    """The mean of the replicas' expected accuracy and so many of its standard errors, which they share: it is that of
    the one reference."""
    error = f" + {errors} * {MODEL_ACCURACY_ESTIMATED_ERROR.name}{{{CHOSEN}}}" if errors else ""
    return f"avg by ({MODEL}) ({MODEL_ACCURACY_ESTIMATED.name}{{{CHOSEN}}}{error})"


def _drop() -> Panel:
    return Panel(
        title="Accuracy Drop: Evidence",
        description="Evidence that the model errs more often than on its reference, averaged over replicas, in powers "
        "of ten; 0 is none. ModelAccuracyDrop fires at the limit and ends at half of it.",
        unit="none",
        queries=(
            Query(
                expr=f"clamp_min(log10(avg by ({MODEL}) (10 ^ {ACCURACY_DROP_EVIDENCE.name}{{{CHOSEN}}})), 0)",
                legend=NAME,
            ),
            Query(
                expr=f"max by ({MODEL}) ({ACCURACY_DROP_EVIDENCE_LIMIT.name}{{{CHOSEN}}})",
                legend=f"limit of {NAME}",
                bound=True,
            ),
        ),
    )


def _requests() -> Panel:
    return Panel(
        title="Requests by Code",
        description="Requests answered per second, by status code.",
        unit="reqps",
        stacked=True,
        queries=(
            Query(
                expr=f"sum by (code) (rate({INFERENCE_REQUESTS.name}{{{CHOSEN}}}[$__rate_interval]))",
                legend="{{code}}",
            ),
        ),
    )
