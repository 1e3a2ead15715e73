"""What is wrong with a GPU, and GPUs that are held and do nothing."""

from pegel_exporters.catalogue import (
    BUILD_INFO,
    GPU_DEVICES,
    GPU_DRIVER_RELEASED,
    GPU_ECC_ERRORS,
    GPU_POD_ALLOCATED,
    GPU_PRICE,
    GPU_RECOVERY_ACTION,
    GPU_ROW_REMAP_FAILED,
    GPU_STATE,
    GPU_THROTTLE_SECONDS,
    GPU_UP,
    GPU_XID_ERRORS,
    GPU_XID_INFO,
)

from pegel_rules.model import Alert, Group, Record, Settings
from pegel_rules.promql import BY_GPU, BY_NODE, GPU_LABELS, NODE_LABELS, known_targets, query, recorded

LOST, XID, MEMORY, THROTTLED, IDLE = "GPULost", "GPUXidError", "GPUNeedsService", "GPUThrottled", "GPUIdle"
DOWN, MISSING = "GPUExporterDown", "GPUMissing"
ALERTS = frozenset({LOST, XID, MEMORY, THROTTLED, IDLE, DOWN, MISSING})

EXPORTERS = recorded(GPU_UP, "known", level="node")
HELD_IDLE = recorded(GPU_STATE, "idle_held", level="gpu")
UNCORRECTED = recorded(GPU_ECC_ERRORS, "uncorrected", level="gpu")
MOST_DEVICES = recorded(GPU_DEVICES, "max7d", level="node")

_THROTTLED_RATIO = 0.1
_IDLE_RATIO = 0.95
_BROKEN_SECONDS = 86_400
"""How long what broke a GPU is told after its one event, unless somebody sees to it and silences it."""
_FLEETING_SECONDS = 900

_NODE = "{{ with $labels.node }}{{ . }}{{ else }}{{ $labels.instance }}{{ end }}"
_WHICH = f"GPU {{{{ $labels.gpu }}}} ({{{{ $labels.uuid }}}}) of {_NODE}"
_ALLOCATED = f'group by (namespace, pod, team) ({GPU_POD_ALLOCATED.name}{{*,pod!=""}})'
# The series of pods name the namespace of the pod, and not the exporter's.
_HELD_BY = (
    f"{{{{ range {query(_ALLOCATED, 'cluster, instance, uuid')} }}}} It is held by {{{{ .Labels.namespace }}}}/"
    "{{ .Labels.pod }}{{ with .Labels.team }} of team {{ . }}{{ end }}.{{ end }}"
)
_MEANING = (
    f"{{{{ with {query(GPU_XID_INFO.name + '{*}', f'{NODE_LABELS}, xid')} }}}}"
    ": {{ . | first | label `meaning` }}. What to do: {{ . | first | label `advice` }}{{ end }}."
)


def group(settings: Settings) -> Group:
    """Alerts by GPU. Counters that they read exist at 0 before anything happens.

    Of what an exporter says, and the one before it on the same node, the higher counts; so a replaced pod and a second
    scrape change nothing.
    """
    quarter = settings.duration(_FLEETING_SECONDS)
    day = settings.duration(86_400)
    broken = settings.duration(_BROKEN_SECONDS)
    # A mean of what there is would be of an hour where the exporter has run for one.
    idle = f"{HELD_IDLE} == 1 and avg_over_time({HELD_IDLE}[{day}]) > {_IDLE_RATIO} and {HELD_IDLE} offset {day} == 1"
    return Group(
        name="pegel-gpus",
        rules=(
            known_targets(
                EXPORTERS,
                f'{GPU_UP.name} or {BUILD_INFO.name}{{model_name=""}}',
                labels=f"{NODE_LABELS}, pod, job",
                on="cluster, namespace, instance",
                settings=settings,
            ),
            Record(name=HELD_IDLE, expr=f'max {BY_GPU} ({GPU_STATE.name}{{state="idle_held"}})'),
            Record(
                name=UNCORRECTED,
                expr=f'max by ({GPU_LABELS}, memory) ({GPU_ECC_ERRORS.name}{{severity="uncorrected"}})',
            ),
            Record(
                name=MOST_DEVICES,
                expr=f"max {BY_NODE} (max_over_time({GPU_DEVICES.name}[{settings.duration(7 * 86_400)}]))",
            ),
            Alert(
                name=DOWN,
                # By its pod, or by its job where a new pod has not answered yet: an instance that is the node's name is
                # also that of others.
                expr=f"""\
max {BY_NODE} (
  up and on (cluster, namespace, pod, instance) {EXPORTERS}
  or
  up and on (cluster, namespace, job, instance) {EXPORTERS}
) == 0""",
                wait=settings.duration(600),
                severity="critical",
                summary="Nobody watches a node's GPUs",
                description=(
                    f"The GPU exporter of {_NODE} does not answer Prometheus: what happens to the node's GPUs, and "
                    "who pays for them, is not seen."
                ),
            ),
            Alert(
                name=LOST,
                expr=f"""\
max {BY_GPU} ({GPU_UP.name}) == 0
unless on ({NODE_LABELS}) max {BY_NODE} ({GPU_DRIVER_RELEASED.name}) == 1""",
                wait=settings.duration(300),
                severity="critical",
                summary="A GPU does not answer",
                description=(
                    f"The driver of {_NODE} does not answer"
                    "{{ with $labels.gpu }} for GPU {{ . }}{{ end }}{{ with $labels.uuid }} ({{ . }}){{ end }}."
                    f"{_HELD_BY}"
                ),
            ),
            Alert(
                name=MISSING,
                # Without any GPU the driver does not answer, which is the other alert.
                expr=f"""\
{MOST_DEVICES} - max {BY_NODE} ({GPU_DEVICES.name} > 0) > 0
unless on ({NODE_LABELS}) max {BY_NODE} ({GPU_DRIVER_RELEASED.name}) == 1""",
                wait=quarter,
                severity="critical",
                summary="A node has fewer GPUs than it had",
                description=(
                    f"The driver of {_NODE} lists {{{{ $value }}}} fewer GPUs than within the last seven days. If they "
                    "were taken out on purpose, silence this alert for a week; then it ends by itself."
                ),
            ),
            Alert(
                name=XID,
                # What applications break is theirs to see.
                expr=f"""\
max by ({GPU_LABELS}, xid) (increase({GPU_XID_ERRORS.name}[{quarter}]))
* on ({NODE_LABELS}, xid) group_left (class)
max by ({NODE_LABELS}, xid, class) ({GPU_XID_INFO.name}{{class=~"hardware|memory|link|driver"}})
> 0""",
                wait="0s",
                keep=broken,
                severity="critical",
                summary="The driver reports an error of a GPU",
                description=f"{_WHICH} has XID {{{{ $labels.xid }}}} ({{{{ $labels.class }}}}){_MEANING}{_HELD_BY}",
            ),
            Alert(
                name=MEMORY,
                # Errors are counted over the GPU's life: what they were before a reboot is seen after it.
                expr=f"""\
max {BY_GPU} (
  {GPU_ROW_REMAP_FAILED.name} == 1
  or
  {GPU_RECOVERY_ACTION.name}{{action!="none"}} == 1
  or
  {UNCORRECTED} > min_over_time({UNCORRECTED}[{day}])
)""",
                wait="0s",
                keep=quarter,
                severity="critical",
                summary="A GPU needs service",
                description=(
                    f"{_WHICH} has had memory errors within a day that could not be corrected, has no spare rows left, "
                    f"or its driver asks for its recovery.{_HELD_BY}"
                ),
            ),
            Alert(
                name=THROTTLED,
                # A power limit that is reached is what it is for; heat and a weak supply are not.
                expr=f"""\
max {BY_GPU} (
  rate({GPU_THROTTLE_SECONDS.name}{{reason=~"thermal|software_thermal|hardware_thermal|power_brake"}}[{quarter}])
) > {_THROTTLED_RATIO}""",
                wait=quarter,
                severity="warning",
                summary="Heat or power holds a GPU's clocks down",
                description=(
                    f"{_WHICH} has been slowed down for {{{{ $value | humanizePercentage }}}} of the time, by heat or "
                    f"by its power supply.{_HELD_BY}"
                ),
            ),
            Alert(
                name=IDLE,
                expr=f"""\
max by ({GPU_LABELS}, currency) ({GPU_PRICE.name}) * 24 and on ({GPU_LABELS}) ({idle})
or on ({GPU_LABELS})
({idle})""",
                wait=settings.duration(3_600),
                severity="warning",
                summary="A GPU is held and does nothing",
                description=(
                    f"{_WHICH} has been held for a day and did nothing"
                    '{{ with $labels.currency }}: {{ $value | printf "%.2f" }} {{ . }} a day{{ end }}.'
                    f"{_HELD_BY}"
                ),
            ),
        ),
    )
