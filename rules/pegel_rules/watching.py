"""Whether the watching itself works: an alarm that can't come is worse than none that is promised."""

from pegel_exporters.catalogue import TAP_ANALYSER_UP, TAP_EXCHANGES

from pegel_rules.model import Alert, Group, Record, Settings
from pegel_rules.promql import BY_MODEL, MODEL_LABELS, MODEL_WORDS, recorded

ANALYSER_ALERT = "AnalyserDown"
BLIND_ALERT = "TrafficNotAnalysed"

UNSEEN = recorded(TAP_EXCHANGES, "unseen_ratio30m")
_BLIND_RATIO = 0.5


def group(settings: Settings) -> Group:
    """The share of exchanges that nobody analysed, and alerts on analysers that say nothing.

    An analyser that was started again starts its evidence again too; that is no alert, as it goes on watching.
    """
    span = settings.duration(1_800)
    return Group(
        name="pegel-watching",
        rules=(
            Record(
                name=UNSEEN,
                expr=f"""\
sum {BY_MODEL} (increase({TAP_EXCHANGES.name}{{outcome!="analysed"}}[{span}]))
/
(sum {BY_MODEL} (increase({TAP_EXCHANGES.name}[{span}])) > 0)""",
            ),
            Alert(
                name=ANALYSER_ALERT,
                expr=f"count by ({MODEL_LABELS}) ({TAP_ANALYSER_UP.name} == 0)",
                wait=settings.duration(600),
                severity="warning",
                summary="A model's replicas are not watched",
                description=(
                    f"In {{{{ $value }}}} of the replicas of {MODEL_WORDS} the part of the sidecar that looks for "
                    "drift has not answered for ten minutes. The traffic is not affected."
                ),
            ),
            Alert(
                name=BLIND_ALERT,
                expr=f"{UNSEEN} > {_BLIND_RATIO}",
                wait=settings.duration(900),
                severity="warning",
                summary="Most of a model's traffic is not analysed",
                description=(
                    f"{{{{ $value | humanizePercentage }}}} of the exchanges of {MODEL_WORDS} could not be read or "
                    "were left out, so that drift in them is not seen."
                ),
            ),
        ),
    )
