"""The exporter's page for people: one table, rendered here, escaped, without scripts."""

from collections.abc import Callable
from html import escape

from pegel_exporters import catalogue
from pegel_exporters.catalogue import Metric
from pegel_exporters.gpu.attribution import Allocation
from pegel_exporters.gpu.metrics import Fleet, Gauge, Pods

_STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d5d9de, #3a4149); --quiet: light-dark(#57606a, #9aa4af);
  --bad: light-dark(#b42318, #ff8a7a); }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .45rem .6rem; text-align: left; white-space: nowrap; }
th { color: var(--quiet); font-weight: 500; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
meter { width: 6rem; vertical-align: middle; }
.bad { color: var(--bad); font-weight: 600; }
.quiet { color: var(--quiet); }
small { color: var(--quiet); }
"""


def page(fleet: Fleet, *, refresh_seconds: int = 10) -> bytes:
    """The page of a node. It reloads itself every `refresh_seconds`."""
    rows = "".join(_row(gauge, fleet.pods) for gauge in fleet.gauges)
    head = _HEAD + ('<th scope="col">Held by</th>' if fleet.pods else "")
    table = f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Pegel: GPUs</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{refresh_seconds}"><style>{_STYLE}</style></head>
<body><h1>GPUs of this node</h1>
<p>{_state(fleet)}</p>
{table if rows else ""}
{_pods(fleet) if fleet.pods else ""}
<p class="quiet">The numbers are at <a href="metrics">/metrics</a>, for Prometheus.</p>
</body></html>
""".encode()


def _state(fleet: Fleet) -> str:
    if fleet.listed is None:
        reason = escape(fleet.error) or "it has not been asked yet"
        return f'<span class="bad">The driver does not answer: {reason}.</span> Pegel goes on trying.'
    kind = "Simulated GPUs" if fleet.simulated else "GPUs"
    up = sum(gauge.up for gauge in fleet.gauges)
    return escape(
        f"{kind}: {up} of {len(fleet.gauges)} answer. Driver {fleet.driver_version}, CUDA {fleet.cuda_version}."
    )


def _pods(fleet: Fleet) -> str:
    """How the kubelet answers, and what it told that stands in no GPU's row."""
    pods = fleet.pods
    assert pods
    parts = [_kubelet(pods)]
    told = pods.allocations
    shown = {gauge.reading.uuid for gauge in fleet.gauges}
    if elsewhere := [one for one in (told.held if told else ()) if one.uuid not in shown - {""}]:
        rows = "".join(f"<li>{escape(one.mig_uuid or one.uuid)}: {_holder(one)}</li>" for one in elsewhere)
        parts.append(f"<p>Held, and in no row above:</p><ul>{rows}</ul>")
    if told and told.unknown:
        ids = escape(", ".join(told.unknown))
        parts.append(
            f'<p><span class="bad">Device ids that fit no GPU of this node: {ids}.</span> '
            "Pegel does not know their form, or their number is no GPU's here.</p>"
        )
    return "\n".join(parts)


def _kubelet(pods: Pods) -> str:
    age = "" if pods.age_seconds is None else f"{pods.age_seconds:.0f} s ago"
    if pods.up:
        return f'<p class="quiet">Who holds a GPU is what the kubelet told {age}.</p>'
    if not pods.error:
        return '<p class="quiet">The kubelet has not been asked yet who holds the GPUs.</p>'
    if pods.allocations is None:
        effect = "So it is not known who holds the GPUs."
    else:
        effect = f"Its answer of {age} is shown until it is {pods.kept_seconds:.0f} s old."
    return (
        f'<p><span class="bad">The kubelet does not tell who holds the GPUs: {escape(pods.error)}.</span> {effect}</p>'
    )


_WAYS = {"exclusive": "alone", "mig": "a MIG device", "equal_share": "shared"}


def _holder(one: Allocation) -> str:
    name = escape(f"{one.namespace}/{one.pod}")
    return f"{name} <small>{escape(one.container)}, {_WAYS[one.attribution]}</small>"


def _holders(uuid: str, pods: Pods) -> str:
    """Those of one GPU. It is held by nobody only if everything that is held has a GPU."""
    told = pods.allocations
    if told and (holders := [_holder(one) for one in told.held if uuid and one.uuid == uuid]):
        return "<br>".join(holders)
    free = told and uuid and not told.unknown and all(one.uuid for one in told.held)
    return f'<span class="quiet">{"nobody" if free else "unknown"}</span>'


_HEAD = "".join(
    f'<th scope="col"{kind}>{title}</th>'
    for title, kind in (
        ("GPU", ""), ("Model", ""), ("State", ""), ("Utilisation", ' class="number"'), ("Memory", ' class="number"'),
        ("Power", ' class="number"'), ("Temperature", ' class="number"'), ("Reading", ' class="number"'),
    )
)  # fmt: skip


def _row(gauge: Gauge, pods: Pods | None) -> str:
    gpu = gauge.reading
    state = "up" if gauge.up else f'<span class="bad">{escape(gauge.error or "no answer")}</span>'
    age = "never" if gauge.age_seconds is None else f"{gauge.age_seconds:.0f} s ago"
    texts = (
        f"<td>{escape(gpu.gpu)}</td><td>{escape(gpu.name)}<br><small>{escape(gpu.uuid)}</small></td><td>{state}</td>"
    )

    def number(show: Callable[[float], str], metric: Metric, *labels: str) -> str:
        value = gauge.value(metric, *labels)
        return '<span class="quiet">unknown</span>' if value is None else show(value)

    used = number(lambda value: f"{value / 2**30:.1f}", catalogue.GPU_MEMORY_USED)
    total = number(lambda value: f"{value / 2**30:.1f} GiB", catalogue.GPU_MEMORY_TOTAL)
    numbers = (
        number(_meter, catalogue.GPU_UTILIZATION),
        f"{used} of {total}",
        number(lambda value: f"{value:.0f} W", catalogue.GPU_POWER),
        number(lambda value: f"{value:.0f} °C", catalogue.GPU_TEMPERATURE, "gpu"),
        age,
    )
    cells = "".join(f'<td class="number">{cell}</td>' for cell in numbers)
    holders = f"<td>{_holders(gpu.uuid, pods)}</td>" if pods else ""
    return f"<tr>{texts}{cells}{holders}</tr>"


def _meter(ratio: float) -> str:
    percent = f"{ratio * 100:.0f} %"
    return f'<meter value="{ratio:.2f}" aria-label="utilisation {percent}">{percent}</meter> {percent}'
