"""Simulated GPUs and what their idle time costs."""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pegel_exporters.errors import UserError
from pegel_exporters.gpu import simulated
from pegel_exporters.gpu.prices import Prices
from pegel_exporters.gpu.readings import Node, Reading
from pegel_exporters.gpu.scenario import Scenario
from pegel_exporters.gpu.waste import waste

NOW = 1_790_000_000.0
GROUP = {"model": "Tesla T4", "memory_mib": 15360, "idle_watts": 10, "limit_watts": 70, "mean": 0.5, "swing": 0.4}
DOCUMENT = {"driver_version": "535", "cuda_version": "12.2", "groups": [GROUP]}


def parse(**changes: object) -> Scenario:
    return simulated.parse(json.dumps({**DOCUMENT, **changes}), name="mine", where="mine.json")


SOUND = [name for name in simulated.built_in() if name != "broken"]


@pytest.mark.parametrize("name", SOUND)
def test_a_built_in_is_a_function_of_time_with_idle_gpus(name: str) -> None:
    one, other = simulated.source(name), simulated.source(name)
    nodes = [one(NOW + 60 * minute) for minute in range(60)]
    assert nodes == [other(NOW + 60 * minute) for minute in range(60)]
    idle = waste(nodes).idle_gpus
    assert len(idle) <= 2
    assert idle or name == "a100-mig"  # whose GPUs tell nothing of their use
    for index, gpu in enumerate(nodes[0].gpus):
        values = {node.gpus[index].raw.get("utilization") for node in nodes}
        assert len(values) == 1 if gpu.uuid in idle or "utilization" not in gpu.raw else len(values) > 10


@pytest.mark.parametrize("name", SOUND)
def test_the_energy_is_the_power_over_time(name: str) -> None:
    read = simulated.source(name)
    seconds = 600
    nodes = [read(NOW + second) for second in range(seconds + 1)]
    for index in range(len(nodes[0].gpus)):
        watts = [node.gpus[index].raw["power"] / 1e3 for node in nodes]
        by_power = sum((before + after) / 2 for before, after in pairwise(watts))
        used = (nodes[-1].gpus[index].raw["energy"] - nodes[0].gpus[index].raw["energy"]) / 1e3
        assert used == pytest.approx(by_power, rel=1e-3)


def test_the_uuids_of_two_scenarios_differ() -> None:
    uuids = [gpu.uuid for name in simulated.built_in() for gpu in simulated.source(name)(NOW).gpus]
    assert len(set(uuids)) == len(uuids)


def test_a_scenario_file_in_yaml_or_json_is_read(tmp_path: Path) -> None:
    as_json, as_yaml = tmp_path / "mine.json", tmp_path / "mine.yaml"
    as_json.write_text(json.dumps(DOCUMENT))
    as_yaml.write_text(
        "driver_version: '535'\ncuda_version: '12.2'\ngroups:\n"
        "- {model: Tesla T4, memory_mib: 15360, idle_watts: 10, limit_watts: 70, mean: 0.5, swing: 0.4}\n"
    )
    assert simulated.load(str(as_json)) == simulated.load(str(as_yaml)) == parse()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"groups": []}, "mine.json: 'groups' must be a list of GPU groups"),
        ({"groups": [7]}, "mine.json: group 1: expected names and values, found int"),
        ({"driver_version": 535}, "mine.json: 'driver_version' must be text in quotes"),
        ({"colour": "red"}, "mine.json: 'colour' is not known"),
        ({"groups": [GROUP, {**GROUP, "mean": 0.9}]}, "mine.json: group 2: 'mean' plus and minus 'swing'"),
        ({"groups": [{**GROUP, "count": 1.5}]}, "mine.json: group 1: 'count' must be a whole number"),
        ({"groups": [{**GROUP, "mean": "half"}]}, "mine.json: group 1: 'mean' must be a number"),
        ({"groups": [{**GROUP, "absent": ["soul"]}]}, "mine.json: group 1: 'soul' cannot be absent"),
        ({"groups": [{**GROUP, "graphics_mhz": 1410}]}, "'graphics_mhz' must be a list of whole numbers"),
        ({"groups": [{**GROUP, "memory_used": 2}]}, "'memory_used' must be between 0 and 1"),
        ({"groups": [{**GROUP, "idle_watts": 80}]}, "'idle_watts' must be above 0 and below 'limit_watts'"),
        ({"groups": [{key: GROUP[key] for key in GROUP if key != "model"}]}, "group 1: 'model' is missing"),
    ],
)
def test_a_wrong_scenario_is_refused_with_the_place(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(UserError) as refusal:
        parse(**changes)
    assert reason in str(refusal.value)


def test_what_a_group_says_is_absent_is_not_there() -> None:
    (gpu,) = simulated.read(parse(groups=[{**GROUP, "absent": list(simulated.ABSENT)}]), NOW).gpus
    assert not set(simulated.ABSENT) & set(gpu.raw)
    assert {"memory_used", "temperature", "clock:sm"} < set(gpu.raw)


def node(seconds: float, *gpus: tuple[str, float | None, float]) -> Node:
    """A node of A100s at a time: (uuid, utilisation, joules) each."""
    return Node(
        time=seconds,
        driver_version="535",
        cuda_version="12.2",
        simulated=False,
        gpus=tuple(
            Reading(
                uuid=uuid, gpu="0", name="NVIDIA A100-SXM4-40GB",
                raw={"energy": joules * 1e3} | ({} if use is None else {"utilization": use * 100}),
            )
            for uuid, use, joules in gpus
        ),
    )  # fmt: skip


def test_an_idle_hour_costs_the_hours_price() -> None:
    result = waste([node(0, ("a", 0.0, 0), ("b", 0.9, 0)), node(3600, ("a", 0.005, 198_000), ("b", 0.8, 9e5))])
    assert (result.gpu_seconds, result.idle_gpu_seconds, result.idle_ratio) == (7200, 3600, 0.5)
    assert (result.cost, result.idle_cost) == (4.0, 2.0)
    assert result.idle_joules == 198_000
    assert result.idle_gpus == ("a",)


def test_one_busy_reading_makes_both_its_intervals_used() -> None:
    result = waste([node(0, ("a", 0.0, 0)), node(10, ("a", 0.5, 0)), node(20, ("a", 0.0, 0)), node(30, ("a", 0.0, 0))])
    assert result.idle_gpu_seconds == 10
    assert result.idle_gpus == ()


def test_time_without_a_known_utilisation_is_neither_used_nor_idle() -> None:
    assert waste([node(0, ("a", None, 0)), node(10, ("a", None, 0))]).gpu_seconds == 0
    assert waste([node(0, ("a", 0.0, 0)), node(10, ("b", 0.0, 0))]).gpu_seconds == 0
    assert waste([node(0, ("a", 0.0, 0))]).idle_ratio == 0


def test_an_energy_counter_that_started_again_takes_nothing_away() -> None:
    assert waste([node(0, ("a", 0.0, 5e6)), node(10, ("a", 0.0, 100))]).idle_joules == 0


def test_the_longest_word_in_the_name_sets_the_price() -> None:
    prices = Prices(gpus={"A100": 2.0, "A100-SXM4-80GB": 2.5, "A10": 1.5}, default=0.5)
    names = ("NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-40GB", "NVIDIA A10G", "Tesla K80")
    assert [prices.hour(name) for name in names] == [2.5, 2.0, 1.5, 0.5]
    nodes = [node(0, ("a", 0.0, 0)), node(3600, ("a", 0.0, 0))]
    assert waste(nodes, prices=Prices(gpus={"A100": 7.0})).idle_cost == 7.0


def test_an_error_is_reported_once_with_the_first_reading_after_it() -> None:
    read = simulated.source("dgx-a100")
    told = [read(NOW + second).xids for second in range(0, 1201, 5)]
    assert [xid.code for xids in told for xid in xids] == [31, 31]


def test_the_broken_node_loses_a_gpu_and_hangs_and_recovers() -> None:
    read = simulated.source("broken")
    seen: set[str] = set()
    for second in range(240):
        try:
            seen.add(read(NOW + second).gpus[1].error)
        except simulated.DriverHangsError as error:
            seen.add("hangs")
            read(NOW + second + error.seconds)
    assert seen == {"", "GPU is lost", "hangs"}


@pytest.mark.integration
def test_a_simulated_hang_is_noticed_at_the_deadline_and_over_when_it_ends(
    run_exporter: Callable[..., Any], tmp_path: Path
) -> None:
    scenario = tmp_path / "hangs.yaml"
    scenario.write_text(json.dumps({**DOCUMENT, "events": [{"gpu": -1, "every": 10, "seconds": 1, "lasts": 5}]}))
    command = run_exporter("--simulate", str(scenario), ready=False)

    def up() -> set[str]:
        return set(re.findall(r"^nvidia_gpu_up\{.*\} (\S+)$", command.metrics(), re.MULTILINE))

    for state in ("1.0", "0.0", "1.0"):
        command.wait(lambda: up() == {state})  # noqa: B023
    assert "the driver did not answer within 2 seconds" in command.log


def test_throttling_is_a_state_and_as_many_seconds() -> None:
    (group,) = [group for group in simulated.load("dgx-a100").groups if group.throttled]
    scenario = replace(simulated.load("dgx-a100"), groups=(group,), events=())
    first, *_, last = nodes = [simulated.read(scenario, NOW + second) for second in range(1201)]
    held = sum(int(node.gpus[0].raw["throttle_reasons"]) >> 2 & 1 for node in nodes[:-1])
    assert held == pytest.approx(120, abs=2)
    assert (last.gpus[0].raw["field_74"] - first.gpus[0].raw["field_74"]) / 1e9 == pytest.approx(held, abs=2)


def test_pods_of_a_scenario_hold_its_gpus_and_own_its_processes() -> None:
    ask, owners, cluster = simulated.holders("t4-time-sliced")
    assert ask is not None
    held = asyncio.run(ask())
    assert cluster().teams["shop", "ranking-0"] == "shop"
    assert len(held) == 13
    assert held[1].device_ids[0].endswith("::1")
    first = simulated.source("t4-time-sliced")(NOW).gpus[0]
    assert owners(process.pid for process in first.processes)[first.processes[1].pid] == ("shop", "ranking-0")
    assert sum(process.sm_percent or 0 for process in first.processes) == pytest.approx(first.raw["utilization"], abs=2)
    assert simulated.holders("v100")[0] is None


def test_an_a100s_mig_devices_have_memory_and_no_activity_and_an_h100s_have_both() -> None:
    a100, h100 = (simulated.source(name)(NOW).gpus[0] for name in ("a100-mig", "h100-mig"))
    assert [one.profile for one in a100.instances] == ["3g.20gb", "2g.10gb", "1g.5gb"]
    assert not any(key.startswith("gpm_") for one in a100.instances for key in one.raw)
    assert all({"memory_used", "gpm_2"} <= one.raw.keys() for one in h100.instances)
    assert not {"utilization", "gpm_2"} & {*a100.raw, *h100.raw}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"groups": [{**GROUP, "mig": ["3g"]}]}, "mine.json: group 1: 'mig' must be profiles such as 1g.5gb"),
        ({"groups": [{**GROUP, "mig": ["4g.20gb", "4g.20gb"]}]}, "group 1: 'mig' has more than seven slices"),
        ({"groups": [{**GROUP, "pods": ["me"]}]}, "group 1: 'pods' must be NAMESPACE/POD/CONTAINER"),
        ({"groups": [{**GROUP, "throttled": 2}]}, "group 1: 'throttled' must be between 0 and 1"),
        ({"groups": [{**GROUP, "gpm": "yes"}]}, "group 1: 'gpm' must be true or false"),
        ({"events": {}}, "mine.json: 'events' must be a list"),
        ({"events": [{"gpu": 7, "every": 60, "xid": 79}]}, "mine.json: event 1: there is no GPU 7"),
        ({"events": [{"gpu": 0, "every": 60}]}, "event 1: either 'xid' or 'lasts' must be above 0"),
        ({"events": [{"gpu": 0, "every": 0, "xid": 79}]}, "event 1: 'every' must be above 0"),
    ],
)
def test_what_a_scenario_lets_happen_is_checked_with_its_place(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(UserError) as refusal:
        parse(**changes)
    assert reason in str(refusal.value)
