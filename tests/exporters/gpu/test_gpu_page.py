"""The page for people: what is wrong and what to do, who has which GPU, what it costs."""

import asyncio
import time

from pegel_exporters.gpu import simulated
from pegel_exporters.gpu.accounts import Accounts
from pegel_exporters.gpu.attribution import allocations
from pegel_exporters.gpu.fleet import Watch
from pegel_exporters.gpu.metrics import Fleet, Pods
from pegel_exporters.gpu.page import page
from pegel_exporters.gpu.prices import Prices
from pegel_exporters.gpu.readings import Node, Reading, Xid
from pegel_exporters.gpu.shares import shares

NOW = 1_789_999_920.0


def shown(name: str, *, hours: float = 1.0) -> str:
    """The page of a built-in scenario after some hours."""
    read = simulated.source(name)
    ask, owners, cluster = simulated.holders(name)
    assert ask is not None
    held = asyncio.run(ask())
    watch, accounts = Watch(stale_after=60.0), Accounts(Prices())
    for second in range(0, int(3600 * hours) + 1, 30):
        node = read(NOW + second)
        watch.took(node, float(second))
        fleet = watch.fleet(float(second))
        told = allocations(held, node.gpus, cluster())
        parts = shares(told, fleet.gauges, owners([one.pid for gpu in node.gpus for one in gpu.processes]))
        accounts.take(fleet.gauges, parts, float(second))
    pods = Pods(up=True, age_seconds=0.0, kept_seconds=60.0, allocations=told)
    with_pods = Fleet(**{**{name: getattr(fleet, name) for name in Fleet.__dataclass_fields__}, "pods": pods})
    return page(with_pods, parts, accounts).decode()


def test_the_first_line_says_what_an_hour_costs_and_how_much_of_it_is_wasted() -> None:
    text = shown("dgx-a100")
    assert "6 active, 1 held but idle, 1 idle. 16.00 EUR an hour" in text
    assert "4.00 of it for GPUs that do nothing" in text


def test_each_container_has_its_time_and_its_money_and_nobody_the_rest() -> None:
    text = shown("dgx-a100")
    row = '<td class="number">1.00 h</td><td class="number">1.00 h</td>'
    assert f"lab/notebook-6 <small>jupyter</small></td>{row}" in text
    assert f"nobody <small></small></td>{row}" in text
    assert text.count("2.00</td></tr>") == 8


def test_pods_on_one_gpu_are_shown_with_their_part_of_its_use() -> None:
    text = shown("t4-time-sliced", hours=0.1)
    assert "shop/search-0 <small>model, team shop, 0 % of its use</small>" in text
    assert "lab/speech-0 <small>model, team lab, 5" in text


def test_mig_devices_have_rows_with_their_holders_and_the_free_one_nobody() -> None:
    text = shown("h100-mig", hours=0.1)
    assert text.count('<tr class="mig">') == 15
    assert "shop/search-0 <small>model, team shop, a MIG device 3g.40gb</small>" in text
    assert "its parts, below" in text
    assert "not told" in shown("a100-mig", hours=0.1)


def test_what_is_wrong_stands_first_with_what_to_do() -> None:
    reading = Reading(uuid="GPU-a", gpu="0", raw={"field_230": 1.0, "field_144": 1.0, "throttle_reasons": 64.0})
    node = Node(time=0.0, driver_version="1", cuda_version="12", simulated=False, gpus=(reading,),
                xids=(Xid(uuid="GPU-a", code=79, time=time.time()),))  # fmt: skip
    watch = Watch(stale_after=60.0)
    watch.took(node, 0.0)
    text = page(watch.fleet(0.0)).decode()
    wrong = text[text.index("What is wrong") : text.index("<table>")]
    for words in ("XID 79. The GPU has fallen off the bus: drain the node", "the driver asks to reset the GPU",
                  "replaces a row of memory at its next reset", "slowed down: hardware thermal"):  # fmt: skip
        assert words in wrong
    assert "What is wrong" not in shown("a100-mig", hours=0.1)


def test_the_page_of_eight_gpus_is_small() -> None:
    assert len(shown("h100-mig", hours=0.1)) < 64 << 10
