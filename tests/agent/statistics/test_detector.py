"""The detector keeps its budget, finds what moved, and lets go when it is over."""

from itertools import product
from math import factorial, prod

import numpy as np
import pytest
from pegel_agent.statistics.detector import Detector, Settings, Verdict
from pegel_agent.statistics.slots import FloatArray, IntArray, ReferenceShares, Slot, reference_shares
from pegel_agent.statistics.tilts import tilts

FEATURES, BINS, ROWS = 50, 20, 500
SLOTS = (Slot.BELOW, *(Slot.INTERVAL,) * (BINS - 2), Slot.ABOVE, Slot.MISSING)
EDGES = np.quantile(np.random.default_rng(0).normal(size=100_000), np.linspace(0, 1, BINS + 1)[1:-1])


def counts(values: FloatArray, missing: int = 0) -> IntArray:
    bins = np.searchsorted(EDGES, values)
    bins[:missing] = BINS
    return np.bincount(bins, minlength=BINS + 1)


def references(rng: np.random.Generator, rows: int) -> dict[str, ReferenceShares]:
    return {f"f{i}": reference_shares(counts(rng.normal(size=rows)), SLOTS) for i in range(FEATURES)}


def window(
    rng: np.random.Generator, *, shift: float = 0.0, spread: float = 1.0, missing: int = 0
) -> dict[str, IntArray]:
    found = {f"f{i}": counts(rng.normal(size=ROWS)) for i in range(FEATURES)}
    found["f7"] = counts(rng.normal(shift, spread, size=ROWS), missing)
    return found


def test_no_alarm_in_many_windows_without_drift() -> None:
    rng = np.random.default_rng(1)
    for reference_rows in (500, 2_000, 10_000):
        detector = Detector(references(rng, reference_rows), Settings(8640))
        assert not any(detector.observe(window(rng)).drifted for _ in range(150))


@pytest.mark.parametrize(
    ("drift", "direction", "within"),
    [
        ({"shift": 0.25}, "up", 5),
        ({"shift": -0.25}, "down", 5),
        ({"shift": 0.15}, "up", 15),
        ({"spread": 1.2}, "wider", 5),
        ({"missing": 5}, "missing", 5),
    ],
)
def test_drift_is_found_in_its_feature_with_its_direction(drift: dict[str, float], direction: str, within: int) -> None:
    rng = np.random.default_rng(2)
    detector = Detector(references(rng, 10_000), Settings(8640))
    for _ in range(20):
        detector.observe(window(rng))
    verdicts: list[Verdict] = []
    while not verdicts or not verdicts[-1].drifted:
        verdicts.append(detector.observe(window(rng, **drift)))  # type: ignore[arg-type]
        assert len(verdicts) <= within
    first = verdicts[-1].features[0]
    assert (first.name, first.direction) == ("f7", direction)
    assert verdicts[-1].score >= 0
    assert first.moved


def test_the_alarm_stays_while_drift_lasts_and_clears_after_it() -> None:
    rng = np.random.default_rng(3)
    detector = Detector(references(rng, 10_000), Settings(8640))
    states = [detector.observe(window(rng, shift=0.4)).drifted for _ in range(40)]
    assert all(states[states.index(True) :])
    after = [detector.observe(window(rng)).drifted for _ in range(80)]
    assert after[0]
    assert not after[-1]


def test_an_idle_model_raises_no_alarm() -> None:
    detector = Detector(references(np.random.default_rng(4), 500), Settings(10))
    empty = {f"f{i}": np.zeros(BINS + 1, dtype=np.int64) for i in range(FEATURES)}
    assert not any(detector.observe(empty).drifted for _ in range(200))


def test_a_bet_gains_nothing_in_expectation_when_the_reference_is_the_truth() -> None:
    """By enumeration of every window of n rows in k bins."""
    slots = (Slot.BELOW, Slot.INTERVAL, Slot.ABOVE, Slot.MISSING)
    reference = reference_shares([10, 60, 25, 5], slots)
    n = 5
    for tilt in tilts(reference):
        gain = np.log(tilt.shares / reference.shares)
        expected = sum(
            factorial(n)
            / prod(map(factorial, c))
            * float(np.prod(reference.shares ** np.array(c)))
            * float(np.exp(np.array(c) @ gain))
            for c in product(range(n + 1), repeat=4)
            if sum(c) == n
        )
        assert expected == pytest.approx(1)


def test_directions_are_orthonormal_under_the_reference() -> None:
    reference = reference_shares([10, 60, 25, 40, 30, 5], (Slot.BELOW, *(Slot.INTERVAL,) * 3, Slot.ABOVE, Slot.MISSING))
    p = reference.shares
    found = {tilt.direction: np.log(tilt.shares / p) for tilt in tilts(reference)}
    centred = {name: score - np.sum(p * score) for name, score in found.items()}
    for one, other in (("up", "wider"), ("up", "tails"), ("wider", "tails")):
        assert np.sum(p * centred[one] * centred[other]) == pytest.approx(0, abs=1e-9)
    for name in ("up", "wider", "tails"):
        assert centred[name][-1] == pytest.approx(0, abs=1e-9), "missing rows take no side"


def test_a_feature_without_a_common_category_can_still_go_missing() -> None:
    rng = np.random.default_rng(6)
    detector = Detector({"id": reference_shares([2_000, 0], (Slot.OTHER, Slot.MISSING))}, Settings(8640))
    assert not any(detector.observe({"id": np.array([500, 0])}).drifted for _ in range(100))
    verdicts = [detector.observe({"id": np.array([500 - (n := int(rng.binomial(500, 0.05))), n])}) for _ in range(5)]
    assert verdicts[-1].drifted
    assert verdicts[-1].features[0].direction == "missing"


def test_a_feature_with_one_bin_is_left_out() -> None:
    detector = Detector({"constant": reference_shares([100], (Slot.INTERVAL,))}, Settings(100))
    assert detector.observe({"constant": np.array([50])}).evidence == -np.inf
