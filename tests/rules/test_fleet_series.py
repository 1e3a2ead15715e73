"""What the rules record of all replicas together, beside numpy."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from fleet_rows import (
    DAY,
    MINUTE,
    WINDOW_HOURS,
    Z_FOR_FIFTY,
    Feature,
    Replica,
    fleet,
    limit,
    mismatch,
    recorded_by,
    replica,
    written,
    z,
)
from promtool import debians_alone, model
from scipy.stats import chi2, norm

__all__ = ["debians_alone"]

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("debians_alone")]

AGE = Feature(shares={"below": 0.001, "a": 0.2, "b": 0.3, "c": 0.25, "d": 0.2489, "missing": 0.0001})
PLAN = Feature(shares={"free": 0.6, "paid": 0.35, "other": 0.05}, rows=4_000)
BOTH = {"age": AGE, "plan": PLAN}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The rule files as they ship."""
    return written(tmp_path)


def joined(*parts: Mapping[str, list[tuple[dict[str, str], float]]]) -> dict[str, list[tuple[dict[str, str], float]]]:
    return {name: [sample for part in parts for sample in part.get(name, [])] for name in parts[0]}


def moved(shares: np.ndarray, by: float) -> np.ndarray:
    """Shares of which so much has gone from the second bin to the third."""
    found = np.array(shares)
    found[1] -= by
    found[2] += by
    return found


def rows_like(features: Mapping[str, Feature], **drift: float) -> dict[str, np.ndarray]:
    return {name: moved(feature.q, drift.get(name, 0.0)) for name, feature in features.items()}


# What is recorded


def test_a_week_of_rows_is_in_every_window_what_numpy_makes_of_it(folder):
    """One replica restarts twice, another is born on the second day. The time is no full hour."""
    rng = np.random.default_rng(1)
    at = 7 * DAY + 5 * 3_600 + 35 * MINUTE
    scrapes = at // MINUTE + 1
    shares = rows_like(BOTH, age=0.03)
    replicas = [
        replica(rng, shares, rows=3, scrapes=scrapes, restarts=[4_000, 9_973]),
        replica(rng, shares, rows=5, scrapes=scrapes, born=2_000),
    ]
    expected = recorded_by("churn", replicas, BOTH, at=at, interval=MINUTE, scrapes=6)
    assert not mismatch(folder, fleet("churn", replicas, BOTH), expected, at=at, interval=MINUTE)


def test_scrapes_that_do_not_meet_the_five_minutes_are_extrapolated_and_the_limit_knows(folder):
    rng = np.random.default_rng(2)
    at = 11 * 3_600 + 25 * MINUTE
    scrapes = at // 45 + 1
    replicas = [replica(rng, rows_like(BOTH), rows=2, scrapes=scrapes, restarts=[100 + i]) for i in range(10)]
    expected = recorded_by("churn", replicas, BOTH, at=at, interval=45, scrapes=7)
    assert not mismatch(folder, fleet("churn", replicas, BOTH), expected, at=at, interval=45)


def test_a_replica_that_is_not_scraped_for_an_hour_adds_none_of_its_rows_twice(folder):
    rng = np.random.default_rng(3)
    at = 6 * 3_600
    lost = replica(rng, rows_like(BOTH), rows=5, scrapes=at // MINUTE + 1)
    for counters in lost.counters.values():
        counters[121:186] = np.nan
    replicas = [lost, replica(rng, rows_like(BOTH), rows=5, scrapes=at // MINUTE + 1)]
    expected = recorded_by("churn", replicas, BOTH, at=at, interval=MINUTE, scrapes=6)
    del expected["namespace_feature:ml_feature_drift_limit:psi"]  # the first five minutes after it have fewer scrapes
    assert not mismatch(folder, fleet("churn", replicas, BOTH), expected, at=at, interval=MINUTE)


def test_a_rollout_keeps_references_and_versions_apart(folder):
    rng = np.random.default_rng(4)
    at, interval = 5 * 3_600 + 10 * MINUTE, MINUTE
    scrapes = at // interval + 1
    other = {"age": Feature(shares={"below": 0.002, "a": 0.3, "b": 0.3, "c": 0.398}, rows=9_000)}
    only_age = {"age": AGE}
    old = [replica(rng, rows_like(only_age), rows=9, scrapes=scrapes)]
    new = [replica(rng, rows_like(other), rows=9, scrapes=scrapes, born=60)]
    newest = [replica(rng, rows_like(only_age), rows=9, scrapes=scrapes, born=120)]
    series = (
        fleet("churn", old, only_age)
        | fleet("churn", new, other, first=1, reference="beef")
        | fleet("churn", newest, only_age, first=2, model_version="4")
    )
    found = joined(
        recorded_by("churn", old, only_age, at=at, interval=interval, scrapes=6),
        recorded_by("churn", new, other, at=at, interval=interval, scrapes=6, reference="beef"),
        recorded_by("churn", newest, only_age, at=at, interval=interval, scrapes=6, model_version="4"),
    )
    # Two references at once are two features to the model's budget.
    found["namespace_feature:ml_feature_drift_limit:psi"] = [
        (own, limit_of(found, own, AGE if own["reference"] == "cafe" else other["age"]))
        for own, _ in found["namespace_feature:ml_feature_drift_limit:psi"]
    ]
    assert not mismatch(folder, series, found, at=at, interval=interval)


def limit_of(found, own: Mapping[str, str], feature: Feature) -> float:
    (rows,) = [rows for labels, rows in found["namespace_feature:ml_feature_rows:sum"] if labels == own]
    features = 2 if own["model_version"] == "3" else 1
    return limit(rows, feature, z=z(window=own["window"], features=features), scrapes=6)


def test_namespaces_and_clusters_are_kept_apart(folder):
    rng = np.random.default_rng(5)
    at, interval = 3 * 3_600, MINUTE
    places = [{"namespace": "shop"}, {"namespace": "lab"}, {"namespace": "shop", "cluster": "east"}]
    series, parts = {}, []
    for number, place in enumerate(places):
        replicas = [replica(rng, rows_like(BOTH, age=0.02 * number), rows=9, scrapes=at // interval + 1)]
        series |= fleet("churn", replicas, BOTH, **place)
        parts.append(recorded_by("churn", replicas, BOTH, at=at, interval=interval, scrapes=6, **place))
    assert not mismatch(folder, series, joined(*parts), at=at, interval=interval)


def test_a_window_with_too_few_rows_has_no_series(folder):
    """Three bins ask for 60 rows and six for 120; an hour has 90 of them, six hours have more."""
    at = 8 * 3_600
    steady = np.arange(at // MINUTE + 1)[:, None] * np.ones((1, 6)) / 4
    one = Replica(counters={"age": steady, "plan": steady[:, :3] * 2})
    windows = {
        "expr": 'count by (feature, window) ({__name__=~"namespace_feature:ml_feature_drift.*"})',
        "eval_time": f"{at}s",
        "exp_samples": [
            {"labels": f"{{feature={feature!r},window={window!r}}}", "value": 5}
            for feature in ("age", "plan")
            for window in WINDOW_HOURS
            if (feature, window) != ("age", "1h")
        ],
    }
    assert not mismatch(folder, fleet("slow", [one], BOTH), {}, at=at, interval=MINUTE, more=[windows])


# The limit


def reference_only(name: str, features: int, **labels: str) -> dict[str, str]:
    return {
        model(
            name, metric="ml_feature_reference_rows", feature=f"f{n}", bin=own, reference="cafe", **labels
        ): "500+0x40"
        for n in range(features)
        for own in ("low", "high")
    }


def quantiles(name: str, values: Mapping[str, float]) -> list[tuple[dict[str, str], float]]:
    place = {"namespace": "shop", "model_name": name, "model_version": "3"}
    return [(place | {"window": window}, value) for window, value in values.items()]


def test_the_quantile_leaves_each_look_its_part_of_the_budget(folder):
    own = 'pegel_threshold{alert="DataDriftFleet",model_name="patient"}'
    series = reference_only("fifty", 50) | reference_only("one", 1) | reference_only("patient", 50) | {own: "0.1+0x40"}
    expected = {
        "namespace_model:ml_feature_drift_limit:z": [
            sample
            for name, features, budget in (("fifty", 50, 1.0), ("one", 1, 1.0), ("patient", 50, 0.1))
            for sample in quantiles(
                name, {w: z(window=w, features=features, false_alarms=budget) for w in WINDOW_HOURS}
            )
        ]
    }
    assert not mismatch(folder, series, expected, at=1_800, interval=MINUTE)


@pytest.mark.parametrize("features", [1, 5, 50, 500])
@pytest.mark.parametrize("false_alarms", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("window", WINDOW_HOURS)
def test_the_approximate_quantile_is_never_too_low_and_little_too_high(window, features, false_alarms):
    looks = 30 * 720 / WINDOW_HOURS[window]
    exact = norm.isf(false_alarms / 4 / (4 * features * looks))
    assert 0 < z(window=window, features=features, false_alarms=false_alarms) - exact < 0.04


@pytest.mark.parametrize(("window", "published"), Z_FOR_FIFTY.items())
def test_the_quantile_for_fifty_features_is_the_published_one(window, published):
    assert z(window=window, features=50) == pytest.approx(published, abs=0.04)


@pytest.mark.parametrize("bins", [2, 6, 23, 100])
@pytest.mark.parametrize("window", WINDOW_HOURS)
def test_the_limit_is_the_quantile_of_chi_squared(window, bins):
    """Two bins make it up to a fifth too high; none makes it too low."""
    feature = Feature(shares={str(n): 1 / bins for n in range(bins)}, rows=10_000)
    quantile = z(window=window, features=50)
    exact = chi2.isf(norm.sf(quantile), bins - 1) * (20 / 19 / 5_000 + 1 / 10_000)
    assert -0.001 < limit(5_000, feature, z=quantile, scrapes=20) / exact - 1 < 0.2


def test_a_design_effect_makes_the_limit_that_much_higher(folder):
    """The largest that any replica publishes."""
    rng = np.random.default_rng(6)
    at, interval = 2 * 3_600, MINUTE
    one = replica(rng, rows_like(BOTH), rows=9, scrapes=at // interval + 1)
    effects = {
        model("churn", metric="ml_drift_design_effect", replica=0, feature="age"): "19+0x120",
        model("churn", metric="ml_drift_design_effect", replica=1, feature="age"): "7+0x120",
    }
    found = recorded_by("churn", [one], BOTH, at=at, interval=interval, scrapes=6)
    name = "namespace_feature:ml_feature_drift_limit:psi"
    found[name] = [(own, value * (19 if own["feature"] == "age" else 1)) for own, value in found[name]]
    assert not mismatch(folder, fleet("churn", [one], BOTH) | effects, found, at=at, interval=interval)
