"""The alert on the drift of all replicas together: when it fires, when it must stay silent, and what it says."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from fleet_rows import (
    MINUTE,
    Feature,
    Replica,
    asked,
    counts,
    fleet,
    increases,
    limit,
    measures,
    nothing,
    recorded_by,
    replica,
    written,
    z,
)
from pegel_rules import Settings
from pegel_rules.files import RUNBOOKS
from promtool import Firing, check, debians_alone
from scipy.stats import norm

__all__ = ["debians_alone"]

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("debians_alone")]

ALERT = "DataDriftFleet"
NORMAL = Feature(shares={f"bin {n:02}": 0.05 for n in range(20)})
TEN = {"age": NORMAL, "income": NORMAL}
EVENING = 8 * 3_600
BUDGETS = {"hasty": 50, "patient": 1e-20}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The rule files as they ship."""
    return written(tmp_path)


def shifted(sigma: float) -> np.ndarray:
    """Shares of twenty bins at the quantiles of a normal distribution that has moved."""
    edges = norm.ppf(np.arange(21) / 20)
    return np.diff(norm.cdf(edges - sigma))


def drifting(sigma: float, *, seed: int, replicas: int = 10, rows: float = 2, hours: int = 8) -> list[Replica]:
    """Replicas of two features of which one has moved from the third hour on. 2 rows a minute are 120 an hour."""
    rng = np.random.default_rng(seed)
    scrapes, calm = hours * 60 + 1, 120
    found = []
    for _ in range(replicas):
        before = replica(rng, {"age": NORMAL.q, "income": NORMAL.q}, rows=rows, scrapes=scrapes)
        after = replica(rng, {"age": NORMAL.q, "income": shifted(sigma)}, rows=rows, scrapes=scrapes)
        counters = {
            name: np.vstack(
                [before.counters[name][:calm], after.counters[name][calm:] + before.counters[name][calm - 1]]
            )
            for name in TEN
        }
        found.append(Replica(counters=counters))
    return found


def fires(at: int, *models: str) -> list[Firing]:
    return [Firing(minute=at // 60, alert=ALERT, models=sorted(models))]


def test_a_shift_spread_over_ten_replicas_is_found_although_none_of_them_shows_it(folder):
    ten = drifting(0.15, seed=7)
    for one in ten:
        for window, rows in counts(increases([one], "income", interval=MINUTE, until=EVENING), at=EVENING).items():
            own = limit(rows.sum(), NORMAL, z=z(window=window, features=2), scrapes=6)
            assert measures(rows, NORMAL)["psi"] < own
    series = fleet("fleet", ten, TEN) | fleet("alone", ten[:1], TEN) | fleet("also-alone", ten[1:2], TEN)
    expected = fires(2 * 3_600) + fires(EVENING, "fleet")
    assert not check(folder, series=series, firing=expected, evaluation="5m")


@pytest.mark.parametrize("seed", range(2))
def test_replicas_without_drift_are_silent(folder, seed):
    never = {"promql_expr_test": [nothing(f"max_over_time(ALERTS{{alertname='{ALERT}'}}[8h])", EVENING)]}
    series = fleet("calm", drifting(0, seed=seed), TEN)
    assert not check(folder, series=series, extra=never, evaluation="5m")


def test_a_restart_and_a_replica_that_comes_and_goes_are_silent(folder):
    rng = np.random.default_rng(8)
    shares = {"age": NORMAL.q, "income": NORMAL.q}
    gone = replica(rng, shares, rows=20, scrapes=481)
    for counters in gone.counters.values():
        counters[200:] = np.nan
    replicas = [
        gone,
        replica(rng, shares, rows=20, scrapes=481, restarts=[100, 101, 300]),
        replica(rng, shares, rows=20, scrapes=481, born=250),
    ]
    series = {name: values.replace("+0x480", "+0x200") if "churn-0" in name else values
              for name, values in fleet("churn", replicas, TEN).items()}  # fmt: skip
    never = {"promql_expr_test": [nothing(f"max_over_time(ALERTS{{alertname='{ALERT}'}}[8h])", EVENING)]}
    assert not check(folder, series=series, extra=never, evaluation="5m")


def test_a_models_own_budget_decides_in_both_directions(folder):
    """A PSI between the limits of the two budgets."""
    own = {
        f'pegel_threshold{{alert="{ALERT}",model_name="{name}"}}': f"{budget}+0x500" for name, budget in BUDGETS.items()
    }
    replicas = drifting(0.15, seed=7)
    rows = counts(increases(replicas, "income", interval=MINUTE, until=EVENING), at=EVENING)["6h"]
    psi = measures(rows, NORMAL)["psi"]
    hasty, patient = (
        limit(rows.sum(), NORMAL, z=z(window="6h", features=2, false_alarms=budget), scrapes=6)
        for budget in BUDGETS.values()
    )
    assert hasty < psi < patient
    series = fleet("hasty", replicas, TEN) | fleet("patient", replicas, TEN) | own
    assert not check(folder, series=series, firing=fires(EVENING, "hasty"), evaluation="5m")


def test_an_idle_model_has_no_drift_and_no_alert(folder):
    one = Replica(counters={name: np.zeros((481, 20)) for name in TEN})
    questions = [
        nothing('{__name__=~"namespace_feature:ml_feature_drift.*|namespace_feature:ml_feature_rows.*"}', EVENING),
        nothing(f"ALERTS{{alertname='{ALERT}'}}", EVENING),
    ]
    assert not check(folder, series=fleet("idle", [one], TEN), extra={"promql_expr_test": questions}, evaluation="5m")


def without(series: Mapping[str, str], word: str) -> dict[str, str]:
    return {name: values for name, values in series.items() if word not in name}


@pytest.mark.parametrize(
    "missing",
    ["ml_feature_rows_total", "ml_feature_reference_rows", "ml_inference_rows_total", "ml_drift_design_effect"],
)
def test_a_missing_series_raises_no_alarm(folder, missing):
    series = without(fleet("fleet", drifting(0.5, seed=9), TEN), missing)
    assert series
    assert not check(folder, series=series, firing=fires(EVENING), evaluation="5m")


def test_without_a_threshold_there_is_no_alarm(folder):
    (folder / "pegel-thresholds.yaml").unlink()
    series = fleet("fleet", drifting(0.5, seed=9), TEN)
    assert not check(folder, series=series, firing=fires(EVENING), evaluation="5m")


@pytest.mark.parametrize("metric", ["ml_feature_rows_total", "ml_feature_reference_rows", "ml_drift_design_effect"])
def test_nan_raises_no_alarm_in_its_own_feature_and_hides_no_other(folder, metric):
    one = drifting(0, seed=10, replicas=1, rows=20)
    broken = fleet("one", one, TEN)
    (name, *_) = [name for name in broken if metric in name and "feature='age'" in name]
    broken[name] = "NaN+0x480"
    assert not check(folder, series=broken, firing=fires(EVENING), evaluation="5m")
    broken |= without(fleet("one", drifting(0.5, seed=10, replicas=1, rows=20), TEN), "feature='age'")
    assert not check(folder, series=broken, firing=fires(EVENING, "one"), evaluation="5m")


def test_bins_without_rows_in_the_reference_raise_no_alarm(folder):
    """A share of 1/(m + 1), as the sidecar publishes it, and some rows in that bin all the same."""
    rare = Feature(shares={"a": 0.5, "b": 0.4999, "missing": 0.0001})
    rng = np.random.default_rng(11)
    replicas = [replica(rng, {"age": np.array([0.5, 0.4998, 0.0002])}, rows=30, scrapes=481) for _ in range(3)]
    series = fleet("rare", replicas, {"age": rare})
    assert not check(folder, series=series, firing=fires(EVENING), evaluation="5m")


def test_the_alert_ends_below_four_fifths_of_the_limit_and_not_before(folder):
    """As if recorded elsewhere: PSI over its limit at a time, in steps of five minutes."""
    own = {"namespace": "shop", "model_name": "churn", "model_version": "3", "feature": "age", "window": "1h"}
    text = ",".join(f"{key}={value!r}" for key, value in own.items())
    ratios = [0.9] * 3 + [1.1] * 2 + [0.9] * 3 + [0.7] + [0.9] * 3
    series = {
        f"namespace_feature:ml_feature_drift:psi{{{text}}}": " ".join(map(str, ratios)),
        f"namespace_feature:ml_feature_drift_limit:psi{{{text}}}": f"1+0x{len(ratios)}",
    }
    firing = [
        Firing(minute=5 * step, alert=ALERT, models=["churn"] if 3 <= step <= 7 else []) for step in range(len(ratios))
    ]
    assert not check(folder, series=series, firing=firing, interval="5m", evaluation="5m")


def test_the_alert_says_which_model_how_much_which_feature_and_over_what(folder):
    replicas = drifting(0.15, seed=7)
    pieces = increases(replicas, "income", interval=MINUTE, until=EVENING)
    ratios = {
        window: measures(rows, NORMAL)["psi"] / limit(rows.sum(), NORMAL, z=z(window=window, features=2), scrapes=6)
        for window, rows in counts(pieces, at=EVENING).items()
    }
    window, ratio = max(ratios.items(), key=lambda item: item[1])
    expected = {
        "exp_labels": {"severity": "critical", "namespace": "shop", "model_name": "churn", "model_version": "3"},
        "exp_annotations": {
            "summary": "The rows of all the model's replicas together have drifted from its reference",
            "description": (
                "The rows of all replicas of churn 3 in namespace shop no longer look like the reference: PSI is "
                f"{ratio:.1f} times the limit that it stays below without drift. "
                f"The strongest feature is income, over {window}."
            ),
            "runbook_url": f"{RUNBOOKS}/{ALERT}.md",
        },
    }
    question = {"eval_time": f"{EVENING}s", "alertname": ALERT, "exp_alerts": [expected]}
    series = fleet("churn", replicas, TEN)
    assert not check(folder, series=series, extra={"alert_rule_test": [question]}, evaluation="5m")


def test_a_shortened_time_scale_needs_a_minute_for_an_hour(tmp_path):
    folder = written(tmp_path, Settings(time_scale=1 / 60))
    replicas = drifting(0.15, seed=7)
    series = fleet("fleet", replicas, TEN)
    found = recorded_by("fleet", replicas, TEN, at=EVENING, interval=MINUTE, scrapes=6)
    questions = [asked(name, EVENING // 60, samples) for name, samples in found.items()]
    assert not check(folder, series=series, extra={"promql_expr_test": questions}, interval="1s", evaluation="5s")
