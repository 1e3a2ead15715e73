"""The PromQL that groups share."""

from typing import Literal

from pegel_exporters.catalogue import Metric

from pegel_rules.model import Record, Settings

THRESHOLD = "pegel_threshold"
"""What operators tune: `pegel_threshold{alert}` for all models, with `model_name` for one."""

MODEL_LABELS = "cluster, namespace, model_name, model_version"
BY_MODEL = f"by ({MODEL_LABELS})"
REPLICA_LABELS = "cluster, namespace, pod, instance"
"""What tells a sidecar, and its target, from all others; not the job, by which it may be scraped a second time."""
NODE_LABELS = "cluster, namespace, node, instance"
"""What tells a GPU exporter from all others, of whichever cluster, pod and job; its pod changes with every rollout."""
GPU_LABELS = f"{NODE_LABELS}, gpu, uuid"
BY_NODE, BY_GPU = f"by ({NODE_LABELS})", f"by ({GPU_LABELS})"

MODEL_WORDS = (
    "{{ $labels.model_name }} {{ $labels.model_version }}{{ with $labels.namespace }} in namespace {{ . }}{{ end }}"
)
"""How an annotation names the model."""


def recorded(
    metric: Metric, operation: str, *, level: Literal["model", "feature", "bin", "replica", "gpu", "node"] = "model"
) -> str:
    """The name of a metric that a rule has brought together for a model, a feature, its bin, a GPU or a node."""
    return f"namespace_{level}:{metric.name.removesuffix('_total')}:{operation}"


def threshold_of_models(alert: str) -> str:
    """The name of an alert's threshold as it holds for each model."""
    return f"namespace_model:{THRESHOLD}:{alert}"


def resolved_threshold(values: str, *, alert: str) -> Record:
    """An alert's threshold for each of `values` (a name or a bracketed expression, one series per model).

    A threshold with the model's name wins over one without, and one of the model's cluster over one without a cluster,
    as a ruler over several clusters has it of its own. Another cluster's never counts. `max` picks one where several
    say the same thing, which would otherwise fail the rule for every model.
    """
    own, default = (f'{THRESHOLD}{{alert="{alert}",model_name{test}""' for test in ("!=", "="))
    candidates = (
        ("cluster, model_name", own + "}"),
        ("model_name", own + ',cluster=""}'),
        ("cluster", default + "}"),
        ("", default + ',cluster=""}'),
    )
    return Record(
        name=threshold_of_models(alert),
        expr="\nor\n".join(
            f"0 * {values} + on ({labels}) group_left () max by ({labels}) ({threshold})"
            for labels, threshold in candidates
        ),
    )


def known_targets(name: str, published: str, *, labels: str, on: str, settings: Settings) -> Record:
    """The scraped targets that have said what they are, for as long as Prometheus goes on trying to scrape them.

    `published` is the series by which a target of ours tells itself from others, whatever its job is called, and
    `labels` are all that is kept of it. What was known is known on, however long ago the target answered last, while
    there is an `up` that matches `on` these labels; a target that is gone has none.
    """
    return Record(
        name=name,
        expr=f"""\
group by ({labels}) ({published})
or on ({on})
(last_over_time({name}[{settings.duration(3_600)}]) and on ({on}) up)""",
    )


def of_each_replica(labels: str, expression: str) -> str:
    """What each replica says, once, however often it is scraped."""
    return f"max by ({labels}, pod, instance) ({expression})"


def query(expression: str, labels: str) -> str:
    """What begins a template's `with` or `range` over the series of an expression, in which the * of a selector stands
    for the alert's own `labels`."""
    names = labels.split(", ")
    selector = ",".join(f"{name}=%q" for name in names)
    values = " ".join(f"$labels.{name}" for name in names) + " "
    return f"printf `{expression.replace('{*', '{' + selector)}` {values * expression.count('{*')}| query"
