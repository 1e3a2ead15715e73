"""Whether the watching itself works: an alarm that can't come is worse than none that is promised."""

from pegel_exporters.catalogue import (
    BUILD_INFO,
    INFERENCE_OUTCOMES,
    LABEL_COVERAGE,
    LABELS,
    MODEL_QUALITY_STATE,
    REFERENCE_READY,
    TAP_ADMIN_REFUSED,
    TAP_ANALYSER_RESTARTS,
    TAP_ANALYSER_UP,
    TAP_EXCHANGES,
    TAP_UNFOLLOWED,
    TAP_UNWATCHED_SECONDS,
)

from pegel_rules.accuracy import NEW_LABELS
from pegel_rules.model import Alert, Group, Record, Settings
from pegel_rules.promql import (
    BY_MODEL,
    MODEL_LABELS,
    MODEL_WORDS,
    REPLICA_LABELS,
    known_targets,
    of_each_replica,
    recorded,
)

SIDECAR_ALERT = "SidecarDown"
ANALYSER_ALERT = "AnalyserDown"
CRASHING_ALERT = "AnalyserCrashLooping"
BLIND_ALERT = "TrafficNotAnalysed"
UNFOLLOWED_ALERT = "TrafficNotFollowed"
ERRORS_ALERT = "ModelErrors"
REFERENCE_ALERT = "ReferenceNotReady"
LABELS_ALERT = "LabelsMissing"
UNKNOWN_ALERT = "AccuracyUnknown"
IDLE_ALERT = "ReplicaWithoutTraffic"
ADMIN_ALERT = "AdminConnectionsRefused"

EXCHANGES = recorded(TAP_EXCHANGES, "increase30m")
UNSEEN = recorded(TAP_EXCHANGES, "unseen30m")
UNWATCHED = recorded(TAP_UNWATCHED_SECONDS, "ratio30m")
UNFOLLOWED = recorded(TAP_UNFOLLOWED, "increase30m")
SIDECARS = recorded(BUILD_INFO, "known", level="replica")
ANSWERS = recorded(INFERENCE_OUTCOMES, "increase10m")
FAILED = recorded(INFERENCE_OUTCOMES, "failed10m")

_OF_ANY_VERSION = "cluster, namespace, model_name"
_BLIND_RATIO, _BLIND_EXCHANGES = 0.5, 20
_UNWATCHED_RATIO, _UNFOLLOWED_RATIO, _UNFOLLOWED_CONNECTIONS = 0.5, 0.1, 20
_FAILED_RATIO, _FAILED_ANSWERS = 0.2, 5
_CRASHES = 3
_SIBLINGS_REQUESTS = 100
_REFUSED_CONNECTIONS = 20


def group(settings: Settings) -> Group:
    """Replicas that are not there or see nothing, and models that answer with errors or whose truth stays unknown.

    An analyser that was started again starts its evidence again too; that alone is no alert, as it goes on watching.
    """
    span = settings.duration(1_800)
    recent = settings.duration(600)
    day, week = settings.duration(86_400), settings.duration(7 * 86_400)
    replica = f"{MODEL_LABELS}, pod, instance"
    return Group(
        name="pegel-watching",
        rules=(
            Record(name=EXCHANGES, expr=_sum(f"increase({TAP_EXCHANGES.name}[{span}])", "outcome")),
            Record(name=UNSEEN, expr=_sum(f'increase({TAP_EXCHANGES.name}{{outcome!="analysed"}}[{span}])', "outcome")),
            Record(name=UNWATCHED, expr=f"avg {BY_MODEL} (rate({TAP_UNWATCHED_SECONDS.name}[{span}]))"),
            Record(name=UNFOLLOWED, expr=_sum(f"increase({TAP_UNFOLLOWED.name}[{span}])", "reason")),
            known_targets(
                SIDECARS, f'{BUILD_INFO.name}{{model_name!=""}}', labels=replica, on=REPLICA_LABELS, settings=settings
            ),
            Record(
                name=ANSWERS,
                expr=_sum(f'increase({INFERENCE_OUTCOMES.name}{{outcome=~"ok|error|timeout"}}[{recent}])', "outcome"),
            ),
            Record(
                name=FAILED,
                expr=_sum(f'increase({INFERENCE_OUTCOMES.name}{{outcome=~"error|timeout"}}[{recent}])', "outcome"),
            ),
            Alert(
                name=SIDECAR_ALERT,
                expr=f"""\
count {BY_MODEL} (
  {SIDECARS}
  and on ({REPLICA_LABELS}) max by ({REPLICA_LABELS}) (up) == 0
)""",
                wait=settings.duration(300),
                severity="warning",
                summary="Sidecars of a model do not answer",
                description=(
                    f"{{{{ $value }}}} of the sidecars of {MODEL_WORDS} do not answer Prometheus. They stand in the "
                    "way of the traffic: look at the pods, and whether their requests are answered."
                ),
            ),
            Alert(
                name=ANALYSER_ALERT,
                expr=f"count {BY_MODEL} ({of_each_replica(MODEL_LABELS, TAP_ANALYSER_UP.name)} == 0)",
                wait=settings.duration(600),
                severity="warning",
                summary="A model's replicas are not watched",
                description=(
                    f"In {{{{ $value }}}} of the replicas of {MODEL_WORDS} the part of the sidecar that looks for "
                    "drift has not answered for ten minutes. The traffic is not affected."
                ),
            ),
            Alert(
                name=CRASHING_ALERT,
                expr=f"max {BY_MODEL} (increase({TAP_ANALYSER_RESTARTS.name}[{span}])) > {_CRASHES}",
                wait=settings.duration(300),
                severity="warning",
                summary="A model's analyser ends again and again",
                description=(
                    f"The part of the sidecar of {MODEL_WORDS} that looks for drift was started again "
                    '{{ $value | printf "%.0f" }} times within half an hour. Each time it forgets what it had seen, so '
                    "drift is not found. The traffic is not affected."
                ),
            ),
            Alert(
                name=BLIND_ALERT,
                expr=f"{UNSEEN} / ({EXCHANGES} > 0) > {_BLIND_RATIO} and {UNSEEN} > {_BLIND_EXCHANGES}",
                wait=settings.duration(900),
                severity="warning",
                summary="Most of a model's traffic is not analysed",
                description=(
                    f"{{{{ $value | humanizePercentage }}}} of the exchanges of {MODEL_WORDS} could not be read or "
                    "were left out, so that drift in them is not seen."
                ),
            ),
            Alert(
                name=UNFOLLOWED_ALERT,
                # Short connections leave hardly any time, and are as blind.
                expr=f"""\
{UNWATCHED} > {_UNWATCHED_RATIO}
or
{UNFOLLOWED} / ({UNFOLLOWED} + {EXCHANGES}) > {_UNFOLLOWED_RATIO} and {UNFOLLOWED} > {_UNFOLLOWED_CONNECTIONS}""",
                wait=settings.duration(900),
                severity="warning",
                summary="A model's traffic can't be followed",
                description=(
                    f"Within half an hour much of the traffic of {MODEL_WORDS} went by in connections whose requests "
                    "can't be told apart, such as TLS: they are neither counted nor analysed. "
                    "pegel_tap_unfollowed_connections_total says why."
                ),
            ),
            Alert(
                name=ERRORS_ALERT,
                expr=f"{FAILED} / ({ANSWERS} > 0) > {_FAILED_RATIO} and {FAILED} > {_FAILED_ANSWERS}",
                wait=settings.duration(300),
                severity="critical",
                summary="A model answers with errors",
                description=(
                    f"{{{{ $value | humanizePercentage }}}} of the answers of {MODEL_WORDS} within ten minutes were "
                    "errors, broken, or came too late."
                ),
            ),
            Alert(
                name=REFERENCE_ALERT,
                expr=f"max {BY_MODEL} ({REFERENCE_READY.name}) == 0",
                wait=settings.duration(12 * 3_600),
                severity="warning",
                summary="A model has no reference to compare with",
                description=(
                    f"{MODEL_WORDS} has no profile and has not had the traffic to learn one for half a day, so drift "
                    "is not looked for."
                ),
            ),
            Alert(
                name=LABELS_ALERT,
                # A model to which nobody ever sent a label lacks none; that its accuracy is unknown is the next alert.
                expr=f"""\
max {BY_MODEL} ({LABEL_COVERAGE.name}) == 0
unless on ({MODEL_LABELS}) (
  sum {BY_MODEL} ({LABELS.name}) == 0
  unless on ({_OF_ANY_VERSION}) sum by ({_OF_ANY_VERSION}) (max_over_time({NEW_LABELS}[{week}])) > 0
)""",
                wait=settings.duration(6 * 3_600),
                severity="warning",
                summary="A model's labels do not come",
                description=(
                    f"No prediction of {MODEL_WORDS} that is old enough to be judged has a label, so its accuracy is "
                    "not known."
                ),
            ),
            Alert(
                name=UNKNOWN_ALERT,
                expr=f"""\
max {BY_MODEL} ({MODEL_QUALITY_STATE.name}{{state="unknown"}}) == 1
or
max {BY_MODEL} ({LABEL_COVERAGE.name}) == 0""",
                wait=day,
                severity="info",
                summary="A model's accuracy is unknown",
                description=(
                    f"For a day the labels of {MODEL_WORDS} have said nothing of its accuracy: there are none, or they "
                    "are no fair sample of its predictions. The status page says why."
                ),
            ),
            Alert(
                name=IDLE_ALERT,
                expr=f"""\
count {BY_MODEL} (sum by ({replica}) (increase({INFERENCE_OUTCOMES.name}[{span}])) == 0)
and {_sum(f"increase({INFERENCE_OUTCOMES.name}[{span}])", "outcome")} > {_SIBLINGS_REQUESTS}""",
                wait=settings.duration(1_800),
                severity="info",
                summary="A replica sees no traffic while others do",
                description=(
                    f"{{{{ $value }}}} of the replicas of {MODEL_WORDS} have had no request for half an hour, and the "
                    "others have. Their traffic may go past the sidecar."
                ),
            ),
            Alert(
                name=ADMIN_ALERT,
                expr=_sum(f"increase({TAP_ADMIN_REFUSED.name}[{span}])") + f" > {_REFUSED_CONNECTIONS}",
                wait=settings.duration(300),
                severity="info",
                summary="Connections to sidecars' own ports are closed to make room",
                description=(
                    f"Within half an hour the sidecars of {MODEL_WORDS} closed "
                    '{{ $value | printf "%.0f" }} idle connections to their admin port, or a sink\'s, for new ones. '
                    "Somebody opens more than it needs; probes and metrics are answered."
                ),
            ),
        ),
    )


def _sum(increase: str, *labels: str) -> str:
    return f"sum {BY_MODEL} ({of_each_replica(', '.join((MODEL_LABELS, *labels)), increase)})"
