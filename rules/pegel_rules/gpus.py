"""What is wrong with a GPU, and GPUs that are held and do nothing."""

from pegel_exporters.catalogue import (
    GPU_DRIVER_RELEASED,
    GPU_ECC_ERRORS,
    GPU_PRICE,
    GPU_RECOVERY_ACTION,
    GPU_ROW_REMAP_FAILED,
    GPU_STATE,
    GPU_THROTTLE_SECONDS,
    GPU_UP,
    GPU_XID_ERRORS,
    GPU_XID_INFO,
)

from pegel_rules.model import Alert, Group, Settings

LOST, XID, MEMORY, THROTTLED, IDLE = "GPULost", "GPUXidError", "GPUNeedsService", "GPUThrottled", "GPUIdle"
ALERTS = frozenset({LOST, XID, MEMORY, THROTTLED, IDLE})

_WHICH = "GPU {{ $labels.gpu }} ({{ $labels.uuid }}) of {{ $labels.instance }}"
_THROTTLED_RATIO = 0.1
_IDLE_RATIO = 0.95


def group(settings: Settings) -> Group:
    """Alerts by GPU. Counters that they read exist at 0 before anything happens."""
    quarter = settings.duration(900)
    day = settings.duration(86_400)
    held_idle = f'{GPU_STATE.name}{{state="idle_held"}}'
    # A mean of what there is would be of an hour where the exporter has run for one.
    idle = f"avg_over_time({held_idle}[{day}]) > {_IDLE_RATIO} and {held_idle} offset {day} == 1"
    return Group(
        name="pegel-gpus",
        rules=(
            Alert(
                name=LOST,
                expr=f"{GPU_UP.name} == 0 unless on (instance) {GPU_DRIVER_RELEASED.name} == 1",
                wait=settings.duration(300),
                severity="critical",
                summary="A GPU does not answer",
                description=(
                    "The driver of {{ $labels.instance }} does not answer"
                    "{{ with $labels.gpu }} for GPU {{ . }}{{ end }}{{ with $labels.uuid }} ({{ . }}){{ end }}."
                ),
            ),
            Alert(
                name=XID,
                # What applications break is theirs to see.
                expr=f"""\
increase({GPU_XID_ERRORS.name}[{quarter}])
* on (instance, xid) group_left (class, meaning, advice)
{GPU_XID_INFO.name}{{class=~"hardware|memory|link|driver"}}
> 0""",
                wait="0s",
                severity="critical",
                summary="The driver reports an error of a GPU",
                description=(
                    f"{_WHICH} has XID {{{{ $labels.xid }}}} ({{{{ $labels.class }}}}): "
                    "{{ $labels.meaning }}. What to do: {{ $labels.advice }}."
                ),
            ),
            Alert(
                name=MEMORY,
                expr=f"""\
max by (instance, gpu, uuid) (
  {GPU_ROW_REMAP_FAILED.name} == 1
  or
  {GPU_RECOVERY_ACTION.name}{{action!="none"}} == 1
  or
  increase({GPU_ECC_ERRORS.name}{{severity="uncorrected"}}[{quarter}]) > 0
)""",
                wait="0s",
                severity="critical",
                summary="A GPU needs service",
                description=(
                    f"{_WHICH} has memory errors that could not be corrected, no spare rows left, or a driver that "
                    "asks for its recovery."
                ),
            ),
            Alert(
                name=THROTTLED,
                # A power limit that is reached is what it is for; heat and a weak supply are not.
                expr=f"""\
max by (instance, gpu, uuid) (
  rate({GPU_THROTTLE_SECONDS.name}{{reason=~"thermal|software_thermal|hardware_thermal|power_brake"}}[{quarter}])
) > {_THROTTLED_RATIO}""",
                wait=quarter,
                severity="warning",
                summary="Heat or power holds a GPU's clocks down",
                description=(
                    f"{_WHICH} has been slowed down for {{{{ $value | humanizePercentage }}}} of the time, by heat or "
                    "by its power supply."
                ),
            ),
            Alert(
                name=IDLE,
                expr=f"""\
{GPU_PRICE.name} * 24 and on (instance, gpu, uuid) ({idle})
or on (instance, gpu, uuid)
({idle})""",
                wait=settings.duration(3_600),
                severity="warning",
                summary="A GPU is held and does nothing",
                description=(
                    f"{_WHICH} has been held for a day and did nothing"
                    '{{ with $labels.currency }}: {{ $value | printf "%.2f" }} {{ . }} a day{{ end }}. '
                    "Who holds it: nvidia_gpu_pod_allocated."
                ),
            ),
        ),
    )
