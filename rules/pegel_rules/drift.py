"""A model whose data no longer looks like its reference."""

from pegel_exporters.catalogue import (
    DATA_DRIFT_SCORE,
    DRIFT_EVIDENCE,
    DRIFT_EVIDENCE_LIMIT,
    FEATURE_DRIFT_EVIDENCE,
)

from pegel_rules.model import Alert, Group, Record, Settings
from pegel_rules.promql import (
    BY_MODEL,
    MODEL_LABELS,
    MODEL_WORDS,
    query,
    recorded,
    resolved_threshold,
    threshold_of_models,
)
from pegel_rules.thresholds import BROAD_ALERT, RISING_ALERT

DETECTED_ALERT = "DataDriftDetected"

EVIDENCE = recorded(DRIFT_EVIDENCE, "avg")
LIMIT = recorded(DRIFT_EVIDENCE_LIMIT, "max")
SCORE = recorded(DATA_DRIFT_SCORE, "avg")
RISE = recorded(DATA_DRIFT_SCORE, "rise1h")

_STRONGEST_FEATURE = (
    f"{{{{ with {query(f'topk(1, avg by (feature) (10 ^ {FEATURE_DRIFT_EVIDENCE.name}{{*}}))', MODEL_LABELS)} }}}}"
    " The strongest evidence is in feature {{ . | first | label `feature` }}.{{ end }}"
)


def group(settings: Settings) -> Group:
    """Evidence and score per model, and the alerts on them.

    An average of the replicas' evidence keeps the false-alarm budget whatever their number, because the average of
    e-processes is one. Evidence is published as log10 and averaged as it is.
    """
    recent, earlier = settings.duration(600), settings.duration(3_600)
    return Group(
        name="pegel-drift",
        rules=(
            Record(name=EVIDENCE, expr=f"log10(avg {BY_MODEL} (10 ^ {DRIFT_EVIDENCE.name}))"),
            Record(name=LIMIT, expr=f"max {BY_MODEL} ({DRIFT_EVIDENCE_LIMIT.name})"),
            Record(name=SCORE, expr=f"avg {BY_MODEL} ({DATA_DRIFT_SCORE.name})"),
            Record(
                name=RISE, expr=f"avg_over_time({SCORE}[{recent}]) - avg_over_time({SCORE}[{recent}] offset {earlier})"
            ),
            *(resolved_threshold(SCORE, alert=alert) for alert in (RISING_ALERT, BROAD_ALERT)),
            Alert(
                name=DETECTED_ALERT,
                # Starts at the limit and ends at half of it, as the detector itself does.
                expr=f"""\
{EVIDENCE} > {LIMIT}
or
{EVIDENCE} > {LIMIT} / 2
  and on ({MODEL_LABELS}) ALERTS{{alertname="{DETECTED_ALERT}",alertstate="firing"}}""",
                # The evidence has waited already; this is for a rollout whose first replica is scraped alone.
                wait=settings.duration(60),
                severity="critical",
                summary="The model's data has drifted from its reference",
                description=(
                    f"The data of {MODEL_WORDS} no longer looks like the reference: "
                    'the evidence, averaged over its replicas, is 10^{{ $value | printf "%.1f" }}.'
                    f"{_STRONGEST_FEATURE}"
                ),
            ),
            Alert(
                name=RISING_ALERT,
                expr=f"{RISE} > {threshold_of_models(RISING_ALERT)}",
                wait=settings.duration(300),
                severity="warning",
                summary="More and more features drift",
                description=(
                    f"The share of the features of {MODEL_WORDS} that are in drift has risen by "
                    f'{{{{ $value | printf "%.2f" }}}} within {earlier}.{_STRONGEST_FEATURE}'
                ),
            ),
            Alert(
                name=BROAD_ALERT,
                expr=f"{SCORE} > {threshold_of_models(BROAD_ALERT)}",
                wait=settings.duration(600),
                severity="warning",
                summary="Much of the model's data has drifted",
                description=(
                    f"{{{{ $value | humanizePercentage }}}} of the features of {MODEL_WORDS} are in drift."
                    f"{_STRONGEST_FEATURE}"
                ),
            ),
        ),
    )
