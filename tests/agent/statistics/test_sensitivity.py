"""What the summary of a profile says a reference can't show is what the detector can't see."""

import numpy as np
import pytest
from pegel_agent.reference.columns import learn_feature
from pegel_agent.statistics.detector import Detector, Settings
from pegel_agent.statistics.sensitivity import smallest_shift, unlucky_errors, unlucky_quantile
from pegel_agent.statistics.slots import Reference, Slot, reference_shares
from pegel_agent.statistics.tilts import APPEARING, bets_of, shares_of
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


@pytest.mark.parametrize("rows", [500, 10_000])
def test_no_bet_wins_more_from_an_unlucky_reference_than_it_pays_but_for_the_chance(rows: int) -> None:
    chance, random_numbers = 0.05, np.random.default_rng(4)
    feature = learn_feature("f", "input", random_numbers.normal(size=rows))
    assert feature
    truth = feature.bins.counts(random_numbers.normal(size=1_000_000)) / 1_000_000
    slots = feature.reference.whole.slots
    unlucky, references = 0, 500
    for _ in range(references):
        reference = reference_shares(random_numbers.multinomial(rows, truth), slots)
        bets = tuple(bet for bet in bets_of(Reference(reference)) if bet[0] not in APPEARING)
        q = shares_of(bets, reference)
        won = (q / reference.shares - 1) @ truth
        z = unlucky_quantile(bets, reference, chance)
        unlucky += bool(np.any(won > unlucky_errors(bets, q, reference, z, np.ones(len(bets)))))
    assert unlucky <= chance * references + 3 * np.sqrt(chance * references)
    assert unlucky >= 0.2 * chance * references  # nor does it pay far too much
