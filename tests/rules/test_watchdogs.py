"""What must not be taken for a fault of Pegel's targets, and faults that last for days, as promtool evaluates them."""

from pathlib import Path

import pytest
from pegel_exporters import catalogue as c
from pegel_rules import Settings, files, groups
from promtool import check
from targets import MINUTES, counting, lasting, sample, then, until

pytestmark = pytest.mark.integration

MODEL = {"model_name": "churn", "model_version": "3"}
SIDECAR = {"namespace": "shop", "pod": "churn-0", "instance": "10.0.0.1:9466", "job": "shop/pegel-sidecar"}
EXPORTER = {"namespace": "pegel", "pod": "pegel-gpu-x1", "instance": "node-1", "node": "node-1", "job": "pegel-gpu"}
GPU = {"gpu": "0", "uuid": "GPU-0"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The rule files as they ship."""
    for name, text in files(groups(Settings())).items():
        (tmp_path / name).write_text(text)
    return tmp_path


def wrong(folder: Path, series: dict[str, str], *alerts: str, minute: int = MINUTES - 5) -> str:
    """What differs from these alerts, and no others, firing at a minute."""
    question = {
        "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": f"{minute}m",
        "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(alerts)],
    }
    return check(folder, series=series, extra={"promql_expr_test": [question]}, evaluation="5m")


def sidecar(values: str, up: str) -> dict[str, str]:
    return {sample(c.BUILD_INFO, SIDECAR, {**MODEL, "version": "1"}): values, sample("up", SIDECAR, {}): up}


def exporter(values: str, up: str) -> dict[str, str]:
    return {sample(c.GPU_UP, EXPORTER, GPU): values, sample("up", EXPORTER, {}): up}


def test_a_sidecar_that_has_been_down_for_more_than_a_day_still_warns(folder: Path) -> None:
    assert not wrong(folder, sidecar(until(1, 60), then(1, 0, 60)), "SidecarDown")


def test_a_pod_that_was_deleted_is_no_sidecar_that_is_down(folder: Path) -> None:
    assert not wrong(folder, sidecar(until(1, 60), until(1, 60)))


def test_a_pod_that_was_deleted_while_its_sidecar_was_down_ends_the_alert(folder: Path) -> None:
    series = sidecar(until(1, 60), "1+0x59 0+0x60 stale")
    assert not wrong(folder, series, "SidecarDown", minute=110)
    assert not wrong(folder, series, minute=140)


def test_targets_of_others_that_are_down_are_no_fault_of_pegels(folder: Path) -> None:
    beside = SIDECAR | {"instance": "10.0.0.1:8080"}
    elsewhere = EXPORTER | {"pod": "node-exporter-y1", "job": "node-exporter"}
    series = sidecar(lasting(1), lasting(1)) | exporter(lasting(1), lasting(1))
    series |= {sample("up", place, {}): lasting(0) for place in (beside, elsewhere)}
    assert not wrong(folder, series)


def test_an_exporter_that_has_been_down_for_more_than_a_day_pages_beside_others_of_its_instances_name(
    folder: Path,
) -> None:
    elsewhere = EXPORTER | {"pod": "node-exporter-y1", "job": "node-exporter"}
    series = exporter(until(1, 60), then(1, 0, 60)) | {sample("up", elsewhere, {}): lasting(1)}
    assert not wrong(folder, series, "GPUExporterDown")


def test_an_exporters_new_pod_that_never_answers_pages(folder: Path) -> None:
    new = EXPORTER | {"pod": "pegel-gpu-x2"}
    series = exporter(until(1, 60), until(1, 60)) | {sample("up", new, {}): f"_x60 0+0x{MINUTES}"}
    assert not wrong(folder, series, "GPUExporterDown")


def test_an_exporters_pod_that_was_replaced_is_silent(folder: Path) -> None:
    new = EXPORTER | {"pod": "pegel-gpu-x2"}
    series = exporter(until(1, 60), until(1, 60))
    series |= {sample(metric, new, own): f"_x62 1+0x{MINUTES}" for metric, own in ((c.GPU_UP, GPU), ("up", {}))}
    assert not wrong(folder, series)


def test_short_connections_that_cannot_be_followed_are_as_blind_as_long_ones(folder: Path) -> None:
    series = {
        sample(c.TAP_UNFOLLOWED, SIDECAR, {**MODEL, "reason": "one of tomorrow's"}): counting(60),
        sample(c.TAP_UNWATCHED_SECONDS, SIDECAR, MODEL): counting(1),
        sample(c.TAP_EXCHANGES, SIDECAR, {**MODEL, "outcome": "analysed"}): counting(0),
    }
    assert not wrong(folder, series, "TrafficNotFollowed")


def test_a_port_scan_among_the_traffic_is_silent(folder: Path) -> None:
    series = {
        sample(c.TAP_UNFOLLOWED, SIDECAR, {**MODEL, "reason": "framing"}): counting(1),
        sample(c.TAP_UNWATCHED_SECONDS, SIDECAR, MODEL): counting(1),
        sample(c.TAP_EXCHANGES, SIDECAR, {**MODEL, "outcome": "analysed"}): counting(60),
    }
    assert not wrong(folder, series)


def labels(matched: str, coverage: str) -> dict[str, str]:
    return {
        sample(c.LABELS, SIDECAR, {**MODEL, "outcome": "matched"}): matched,
        sample(c.LABEL_COVERAGE, SIDECAR, MODEL): coverage,
    }


def test_a_model_that_nobody_labels_is_told_and_warns_nobody(folder: Path) -> None:
    assert not wrong(folder, labels(lasting(0), lasting(0)), "AccuracyUnknown")


def test_labels_that_came_and_come_no_longer_warn(folder: Path) -> None:
    came = labels("0+1x60 " + lasting(60), then(0.9, 0, 120))
    assert not wrong(folder, came, "LabelsMissing", minute=600)


def test_labels_that_came_for_another_version_are_missed_of_this_one(folder: Path) -> None:
    before = SIDECAR | {"pod": "churn-old"}
    series = labels(lasting(0), f"_x120 {lasting(0)}") | {
        sample(c.LABELS, before, {**MODEL, "model_version": "2", "outcome": "matched"}): "0+1x60 stale"
    }
    assert not wrong(folder, series, "LabelsMissing", minute=600)


def test_labels_that_fit_no_prediction_warn(folder: Path) -> None:
    series = labels(lasting(0), lasting(0)) | {
        sample(c.LABELS, SIDECAR, {**MODEL, "outcome": "unmatched"}): counting(1)
    }
    assert not wrong(folder, series, "LabelsMissing", minute=600)


def test_one_request_that_cannot_be_read_is_silent(folder: Path) -> None:
    series = {
        sample(c.TAP_EXCHANGES, SIDECAR, {**MODEL, "outcome": "undecodable"}): then(0, 1),
        sample(c.TAP_EXCHANGES, SIDECAR, {**MODEL, "outcome": "analysed"}): lasting(0),
    }
    assert not wrong(folder, series, minute=MINUTES - 20)


def test_an_xid_and_ecc_errors_page_for_hours_across_a_reboot(folder: Path) -> None:
    """The exporter's new pod counts XIDs from 0, and errors of the GPU's memory over its life."""
    new = EXPORTER | {"pod": "pegel-gpu-x2"}
    info = {"xid": "79", "class": "hardware", "meaning": "it fell off", "advice": "restart it"}
    ecc = {**GPU, "severity": "uncorrected", "memory": "dram"}
    series = {
        sample(c.GPU_XID_ERRORS, EXPORTER, {**GPU, "xid": "79"}): "0+0x299 1+0x9 stale",
        sample(c.GPU_XID_INFO, EXPORTER, info): "_x300 1+0x9 stale",
        sample(c.GPU_ECC_ERRORS, EXPORTER, ecc): "0+0x309 stale",
        sample(c.GPU_XID_ERRORS, new, {**GPU, "xid": "79"}): f"_x330 0+0x{MINUTES}",
        sample(c.GPU_ECC_ERRORS, new, ecc): f"_x330 3+0x{MINUTES}",
    }
    assert not wrong(folder, series, "GPUXidError", "GPUNeedsService", minute=900)
