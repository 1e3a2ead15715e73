"""A model that is right less often than it should be."""

from pegel_exporters.catalogue import JUDGED_LABELS, LABELS, MODEL_ACCURACY, MODEL_QUALITY_STATE

from pegel_rules.model import Alert, Group, Record, Settings
from pegel_rules.promql import BY_MODEL, MODEL_WORDS, beyond_threshold, recorded
from pegel_rules.thresholds import ACCURACY_ALERT

ACCURACY = recorded(MODEL_ACCURACY, "avg")

_ENOUGH = f'{MODEL_QUALITY_STATE.name}{{state="ok"}} == 1'
_MATCHED = f'clamp_max({LABELS.name}{{outcome="matched"}}, {JUDGED_LABELS})'


def group(settings: Settings) -> Group:
    """Accuracy per model, and the alert on it.

    Replicas without enough labels are left out. The others count by the labels that their accuracy rests on: else
    a replica with fifty labels would weigh as much as one with hundreds.
    """
    return Group(
        name="pegel-accuracy",
        rules=(
            Record(
                name=ACCURACY,
                expr=f"""\
sum {BY_MODEL} (
  ({MODEL_ACCURACY.name} and ignoring (state) {_ENOUGH})
  * ignoring (outcome) {_MATCHED}
)
/
sum {BY_MODEL} (
  {_MATCHED} and ignoring (outcome, state) {_ENOUGH}
)""",
            ),
            Alert(
                name=ACCURACY_ALERT,
                expr=beyond_threshold(ACCURACY, "<", alert=ACCURACY_ALERT),
                wait=settings.duration(300),
                severity="warning",
                summary="Model accuracy below its threshold",
                description=(
                    f"{MODEL_WORDS} is right in {{{{ $value | humanizePercentage }}}} of the recently labelled rows, "
                    "less than its threshold."
                ),
            ),
        ),
    )
