"""The exporter's page for people: what is wrong first, then each GPU, who has it and what that costs.

Rendered here, escaped, without scripts.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from html import escape

from pegel_exporters import catalogue
from pegel_exporters.catalogue import Metric
from pegel_exporters.gpu import xid
from pegel_exporters.gpu.accounts import Account, Accounts, State, hour_of, state_of
from pegel_exporters.gpu.attribution import Allocation
from pegel_exporters.gpu.metrics import Fleet, Gauge, Pods
from pegel_exporters.gpu.shares import Share

_STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d5d9de, #3a4149); --quiet: light-dark(#57606a, #9aa4af);
  --bad: light-dark(#b42318, #ff8a7a); }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 86rem; padding: 0 1rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .45rem .6rem; text-align: left; white-space: nowrap; }
th { color: var(--quiet); font-weight: 500; }
td.holders { white-space: normal; min-width: 12rem; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
meter { width: 6rem; vertical-align: middle; }
.bad { color: var(--bad); font-weight: 600; }
.quiet { color: var(--quiet); }
small { color: var(--quiet); overflow-wrap: anywhere; white-space: normal; }
.percent { display: inline-block; min-width: 3.2em; }
h2 { font-size: 1.1rem; margin: 1.6rem 0 .4rem; }
.trouble { border-left: 3px solid var(--bad); list-style: none; padding: .1rem .8rem; }
.trouble li { margin: .3rem 0; }
tr.mig td { border-bottom-style: dotted; padding-top: .2rem; padding-bottom: .2rem; }
"""


def page(
    fleet: Fleet, shares: Iterable[Share] = (), accounts: Accounts | None = None, *, refresh_seconds: int = 10
) -> bytes:
    """The page of a node. It reloads itself every `refresh_seconds`."""
    shares = tuple(shares)
    held = {share.uuid for share in shares}
    states = {gauge.reading.uuid: state_of(gauge, held=gauge.reading.uuid in held) for gauge in fleet.gauges}
    rows = "".join(_row(gauge, states[gauge.reading.uuid], fleet.pods, shares) for gauge in fleet.gauges)
    head = _HEAD + ('<th scope="col">Held by</th>' if fleet.pods else "")
    table = f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    silent = [_SILENT] if fleet.listed is None and not fleet.released and fleet.error else []
    wrong = [*silent, *(words for gauge in fleet.gauges for words in _trouble(gauge, told=bool(fleet.listed)))]
    trouble = "".join(f"<li>{words}</li>" for words in wrong)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Pegel: GPUs</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{refresh_seconds}"><style>{_STYLE}</style></head>
<body><h1>GPUs of this node</h1>
<p>{_state(fleet)}{_money(fleet, states, accounts)}</p>
{f'<h2>What is wrong</h2><ul class="trouble">{trouble}</ul>' if trouble else ""}
{table if rows else ""}
{_costs(accounts) if accounts else ""}
{_pods(fleet) if fleet.pods else ""}
<p class="quiet">The numbers are at <a href="metrics">/metrics</a>, for Prometheus.</p>
</body></html>
""".encode()


def _state(fleet: Fleet) -> str:
    if fleet.listed is None:
        reason = escape(fleet.error) or "it has not been asked yet"
        kind = "simulated driver" if fleet.simulated else "driver"
        return f'<span class="bad">The {kind} does not answer: {reason}.</span> Pegel goes on trying.'
    kind = "Simulated GPUs" if fleet.simulated else "GPUs"
    up = sum(gauge.up for gauge in fleet.gauges)
    return escape(
        f"{kind}: {up} of {len(fleet.gauges)} answer. Driver {fleet.driver_version}, CUDA {fleet.cuda_version}."
    )


_STATES: Mapping[State, str] = {
    "active": "active", "idle_held": "held but idle", "idle": "idle", "lost": "lost", "unknown": "not known",
}  # fmt: skip
_ACTIONS = {
    "reset": "reset the GPU", "reboot": "restart the node", "drain_p2p": "end the work that uses links between GPUs",
    "drain_and_reset": "end the work on it, then reset the GPU", "recover_imex": "recover the IMEX domain",
    "bus_reset": "reset its PCIe bus", "system_reboot": "restart the system",
}  # fmt: skip
_RECENT_SECONDS = 86_400.0
_HEAT = ("software_thermal", "hardware_thermal", "power_brake", "hardware_slowdown")


def _money(fleet: Fleet, states: Mapping[str, State], accounts: Accounts | None) -> str:
    """What an hour costs, and how much of it is for GPUs that do nothing."""
    if accounts is None or not fleet.gauges:
        return ""
    prices = accounts.prices
    hours = {gauge.reading.uuid: hour_of(gauge, prices) for gauge in fleet.gauges}
    idle = sum(hour for uuid, hour in hours.items() if states[uuid] in ("idle", "idle_held"))
    counts = (
        f"{list(states.values()).count(state)} {word}" for state, word in _STATES.items() if state in states.values()
    )
    cost = f"{sum(hours.values()):.2f} {prices.currency} an hour"
    wasted = f', <span class="bad">{idle:.2f} of it for GPUs that do nothing</span>' if idle else ""
    return f" {escape(', '.join(counts))}. {escape(cost)}{wasted}."


_SILENT = (
    "<b>The driver</b> does not answer for any GPU. On the node, see <code>nvidia-smi</code> and <code>dmesg</code>; "
    "if it is being upgraded, it will be read again by itself."
)


def _trouble(gauge: Gauge, *, told: bool) -> Iterator[str]:
    """What is wrong with a GPU and what to do, a sentence each."""
    which = f"GPU {escape(gauge.reading.gpu)}"
    if not gauge.up and told:
        yield f"<b>{which}</b> does not answer: {escape(gauge.error)}. Drain the node; reset the GPU, or restart it."
    if gauge.last_xid is not None and time.time() - gauge.last_xid.time < _RECENT_SECONDS:
        known = xid.BY_NAME[xid.name(gauge.last_xid.code)]
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(gauge.last_xid.time))
        yield f"<b>{which}</b>, {when}: XID {gauge.last_xid.code}. {escape(known.meaning)}: {escape(known.advice)}."
    for action, words in _ACTIONS.items():
        if gauge.value(catalogue.GPU_RECOVERY_ACTION, action):
            yield f"<b>{which}</b>: the driver asks to {escape(words)}."
    if gauge.value(catalogue.GPU_ROW_REMAP_FAILED):
        yield f"<b>{which}</b> has no spare rows of memory left: have it replaced."
    elif gauge.value(catalogue.GPU_ROW_REMAP_PENDING):
        yield f"<b>{which}</b> replaces a row of memory at its next reset: drain it and reset it."
    if hot := [reason for reason in _HEAT if gauge.value(catalogue.GPU_THROTTLED, reason)]:
        why = escape(", ".join(hot).replace("_", " "))
        yield f"<b>{which}</b> is slowed down: {why}. Look to its cooling and its power."


def _costs(accounts: Accounts) -> str:
    """What each container has had since the exporter started, the dearest first."""
    by_pod: dict[tuple[str, str, str], Account] = {}
    for labels, account in accounts.all().items():
        whom = (labels[0], labels[1], labels[2]) if labels[1] else ("", labels[-1], "")
        if labels[1] or account.seconds >= 1:
            by_pod[whom] = by_pod.get(whom, Account()).plus(account)
    rows = "".join(
        f"<tr><td>{escape(_NOBODY.get(pod, f'{namespace}/{pod}'))} <small>{escape(container)}</small></td>"
        f'<td class="number">{one.seconds / 3600:.2f} h</td><td class="number">{one.idle_seconds / 3600:.2f} h</td>'
        f'<td class="number">{one.joules / 3.6e6:.2f} kWh</td><td class="number">{one.cost:.2f}</td></tr>'
        for (namespace, pod, container), one in sorted(by_pod.items(), key=lambda item: -item[1].cost)[:_MOST_ROWS]
    )
    heads = "".join(
        f'<th scope="col" class="number">{head}</th>'
        for head in ("GPU time", "idle", "energy", escape(accounts.prices.currency))
    )
    return (
        "<h2>Who has had them, since the exporter started</h2>"
        f'<div class="table"><table><thead><tr><th scope="col">Container</th>{heads}</tr></thead><tbody>{rows}'
        "</tbody></table></div>"
    )


_NOBODY = {"unallocated": "nobody", "unknown": "not known, as the kubelet did not tell"}
_MOST_ROWS = 100


def _pods(fleet: Fleet) -> str:
    """How the kubelet answers, and what it told that stands in no GPU's row."""
    pods = fleet.pods
    assert pods
    parts = [_kubelet(pods), *(_api(resource, error) for resource, error in pods.cluster.errors.items() if error)]
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


def _api(resource: str, error: str) -> str:
    what = {"pods": "the teams and labels of pods", "resourceslices": "which devices were claimed"}[resource]
    return f'<p><span class="bad">The API server does not tell {what}: {escape(error)}.</span></p>'


_WAYS = {"exclusive": "alone", "mig": "a MIG device", "equal_share": "shared"}


def _holder(one: Allocation, shares: Iterable[Share] = ()) -> str:
    name = escape(f"{one.namespace}/{one.pod}")
    part = next((share for share in shares if share.holder == one.holder), None)
    way = _WAYS[one.attribution] + (f" {one.mig_profile}" if one.mig_profile else "")
    team = f"team {one.team}, " if one.team else ""
    if part is not None and part.attribution == "process":
        way = f"{part.fraction * 100:.0f} % of its use"
    return f"{name} <small>{escape(f'{one.container}, {team}{way}')}</small>"


def _held(pods: Pods | None) -> tuple[Allocation, ...]:
    return pods.allocations.held if pods and pods.allocations else ()


def _holders(gauge: Gauge, pods: Pods, shares: tuple[Share, ...]) -> str:
    """Those of one GPU, without those of its MIG devices, which have rows of their own.

    It is held by nobody only if everything that is held has a GPU.
    """
    uuid, parts = gauge.reading.uuid, {one.uuid for one in gauge.reading.instances}
    of_gpu = [one for one in _held(pods) if uuid and one.uuid == uuid]
    if holders := [_holder(one, shares) for one in of_gpu if one.mig_uuid not in parts]:
        return "<br>".join(holders)
    if parts:
        return '<span class="quiet">its parts, below</span>'
    told = pods.allocations
    free = told and uuid and not told.unknown and all(one.uuid for one in told.held)
    return f'<span class="quiet">{"nobody" if free else "unknown"}</span>'


_HEAD = "".join(
    f'<th scope="col"{kind}>{title}</th>'
    for title, kind in (
        ("GPU", ""), ("Model", ""), ("State", ""), ("Utilisation", ' class="number"'), ("Memory", ' class="number"'),
        ("Power", ' class="number"'), ("Temperature", ' class="number"'), ("Reading", ' class="number"'),
    )
)  # fmt: skip


def _row(gauge: Gauge, now: State, pods: Pods | None, shares: tuple[Share, ...]) -> str:
    gpu = gauge.reading
    state = _STATES[now] if gauge.up else f'<span class="bad">{escape(gauge.error or "no answer")}</span>'
    age = "never" if gauge.age_seconds is None else f"{gauge.age_seconds:.0f} s ago"
    texts = (
        f"<td>{escape(gpu.gpu)}</td><td>{escape(gpu.name)}<br><small>{escape(gpu.uuid)}</small></td><td>{state}</td>"
    )

    def number(show: Callable[[float], str], metric: Metric, *labels: str) -> str:
        value = gauge.value(metric, *labels)
        return '<span class="quiet">unknown</span>' if value is None else show(value)

    used = number(lambda value: f"{value / 2**30:.1f}", catalogue.GPU_MEMORY_USED)
    total = number(lambda value: f"{value / 2**30:.1f} GiB", catalogue.GPU_MEMORY_TOTAL)
    limit = number(lambda value: f"{value:.0f} W", catalogue.GPU_POWER_LIMIT)
    numbers = (
        number(_meter, catalogue.GPU_UTILIZATION),
        f"{used} of {total}",
        f"{number(lambda value: f'{value:.0f}', catalogue.GPU_POWER)} of {limit}",
        number(lambda value: f"{value:.0f} °C", catalogue.GPU_TEMPERATURE, "gpu"),
        age,
    )
    cells = "".join(f'<td class="number">{cell}</td>' for cell in numbers)
    holders = f'<td class="holders">{_holders(gauge, pods, shares)}</td>' if pods else ""
    return f"<tr>{texts}{cells}{holders}</tr>{_migs(gauge, pods, shares)}"


def _migs(gauge: Gauge, pods: Pods | None, shares: tuple[Share, ...]) -> str:
    """The MIG devices of a GPU, a row each."""
    rows = ""
    for one in gauge.reading.instances:
        use, used, total = (
            gauge.mig_value(one.uuid, metric)
            for metric in (catalogue.GPU_MIG_UTILIZATION, catalogue.GPU_MIG_MEMORY_USED, catalogue.GPU_MIG_MEMORY_TOTAL)
        )
        memory = "unknown" if used is None or total is None else f"{used / 2**30:.1f} of {total / 2**30:.1f} GiB"
        held = [by for by in _held(pods) if by.mig_uuid == one.uuid]
        holders = "<br>".join(_holder(by, shares) for by in held) or '<span class="quiet">nobody</span>'
        cell = f'<td class="holders">{holders}</td>' if pods else ""
        meter = _meter(use) if use is not None else '<span class="quiet">not told</span>'
        rows += (
            f'<tr class="mig"><td></td><td>{escape(one.profile)}<br><small>{escape(one.uuid)}</small></td><td></td>'
            f'<td class="number">{meter}</td><td class="number">{memory}</td><td></td><td></td><td></td>'
            f"{cell}</tr>"
        )
    return rows


def _meter(ratio: float) -> str:
    percent = f"{ratio * 100:.0f} %"
    meter = f'<meter value="{ratio:.2f}" aria-label="utilisation {percent}">{percent}</meter>'
    return f'{meter} <span class="percent">{percent}</span>'
