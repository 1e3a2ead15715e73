"""The alerts on GPUs, as promtool evaluates them."""

from pathlib import Path
from typing import Any

import pytest
from pegel_rules import Settings, files, groups
from promtool import Firing, check, gpu

pytestmark = pytest.mark.integration

NODE = {"namespace": "pegel", "node": "node-1", "instance": "node-1"}
PAGES = "https://github.com/pegel-dev/pegel/blob/main/docs/runbooks"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The rule files as they ship."""
    for name, text in files(groups(Settings())).items():
        (tmp_path / name).write_text(text)
    return tmp_path


def held(number: int, *, minutes: int = 60) -> dict[str, str]:
    """Who holds a GPU, as the exporter says it of a pod in another namespace than its own."""
    of_pod = {"namespace": "shop", "pod": "ranking-1", "container": "model", "team": "search"}
    empty = {"mig_uuid": "", "mig_profile": "", "attribution": "exclusive"}
    return {gpu("nvidia_gpu_pod_allocated", number, **of_pod, **empty): f"1+0x{minutes}"}


def firing(alert: str, **by_minute: list[str]) -> list[Firing]:
    return [Firing(minute=int(minute[1:]), alert=alert, models=found, by="gpu") for minute, found in by_minute.items()]


def words(alert: str, minute: int, description: str, **labels: str) -> dict[str, Any]:
    return {
        "eval_time": f"{minute}m",
        "alertname": alert,
        "exp_alerts": [
            {
                "exp_labels": NODE | {"gpu": "0", "uuid": "GPU-0", **labels},
                "exp_annotations": {"description": description, "runbook_url": f"{PAGES}/{alert}.md"},
            }
        ],
    }


def test_a_gpu_that_does_not_answer_for_five_minutes_pages(folder: Path) -> None:
    lasting = ("1+0x9 0+0x30", "1+0x40", "1+0x9 0+0x2 1+0x30")
    series = {gpu("nvidia_gpu_up", number): values for number, values in enumerate(lasting)}
    firing = [
        Firing(minute=minute, alert="GPULost", models=found, by="gpu") for minute, found in ((13, []), (20, ["0"]))
    ]
    words = {
        "eval_time": "20m",
        "alertname": "GPULost",
        "exp_alerts": [
            {
                "exp_labels": NODE | {"severity": "critical", "gpu": "0", "uuid": "GPU-0"},
                "exp_annotations": {
                    "summary": "A GPU does not answer",
                    "description": "The driver of node-1 does not answer for GPU 0 (GPU-0).",
                    "runbook_url": "https://github.com/pegel-dev/pegel/blob/main/docs/runbooks/GPULost.md",
                },
            }
        ],
    }
    assert not check(folder, series=series, firing=firing, extra={"alert_rule_test": [words]})


def test_a_driver_that_was_released_on_request_is_no_alarm(folder: Path) -> None:
    series = {gpu("nvidia_gpu_up"): "1+0x9 0+0x30", gpu("nvidia_gpu_driver_released"): "0+0x9 1+0x30"}
    assert not check(folder, series=series, firing=firing("GPULost", m20=[], m39=[]))


def test_the_first_error_of_the_hardware_pages_and_an_applications_does_not(folder: Path) -> None:
    def info(xid: int, kind: str) -> str:
        told = {"xid": str(xid), "class": kind, "meaning": "it fell off", "advice": "restart it"}
        return gpu("nvidia_gpu_xid_info", **told)

    series = {
        gpu("nvidia_gpu_xid_errors_total", 0, xid="79"): "0+0x9 1+0x40",
        gpu("nvidia_gpu_xid_errors_total", 1, xid="31"): "0+0x9 1+0x40",
        gpu("nvidia_gpu_xid_errors_total", 2, xid="79"): "0+0x49",
        info(79, "hardware"): "_x9 1+0x40",
        info(31, "application"): "_x9 1+0x40",
        **held(0),
    }
    description = (
        "GPU 0 (GPU-0) of node-1 has XID 79 (hardware): it fell off. What to do: restart it. "
        "It is held by shop/ranking-1 of team search."
    )
    said = words("GPUXidError", 12, description, severity="critical", xid="79", **{"class": "hardware"})
    said["exp_alerts"][0]["exp_annotations"]["summary"] = "The driver reports an error of a GPU"
    # The GPU is as broken half an hour later, when the counter has stood still for long.
    expected = firing("GPUXidError", m9=[], m12=["0"], m45=["0"])
    assert not check(folder, series=series, firing=expected, extra={"alert_rule_test": [said]})


@pytest.mark.parametrize(
    "series",
    [
        {gpu("nvidia_gpu_row_remap_failed"): "0+0x9 1+0x30"},
        {gpu("nvidia_gpu_recovery_action", action="reset"): "0+0x9 1+0x30"},
        {gpu("nvidia_gpu_ecc_errors_total", severity="uncorrected", memory="dram"): "7+0x9 8+0x30"},
    ],
)
def test_memory_that_fails_and_a_driver_that_asks_for_recovery_page(folder: Path, series: dict[str, str]) -> None:
    sound = {
        gpu("nvidia_gpu_row_remap_failed", 1): "0+0x40",
        gpu("nvidia_gpu_recovery_action", 1, action="none"): "1+0x40",
        gpu("nvidia_gpu_ecc_errors_total", 1, severity="corrected", memory="dram"): "0+9x40",
    }
    assert not check(folder, series=series | sound, firing=firing("GPUNeedsService", m9=[], m12=["0"]))


def test_heat_that_slows_a_gpu_down_warns_and_a_power_limit_does_not(folder: Path) -> None:
    series = {
        gpu("nvidia_gpu_throttle_seconds_total", 0, reason="hardware_thermal"): "0+30x60",
        gpu("nvidia_gpu_throttle_seconds_total", 1, reason="power_cap"): "0+60x60",
        gpu("nvidia_gpu_throttle_seconds_total", 2, reason="thermal"): "0+1x60",
    }
    assert not check(folder, series=series, firing=firing("GPUThrottled", m10=[], m40=["0"]))


def test_a_gpu_that_is_held_for_a_day_and_does_nothing_costs_what_the_alert_says(folder: Path) -> None:
    series = {
        gpu("nvidia_gpu_state", 0, state="idle_held"): "1+0x1600",
        gpu("nvidia_gpu_state", 1, state="idle_held"): "0+0x800 1+0x800",
        gpu("nvidia_gpu_state", 2, state="idle_held"): "_x1400 1+0x200",
        gpu("nvidia_gpu_price_per_hour", 0, currency="EUR"): "2+0x1600",
        **held(0, minutes=1600),
    }
    description = (
        "GPU 0 (GPU-0) of node-1 has been held for a day and did nothing: 48.00 EUR a day. "
        "It is held by shop/ranking-1 of team search."
    )
    said = words("GPUIdle", 1590, description, severity="warning", currency="EUR")
    said["exp_alerts"][0]["exp_annotations"]["summary"] = "A GPU is held and does nothing"
    assert not check(folder, series=series, firing=firing("GPUIdle", m1590=["0"]), extra={"alert_rule_test": [said]})


def test_an_idle_gpu_s_alert_ends_with_its_node_and_outlives_its_exporters_pod(folder: Path) -> None:
    state = {"state": "idle_held"}
    series = {
        gpu("nvidia_gpu_state", 0, **state): "1x600 stale",
        gpu("nvidia_gpu_state", 1, **state): "1x600 stale",
        gpu("nvidia_gpu_state", 1, pod="exporter-b", **state): "_x600 1x600",
        gpu("nvidia_gpu_state", 2, **state): "1x600 stale",
        gpu("nvidia_gpu_state", 2, pod="exporter-b", **state): "_x600 0x600",
    }
    expected = firing("GPUIdle", m2940=["0", "1", "2"], m3600=["1"], m4470=["1"])
    assert not check(folder, series=series, firing=expected, interval="5m")


def test_an_exporter_that_does_not_answer_pages_once_and_a_node_that_is_gone_does_not(folder: Path) -> None:
    def target(node: str, values: str, **labels: str) -> dict[str, str]:
        place = {"node": node, "instance": node, **labels}
        return {gpu("up", job="gpus", **place): values, gpu("nvidia_gpu_up", **place): "1x10 stale"}

    series = target("down", "1x10 0x60") | target("gone", "1x10 stale") | target("blip", "1x10 0x5 1x60")
    foreign = {"up{instance='database',job='postgres'}": "1x10 0x60"}
    down = [Firing(minute=at, alert="GPUExporterDown", models=who, by="node") for at, who in ((15, []), (30, ["down"]))]
    others = [Firing(minute=30, alert=alert, models=[]) for alert in ("GPULost", "SidecarDown", "GPUMissing")]
    assert not check(folder, series=series | foreign, firing=down + others)


def test_seven_gpus_of_eight_page_until_a_week_is_over_or_the_eighth_is_back(folder: Path) -> None:
    def node(name: str, values: str) -> dict[str, str]:
        return {gpu("nvidia_gpu_devices", node=name, instance=name): values}

    series = node("lost", "8x60 _x10 7x300") | node("back", "8x60 7x60 8x300") | node("whole", "8x400")
    released = {gpu("nvidia_gpu_driver_released", node="away", instance="away"): "0x60 1x300"} | node(
        "away", "8x60 6x300"
    )
    expected = [
        Firing(minute=minute, alert="GPUMissing", models=who, by="node")
        for minute, who in ((60, []), (110, ["back", "lost"]), (200, ["lost"]))
    ]
    assert not check(folder, series=series | released, firing=expected)


def test_memory_errors_that_a_reboot_hides_between_two_scrapes_page(folder: Path) -> None:
    errors = {"severity": "uncorrected", "memory": "dram"}
    series = {
        gpu("nvidia_gpu_ecc_errors_total", 0, **errors): "0x60 stale",
        gpu("nvidia_gpu_ecc_errors_total", 0, pod="exporter-b", **errors): "_x75 3x300",
        gpu("nvidia_gpu_ecc_errors_total", 1, **errors): "5x60 stale",
        gpu("nvidia_gpu_ecc_errors_total", 1, pod="exporter-b", **errors): "_x75 5x300",
    }
    assert not check(folder, series=series, firing=firing("GPUNeedsService", m60=[], m80=["0"], m300=["0"]))


def test_a_threshold_a_released_driver_and_an_error_count_in_their_own_cluster_alone(folder: Path) -> None:
    info = {"xid": "79", "class": "hardware", "meaning": "m", "advice": "a"}
    series = {}
    for cluster, fault in (("a", 1), ("b", 0)):
        # Scraped twice, by a monitor and by an annotation.
        for job in ("one", "two"):
            place = {"cluster": cluster, "job": job}
            series |= {
                gpu("nvidia_gpu_up", 0, **place): f"1x10 {1 - fault}x60",
                gpu("nvidia_gpu_driver_released", **place): f"0x10 {1 - fault}x60",
                gpu("nvidia_gpu_xid_errors_total", 0, xid="79", **place): f"0x10 {fault}x60",
                gpu("nvidia_gpu_xid_info", **info, **place): "1x70",
                gpu("nvidia_gpu_throttle_seconds_total", 0, reason="thermal", **place): f"0+{30 * fault}x70",
                gpu("nvidia_gpu_recovery_action", 0, action="reset", **place): f"0x10 {fault}x60",
                gpu("nvidia_gpu_devices", **place): f"8x10 {8 - fault}x60",
            }
    expected = [
        Firing(minute=60, alert=alert, models=["a"], by="cluster")
        for alert in ("GPULost", "GPUXidError", "GPUThrottled", "GPUNeedsService", "GPUMissing")
    ]
    assert not check(folder, series=series, firing=expected)
