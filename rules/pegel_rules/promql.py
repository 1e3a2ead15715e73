"""The PromQL that groups share."""

from typing import Literal

from pegel_exporters.catalogue import Metric

THRESHOLD = "pegel_threshold"
"""What operators tune: `pegel_threshold{alert}` for all models, with `model_name` for one."""

MODEL_LABELS = "cluster, namespace, model_name, model_version"
BY_MODEL = f"by ({MODEL_LABELS})"

MODEL_WORDS = (
    "{{ $labels.model_name }} {{ $labels.model_version }}{{ with $labels.namespace }} in namespace {{ . }}{{ end }}"
)
"""How an annotation names the model."""


def recorded(metric: Metric, operation: str, *, level: Literal["model", "feature", "bin"] = "model") -> str:
    """The name of a metric that a rule has brought from replicas to models, their features or these' bins."""
    return f"namespace_{level}:{metric.name.removesuffix('_total')}:{operation}"


def beyond_threshold(values: str, comparison: Literal["<", ">"], *, alert: str) -> str:
    """Those of `values` (a name or a bracketed expression, one series per model) beyond their model's threshold.

    A threshold with the model's name wins over the one without. `max` picks one where several say the same thing,
    which would otherwise fail the rule for every model.
    """
    own = f'{THRESHOLD}{{alert="{alert}",model_name!=""}}'
    default = f'{THRESHOLD}{{alert="{alert}",model_name=""}}'
    return f"""\
{values}
  {comparison} on (model_name) group_left () max by (model_name) ({own})
or
({values} unless on (model_name) {own})
  {comparison} on () group_left () max ({default})"""
