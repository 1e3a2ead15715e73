"""What the summary of a profile says a reference can't show is what the detector can't see."""

import numpy as np
import pytest
from pegel_agent.statistics.detector import Detector, Settings
from pegel_agent.statistics.sensitivity import smallest_shift
from pegel_agent.statistics.slots import Reference, Slot, reference_shares
from scipy import stats

SLOTS = (Slot.BELOW, *(Slot.INTERVAL,) * 20, Slot.ABOVE, Slot.MISSING)
EDGES = stats.norm.ppf(np.concatenate(([0.001], np.linspace(0.05, 0.95, 19), [0.999])))


def shares(shift: float) -> np.ndarray:
    upto = np.concatenate(([0], stats.norm.cdf(EDGES, loc=shift), [1]))
    return np.append(np.diff(upto), 0.0)


@pytest.mark.parametrize("rows", [500, 2_000, 10_000])
@pytest.mark.parametrize(("times", "seen"), [(0.8, False), (1.3, True)])
def test_a_smaller_shift_is_never_proved_and_a_larger_one_is(rows: int, times: float, seen: bool) -> None:
    reference = Reference(reference_shares((shares(0) * rows).round().astype(int), SLOTS))
    shift = times * smallest_shift(rows, 50)
    same = Reference(reference_shares([50, 50], (Slot.INTERVAL, Slot.INTERVAL)))
    detector = Detector({"x": reference, **{f"f{i}": same for i in range(49)}}, Settings(100))
    window = {"x": (shares(shift) * 100_000).round().astype(np.int64)}
    assert any(detector.observe(window).drifted for _ in range(20)) is seen


def test_the_examples_of_the_documentation_hold() -> None:
    assert smallest_shift(500, 50) == pytest.approx(0.2, abs=0.02)
    assert smallest_shift(10_000, 50) == pytest.approx(0.07, abs=0.01)
