"""Rows of a fleet as its replicas would count them, and what the fleet's rules make of them, worked out in numpy and
asked of promtool.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pegel_agent.statistics import distances
from pegel_rules import Settings, files, groups
from promtool import check, model

Floats = NDArray[np.float64]

MINUTE, STEP, HOUR, DAY = 60, 300, 3_600, 86_400
DIGITS = 1e-9
WINDOW_HOURS = {"1h": 1, "6h": 6, "1d": 24, "7d": 168}
Z_FOR_FIFTY = {"1h": 5.30, "6h": 4.96, "1d": 4.69, "7d": 4.27}
"""At a quarter of one false alarm in 30 days."""


@dataclass(frozen=True, kw_only=True)
class Feature:
    """A feature's reference shares by bin, and how many rows they rest on."""

    shares: Mapping[str, float]
    rows: float = 10_000

    @property
    def q(self) -> Floats:
        return np.array(list(self.shares.values()))


@dataclass(frozen=True, kw_only=True)
class Replica:
    """Counters (scrapes, k) by feature, NaN where a scrape failed; `born` is the number of the first scrape."""

    counters: Mapping[str, Floats]
    born: int = 0

    def series(self, name: str, features: Mapping[str, Feature], *, number: int, **labels: str) -> dict[str, str]:
        """promtool's input series: rows, reference, and the rows of the whole replica."""
        found = {}
        plain = {key: value for key, value in labels.items() if key != "reference"}
        for feature, counters in self.counters.items():
            lasting = f"+0x{len(counters) - self.born - 1}"
            for position, (own_bin, share) in enumerate(features[feature].shares.items()):
                own = {"feature": feature, "bin": own_bin, "reference": "cafe", **labels}
                rows = model(name, metric="ml_feature_rows_total", replica=number, **own)
                reference = model(name, metric="ml_feature_reference_rows", replica=number, **own)
                found[rows] = self._values(counters[:, position])
                found[reference] = f"{'_ ' * self.born}{share * features[feature].rows!r}{lasting}"
            effect = model(name, metric="ml_drift_design_effect", replica=number, feature=feature, **plain)
            found[effect] = f"{'_ ' * self.born}1{lasting}"
        (counters, *_) = self.counters.values()
        found[model(name, metric="ml_inference_rows_total", replica=number, **plain)] = self._values(
            counters.sum(axis=1)
        )
        return found

    def _values(self, counter: Floats) -> str:
        return "_ " * self.born + " ".join("_" if np.isnan(value) else f"{value:g}" for value in counter[self.born :])


def replica(
    rng: np.random.Generator, shares: Mapping[str, Floats], *, rows: float, scrapes: int, born: int = 0,
    restarts: Sequence[int] = (),
) -> Replica:  # fmt: skip
    """A replica that gets about `rows` rows between scrapes, binned as `shares` say; it starts and restarts at 0."""
    sizes = rng.poisson(rows, scrapes)
    sizes[[born, *restarts]] = 0
    counters = {}
    for feature, p in shares.items():
        seen = rng.multinomial(sizes, p).astype(np.float64)
        seen[:born] = np.nan
        for begin, end in zip([born, *restarts], [*restarts, scrapes], strict=True):
            seen[begin:end] = seen[begin:end].cumsum(axis=0)
        counters[feature] = seen
    return Replica(counters=counters, born=born)


def increases(replicas: Sequence[Replica], feature: str, *, interval: int, until: int) -> Floats:
    """Rows (steps, k) of the replicas in the five minutes before each step, as Prometheus' increase() sees them."""
    return np.sum([_increases(one.counters[feature], interval, until) for one in replicas], axis=0)


def _increases(counters: Floats, interval: int, until: int) -> Floats:
    scrapes = np.arange(len(counters)) * interval
    rows = []
    for end in range(0, until + 1, STEP):
        inside = slice(int(np.searchsorted(scrapes, end - STEP)), int(np.searchsorted(scrapes, end, side="right")))
        rows.append([_increase(scrapes[inside], counter[inside], end) for counter in counters.T])
    return np.array(rows)


def _increase(at: NDArray[np.int64], values: Floats, end: int) -> float:
    """What Prometheus documents: restarts added, extrapolated to the range's ends where samples come near, never below
    zero. The range has both its ends, as before Prometheus 3.
    """
    at, values = at[~np.isnan(values)], values[~np.isnan(values)]
    if len(at) < 2:
        return 0.0
    steps = np.diff(values)
    increase = float(np.where(steps < 0, values[1:], steps).sum())
    sampled = float(at[-1] - at[0])
    between = sampled / (len(at) - 1)
    to_start, to_end = float(at[0] - (end - STEP)), float(end - at[-1])
    if increase > 0:
        to_start = min(to_start, sampled * values[0] / increase)
    near = between * 1.1
    reach = sampled + (to_start if to_start < near else between / 2) + (to_end if to_end < near else between / 2)
    return increase * reach / sampled


def counts(pieces: Floats, *, at: int) -> dict[str, Floats]:
    """Rows (k,) in each window that ends at a time, which is a multiple of five minutes, from those of five minutes."""
    last = at // STEP
    ends = range(0, last + 1, HOUR // STEP)
    hours = np.array([pieces[max(0, end - 11) : end + 1].sum(axis=0) for end in ends])
    return {
        name: pieces[max(0, last - 11) : last + 1].sum(axis=0) if hours_in == 1 else hours[-hours_in:].sum(axis=0)
        for name, hours_in in WINDOW_HOURS.items()
    }


def measures(rows: Floats, feature: Feature) -> dict[str, float]:
    """PSI, JS, total variation and χ² of counts (k,) against the reference, as the sidecar has them."""
    p, q = distances.smoothed_shares(rows), feature.q
    return {
        "psi": distances.psi(p, q),
        "js": distances.js(p, q),
        "tvd": distances.tvd(p, q),
        "chi2": float(np.sum((p - q) ** 2 / q)),
    }


def z(*, window: str, features: int, false_alarms: float = 1.0) -> float:
    """The approximate quantile that a quarter of the budget, over all windows and looks, leaves to one look."""
    looks = 30 * 720 / WINDOW_HOURS[window]
    y = 2 * np.log(4 * features * looks / (false_alarms / 4)) - np.log(2 * np.pi)
    return float(np.sqrt(y - np.log(y - np.log(y))))


def limit(rows: float, feature: Feature, *, z: float, scrapes: float) -> float:
    """PSI's limit: Wilson and Hilferty's quantile times the variance of both samples' shares."""
    freedom = len(feature.shares) - 1
    scale = scrapes / (scrapes - 1) / rows + 1 / feature.rows
    return float(scale * freedom * (1 - 2 / (9 * freedom) + z * np.sqrt(2 / (9 * freedom))) ** 3)


# promtool's side


def written(folder: Path, settings: Settings | None = None) -> Path:
    """The folder, with all rule files in it."""
    for name, text in files(groups(settings or Settings())).items():
        (folder / name).write_text(text)
    return folder


def fleet(
    name: str, replicas: Sequence[Replica], features: Mapping[str, Feature], *, first: int = 0, **labels: str
) -> dict[str, str]:
    """The series of all replicas of a model."""
    series = {}
    for number, one in enumerate(replicas, first):
        series |= one.series(name, features, number=number, **labels)
    return series


def asked(name: str, at: int, samples: Sequence[tuple[Mapping[str, str], float]]) -> dict[str, Any]:
    """promtool's question for all series of a name, which are these and no others, equal within rounding."""
    return {
        "expr": f"round({name}, {DIGITS:g})",
        "eval_time": f"{at}s",
        "exp_samples": [
            {
                "labels": "{" + ",".join(f"{key}={value!r}" for key, value in labels.items()) + "}",
                "value": math.floor(value * (1 / DIGITS) + 0.5) / (1 / DIGITS),
            }
            for labels, value in samples
        ],
    }


def nothing(expression: str, at: int) -> dict[str, Any]:
    return {"expr": expression, "eval_time": f"{at}s", "exp_samples": []}


def labels_of(name: str, feature: str, **more: str) -> dict[str, str]:
    return {
        "namespace": "shop", "model_name": name, "model_version": "3", "feature": feature, "reference": "cafe", **more
    }  # fmt: skip


def recorded_by(
    name: str, replicas: Sequence[Replica], features: Mapping[str, Feature], *, at: int, interval: int, scrapes: float,
    **labels: str,
) -> dict[str, list[tuple[dict[str, str], float]]]:  # fmt: skip
    """What numpy says each rule has recorded at a time, by name."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for feature, reference in features.items():
        for window, rows in counts(increases(replicas, feature, interval=interval, until=at), at=at).items():
            own = labels_of(name, feature, window=window) | labels
            quantile = z(window=window, features=len(features))
            values = {
                "ml_feature_rows:sum": rows.sum(),
                **{f"ml_feature_drift:{measure}": value for measure, value in measures(rows, reference).items()},
                "ml_feature_drift_limit:psi": limit(rows.sum(), reference, z=quantile, scrapes=scrapes),
            }
            for rule, value in values.items():
                found.setdefault(f"namespace_feature:{rule}", []).append((own, value))
            shares = (rows + 0.5) / (rows.sum() + 0.5 * len(rows))
            for own_bin, share in zip(reference.shares, shares, strict=True):
                found.setdefault("namespace_bin:ml_feature_rows:share", []).append((own | {"bin": own_bin}, share))
    return found


def mismatch(folder: Path, series: Mapping[str, str], expected, *, at: int, interval: int, evaluation="5m", more=()):
    """What promtool has to say; empty when all is as numpy says."""
    questions = [asked(name, at, samples) for name, samples in expected.items()] + list(more)
    return check(
        folder, series=series, extra={"promql_expr_test": questions}, interval=f"{interval}s", evaluation=evaluation
    )
