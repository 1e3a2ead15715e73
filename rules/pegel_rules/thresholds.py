"""What operators tune, as series: the alerts compare with these, so no rule has to be edited.

One file of its own, so that an installation can put its own in its place. A model's own threshold is one more series
of this name, with its `model_name`.
"""

from pegel_rules.model import Group, Record, Settings
from pegel_rules.promql import THRESHOLD

ACCURACY_ALERT = "ModelAccuracyDrift"
RISING_ALERT = "DataDriftRising"
BROAD_ALERT = "DataDriftBroad"
FLEET_ALERT = "DataDriftFleet"

RISING_CHANGE = 0.3
BROAD_SHARE = 0.5
FALSE_ALARMS = 1.0
"""In 30 days, of DataDriftDetected, DataDriftFleet, ModelAccuracyDrop and prediction drift of a model together. Alerts
that compare with the other thresholds here (accuracy, rising, broad) have no budget: how often they start by chance
depends on where the threshold lies."""


def group(settings: Settings) -> Group:
    """The thresholds of every model that has none of its own."""
    defaults = {
        ACCURACY_ALERT: settings.accuracy_threshold,
        RISING_ALERT: RISING_CHANGE,
        BROAD_ALERT: BROAD_SHARE,
        FLEET_ALERT: FALSE_ALARMS,
    }
    return Group(
        name="pegel-thresholds",
        rules=tuple(
            Record(name=THRESHOLD, expr=f"{value:.12g}", labels={"alert": alert}) for alert, value in defaults.items()
        ),
    )
