"""From readings to the page, and what is remembered of GPUs: data in, data out."""

import math
from dataclasses import replace
from typing import Any

import pytest
from pegel_exporters import catalogue
from pegel_exporters.gpu.fleet import Watch
from pegel_exporters.gpu.metrics import Fleet
from pegel_exporters.gpu.page import page
from pegel_exporters.gpu.readings import DriverUnavailableError, Node, Reading, Xid
from pegel_exporters.gpu.sets import families

READING = Reading(
    uuid="GPU-a",
    gpu="0",
    name="Tesla T4",
    minor_number="0",
    raw={"utilization": 50.0, "power": 30_000.0, "temperature": 40.0, "clock:sm": 1_000.0},
)
NODE = Node(time=0.0, driver_version="535", cuda_version="12.2", simulated=False, gpus=(READING,))


def watch_of(*steps: tuple[Node | str, float]) -> tuple[Watch, list[str]]:
    """A watch after readings and failures at given seconds, and the last step's news."""
    watch, news = Watch(stale_after=15.0), []
    for step, now in steps:
        news = watch.failed(step) if isinstance(step, str) else watch.took(step, now)
    return watch, news


def samples(fleet: Fleet) -> dict[str, dict[tuple[str, ...], Any]]:
    return {family.metric.name: dict(family.samples) for family in families(fleet)}


def shown(reading: Reading) -> dict[str, dict[tuple[str, ...], Any]]:
    watch, _ = watch_of((replace(NODE, gpus=(reading,)), 0.0))
    return samples(watch.fleet(0.0))


def test_a_reading_survives_the_way_from_the_worker() -> None:
    node = replace(NODE, gpus=(READING, Reading(uuid="", gpu="1", error="GPU is lost")))
    assert Node.from_json(node.to_json()) == node
    assert b"\n" not in node.to_json()


def test_a_worker_that_found_no_driver_says_so_in_place_of_readings() -> None:
    with pytest.raises(DriverUnavailableError, match="no driver"):
        Node.from_json(b'{"unavailable": "no driver"}')


@pytest.mark.parametrize(
    ("impossible", "metric"),
    [
        ({"utilization": 808_334_905.0}, catalogue.GPU_UTILIZATION),
        ({"utilization": 808_334_905.0}, catalogue.GPU_DUTY_CYCLE),
        ({"utilization": math.nan}, catalogue.GPU_UTILIZATION),
        ({"temperature": 644_245_923.0}, catalogue.GPU_TEMPERATURE),
        ({"power": 4_294_967_295.0}, catalogue.GPU_POWER),
        ({"clock:sm": -1.0}, catalogue.GPU_CLOCK),
    ],
)
def test_an_impossible_value_gives_no_series_and_is_counted(
    impossible: dict[str, float], metric: catalogue.Metric
) -> None:
    assert metric.name in shown(READING)
    page = shown(replace(READING, raw={**READING.raw, **impossible}))
    assert metric.name not in page
    assert page["nvidia_gpu_implausible_readings_total"] == {("GPU-a", "0"): 1.0}


def test_a_counter_goes_on_where_a_driver_that_was_loaded_anew_begins_at_0() -> None:
    steps = [(replace(NODE, gpus=(replace(READING, raw={"energy": joules * 1e3}),)), 0.0) for joules in (50, 70, 5, 8)]
    totals = [
        samples(watch_of(*steps[: number + 1])[0].fleet(0.0))["nvidia_gpu_energy_joules_total"][("GPU-a", "0")]
        for number in range(4)
    ]
    assert totals == [50, 70, 75, 78]


def test_an_error_is_counted_from_0_by_its_code_and_one_that_is_not_known_as_other() -> None:
    failed = replace(NODE, xids=(Xid(uuid="GPU-a", code=4711, time=5.0), Xid(uuid="GPU-a", code=79, time=7.0)))
    watch, news = watch_of((NODE, 0.0), (failed, 1.0))
    assert any("XID 79" in line for line in news)
    before = samples(watch.fleet(1.0))
    assert set(before["nvidia_gpu_xid_errors_total"].values()) == {0.0}
    watch.scraped(frozenset({"GPU-a"}), 1.0)
    watch.scraped(frozenset({"GPU-a"}), 50.0)
    assert set(samples(watch.fleet(60.0))["nvidia_gpu_xid_errors_total"].values()) == {0.0}
    after = samples(watch.fleet(61.0))["nvidia_gpu_xid_errors_total"]
    assert before["nvidia_gpu_xid_errors_total"].keys() == after.keys()
    assert {labels[-1]: count for labels, count in after.items() if count} == {"79": 1.0, "other": 1.0}


def test_an_error_is_told_at_once_even_while_its_count_waits_for_a_scraper_to_read_0() -> None:
    failed = replace(NODE, xids=(Xid(uuid="GPU-a", code=79, time=7.0),))
    told = samples(watch_of((NODE, 0.0), (failed, 1.0))[0].fleet(1.0))
    assert told["nvidia_gpu_xid_last_timestamp_seconds"] == {("GPU-a", "0"): 7.0}
    assert {labels[0] for labels in told["nvidia_gpu_xid_info"]} == {"79"}
    assert "nvidia_gpu_xid_info" not in samples(watch_of((NODE, 0.0))[0].fleet(0.0))


def test_the_old_name_takes_the_index_where_there_is_no_minor_number() -> None:
    assert shown(replace(READING, minor_number=""))["nvidia_gpu_duty_cycle"] == {("0", "GPU-a", "Tesla T4"): 50.0}


def test_a_reading_that_grows_old_keeps_its_age_and_loses_its_values() -> None:
    watch, _ = watch_of((NODE, 100.0), ("it hangs", 105.0))
    young, old = samples(watch.fleet(110.0)), samples(watch.fleet(200.0))
    assert young["nvidia_gpu_power_watts"] == {("GPU-a", "0"): 30.0}
    assert "nvidia_gpu_power_watts" not in old
    assert "nvidia_gpu_duty_cycle" not in old
    assert old["nvidia_gpu_reading_age_seconds"] == {("GPU-a", "0"): 100.0}
    assert old["nvidia_gpu_up"] == {("GPU-a", "0"): 0.0}
    assert len(old["nvidia_gpu_info"]) == 1
    assert "nvidia_gpu_devices" not in old


def test_a_gpu_that_the_driver_no_longer_lists_stays_at_up_0() -> None:
    other = replace(READING, uuid="GPU-b", gpu="1")
    watch, news = watch_of((replace(NODE, gpus=(READING, other)), 0.0), (NODE, 5.0))
    assert samples(watch.fleet(5.0))["nvidia_gpu_up"] == {("GPU-a", "0"): 1.0, ("GPU-b", "1"): 0.0}
    assert news == ["GPU 1 GPU-b: the driver no longer lists it"]


def test_a_lost_gpu_without_a_uuid_is_known_by_its_index() -> None:
    lost = Reading(uuid="", gpu="0", error="GPU is lost")
    known, _ = watch_of((NODE, 0.0), (replace(NODE, gpus=(lost,)), 5.0))
    assert samples(known.fleet(5.0))["nvidia_gpu_up"] == {("GPU-a", "0"): 0.0}
    unknown, _ = watch_of((replace(NODE, gpus=(lost,)), 0.0))
    assert samples(unknown.fleet(0.0))["nvidia_gpu_up"] == {("", "0"): 0.0}
    found, _ = watch_of((replace(NODE, gpus=(lost,)), 0.0), (NODE, 5.0))
    assert samples(found.fleet(5.0))["nvidia_gpu_up"] == {("GPU-a", "0"): 1.0}


def test_the_same_failure_is_told_once_and_another_one_again() -> None:
    assert watch_of(("no driver", 0.0))[1] == ["no GPU readings: no driver; trying again"]
    assert watch_of(("no driver", 0.0), ("no driver", 5.0))[1] == []
    assert watch_of(("no driver", 0.0), ("it hangs", 5.0))[1] == ["no GPU readings: it hangs; trying again"]
    assert watch_of(("no driver", 0.0), (NODE, 5.0))[1] == ["reading 1 GPU(s), driver 535"]


def test_the_page_for_people_escapes_what_the_driver_says() -> None:
    watch, _ = watch_of((replace(NODE, driver_version="<b>", gpus=(replace(READING, name="<script>"),)), 0.0))
    shown = page(watch.fleet(0.0)).decode()
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown
    assert "<b>" not in shown
    watch, _ = watch_of(("<i>no</i>", 0.0))
    assert "&lt;i&gt;no&lt;/i&gt;" in page(watch.fleet(0.0)).decode()
