"""Each alert on made-up replicas, as promtool evaluates it: when it fires, and when it must stay silent."""

import math
import re
from collections.abc import Iterable
from itertools import cycle, islice
from pathlib import Path

import pytest
import yaml
from pegel_rules import Settings, files, groups
from pegel_rules.files import RUNBOOKS
from promtool import Firing, check, model

pytestmark = pytest.mark.integration

LIMIT = math.log10(8_640)
RUNBOOK = Path(__file__).parents[2] / "docs/runbooks/ModelAccuracyDrift.md"
SEED_RULE = {
    "groups": [
        {
            "name": "model.drift",
            "rules": [{"alert": "Seed", "expr": "increase(ml_data_drift_score[1h]) > 0.3", "for": "10m"}],
        }
    ]
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The rule files as they ship."""
    for name, text in files(groups(Settings())).items():
        (tmp_path / name).write_text(text)
    return tmp_path


def always(value: float, minutes: int = 120) -> str:
    return f"{value}+0x{minutes}"


def minutes(*parts: tuple[float, int]) -> str:
    """Values and for how many minutes each."""
    return " ".join(f"{value}+0x{length - 1}" for value, length in parts)


def each(values: Iterable[float]) -> str:
    return " ".join(map(str, values))


def fires(alert: str, *expected: tuple[int, str]) -> list[Firing]:
    """After which minute the alert fires for which models (names with spaces between)."""
    return [Firing(minute=minute, alert=alert, models=names.split()) for minute, names in expected]


# Accuracy


def labelled(name: str, accuracy: float | str, *, labels: int = 500, matched: str = "0+1x3600", replica: int = 0):
    """A replica's accuracy (one value, or one a minute), the labels that it rests on, and all labels ever matched."""
    shown = accuracy if isinstance(accuracy, str) else always(accuracy)
    return {
        model(name, metric="ml_model_accuracy", replica=replica): shown,
        model(name, metric="ml_model_accuracy_labels", replica=replica): always(labels, 3_600),
        model(name, metric="ml_labels_total", replica=replica, outcome="matched"): matched,
        model(name, metric="ml_labels_total", replica=replica, outcome="unmatched"): "0+10x3600",
    }


def unlabelled(name: str, *, replica: int = 0):
    """A replica whose labels are too few to publish an accuracy."""
    found = labelled(name, 0, replica=replica)
    return {series: values for series, values in found.items() if "ml_labels_total" in series}


def test_accuracy_below_the_threshold_for_five_minutes_warns(folder):
    series = labelled("bad", minutes((0.9, 10), (0.8, 30))) | labelled("good", 0.86)
    assert not check(series=series, folder=folder, firing=fires("ModelAccuracyDrift", (9, ""), (14, ""), (16, "bad")))


def test_a_model_that_is_wrong_about_everything_warns(folder):
    assert not check(folder, series=labelled("hopeless", 0), firing=fires("ModelAccuracyDrift", (10, "hopeless")))


def test_a_dip_in_accuracy_that_is_over_within_five_minutes_is_silent(folder):
    series = labelled("dip", minutes((0.9, 10), (0.5, 4), (0.9, 30)))
    assert not check(folder, series=series, firing=fires("ModelAccuracyDrift", (12, ""), (14, ""), (16, ""), (20, "")))


def test_too_few_labels_are_silent(folder):
    assert not check(folder, series=unlabelled("young"), firing=fires("ModelAccuracyDrift", (20, "")))


@pytest.fixture
def hurried(tmp_path: Path) -> Path:
    """The rule files where a day is an hour."""
    for name, text in files(groups(Settings(time_scale=1 / 24))).items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_low_accuracy_is_silent_two_days_after_the_last_label_and_fires_again_with_the_next(hurried):
    series = labelled("left", always(0.5, 300), matched="0+1x60 60+0x130 61+1x60")
    spoken = fires("ModelAccuracyDrift", (20, "left"), (170, "left"), (185, ""), (190, ""), (200, "left"))
    assert not check(hurried, series=series, firing=spoken)


def test_another_models_labels_keep_no_alert_alive(folder):
    series = labelled("left", 0.5, matched=always(900)) | labelled("busy", 0.9)
    assert not check(folder, series=series, firing=fires("ModelAccuracyDrift", (20, "")))


def drop(name: str, *replicas: str, matched: str = "0+1x3600", limit: float = LIMIT) -> dict[str, str]:
    """Evidence of a drop, one text of values per replica, and labels that come."""
    found: dict[str, str] = {}
    for replica, values in enumerate(replicas):
        found[model(name, metric="ml_accuracy_drop_evidence", replica=replica)] = values
        found[model(name, metric="ml_accuracy_drop_evidence_limit", replica=replica)] = always(limit, 3_600)
        found[model(name, metric="ml_labels_total", replica=replica, outcome="matched")] = matched
    return found


def test_a_drop_of_accuracy_starts_at_the_limit_and_ends_at_half_of_it(folder):
    values = minutes((-math.inf, 5), (0.2, 5), (5, 10), (2.5, 20), (1.5, 10), (2.5, 20))
    spoken = fires("ModelAccuracyDrop", (9, ""), (12, "worse"), (30, "worse"), (39, "worse"), (40, ""), (60, ""))
    assert not check(folder, series=drop("worse", values), firing=spoken)


def test_one_replicas_evidence_of_a_drop_pages_only_when_the_average_does(folder):
    quiet = always(-math.inf)
    series = drop("one", always(4.2), quiet, quiet) | drop("average", always(4.5), quiet, quiet)
    assert not check(folder, series=series, firing=fires("ModelAccuracyDrop", (30, "average")))


def test_a_drop_is_silent_two_days_after_the_last_label(hurried):
    series = drop("left", always(5, 300), matched="0+1x60 60+0x300")
    assert not check(hurried, series=series, firing=fires("ModelAccuracyDrop", (20, "left"), (170, "left"), (185, "")))


def test_without_evidence_no_model_has_dropped(folder):
    series = labelled("plain", 0.2) | drop("calm", always(3.9))
    assert not check(folder, series=series, firing=fires("ModelAccuracyDrop", (30, "")))


def test_replicas_count_by_their_labels(folder):
    """The plain average is 0.7 for both models."""
    series = (
        labelled("right", 0.9, labels=2_000)
        | labelled("right", 0.5, labels=50, replica=1)
        | labelled("wrong", 0.9, labels=50)
        | labelled("wrong", 0.5, labels=2_000, replica=1)
    )
    assert not check(folder, series=series, firing=fires("ModelAccuracyDrift", (20, "wrong")))


def test_a_replica_with_too_few_labels_does_not_count(folder):
    series = labelled("calm", 0.86) | unlabelled("calm", replica=1)
    assert not check(folder, series=series, firing=fires("ModelAccuracyDrift", (20, "")))


def test_a_models_own_threshold_wins_over_the_default_in_both_directions(folder):
    def own(name):
        return f'pegel_threshold{{alert="ModelAccuracyDrift",model_name="{name}"}}'

    series = {own("strict"): always(0.95), own("lenient"): always(0.7)}
    for name in ("strict", "lenient", "other"):
        series |= labelled(name, 0.8 if name != "strict" else 0.9)
    assert not check(folder, series=series, firing=fires("ModelAccuracyDrift", (20, "other strict")))


def test_another_alerts_threshold_does_not_matter(folder):
    series = labelled("calm", 0.86) | {'pegel_threshold{alert="DataDriftBroad",model_name="calm"}': always(0.99)}
    assert not check(folder, series=series, firing=fires("ModelAccuracyDrift", (20, "")))


def test_the_same_threshold_given_twice_spoils_no_rule(folder):
    series = labelled("bad", 0.8) | labelled("worse", 0.6)
    for namespace in ("a", "b"):
        series[f'pegel_threshold{{alert="ModelAccuracyDrift",namespace="{namespace}"}}'] = always(0.84)
        series[f'pegel_threshold{{alert="ModelAccuracyDrift",model_name="worse",namespace="{namespace}"}}'] = always(
            0.7
        )
    assert not check(folder, series=series, firing=fires("ModelAccuracyDrift", (20, "bad worse")))


def test_the_runbooks_own_threshold_works(folder):
    text = re.search(r"```yaml\n(.*?)```", RUNBOOK.read_text(), re.DOTALL)[1]
    (folder / "own.yaml").write_text(text)
    series = labelled("churn", 0.75) | labelled("fraud", 0.75)
    assert not check(folder, series=series, firing=fires("ModelAccuracyDrift", (20, "fraud")))


# Evidence


def evidence(name: str, *replicas: str, limit: float = LIMIT) -> dict[str, str]:
    """A model's evidence, one text of values per replica."""
    return {
        model(name, metric=metric, replica=replica): values
        for replica, own in enumerate(replicas)
        for metric, values in (("ml_drift_evidence", own), ("ml_drift_evidence_limit", always(limit, 300)))
    }


def test_evidence_starts_at_the_limit_and_ends_at_half_of_it(folder):
    values = minutes((0.2, 10), (5, 10), (2.5, 20), (1.5, 10), (2.5, 20))
    expected = fires("DataDriftDetected", (9, ""), (12, "drifting"), (30, "drifting"), (39, "drifting"), (40, ""))
    assert not check(folder, series=evidence("drifting", values), firing=expected)


def test_evidence_that_is_gone_starts_anew(folder):
    values = minutes((5, 10), (1.5, 10), (3.9, 20))
    assert not check(folder, series=evidence("over", values), firing=fires("DataDriftDetected", (5, "over"), (35, "")))


def test_evidence_between_half_the_limit_and_the_limit_starts_nothing(folder):
    series = evidence("near", always(3.9)) | evidence("drifting", always(4))
    assert not check(folder, series=series, firing=fires("DataDriftDetected", (30, "drifting")))


def test_another_models_alert_does_not_lower_the_limit(folder):
    """Nor does one of the same name in another namespace."""
    here, there = evidence("twin", always(5)), evidence("twin", always(2.5))
    elsewhere = {name.replace("'shop'", "'lab'"): values for name, values in there.items()}
    question = 'ALERTS{alertname="DataDriftDetected",alertstate="firing"}'
    labels = "alertname='DataDriftDetected',alertstate='firing',severity='critical',model_name='twin',model_version='3'"
    expected = {
        "expr": question,
        "eval_time": "20m",
        "exp_samples": [{"labels": f"ALERTS{{{labels},namespace='shop'}}", "value": 1}],
    }
    assert not check(folder, series=here | elsewhere, extra={"promql_expr_test": [expected]})


def test_one_replica_of_three_pages_only_when_the_average_does(folder):
    """10^4.2 / 3 is below 8640 and 10^4.5 / 3 above."""
    quiet = always(-2)
    series = evidence("one", always(4.2), quiet, quiet) | evidence("average", always(4.5), quiet, quiet)
    assert not check(folder, series=series, firing=fires("DataDriftDetected", (30, "average")))


def test_a_replica_that_was_just_reset_counts_as_no_evidence(folder):
    series = evidence("half", always(4.5), always(-math.inf)) | evidence("none", always(-math.inf))
    assert not check(folder, series=series, firing=fires("DataDriftDetected", (30, "half")))


def test_a_models_own_budget_is_its_limit(folder):
    series = evidence("patient", always(4), limit=5) | evidence("hasty", always(2.2), limit=2)
    assert not check(folder, series=series, firing=fires("DataDriftDetected", (30, "hasty")))


# The score


def scores(name: str, values: str) -> dict[str, str]:
    return {model(name, metric="ml_data_drift_score", replica=replica): values for replica in (0, 1)}


def test_noise_sets_off_the_seeds_rule_and_none_of_ours(folder):
    """Each fall looks to `increase` like a counter's restart."""
    (folder / "seed.yaml").write_text(yaml.safe_dump(SEED_RULE))
    series = scores("noisy", each(islice(cycle((0.09, 0.12, 0.1, 0.11)), 240))) | evidence("noisy", always(0.3, 240))
    question = {"expr": "count(ALERTS{alertname='Seed',alertstate='firing'})", "eval_time": "200m"}
    seed_fires = {**question, "exp_samples": [{"labels": "{}", "value": 2}]}
    ours = {
        "expr": "ALERTS{alertname=~'DataDrift.*'}",
        "eval_time": "200m",
        "exp_samples": [],
    }
    assert not check(folder, series=series, extra={"promql_expr_test": [seed_fires, ours]})


def test_a_jump_that_lasts_is_forgotten_by_the_seeds_rule_and_not_by_ours(folder):
    (folder / "seed.yaml").write_text(yaml.safe_dump(SEED_RULE))
    series = scores("jumped", minutes((0.1, 70), (0.8, 230))) | evidence("jumped", minutes((0.1, 70), (6, 230)))

    def state(minute: int, *alerts: str):
        return {
            "expr": "count by (alertname) (ALERTS{alertstate='firing'})",
            "eval_time": f"{minute}m",
            "exp_samples": [
                {"labels": f"{{alertname='{name}'}}", "value": 2 if name == "Seed" else 1} for name in alerts
            ],
        }

    at_once = state(90, "DataDriftBroad", "DataDriftDetected", "DataDriftRising", "Seed")
    three_hours_later = state(250, "DataDriftBroad", "DataDriftDetected")
    assert not check(folder, series=series, extra={"promql_expr_test": [at_once, three_hours_later]})


def test_a_slow_rise_of_the_score_is_not_rising(folder):
    series = scores("slow", "0.1+0.004x120") | scores("fast", "0.1+0.006x120")
    assert not check(folder, series=series, firing=fires("DataDriftRising", (100, "fast")))


def test_a_replica_that_leaves_does_not_make_the_score_rise(folder):
    quiet, loud = (
        {model("shrunk", metric="ml_data_drift_score", replica=replica): values}
        for replica, values in ((0, minutes((0, 80)) + " stale"), (1, always(0.25)))
    )
    assert not check(folder, series=quiet | loud, firing=fires("DataDriftRising", (100, "")))


def test_half_of_the_features_is_broad_only_above_the_threshold(folder):
    own = {'pegel_threshold{alert="DataDriftBroad",model_name="strict"}': always(0.2)}
    series = scores("half", always(0.5)) | scores("more", always(0.6)) | scores("strict", always(0.3)) | own
    assert not check(folder, series=series, firing=fires("DataDriftBroad", (8, ""), (20, "more strict")))


# Words


@pytest.mark.parametrize(
    ("alert", "severity", "summary", "description"),
    [
        (
            "ModelAccuracyDrift", "warning", "Model accuracy below its threshold",
            "churn 3 in namespace shop is right less often than its threshold asks for, by more than chance explains. "
            "It is right in 81.2% of the recently labelled rows.",
        ),
        (
            "ModelAccuracyDrop", "critical", "The model is right less often than on its reference",
            "churn 3 in namespace shop errs more often than it did on its reference: the evidence, averaged over its "
            "replicas, is 10^5.0. It is right in 81.2% of the recently labelled rows.",
        ),
        (
            "DataDriftDetected", "critical", "The model's data has drifted from its reference",
            "The data of churn 3 in namespace shop no longer looks like the reference: the evidence, averaged over "
            "its replicas, is 10^5.0. The strongest evidence is in feature monthly \"net\" fee.",
        ),
        (
            "DataDriftRising", "warning", "More and more features drift",
            "The share of the features of churn 3 in namespace shop that are in drift has risen by 0.70 within 1h. "
            "The strongest evidence is in feature monthly \"net\" fee.",
        ),
        (
            "DataDriftBroad", "warning", "Much of the model's data has drifted",
            "80% of the features of churn 3 in namespace shop are in drift. "
            "The strongest evidence is in feature monthly \"net\" fee.",
        ),
    ],
)  # fmt: skip
def test_an_alert_says_which_model_how_much_and_which_feature(folder, alert, severity, summary, description):
    features = {
        model("churn", metric="ml_feature_drift_evidence", feature='monthly "net" fee', replica=0): always(5.5),
        model("churn", metric="ml_feature_drift_evidence", feature='monthly "net" fee', replica=1): always(-3),
        model("churn", metric="ml_feature_drift_evidence", feature="age", replica=0): always(3),
        model("churn", metric="ml_feature_drift_evidence", feature="age", replica=1): always(5),
        model("other", metric="ml_feature_drift_evidence", feature="another model's"): always(9),
    }
    series = (
        labelled("churn", 0.812)
        | drop("churn", always(5))
        | evidence("churn", always(5))
        | scores("churn", minutes((0.1, 50), (0.8, 70)))
    ) | features
    expected = {
        "exp_labels": {"severity": severity, "namespace": "shop", "model_name": "churn", "model_version": "3"},
        "exp_annotations": {
            "summary": summary,
            "description": description,
            "runbook_url": f"{RUNBOOKS}/{alert}.md",
        },
    }
    question = {"eval_time": "85m", "alertname": alert, "exp_alerts": [expected]}
    assert not check(folder, series=series, extra={"alert_rule_test": [question]})


def test_without_features_a_description_leaves_their_sentence_out(folder):
    description = (
        "The data of bare 3 in namespace shop no longer looks like the reference: "
        "the evidence, averaged over its replicas, is 10^5.0."
    )
    expected = {
        "exp_labels": {"severity": "critical", "namespace": "shop", "model_name": "bare", "model_version": "3"},
        "exp_annotations": {
            "summary": "The model's data has drifted from its reference",
            "description": description,
            "runbook_url": f"{RUNBOOKS}/DataDriftDetected.md",
        },
    }
    question = {"eval_time": "20m", "alertname": "DataDriftDetected", "exp_alerts": [expected]}
    assert not check(folder, series=evidence("bare", always(5)), extra={"alert_rule_test": [question]})


def test_a_shortened_time_scale_fires_sooner(tmp_path):
    for name, text in files(groups(Settings(time_scale=0.1))).items():
        (tmp_path / name).write_text(text)
    series = labelled("bad", minutes((0.9, 10), (0.8, 30)))
    assert not check(tmp_path, series=series, firing=fires("ModelAccuracyDrift", (10, ""), (11, "bad")))
