"""Simulated GPUs and what their idle time costs."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from pegel_exporters.errors import UserError
from pegel_exporters.gpu import simulated
from pegel_exporters.gpu.readings import Node, Reading
from pegel_exporters.gpu.waste import price, waste

NOW = 1_790_000_000.0
GROUP = {"model": "Tesla T4", "memory_mib": 15360, "idle_watts": 10, "limit_watts": 70, "mean": 0.5, "swing": 0.4}
DOCUMENT = {"driver_version": "535", "cuda_version": "12.2", "groups": [GROUP]}


def parse(**changes: object) -> simulated.Scenario:
    return simulated.parse(json.dumps({**DOCUMENT, **changes}), name="mine", where="mine.json")


@pytest.mark.parametrize("name", simulated.built_in())
def test_a_built_in_is_a_function_of_time_with_idle_gpus(name: str) -> None:
    nodes = [simulated.source(name)(NOW + 60 * minute) for minute in range(60)]
    assert nodes == [simulated.source(name)(NOW + 60 * minute) for minute in range(60)]
    idle = waste(nodes).idle_gpus
    assert 1 <= len(idle) <= 2
    for index, gpu in enumerate(nodes[0].gpus):
        values = {node.gpus[index].raw.get("utilization") for node in nodes}
        assert len(values) == 1 if gpu.uuid in idle or "utilization" not in gpu.raw else len(values) > 10


@pytest.mark.parametrize("name", simulated.built_in())
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
    assert (result.cost, result.idle_cost) == (2 * price("A100"), price("A100"))
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
    prices = {"A100": 2.0, "A100-SXM4-80GB": 2.5}
    assert price("NVIDIA A100-SXM4-80GB", prices) == 2.5
    assert price("NVIDIA A100-SXM4-40GB", prices) == 2.0
    assert price("NVIDIA A10G") == price("NVIDIA A10") != price("NVIDIA A100-PCIE-40GB")
    nodes = [node(0, ("a", 0.0, 0)), node(3600, ("a", 0.0, 0))]
    assert waste(nodes, prices={"A100": 7.0}).idle_cost == 7.0
