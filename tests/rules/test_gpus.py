"""The alerts on GPUs, as promtool evaluates them."""

from pathlib import Path
from typing import Any

import pytest
from pegel_rules import Settings, files, groups
from promtool import Firing, check

pytestmark = pytest.mark.integration

PAGES = "https://github.com/pegel-dev/pegel/blob/main/docs/runbooks"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The rule files as they ship."""
    for name, text in files(groups(Settings())).items():
        (tmp_path / name).write_text(text)
    return tmp_path


def of(name: str, gpu: int = 0, **labels: str) -> str:
    told = {"instance": "node-1", "gpu": str(gpu), "uuid": f"GPU-{gpu}", **labels}
    return name + "{" + ",".join(f'{key}="{value}"' for key, value in told.items()) + "}"


def firing(alert: str, **by_minute: list[str]) -> list[Firing]:
    return [Firing(minute=int(minute[1:]), alert=alert, models=found, by="gpu") for minute, found in by_minute.items()]


def words(alert: str, minute: int, description: str, **labels: str) -> dict[str, Any]:
    return {
        "eval_time": f"{minute}m",
        "alertname": alert,
        "exp_alerts": [
            {
                "exp_labels": {"instance": "node-1", "gpu": "0", "uuid": "GPU-0", **labels},
                "exp_annotations": {"description": description, "runbook_url": f"{PAGES}/{alert}.md"},
            }
        ],
    }


def test_a_gpu_that_does_not_answer_for_five_minutes_pages(folder: Path) -> None:
    gpu = 'nvidia_gpu_up{{instance="node-1",gpu="{0}",uuid="GPU-{0}"}}'
    series = {gpu.format(0): "1+0x9 0+0x30", gpu.format(1): "1+0x40", gpu.format(2): "1+0x9 0+0x2 1+0x30"}
    firing = [
        Firing(minute=minute, alert="GPULost", models=found, by="gpu") for minute, found in ((13, []), (20, ["0"]))
    ]
    words = {
        "eval_time": "20m",
        "alertname": "GPULost",
        "exp_alerts": [
            {
                "exp_labels": {"severity": "critical", "instance": "node-1", "gpu": "0", "uuid": "GPU-0"},
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
    series = {of("nvidia_gpu_up"): "1+0x9 0+0x30", 'nvidia_gpu_driver_released{instance="node-1"}': "0+0x9 1+0x30"}
    assert not check(folder, series=series, firing=firing("GPULost", m20=[], m39=[]))


def test_the_first_error_of_the_hardware_pages_and_an_applications_does_not(folder: Path) -> None:
    info = 'nvidia_gpu_xid_info{{instance="node-1",xid="{}",class="{}",meaning="it fell off",advice="restart it"}}'
    series = {
        of("nvidia_gpu_xid_errors_total", 0, xid="79"): "0+0x9 1+0x40",
        of("nvidia_gpu_xid_errors_total", 1, xid="31"): "0+0x9 1+0x40",
        of("nvidia_gpu_xid_errors_total", 2, xid="79"): "0+0x49",
        info.format(79, "hardware"): "_x9 1+0x40",
        info.format(31, "application"): "_x9 1+0x40",
    }
    assert not check(folder, series=series, firing=firing("GPUXidError", m9=[], m12=["0"], m30=[]))


@pytest.mark.parametrize(
    "series",
    [
        {of("nvidia_gpu_row_remap_failed"): "0+0x9 1+0x30"},
        {of("nvidia_gpu_recovery_action", action="reset"): "0+0x9 1+0x30"},
        {of("nvidia_gpu_ecc_errors_total", severity="uncorrected", memory="dram"): "7+0x9 8+0x30"},
    ],
)
def test_memory_that_fails_and_a_driver_that_asks_for_recovery_page(folder: Path, series: dict[str, str]) -> None:
    sound = {
        of("nvidia_gpu_row_remap_failed", 1): "0+0x40",
        of("nvidia_gpu_recovery_action", 1, action="none"): "1+0x40",
        of("nvidia_gpu_ecc_errors_total", 1, severity="corrected", memory="dram"): "0+9x40",
    }
    assert not check(folder, series=series | sound, firing=firing("GPUNeedsService", m9=[], m12=["0"]))


def test_heat_that_slows_a_gpu_down_warns_and_a_power_limit_does_not(folder: Path) -> None:
    series = {
        of("nvidia_gpu_throttle_seconds_total", 0, reason="hardware_thermal"): "0+30x60",
        of("nvidia_gpu_throttle_seconds_total", 1, reason="power_cap"): "0+60x60",
        of("nvidia_gpu_throttle_seconds_total", 2, reason="thermal"): "0+1x60",
    }
    assert not check(folder, series=series, firing=firing("GPUThrottled", m10=[], m40=["0"]))


def test_a_gpu_that_is_held_for_a_day_and_does_nothing_costs_what_the_alert_says(folder: Path) -> None:
    series = {
        of("nvidia_gpu_state", 0, state="idle_held"): "1+0x1600",
        of("nvidia_gpu_state", 1, state="idle_held"): "0+0x800 1+0x800",
        of("nvidia_gpu_state", 2, state="idle_held"): "_x1400 1+0x200",
        of("nvidia_gpu_price_per_hour", 0, currency="EUR"): "2+0x1600",
    }
    description = (
        "GPU 0 (GPU-0) of node-1 has been held for a day and did nothing: 48.00 EUR a day. "
        "Who holds it: nvidia_gpu_pod_allocated."
    )
    said = words("GPUIdle", 1590, description, severity="warning", currency="EUR")
    said["exp_alerts"][0]["exp_annotations"]["summary"] = "A GPU is held and does nothing"
    assert not check(folder, series=series, firing=firing("GPUIdle", m1590=["0"]), extra={"alert_rule_test": [said]})
