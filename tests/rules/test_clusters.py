"""Every alert on two clusters whose nodes, pods and models have the same names: it fires where the fault is, and only
there, also where each target is scraped by two jobs.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pegel_exporters import catalogue as c
from pegel_exporters.catalogue import Metric
from pegel_rules import Alert, Settings, files, groups
from promtool import check
from targets import MINUTES, counting, lasting, sample, then, until

pytestmark = pytest.mark.integration

MODEL = {"model_name": "churn", "model_version": "3"}
GPU = {"gpu": "0", "uuid": "GPU-0"}
ALERTS = sorted(rule.name for group in groups(Settings()) for rule in group.rules if isinstance(rule, Alert))

Series = tuple[Metric | str, dict[str, str], str, str]
"""A metric, its own labels, and its values where something is wrong and where all is well."""


def of_a_model() -> Iterator[Series]:
    """What one sidecar says of everything that can be wrong with a model, and with the watching of it."""
    yield c.BUILD_INFO, {**MODEL, "version": "1"}, lasting(1), lasting(1)
    yield c.MODEL_ACCURACY, MODEL, lasting(0.5), lasting(0.9)
    yield c.MODEL_ACCURACY_LABELS, MODEL, lasting(500), lasting(500)
    yield c.LABELS, {**MODEL, "outcome": "matched"}, counting(1), counting(1)
    yield c.LABEL_COVERAGE, MODEL, lasting(0), lasting(0.9)
    yield c.MODEL_QUALITY_STATE, {**MODEL, "state": "unknown"}, lasting(1), lasting(0)
    for evidence, limit in (
        (c.DRIFT_EVIDENCE, c.DRIFT_EVIDENCE_LIMIT), (c.ACCURACY_DROP_EVIDENCE, c.ACCURACY_DROP_EVIDENCE_LIMIT)
    ):  # fmt: skip
        yield evidence, MODEL, lasting(5), lasting(1)
        yield limit, MODEL, lasting(4), lasting(4)
    yield c.DATA_DRIFT_SCORE, MODEL, then(0.1, 0.8), lasting(0.1)
    for own_bin, broken in (("low", 95), ("high", 5)):
        own = {**MODEL, "feature": "age", "bin": own_bin, "reference": "cafe"}
        yield c.FEATURE_ROWS, own, counting(broken), counting(50)
        yield c.FEATURE_REFERENCE_ROWS, own, lasting(5_000), lasting(5_000)
    yield c.DRIFT_DESIGN_EFFECT, {**MODEL, "feature": "age"}, lasting(1), lasting(1)
    yield c.INFERENCE_ROWS, MODEL, counting(100), counting(100)
    yield c.REFERENCE_READY, MODEL, lasting(0), lasting(1)
    yield c.TAP_EXCHANGES, {**MODEL, "outcome": "analysed"}, counting(1), counting(10)
    yield c.TAP_EXCHANGES, {**MODEL, "outcome": "undecodable"}, counting(9), counting(0)
    yield c.TAP_UNFOLLOWED, {**MODEL, "reason": "framing"}, counting(9), counting(0)
    yield c.TAP_UNWATCHED_SECONDS, MODEL, counting(60), counting(0)
    yield c.TAP_ANALYSER_UP, MODEL, lasting(0), lasting(1)
    yield c.TAP_ANALYSER_RESTARTS, MODEL, counting(1), lasting(0)
    yield c.TAP_ADMIN_REFUSED, MODEL, counting(5), lasting(0)
    for outcome, broken in (("ok", 5), ("error", 5)):
        yield c.INFERENCE_OUTCOMES, {**MODEL, "outcome": outcome}, counting(broken), counting(10 * (outcome == "ok"))


def of_an_idle_replica() -> Iterator[Series]:
    yield c.INFERENCE_OUTCOMES, {**MODEL, "outcome": "ok"}, lasting(0), counting(10)


def of_a_replica_that_dies() -> Iterator[Series]:
    yield c.BUILD_INFO, {**MODEL, "version": "1"}, until(1), lasting(1)
    yield "up", {}, then(1, 0), lasting(1)


def of_a_node() -> Iterator[Series]:
    yield c.GPU_UP, GPU, then(1, 0), lasting(1)
    yield c.GPU_DRIVER_RELEASED, {}, lasting(0), then(0, 1)
    yield c.GPU_DEVICES, {}, then(8, 7), lasting(8)
    yield c.GPU_XID_ERRORS, {**GPU, "xid": "79"}, then(0, 1), lasting(0)
    info = {"xid": "79", "class": "hardware", "meaning": "it fell off", "advice": "restart it"}
    yield c.GPU_XID_INFO, info, then(1, 1), lasting(1)
    yield c.GPU_ROW_REMAP_FAILED, GPU, then(0, 1), lasting(0)
    yield c.GPU_ECC_ERRORS, {**GPU, "severity": "uncorrected", "memory": "dram"}, then(7, 8), lasting(7)
    yield c.GPU_THROTTLE_SECONDS, {**GPU, "reason": "hardware_thermal"}, counting(30), counting(0)
    yield c.GPU_STATE, {**GPU, "state": "idle_held"}, lasting(1), lasting(0)
    yield c.GPU_PRICE, {**GPU, "currency": "EUR"}, lasting(2), lasting(2)


def of_a_node_whose_exporter_dies() -> Iterator[Series]:
    yield c.GPU_UP, GPU, until(1), lasting(1)
    yield "up", {}, then(1, 0), lasting(1)


TARGETS = {
    "churn-0": of_a_model, "churn-1": of_an_idle_replica, "churn-2": of_a_replica_that_dies,
    "node-0": of_a_node, "node-1": of_a_node_whose_exporter_dies,
}  # fmt: skip


def scraped(clusters: dict[str, bool], *, jobs: int = 1) -> dict[str, str]:
    """The series of all targets of the clusters, by whether something is wrong in them."""
    found = {}
    for cluster, broken in clusters.items():
        for target, published in TARGETS.items():
            place = {"namespace": "shop", "pod": target, "instance": target, "node": target}
            for metric, own, wrong, well in published():
                for job in range(jobs):
                    labels = {**({"cluster": cluster} if cluster else {}), **place, "job": f"job-{job}"}
                    found[sample(metric, labels, own)] = wrong if broken else well
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The rule files as they ship."""
    for name, text in files(groups(Settings())).items():
        (tmp_path / name).write_text(text)
    return tmp_path


def firing(*clusters: str) -> dict[str, object]:
    """The question for all alerts that fire, which are all that there are, in these clusters."""
    return {
        "expr": 'group by (cluster, alertname) (ALERTS{alertstate="firing"})',
        "eval_time": f"{MINUTES - 5}m",
        "exp_samples": [
            {"labels": f'{{alertname="{alert}"{cluster and f",cluster={cluster!r}"}}}', "value": 1}
            for cluster in clusters
            for alert in ALERTS
        ],
    }


@pytest.mark.parametrize("jobs", [1, 2])
def test_each_alert_fires_in_the_cluster_with_the_fault_and_in_no_other(folder: Path, jobs: int) -> None:
    series = scraped({"a": True, "b": False}, jobs=jobs)
    assert not check(folder, series=series, extra={"promql_expr_test": [firing("a")]}, evaluation="5m")


def test_the_same_fault_in_two_clusters_is_two_alerts(folder: Path) -> None:
    assert not check(
        folder, series=scraped({"a": True, "b": True}), extra={"promql_expr_test": [firing("a", "b")]}, evaluation="5m"
    )


def test_a_prometheus_that_knows_of_no_cluster_has_every_alert(folder: Path) -> None:
    assert not check(folder, series=scraped({"": True}), extra={"promql_expr_test": [firing("")]}, evaluation="5m")


def test_where_all_is_well_nothing_fires(folder: Path) -> None:
    assert not check(
        folder,
        series=scraped({"a": False, "b": False}, jobs=2),
        extra={"promql_expr_test": [firing()]},
        evaluation="5m",
    )
