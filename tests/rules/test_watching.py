"""The alerts on what no longer watches, as promtool evaluates them."""

from pathlib import Path

import pytest
from pegel_rules import Settings, files, groups
from promtool import Firing, check, model

pytestmark = pytest.mark.integration


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The rule files as they ship."""
    for name, text in files(groups(Settings())).items():
        (tmp_path / name).write_text(text)
    return tmp_path


def exchanges(name: str, *, analysed: int, shed: int = 0, undecodable: int = 0, replica: int = 0) -> dict[str, str]:
    """A replica's exchanges by outcome, so many of each a minute."""
    rates = {"analysed": analysed, "shed": shed, "undecodable": undecodable}
    return {
        model(name, metric="pegel_tap_exchanges_total", replica=replica, outcome=outcome): f"0+{each}x120"
        for outcome, each in rates.items()
    }


def analyser(name: str, values: str, *, replica: int = 0) -> dict[str, str]:
    return {model(name, metric="pegel_tap_analyser_up", replica=replica): values}


def test_an_analyser_that_is_down_for_ten_minutes_warns(folder: Path) -> None:
    series = analyser("dead", "1+0x9 0+0x60") | analyser("dead", "1+0x70", replica=1) | analyser("well", "1+0x70")
    firing = [Firing(minute=minute, alert="AnalyserDown", models=found) for minute, found in ((19, []), (21, ["dead"]))]
    assert not check(folder, series=series, firing=firing)


def test_an_analyser_that_is_started_again_is_silent(folder: Path) -> None:
    series = analyser("restarted", "1+0x9 0+0x5 1+0x60")
    silent = [Firing(minute=minute, alert="AnalyserDown", models=[]) for minute in (12, 21, 60)]
    assert not check(folder, series=series, firing=silent)


def test_traffic_that_is_mostly_not_analysed_warns_whichever_way_it_is_lost(folder: Path) -> None:
    series = (
        exchanges("foreign", analysed=1, undecodable=9)
        | exchanges("overloaded", analysed=4, shed=6)
        | exchanges("half", analysed=5, shed=3, undecodable=2)
        | exchanges("well", analysed=10)
    )
    firing = [Firing(minute=60, alert="TrafficNotAnalysed", models=["foreign", "overloaded"])]
    assert not check(folder, series=series, firing=firing)


def test_one_bad_replica_of_three_and_an_idle_model_are_silent(folder: Path) -> None:
    series = exchanges("mostly", analysed=0, shed=10) | exchanges("idle", analysed=0)
    for replica in (1, 2):
        series |= exchanges("mostly", analysed=10, replica=replica)
    assert not check(folder, series=series, firing=[Firing(minute=60, alert="TrafficNotAnalysed", models=[])])


def up(name: str, values: str, *, replica: int = 0) -> dict[str, str]:
    """A target that said once which model it watches."""
    return {
        model(name, metric="up", replica=replica): values,
        model(name, metric="pegel_build_info", replica=replica, version="1.0"): "1x5 stale",
    }


def test_a_sidecar_that_does_not_answer_warns_and_one_that_is_gone_or_none_of_ours_does_not(folder: Path) -> None:
    series = up("down", "1x5 0x60") | up("down", "1x70", replica=1) | up("gone", "1x5 stale") | up("well", "1x70")
    series |= {"up{namespace='shop',pod='x',instance='x:1',job='pegel'}": "0x70"}
    firing = [Firing(minute=minute, alert="SidecarDown", models=found) for minute, found in ((8, []), (20, ["down"]))]
    assert not check(folder, series=series, firing=firing)


def test_an_analyser_that_ends_every_minute_warns_though_it_is_up_between(folder: Path) -> None:
    def restarts(name: str, values: str) -> dict[str, str]:
        return {model(name, metric="pegel_tap_analyser_restarts_total"): values} | analyser(name, "1x120")

    series = restarts("loops", "0+1x120") | restarts("once", "0x30 1x90") | restarts("well", "0x120")
    assert not check(folder, series=series, firing=[Firing(minute=60, alert="AnalyserCrashLooping", models=["loops"])])


def test_a_few_exchanges_that_can_t_be_read_are_no_alarm(folder: Path) -> None:
    series = {
        model("one", metric="pegel_tap_exchanges_total", outcome="undecodable"): "0x30 1x90",
        model("one", metric="pegel_tap_exchanges_total", outcome="analysed"): "0x120",
    }
    assert not check(folder, series=series, firing=[Firing(minute=50, alert="TrafficNotAnalysed", models=[])])


def test_traffic_that_can_t_be_followed_for_most_of_the_time_warns(folder: Path) -> None:
    def unwatched(name: str, each: int) -> dict[str, str]:
        return {model(name, metric="pegel_tap_unwatched_seconds_total"): f"0+{each}x120"}

    series = unwatched("grpc", 60) | unwatched("seldom", 5) | unwatched("well", 0)
    assert not check(folder, series=series, firing=[Firing(minute=60, alert="TrafficNotFollowed", models=["grpc"])])


def test_a_model_whose_answers_are_errors_pages_and_a_few_of_many_do_not(folder: Path) -> None:
    def answers(name: str, ok: int, **failed: int) -> dict[str, str]:
        return {
            model(name, metric="ml_inference_outcomes_total", outcome=outcome): f"0x10 0+{each}x110"
            for outcome, each in {"ok": ok, **failed}.items()
        }

    series = (
        answers("half", 10, error=10)
        | answers("late", 10, timeout=5)
        | answers("clients", 10, client_abort=90)
        | answers("ours", 10, unfollowed=90)
        | answers("few", 99, error=1)
        | answers("well", 10)
    )
    firing = [
        Firing(minute=9, alert="ModelErrors", models=[]),
        Firing(minute=60, alert="ModelErrors", models=["half", "late"]),
    ]
    assert not check(folder, series=series, firing=firing)


def test_a_reference_that_is_never_ready_and_labels_that_never_come_warn(folder: Path) -> None:
    series = {
        model("young", metric="ml_reference_ready"): "0x800",
        model("learned", metric="ml_reference_ready"): "0x400 1x400",
        model("left", metric="ml_label_coverage_ratio"): "0.4x100 0x700",
        model("part", metric="ml_label_coverage_ratio"): "0.01x800",
    }
    firing = [
        Firing(minute=700, alert="ReferenceNotReady", models=[]),
        Firing(minute=730, alert="ReferenceNotReady", models=["young"]),
        Firing(minute=400, alert="LabelsMissing", models=[]),
        Firing(minute=500, alert="LabelsMissing", models=["left"]),
    ]
    assert not check(folder, series=series, firing=firing)


def test_accuracy_that_stays_unknown_is_said(folder: Path) -> None:
    def state(name: str, values: str) -> dict[str, str]:
        return {model(name, metric="ml_model_quality_state", state="unknown"): values}

    series = state("partial", "0x10 1x400") | state("well", "0x400")
    said = [Firing(minute=at, alert="AccuracyUnknown", models=who) for at, who in ((1000, []), (1550, ["partial"]))]
    assert not check(folder, series=series, firing=said, interval="5m")


def test_a_replica_that_sees_no_traffic_while_its_siblings_do_is_said(folder: Path) -> None:
    def requests(name: str, *each: int) -> dict[str, str]:
        return {
            model(name, metric="ml_inference_outcomes_total", replica=replica, outcome="ok"): f"0+{one}x120"
            for replica, one in enumerate(each)
        }

    series = requests("uneven", 30, 0) | requests("even", 30, 20) | requests("idle", 0, 0) | requests("alone", 30)
    assert not check(
        folder, series=series, firing=[Firing(minute=90, alert="ReplicaWithoutTraffic", models=["uneven"])]
    )


def test_a_fault_in_one_of_two_clusters_is_told_of_that_one_however_often_it_is_scraped(folder: Path) -> None:
    series = {}
    for cluster, fault in (("a", 1), ("b", 0)):
        for job in ("one", "two"):
            place = {"cluster": cluster, "job": job}
            series |= {
                model("m", metric="pegel_build_info", version="1", **place): "1x5 stale",
                model("m", metric="up", **place): f"1x5 {1 - fault}x120",
                model("m", metric="pegel_tap_analyser_up", **place): f"{1 - fault}x120",
                model("m", metric="pegel_tap_analyser_restarts_total", **place): f"0+{fault}x120",
                model("m", metric="pegel_tap_exchanges_total", outcome="shed", **place): f"0+{10 * fault}x120",
                model("m", metric="pegel_tap_exchanges_total", outcome="analysed", **place): "0+5x120",
                model("m", metric="pegel_tap_unwatched_seconds_total", **place): f"0+{60 * fault}x120",
                model("m", metric="ml_inference_outcomes_total", outcome="error", **place): f"0+{10 * fault}x120",
                model("m", metric="ml_inference_outcomes_total", outcome="ok", **place): "0+5x120",
                model("m", metric="ml_model_accuracy", **place): f"{0.95 - 0.2 * fault}x120",
                model("m", metric="ml_model_accuracy_labels", **place): "500x120",
                model("m", metric="ml_labels_total", outcome="matched", **place): "0+1x120",
                model("m", metric="ml_drift_evidence", **place): f"{5 * fault}x120",
                model("m", metric="ml_drift_evidence_limit", **place): "4x120",
                model("m", metric="ml_data_drift_score", **place): f"{0.9 * fault}x120",
            }
    expected = [
        Firing(minute=100, alert=alert, models=["a"], by="cluster")
        for alert in (
            "SidecarDown", "AnalyserDown", "AnalyserCrashLooping", "TrafficNotAnalysed", "TrafficNotFollowed",
            "ModelErrors", "ModelAccuracyDrift", "DataDriftDetected", "DataDriftBroad",
        )
    ]  # fmt: skip
    counted = {"expr": 'ALERTS{alertname="SidecarDown"}', "eval_time": "100m"}
    labels = "alertname='SidecarDown',alertstate='firing',severity='warning',cluster='a'"
    sample = f"ALERTS{{{labels},namespace='shop',model_name='m',model_version='3'}}"
    one = counted | {"exp_samples": [{"labels": sample, "value": 1}]}
    count = {"expr": "count(ALERTS)", "eval_time": "100m", "exp_samples": [{"labels": "{}", "value": 9}]}
    assert not check(folder, series=series, firing=expected, extra={})
    assert not check(folder, series=series, extra={"promql_expr_test": [one, count]})


def test_a_threshold_of_another_cluster_never_counts(folder: Path) -> None:
    series = {}
    for cluster in ("a", "b", "c"):
        series |= {
            model("m", metric="ml_model_accuracy", cluster=cluster): "0.8x120",
            model("m", metric="ml_model_accuracy_labels", cluster=cluster): "500x120",
            model("m", metric="ml_labels_total", outcome="matched", cluster=cluster): "0+1x120",
        }
    own = "pegel_threshold{{alert='ModelAccuracyDrift',cluster='{}'{}}}"
    series |= {own.format("b", ""): "0.7x120", own.format("c", ",model_name='m'"): "0.75x120"}
    expected = [Firing(minute=60, alert="ModelAccuracyDrift", models=["a"], by="cluster")]
    assert not check(folder, series=series, firing=expected)
