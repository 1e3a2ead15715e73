"""A model that is right less often than it should be, or than it was on its reference."""

from pegel_exporters.catalogue import (
    ACCURACY_DROP_EVIDENCE,
    ACCURACY_DROP_EVIDENCE_LIMIT,
    LABELS,
    MODEL_ACCURACY,
    MODEL_ACCURACY_ESTIMATED,
    MODEL_ACCURACY_LABELS,
)

from pegel_rules.model import Alert, Group, Record, Settings
from pegel_rules.promql import (
    BY_MODEL,
    MODEL_LABELS,
    MODEL_WORDS,
    of_each_replica,
    query,
    recorded,
    resolved_threshold,
    threshold_of_models,
)
from pegel_rules.thresholds import ACCURACY_ALERT

DROP_ALERT = "ModelAccuracyDrop"

ACCURACY = recorded(MODEL_ACCURACY, "avg")
JUDGED = recorded(MODEL_ACCURACY_LABELS, "sum")
UPPER = recorded(MODEL_ACCURACY, "wilson_upper")
ESTIMATED = recorded(MODEL_ACCURACY_ESTIMATED, "avg")
EVIDENCE = recorded(ACCURACY_DROP_EVIDENCE, "avg")
LIMIT = recorded(ACCURACY_DROP_EVIDENCE_LIMIT, "max")
NEW_LABELS = recorded(LABELS, "increase2d")

_Z = 1.96
"""Of the 95 % interval by Wilson (1927)."""
_NEWS_SECONDS = 2 * 86_400
"""Labels that come once a night may be late one morning."""

_ACCURACY_NOW = (
    f"{{{{ with {query(ACCURACY + '{*}', MODEL_LABELS)} }}}}"
    " It is right in {{ . | first | value | humanizePercentage }} of the recently labelled rows.{{ end }}"
)


def group(settings: Settings) -> Group:
    """Accuracy and the evidence of its drop per model, and the alerts on them.

    Replicas count by the labels that their accuracy rests on: else one with fifty labels would weigh as much as one
    with hundreds; one with too few has no accuracy. Evidence is averaged, which keeps the budget of false alarms
    whatever the number of replicas. Where labels no longer come, what earlier ones said is no news.
    """
    return Group(
        name="pegel-accuracy",
        rules=(
            Record(name=JUDGED, expr=f"sum {BY_MODEL} ({of_each_replica(MODEL_LABELS, MODEL_ACCURACY_LABELS.name)})"),
            Record(
                name=ACCURACY,
                expr=f"""\
sum {BY_MODEL} ({of_each_replica(MODEL_LABELS, f"{MODEL_ACCURACY.name} * {MODEL_ACCURACY_LABELS.name}")})
/
{JUDGED}""",
            ),
            resolved_threshold(ACCURACY, alert=ACCURACY_ALERT),
            Record(
                name=UPPER,
                expr=f"""\
(
  {ACCURACY} + {_Z**2 / 2:.6g} / {JUDGED}
  + {_Z:g} * sqrt({ACCURACY} * (1 - {ACCURACY}) / {JUDGED} + {_Z**2 / 4:.6g} / {JUDGED} ^ 2)
)
/ (1 + {_Z**2:.6g} / {JUDGED})""",
            ),
            Record(name=ESTIMATED, expr=f"avg {BY_MODEL} ({MODEL_ACCURACY_ESTIMATED.name})"),
            Record(name=EVIDENCE, expr=f"log10(avg {BY_MODEL} (10 ^ {ACCURACY_DROP_EVIDENCE.name}))"),
            Record(name=LIMIT, expr=f"max {BY_MODEL} ({ACCURACY_DROP_EVIDENCE_LIMIT.name})"),
            Record(
                name=NEW_LABELS,
                expr=f"""\
sum {BY_MODEL} (increase({LABELS.name}{{outcome="matched"}}[{settings.duration(_NEWS_SECONDS)}]))""",
            ),
            Alert(
                name=ACCURACY_ALERT,
                # Starts when chance doesn't explain it, at the upper end of the interval, and ends at the value itself:
                # accuracy that lies at its threshold would start and end it all day long.
                expr=_while_labels_come(
                    f"""\
{ACCURACY} < {threshold_of_models(ACCURACY_ALERT)}
  and {UPPER} < {threshold_of_models(ACCURACY_ALERT)}
or
{ACCURACY} < {threshold_of_models(ACCURACY_ALERT)}
  and on ({MODEL_LABELS}) ALERTS{{alertname="{ACCURACY_ALERT}",alertstate="firing"}}"""
                ),
                wait=settings.duration(300),
                severity="warning",
                summary="Model accuracy below its threshold",
                description=(
                    f"{MODEL_WORDS} is right less often than its threshold asks for, by more than chance explains."
                    f"{_ACCURACY_NOW}"
                ),
            ),
            Alert(
                name=DROP_ALERT,
                # Starts at the limit and ends at half of it, as the detector itself does.
                expr=_while_labels_come(
                    f"""\
{EVIDENCE} > {LIMIT}
or
{EVIDENCE} > {LIMIT} / 2
  and on ({MODEL_LABELS}) ALERTS{{alertname="{DROP_ALERT}",alertstate="firing"}}"""
                ),
                # The evidence has waited already; this is for a rollout whose first replica is scraped alone.
                wait=settings.duration(60),
                severity="critical",
                summary="The model is right less often than on its reference",
                description=(
                    f"{MODEL_WORDS} errs more often than it did on its reference: "
                    'the evidence, averaged over its replicas, is 10^{{ $value | printf "%.1f" }}.'
                    f"{_ACCURACY_NOW}"
                ),
            ),
        ),
    )


def _while_labels_come(expr: str) -> str:
    return f"(\n{expr}\n)\nand on ({MODEL_LABELS}) {NEW_LABELS} > 0"
