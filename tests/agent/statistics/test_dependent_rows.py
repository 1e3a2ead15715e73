"""The detector on rows that resemble their neighbours, and on days with hours: silent without drift, not blind."""

from functools import cache

import numpy as np
import pytest
from pegel_agent.reference.seasons import quarters
from pegel_agent.statistics.dependence import Windows, design_effects, heterogeneity
from pegel_agent.statistics.detector import Detector, Settings
from pegel_agent.statistics.slots import FloatArray, IntArray, Reference, Slot, reference_shares
from scipy.signal import lfilter
from scipy.special import ndtri

FEATURES, BINS, ROWS, DAY = 10, 20, 500, 288
EDGES = ndtri(np.arange(1, BINS) / BINS)
SLOTS = (Slot.BELOW, *(Slot.INTERVAL,) * (BINS - 2), Slot.ABOVE, Slot.MISSING)
QUARTERS = np.arange(DAY) // 3


def counts(values: FloatArray) -> IntArray:
    """Rows per bin (features, k) of values (rows, features)."""
    found = [np.bincount(np.searchsorted(EDGES, column), minlength=BINS + 1) for column in values.T]
    return np.array(found, dtype=np.int64)


def autoregressive(rng: np.random.Generator, windows: int) -> FloatArray:
    """Values (windows, rows, features) with a correlation of 0.9 from row to row."""
    noise = rng.normal(size=(windows * ROWS, FEATURES)) * np.sqrt(1 - 0.9**2)
    noise[0] /= np.sqrt(1 - 0.9**2)
    values: FloatArray = lfilter([1.0], [1.0, -0.9], noise, axis=0).reshape(windows, ROWS, FEATURES)
    return values


def seasonal(rng: np.random.Generator, windows: int) -> FloatArray:
    """Values (windows, rows, features) whose mean goes up and down by a standard deviation in a day."""
    mean = np.sin(2 * np.pi * np.arange(windows * ROWS) / (DAY * ROWS))
    return rng.normal(size=(windows, ROWS, FEATURES)) + mean.reshape(windows, ROWS, 1)


def by_feature(one: IntArray) -> dict[str, IntArray]:
    return {f"f{feature}": one[feature] for feature in range(FEATURES)}


@cache
def reference_of_neighbours(windows: int) -> dict[str, Reference]:
    seen = np.array([counts(window) for window in autoregressive(np.random.default_rng(1), windows)])
    found = {}
    for feature in range(FEATURES):
        whole = Reference(reference_shares(seen[:, feature].sum(axis=0), SLOTS))
        order = Windows(seen[:, feature], np.arange(windows), np.zeros(windows, dtype=np.int64))
        found[f"f{feature}"] = Reference(whole.whole, (), design_effects(order, whole) or {})
    return found


@cache
def reference_of_days() -> dict[str, Reference]:
    seen = np.array([counts(window) for window in seasonal(np.random.default_rng(2), DAY)])
    found = {}
    for feature in range(FEATURES):
        of_hour = seen[:, feature].reshape(24, -1, BINS + 1).sum(axis=1)
        strata = quarters(tuple(reference_shares(hour, SLOTS) for hour in of_hour))
        whole = reference_shares(of_hour.sum(axis=0), SLOTS)
        order = Windows(seen[:, feature], np.arange(DAY), QUARTERS)
        effects = design_effects(order, Reference(whole, strata), fitted=24) or {}
        floor = heterogeneity(order, Reference(whole, strata, effects))
        found[f"f{feature}"] = Reference(whole, strata, effects, floor)
    return found


def without_dependence(references: dict[str, Reference]) -> dict[str, Reference]:
    return {name: Reference(reference.whole) for name, reference in references.items()}


@pytest.mark.parametrize("windows", [20, 200])
def test_rows_like_their_neighbours_raise_no_alarm_where_a_detector_that_ignores_it_alarms_at_once(
    windows: int,
) -> None:
    stream = autoregressive(np.random.default_rng(3), 120)
    detector = Detector(reference_of_neighbours(windows), Settings(1_000))
    ignorant = Detector(without_dependence(reference_of_neighbours(windows)), Settings(1_000))
    assert ignorant.observe(by_feature(counts(stream[0]))).drifted
    assert not any(detector.observe(by_feature(counts(window))).drifted for window in stream)


def test_a_shift_among_rows_like_their_neighbours_is_found() -> None:
    stream = autoregressive(np.random.default_rng(4), 30)
    stream[:, :, 7] += 0.5
    detector = Detector(reference_of_neighbours(200), Settings(8_640))
    verdicts = [detector.observe(by_feature(counts(window))) for window in stream]
    assert verdicts[-1].drifted
    assert (verdicts[-1].features[0].name, verdicts[-1].features[0].direction) == ("f7", "up")


def test_a_day_like_the_reference_s_raises_no_alarm_where_a_detector_without_hours_alarms_at_once() -> None:
    stream = seasonal(np.random.default_rng(5), DAY)
    detector = Detector(reference_of_days(), Settings(1_000))
    ignorant = Detector(without_dependence(reference_of_days()), Settings(1_000))
    assert ignorant.observe(by_feature(counts(stream[0]))).drifted
    for window, quarter in zip(stream, QUARTERS.tolist(), strict=True):
        assert not detector.observe(by_feature(counts(window)), quarter).drifted


@pytest.mark.parametrize("start", [0, 100, 200])
def test_a_quarter_of_a_standard_deviation_is_found_at_any_hour(start: int) -> None:
    stream = seasonal(np.random.default_rng(6), DAY)
    stream[:, :, 7] += 0.25
    detector = Detector(reference_of_days(), Settings(8_640))
    for place in range(start, start + 10):
        verdict = detector.observe(by_feature(counts(stream[place])), int(QUARTERS[place]))
    assert verdict.drifted
    assert verdict.features[0].name == "f7"


def test_a_detector_that_does_not_judge_gathers_evidence_and_never_alarms() -> None:
    rng = np.random.default_rng(7)
    detector = Detector(without_dependence(reference_of_days()), Settings(100, judged=False))
    for _ in range(20):
        verdict = detector.observe(by_feature(counts(rng.normal(2, 1, (ROWS, FEATURES)))))
        assert verdict.evidence > verdict.limit
        assert not verdict.drifted
        assert verdict.score == 0
