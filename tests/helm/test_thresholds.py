"""Thresholds from values, through helm to promtool: which model's alert fires, and which must stay silent."""

import math
from pathlib import Path

import pytest
import yaml

from tests.helm.rendering import OPERATOR, of_kind, refusal, template
from tests.rules.promtool import Firing, check, model

pytestmark = pytest.mark.integration


def rules(folder: Path, values: dict) -> Path:
    """The rule files of the chart with these thresholds."""
    (folder / "values.yml").write_text(yaml.safe_dump({"thresholds": values}))
    for rule in of_kind(template("--values", folder / "values.yml", "--api-versions", OPERATOR[2]), "PrometheusRule"):
        (folder / f"{rule['metadata']['name']}.yaml").write_text(yaml.safe_dump(rule["spec"]))
    return folder


def accuracy(name: str, value: float, **labels: str) -> dict[str, str]:
    """A replica with that accuracy of 500 rows, to which labels come for two hours."""
    return {
        model(name, metric="ml_model_accuracy", **labels): f"{value}+0x120",
        model(name, metric="ml_model_accuracy_labels", **labels): "50000+0x120",
        model(name, metric="ml_labels_total", outcome="matched", **labels): "0+10x120",
    }


def score(name: str, values: str) -> dict[str, str]:
    return {model(name, metric="ml_data_drift_score"): values}


def fires(alert: str, *models: str, minute: int = 30) -> list[Firing]:
    return [Firing(minute=minute, alert=alert, models=sorted(models))]


def test_the_default_is_the_one_that_the_rules_have(tmp_path):
    series = accuracy("bad", 0.84) | accuracy("good", 0.86)
    assert not check(rules(tmp_path, {}), series=series, firing=fires("ModelAccuracyDrift", "bad"))


def test_another_default_counts_for_all_models(tmp_path):
    series = accuracy("bad", 0.84) | accuracy("good", 0.86)
    folder = rules(tmp_path, {"accuracy": {"default": 0.9}})
    assert not check(folder, series=series, firing=fires("ModelAccuracyDrift", "bad", "good"))


def test_a_models_own_accuracy_threshold_wins_in_both_directions(tmp_path):
    own = [{"modelName": "lenient", "below": 0.7}, {"modelName": 'strict "one"', "below": 0.95}]
    series = accuracy("lenient", 0.75) | accuracy('strict "one"', 0.93) | accuracy("other", 0.86)
    folder = rules(tmp_path, {"accuracy": {"perModel": own}})
    expected = {
        "expr": 'count by (model_name) (ALERTS{alertname="ModelAccuracyDrift",alertstate="firing"})',
        "eval_time": "30m",
        "exp_samples": [{"labels": r'{model_name="strict \"one\""}', "value": 1}],
    }
    assert not check(folder, series=series, extra={"promql_expr_test": [expected]})


def test_a_models_threshold_counts_for_all_its_versions_and_namespaces(tmp_path):
    series = accuracy("churn", 0.75) | accuracy("churn", 0.75, namespace="lab") | accuracy("churn", 0.6, namespace="x")
    folder = rules(tmp_path, {"accuracy": {"perModel": [{"modelName": "churn", "below": 0.7}]}})
    expected = {
        "expr": 'count by (namespace) (ALERTS{alertname="ModelAccuracyDrift",alertstate="firing"})',
        "eval_time": "30m",
        "exp_samples": [{"labels": '{namespace="x"}', "value": 1}],
    }
    assert not check(folder, series=series, extra={"promql_expr_test": [expected]})


def test_broad_drift_has_thresholds_per_model(tmp_path):
    values = {"driftBroad": {"default": 0.4, "perModel": [{"modelName": "noisy", "above": 0.8}]}}
    series = score("noisy", "0.7+0x120") | score("calm", "0.3+0x120") | score("drifting", "0.45+0x120")
    assert not check(rules(tmp_path, values), series=series, firing=fires("DataDriftBroad", "drifting"))


def test_rising_drift_has_thresholds_per_model(tmp_path):
    values = {"driftRising": {"default": 0.2, "perModel": [{"modelName": "noisy", "above": 0.5}]}}
    jump = "0.1+0x79 0.5+0x40"
    series = score("noisy", jump) | score("drifting", jump)
    assert not check(rules(tmp_path, values), series=series, firing=fires("DataDriftRising", "drifting", minute=100))


def test_the_fleets_budget_is_one_per_model_and_its_own_wins(tmp_path):
    """What the rules make of it is the number of features to a false alarm, a quarter of the budget being theirs."""
    values = {"driftFleet": {"default": 0.5, "perModel": [{"modelName": "churn", "falseAlarms": "2.0"}]}}
    series = {
        model(name, metric="ml_feature_reference_rows", feature=feature, bin=own, reference="cafe"): "500+0x120"
        for name in ("churn", "fraud")
        for feature in ("age", "fee")
        for own in ("low", "high")
    }
    expected = {
        "expr": "sum by (model_name) (namespace_model:ml_feature_drift_limit:features_per_false_alarm)",
        "eval_time": "30m",
        "exp_samples": [
            {"labels": '{model_name="churn"}', "value": 2 / (2 / 4)},
            {"labels": '{model_name="fraud"}', "value": 2 / (0.5 / 4)},
        ],
    }
    assert not check(rules(tmp_path, values), series=series, extra={"promql_expr_test": [expected]})


@pytest.mark.parametrize("value", ["0", "-1", "101", '"0"', '"0.0"', '"1/30d"', '"101"'])
def test_a_budget_that_is_none_is_refused(value):
    assert "/thresholds/driftFleet/default" in refusal("--set-json", f"thresholds.driftFleet.default={value}")


def test_a_threshold_of_zero_and_one_given_as_text_are_thresholds(tmp_path):
    """--set makes text of every fraction."""
    values = {"driftBroad": {"default": "0.0"}, "accuracy": {"default": "1.0"}}
    series = score("drifting", "0.01+0x120") | accuracy("near", 0.999) | accuracy("right", 1)
    folder = rules(tmp_path, values)
    assert not check(
        folder, series=series, firing=fires("DataDriftBroad", "drifting") + fires("ModelAccuracyDrift", "near")
    )


def test_two_thresholds_for_one_model_are_refused():
    given = '[{"modelName":"churn","below":0.7},{"modelName":"churn","below":0.8}]'
    said = refusal("--set-json", f"thresholds.accuracy.perModel={given}", "--set", "monitoring.rules.enabled=true")
    assert 'two thresholds of ModelAccuracyDrift for modelName "churn"' in said


@pytest.mark.parametrize("value", ["0", "1.01", "85", '"0.85x"', '"0"', '"0.0"', '"2"', "[]", "-0.1"])
def test_an_accuracy_threshold_that_is_no_share_is_refused(value):
    said = refusal("--set-json", f"thresholds.accuracy.default={value}")
    assert "/thresholds/accuracy/default" in said


@pytest.mark.parametrize("value", [1e-05, 0.123456789012, math.nextafter(1, 0)])
def test_a_threshold_reaches_prometheus_as_it_was_given(value, tmp_path):
    folder = rules(tmp_path, {"accuracy": {"default": value}})
    (path,) = folder.glob("*-thresholds.yaml")
    (rule,) = (
        rule
        for rule in yaml.safe_load(path.read_text())["groups"][0]["rules"]
        if rule["labels"] == {"alert": "ModelAccuracyDrift"}
    )
    assert float(rule["expr"]) == value
