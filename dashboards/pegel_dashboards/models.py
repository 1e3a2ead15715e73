"""What dashboards of models share: how a model is chosen and named, and the panels that several show."""

from pegel_exporters.catalogue import DRIFT_EVIDENCE, DRIFT_EVIDENCE_LIMIT, FEATURE_DRIFT_EVIDENCE, Metric

from pegel_dashboards.grafana import Panel, Query, Variable

CHOSEN = 'namespace=~"$namespace",model_name=~"$model_name"'
MODEL = "cluster, namespace, model_name, model_version"
NAME = "{{model_name}} {{model_version}} {{namespace}}"


def variables(metric: Metric) -> tuple[Variable, ...]:
    """The namespaces and models that have this metric, to choose from."""
    return (
        Variable(name="namespace", label="Namespace", query=f"label_values({metric.name}, namespace)"),
        Variable(
            name="model_name",
            label="Model",
            query=f'label_values({metric.name}{{namespace=~"$namespace"}}, model_name)',
        ),
    )


def evidence() -> Panel:
    """The replicas' averaged evidence beside its limit."""
    return Panel(
        title="Data Drift: Evidence",
        description="Evidence that the model's data has drifted from its reference, averaged over replicas, in powers "
        "of ten; 0 is none. DataDriftDetected fires at the limit and ends at half of it. The limit keeps the "
        "false-alarm budget.",
        unit="none",
        queries=(
            Query(
                expr=f"clamp_min(log10(avg by ({MODEL}) (10 ^ {DRIFT_EVIDENCE.name}{{{CHOSEN}}})), 0)",
                legend=NAME,
            ),
            Query(
                expr=f"max by ({MODEL}) ({DRIFT_EVIDENCE_LIMIT.name}{{{CHOSEN}}})",
                legend=f"limit of {NAME}",
                bound=True,
            ),
        ),
    )


def strongest_features() -> Panel:
    """The features with the strongest evidence."""
    average = f"avg by ({MODEL}, feature) (10 ^ {FEATURE_DRIFT_EVIDENCE.name}{{{CHOSEN}}})"
    return Panel(
        title="Data Drift: Strongest Features",
        description="The ten features with the strongest evidence of drift, averaged over replicas, in powers of ten; "
        "0 is none.",
        unit="none",
        queries=(Query(expr=f"topk(10, clamp_min(log10({average}), 0))", legend=f"{{{{feature}}}} of {NAME}"),),
    )
