"""The fleet's rules for a model whose hours of the day differ, and whose reference knows them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from fleet_rows import (
    HOUR,
    MINUTE,
    WINDOW_HOURS,
    Feature,
    Replica,
    asked,
    counts,
    fleet,
    increases,
    labels_of,
    nothing,
    written,
    z,
)
from pegel_agent.statistics import distances
from promtool import check, debians_alone, model
from scipy.stats import norm

__all__ = ["debians_alone"]

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("debians_alone")]


ALERT = "DataDriftFleet"
EVENING = 8 * HOUR
EDGES = norm.ppf(np.arange(21) / 20)
LOAD = Feature(shares={f"bin {n:02}": 0.05 for n in range(20)}, rows=240_000)
HETEROGENEITY = 0.0004


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The rule files as they ship."""
    return written(tmp_path)


def at_hour(hour: float, shift: float = 0.0) -> np.ndarray:
    """Shares (20,) of a feature that swings by one standard deviation over the day."""
    return np.diff(norm.cdf(EDGES - np.sin(2 * np.pi * hour / 24) - shift))


@dataclass(frozen=True, kw_only=True)
class Seasonal(Replica):
    """A replica that also publishes the rows that its reference expected of those it counted."""

    expected: np.ndarray

    def series(self, name: str, features: Mapping[str, Feature], *, number: int, **labels: str) -> dict[str, str]:
        found = Replica.series(self, name, features, number=number, **labels)
        for position, own_bin in enumerate(LOAD.shares):
            own = {"replica": number, "feature": "load", "bin": own_bin, "reference": "cafe"}
            counter = model(name, metric="ml_feature_expected_rows_total", **own)
            found[counter] = " ".join(f"{value:.9g}" for value in self.expected[:, position])
        differs = model(name, metric="ml_feature_heterogeneity", replica=number, feature="load")
        found[differs] = f"{HETEROGENEITY}+0x{len(self.expected) - 1}"
        return found


def day(*, seed: int, shift: float = 0.0, rows: float = 20, hours: int = 8) -> list[Seasonal]:
    """Two replicas with so many rows a minute; from the third hour on they have moved by `shift`."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(2):
        of_rows, of_expected = [np.zeros(20)], [np.zeros(20)]
        for minute in range(1, hours * 60 + 1):
            p = at_hour(minute / 60)
            seen = rng.multinomial(rng.poisson(rows), at_hour(minute / 60, shift if minute > 120 else 0.0))
            of_rows.append(of_rows[-1] + seen)
            of_expected.append(of_expected[-1] + seen.sum() * p)
        found.append(Seasonal(counters={"load": np.array(of_rows)}, expected=np.array(of_expected)))
    return found


def test_hours_are_compared_with_what_the_reference_expected_of_them_as_numpy_does(folder: Path) -> None:
    replicas = day(seed=1, shift=0.1)
    seen = counts(increases(replicas, "load", interval=MINUTE, until=EVENING), at=EVENING)
    foreseen = [Replica(counters={"load": one.expected}) for one in replicas]
    expected = counts(increases(foreseen, "load", interval=MINUTE, until=EVENING), at=EVENING)
    psi, limits = [], []
    for window, hours in WINDOW_HOURS.items():
        rows, q = seen[window], expected[window] / expected[window].sum()
        psi.append((labels_of("load", "load", window=window), distances.psi(distances.smoothed_shares(rows), q)))
        scale = 6 / 5 / rows.sum() + 1 / (LOAD.rows * min(1, hours / 24))
        freedom, quantile = 19, z(window=window, features=1)
        chance = scale * freedom * (1 - 2 / (9 * freedom) + quantile * np.sqrt(2 / (9 * freedom))) ** 3
        limits.append((labels_of("load", "load", window=window), (np.sqrt(chance) + np.sqrt(HETEROGENEITY)) ** 2))
    questions = [
        asked("namespace_feature:ml_feature_drift:psi", EVENING, psi),
        asked("namespace_feature:ml_feature_drift_limit:psi", EVENING, limits),
    ]
    series = fleet("load", replicas, {"load": LOAD})
    assert not check(folder, series=series, extra={"promql_expr_test": questions}, interval="60s", evaluation="5m")


def test_the_days_season_is_silent_and_without_what_was_expected_it_would_not_be(folder: Path) -> None:
    replicas = day(seed=2)
    plain = [Replica(counters=one.counters) for one in replicas]
    series = fleet("knows", replicas, {"load": LOAD}) | fleet("plain", plain, {"load": LOAD})
    silent = nothing(f"max_over_time(ALERTS{{alertname='{ALERT}',model_name='knows'}}[8h])", EVENING)
    fired = {
        "expr": f"count(max_over_time(ALERTS{{alertname='{ALERT}',model_name='plain'}}[8h]))",
        "eval_time": f"{EVENING}s",
        "exp_samples": [{"labels": "{}", "value": 1}],
    }
    assert not check(folder, series=series, extra={"promql_expr_test": [silent, fired]}, evaluation="5m")


def test_drift_within_the_season_is_found(folder: Path) -> None:
    series = fleet("load", day(seed=3, shift=0.25), {"load": LOAD})
    fired = {
        "expr": f"count(max_over_time(ALERTS{{alertname='{ALERT}',model_name='load'}}[2h]))",
        "eval_time": f"{EVENING}s",
        "exp_samples": [{"labels": "{}", "value": 1}],
    }
    early = nothing(f"max_over_time(ALERTS{{alertname='{ALERT}'}}[2h])", 2 * HOUR)
    assert not check(folder, series=series, extra={"promql_expr_test": [early, fired]}, evaluation="5m")


def test_while_replicas_that_expect_nothing_are_in_a_window_it_has_no_shares_to_compare_with(folder: Path) -> None:
    knows, plain = day(seed=4)[0], Replica(counters=day(seed=5)[1].counters)
    questions = [nothing("namespace_feature:ml_feature_drift:psi", EVENING)]
    series = fleet("mixed", [knows, plain], {"load": LOAD})
    assert not check(folder, series=series, extra={"promql_expr_test": questions}, evaluation="5m")
