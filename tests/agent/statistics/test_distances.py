"""Distances and intervals agree with scipy's and with what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pegel_agent.statistics import distances
from pegel_agent.statistics.intervals import wilson
from pegel_agent.statistics.slots import FloatArray, Slot, reference_shares
from scipy import stats
from scipy.spatial.distance import jensenshannon

counts = st.lists(st.integers(0, 1000), min_size=8, max_size=8)
NUMERIC = (Slot.BELOW, *(Slot.INTERVAL,) * 5, Slot.ABOVE, Slot.MISSING)
CATEGORICAL = (*(Slot.CATEGORY,) * 6, Slot.OTHER, Slot.MISSING)


def shares(values: list[int]) -> FloatArray:
    return distances.smoothed_shares(np.array(values))


@given(counts, counts)
def test_symmetric_distances_are_symmetric_and_in_range(a: list[int], b: list[int]) -> None:
    p, q = shares(a), shares(b)
    for measure in (distances.psi, distances.js, distances.ks, distances.tvd):
        assert measure(p, q) == pytest.approx(measure(q, p), abs=1e-9)
    for measure in (distances.js, distances.ks, distances.tvd):
        assert -1e-12 <= measure(p, q) <= 1 + 1e-12
    assert 0 <= distances.rank_wasserstein(p, q) <= 0.5


@given(counts)
def test_no_distance_from_itself(a: list[int]) -> None:
    p = shares(a)
    for measure in (distances.psi, distances.js, distances.ks, distances.tvd, distances.rank_wasserstein):
        assert measure(p, p) == pytest.approx(0, abs=1e-7)


@given(counts, counts)
def test_js_is_scipys(a: list[int], b: list[int]) -> None:
    p, q = shares(a), shares(b)
    assert distances.js(p, q) == pytest.approx(float(jensenshannon(p, q, base=2)), abs=1e-6)


@given(counts, counts)
def test_psi_is_the_sum_of_both_kullback_leibler_divergences(a: list[int], b: list[int]) -> None:
    p, q = shares(a), shares(b)
    assert distances.psi(p, q) == pytest.approx(float(stats.entropy(p, q) + stats.entropy(q, p)), abs=1e-9)


@given(counts, counts)
def test_rank_wasserstein_is_the_integral_over_the_references_ranks(a: list[int], b: list[int]) -> None:
    p, q = shares(a), shares(b)
    u = np.linspace(0, 1, 20_001)
    current = np.interp(u, np.concatenate(([0], np.cumsum(q))), np.concatenate(([0], np.cumsum(p))))
    assert distances.rank_wasserstein(p, q) == pytest.approx(float(np.trapezoid(np.abs(current - u), u)), abs=1e-3)


def test_psi_stays_below_its_limit_as_often_as_the_limit_says() -> None:
    rng = np.random.default_rng(7)
    truth = np.full(10, 0.1)
    current, reference = rng.multinomial(500, truth, 4000), rng.multinomial(2000, truth, 4000)
    limit = distances.psi_limit(500, 2000, 10, alpha=0.05)
    p, q = np.apply_along_axis(shares, 1, current), np.apply_along_axis(shares, 1, reference)
    above = np.mean(np.sum((p - q) * np.log(p / q), axis=1) > limit)
    assert 0.035 < above < 0.065


@given(st.integers(1, 2000), st.data())
def test_the_wilson_interval_is_scipys(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    theirs = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson(successes, trials) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_an_interval_without_trials_is_refused() -> None:
    with pytest.raises(ValueError, match="no trials"):
        wilson(0, 0)


@given(counts.filter(lambda values: sum(values) > 0), st.sampled_from((NUMERIC, CATEGORICAL)))
def test_reference_shares_are_positive_and_sum_to_one(a: list[int], slots: tuple[Slot, ...]) -> None:
    reference = reference_shares(a, slots)
    assert reference.shares.min() > 0
    assert reference.shares.sum() == pytest.approx(1)
    assert reference.rows == sum(a)


def test_unknown_categories_are_expected_as_often_as_rare_ones_were() -> None:
    with_rare = reference_shares([470, 300, 100, 40, 30, 30, 30, 0], CATEGORICAL)
    without = reference_shares([500, 300, 100, 40, 30, 30, 0, 0], CATEGORICAL)
    assert with_rare.shares[6] == pytest.approx(0.03, rel=0.02)
    assert without.shares[6] == pytest.approx(0.001, rel=0.01)


def test_a_reference_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="without rows"):
        reference_shares([0] * 8, NUMERIC)
