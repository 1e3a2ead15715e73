"""The detector keeps its budget, finds what moved, and lets go when it is over."""

from itertools import product
from math import factorial, prod

import numpy as np
import pytest
from pegel_agent.statistics.detector import Detector, Settings, Verdict
from pegel_agent.statistics.slots import FloatArray, IntArray, Reference, Slot, reference_shares
from pegel_agent.statistics.tilts import tilts

FEATURES, BINS, ROWS = 50, 20, 500
SLOTS = (Slot.BELOW, *(Slot.INTERVAL,) * (BINS - 2), Slot.ABOVE, Slot.MISSING)
EDGES = np.quantile(np.random.default_rng(0).normal(size=100_000), np.linspace(0, 1, BINS + 1)[1:-1])


def counts(values: FloatArray, missing: int = 0) -> IntArray:
    bins = np.searchsorted(EDGES, values)
    bins[:missing] = BINS
    return np.bincount(bins, minlength=BINS + 1)


def references(rng: np.random.Generator, rows: int) -> dict[str, Reference]:
    return {f"f{i}": Reference(reference_shares(counts(rng.normal(size=rows)), SLOTS)) for i in range(FEATURES)}


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


def _windows(n: int, k: int) -> list[IntArray]:
    return [np.array(c) for c in product(range(n + 1), repeat=k) if sum(c) == n]


def _chance(counts: IntArray, p: FloatArray) -> float:
    return factorial(int(counts.sum())) / prod(map(factorial, counts.tolist())) * float(np.prod(p**counts))


def test_the_stakes_of_two_windows_are_worth_no_more_than_two_in_expectation() -> None:
    """By enumeration, adaptive experts, penalties and two strata included, when the reference is the truth."""
    slots = (Slot.BELOW, Slot.INTERVAL, Slot.MISSING)
    strata = (reference_shares([10, 70, 20], slots), reference_shares([30, 60, 10], slots))
    expected = [0.0, 0.0]
    for first in _windows(3, 3):
        chance = _chance(first, strata[0].shares)
        for second in _windows(3, 3):
            detector = Detector({"x": Reference(strata[0], strata)}, Settings(1e9))
            verdicts = detector.observe({"x": first}, 0), detector.observe({"x": second}, 1)
            both = chance * _chance(second, strata[1].shares)
            expected = [
                so_far + both * 10**verdict.evidence for so_far, verdict in zip(expected, verdicts, strict=True)
            ]
    assert 0.5 < expected[0] <= 1
    assert 0.5 < expected[1] <= 2


def test_an_expert_that_a_stratum_leaves_no_room_for_waits() -> None:
    slots = (Slot.INTERVAL, Slot.INTERVAL, Slot.MISSING)
    whole, constant = reference_shares([500, 500, 0], slots), reference_shares([1, 0, 999_999], slots)
    detector = Detector({"x": Reference(whole, (whole, constant))}, Settings(1e9))
    evidence = [detector.observe({"x": np.array([0, 0, 500])}, 1).evidence for _ in range(50)]
    assert evidence[-1] < np.log10(50), "windows without a bet add nothing"


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
    detector = Detector({"id": Reference(reference_shares([2_000, 0], (Slot.OTHER, Slot.MISSING)))}, Settings(8640))
    assert not any(detector.observe({"id": np.array([500, 0])}).drifted for _ in range(100))
    verdicts = [detector.observe({"id": np.array([500 - (n := int(rng.binomial(500, 0.05))), n])}) for _ in range(5)]
    assert verdicts[-1].drifted
    assert verdicts[-1].features[0].direction == "missing"


def test_a_feature_with_one_bin_is_left_out() -> None:
    detector = Detector({"constant": Reference(reference_shares([100], (Slot.INTERVAL,)))}, Settings(100))
    assert detector.observe({"constant": np.array([50])}).evidence == -np.inf
