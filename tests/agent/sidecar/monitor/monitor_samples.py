"""Exchanges and profiles of real numbers for the monitor's tests."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pegel_agent.reference.columns import learn_feature
from pegel_agent.reference.profile import FORMAT, Profile, Role
from pegel_agent.sidecar.frames import TapState
from pegel_agent.sidecar.monitor.model import Monitor, MonitorSettings
from pegel_agent.sidecar.monitor.state import AccuracyState, ModelState
from pegel_agent.sidecar.protocols import Block, Inference
from pegel_agent.statistics.budget import Window

NO_ACCURACY = AccuracyState("insufficient", 0, None, None, None, ())
MODEL = ("houses", "3")
COLOURS = ("blue", "green", "red")


def numbers(rows: Any, names: Sequence[str] = ()) -> Block:
    return Block(tuple(names), np.asarray(rows, dtype=np.float64))


def texts(rows: Any, names: Sequence[str] = ()) -> Block:
    return Block(tuple(names), np.array(rows, dtype=object))


def exchange(inputs: Block | Sequence[Block], outputs: Block | Sequence[Block] = ()) -> Inference:
    sides = [(side,) if isinstance(side, Block) else tuple(side) for side in (inputs, outputs)]
    return Inference(None, sides[0][0].values.shape[0], sides[0], sides[1])


def profile_of(columns: Mapping[str, Any], roles: Mapping[str, Role] | None = None) -> Profile:
    features = [
        learn_feature(name, (roles or {}).get(name, "input"), np.asarray(values)) for name, values in columns.items()
    ]
    rows = len(next(iter(columns.values())))
    return Profile(FORMAT, 1_700_000_000.0, *MODEL, rows, tuple(feature for feature in features if feature is not None))


def houses(rows: int = 10_000) -> Profile:
    """Two numbers, a category and a prediction."""
    rng = np.random.default_rng(11)
    return profile_of(
        {
            "area": rng.normal(100, 20, rows),
            "age": rng.exponential(30, rows),
            "colour": rng.choice(COLOURS, rows).astype(object),
            "price": rng.normal(0, 1, rows),
        },
        {"price": "prediction"},
    )


def monitor(profile: Profile | None, *, rows: int | None = 500, seconds: float | None = None, **more: Any) -> Monitor:
    window = Window(seconds, rows if seconds is None else None)
    return Monitor(MonitorSettings(*MODEL, window, 8640.0, **more), profile, 0.0)


def state(of: Monitor, now: float = 1.0) -> ModelState:
    return of.state(now=now, tap=TapState(), accuracy=NO_ACCURACY)


def series(of: Monitor) -> dict[str, dict[tuple[str, ...], float]]:
    """The published samples by metric name, with the labels after the model's."""
    return {
        family.metric.name: {labels[2:]: value for labels, value in family.samples.items()}  # type: ignore[misc]
        for family in of.families()
    }


def bins(of: Monitor, feature: str) -> dict[str, float]:
    """Rows counted for a feature by bin, without the empty ones."""
    found = series(of)["ml_feature_rows_total"]
    return {name: rows for (one, name, _), rows in found.items() if one == feature and rows}
