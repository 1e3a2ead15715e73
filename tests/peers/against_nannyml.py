"""The accuracy that Pegel expects without labels is what NannyML's CBPE expects of the same scores."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pegel_agent.reference.performance import PerformanceCollector
from pegel_agent.statistics.estimation import Estimate, expected_accuracy
from pegel_agent.statistics.slots import FloatArray
from scipy.special import expit

from tests.peers import ask

REFERENCE, WINDOWS, ROWS = 20_000, 10, 2_000
WORLDS = {"as the reference": (0.0, 1.0), "surer": (1.0, 1.0), "less sure": (0.0, 0.4), "wider": (0.0, 1.6)}
"""Mean and spread of what the model goes by."""


def rows_of(rng: np.random.Generator, rows: int, mean: float, spread: float, sureness: float) -> FloatArray:
    """Score, prediction and label (rows, 3); a model is too sure of itself where `sureness` is above 1."""
    inputs = rng.normal(mean, spread, rows)
    score = expit(2 * sureness * inputs)
    label = rng.random(rows) < expit(2 * inputs)
    return np.column_stack((score, score >= 0.5, label)).astype(np.float64)


def estimator(reference: FloatArray) -> Callable[[FloatArray], Estimate]:
    """Expected accuracy of a window (rows, 3), as the sidecar has it from a profile."""
    collector = PerformanceCollector("label", "predicted", "score")
    collector.add(dict(zip(("score", "predicted", "label"), reference.T, strict=True)))
    performance = collector.result()
    assert performance is not None
    curve = performance.scores
    assert curve is not None

    def estimate(window: FloatArray) -> Estimate:
        found = expected_accuracy(curve.bins.counts(window[:, 0]), np.array(curve.rows), np.array(curve.right))
        assert found is not None
        return found

    return estimate


@pytest.mark.parametrize("sureness", [1.0, 1.8], ids=["a calibrated model", "a model too sure of itself"])
@pytest.mark.parametrize(("mean", "spread"), WORLDS.values(), ids=WORLDS)
def test_estimated_accuracy_is_nannymls_and_near_the_realised_one(
    tmp_path: Path, mean: float, spread: float, sureness: float
) -> None:
    rng = np.random.default_rng(1)
    reference = rows_of(rng, REFERENCE, 0.0, 1.0, sureness)
    windows = np.array([rows_of(rng, ROWS, mean, spread, sureness) for _ in range(WINDOWS)])
    np.save(tmp_path / "reference.npy", reference)
    np.save(tmp_path / "windows.npy", windows)
    theirs = np.array(ask("nannyml", "benchmarks/contenders/nannyml_accuracy.py", tmp_path))
    ours = [estimator(reference)(window) for window in windows]
    mine = np.array([one.accuracy for one in ours])
    realised = (windows[:, :, 1] == windows[:, :, 2]).mean(axis=1)
    # NannyML fits a calibration to the same reference, or trusts the scores where they seem calibrated; Pegel counts
    # how often rows of a score were right. What a reference of 20,000 rows is off by is half a per cent at most.
    assert mine == pytest.approx(theirs, abs=0.01)
    # Three standard errors: the estimate's own, and that of 20,000 labels.
    error = np.hypot(ours[0].error, np.sqrt(0.25 / realised.size / ROWS))
    assert abs(mine.mean() - realised.mean()) < 3 * error + 0.003
