"""Design effects are found where rows resemble their neighbours, and only there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pegel_agent.statistics.dependence import Windows, design_effects, heterogeneity
from pegel_agent.statistics.slots import FloatArray, IntArray, Reference, Slot, reference_shares
from scipy.special import ndtri

BINS = 10
EDGES = ndtri(np.arange(1, BINS) / BINS)
SLOTS = (Slot.BELOW, *(Slot.INTERVAL,) * (BINS - 2), Slot.ABOVE, Slot.MISSING)
DIRECTIONS = {"up", "down", "wider", "narrower", "tails", "missing"}


def autoregressive(rng: np.random.Generator, rows: int, correlation: float) -> FloatArray:
    values = rng.normal(size=rows)
    for row in range(1, rows):
        values[row] = correlation * values[row - 1] + np.sqrt(1 - correlation**2) * values[row]
    return values


def in_windows(values: FloatArray, rows: int) -> IntArray:
    windows = values.reshape(-1, rows)
    counts = [np.bincount(np.searchsorted(EDGES, window), minlength=BINS + 1) for window in windows]
    return np.array(counts, dtype=np.int64)


def ordered(counts: IntArray, strata: IntArray | None = None) -> Windows:
    windows = len(counts)
    return Windows(counts, np.arange(windows), np.zeros(windows, dtype=np.int64) if strata is None else strata)


def reference(counts: IntArray) -> Reference:
    return Reference(reference_shares(counts.sum(axis=0), SLOTS))


def test_independent_rows_have_a_design_effect_of_little_more_than_one() -> None:
    counts = in_windows(np.random.default_rng(0).normal(size=200_000), 100)
    effects = design_effects(ordered(counts), reference(counts))
    assert effects is not None
    assert set(effects) == DIRECTIONS
    assert all(1 <= effect < 1.3 for effect in effects.values())


def test_an_autoregression_has_the_design_effect_of_its_location_and_a_smaller_one_of_its_spread() -> None:
    counts = in_windows(autoregressive(np.random.default_rng(1), 200_000, 0.9), 200)
    effects = design_effects(ordered(counts), reference(counts))
    assert effects is not None
    assert 17 < effects["up"] < 26, "19 is the truth: (1 + 0.9)/(1 − 0.9); the estimate is a 95 % bound"
    assert 7 < effects["wider"] < 14, "9.5 is the truth: (1 + 0.81)/(1 − 0.81)"
    assert effects["missing"] == 1


@pytest.mark.parametrize(("windows", "known"), [(0, False), (1, False), (19, False), (20, True)])
def test_fewer_than_twenty_windows_leave_it_unknown(windows: int, known: bool) -> None:
    everything = in_windows(np.random.default_rng(2).normal(size=2_000), 100)
    found = design_effects(ordered(everything[:windows]), reference(everything))
    assert (found is not None) == known


def test_few_windows_are_worth_a_wider_bound() -> None:
    counts = in_windows(np.random.default_rng(3).normal(size=200_000), 100)
    few = [design_effects(ordered(some), reference(counts)) for some in np.split(counts, 100)]
    bounds = [effects["up"] for effects in few if effects is not None]
    assert len(bounds) == 100
    assert np.quantile(bounds, 0.1) >= 1
    assert 1.5 < np.median(bounds) < 2.5, "the 95 % bound of 20 windows is 19/10.1 times the estimate"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_rows_within_a_window_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(40, 50))
    shuffled = rng.permuted(values, axis=1)
    first, second = in_windows(values.ravel(), 50), in_windows(shuffled.ravel(), 50)
    assert design_effects(ordered(first), reference(first)) == design_effects(ordered(second), reference(second))


def test_a_gap_in_time_does_not_join_the_windows_around_it() -> None:
    counts = in_windows(np.random.default_rng(4).normal(size=4_000), 100)
    apart = Windows(counts, np.arange(40) * 10, np.zeros(40, dtype=np.int64))
    alone = design_effects(apart, reference(counts))
    assert alone is not None
    means = design_effects(Windows(counts, np.arange(40), np.zeros(40, dtype=np.int64)), reference(counts))
    assert means is not None
    assert alone["up"] <= means["up"]


def test_levels_that_differ_by_stratum_are_no_dependence_within_it() -> None:
    rng = np.random.default_rng(5)
    strata = np.arange(400) % 4
    counts = in_windows((rng.normal(size=(400, 100)) + strata[:, None]).ravel(), 100)
    of_strata = tuple(reference_shares(counts[strata == one].sum(axis=0), SLOTS) for one in range(4))
    told_apart = Reference(reference(counts).whole, of_strata)
    as_one = design_effects(ordered(counts), reference(counts))
    by_stratum = design_effects(ordered(counts, strata), told_apart, fitted=4)
    assert as_one is not None
    assert by_stratum is not None
    assert as_one["up"] > 20
    assert all(effect < 1.6 for effect in by_stratum.values())


def test_windows_that_vary_by_chance_alone_are_not_heterogeneous() -> None:
    counts = in_windows(np.random.default_rng(6).normal(size=100_000), 100)
    assert heterogeneity(ordered(counts), reference(counts)) < 0.005


def test_windows_that_vary_by_more_than_chance_are_heterogeneous_by_that() -> None:
    rng = np.random.default_rng(7)
    counts = in_windows((rng.normal(size=(500, 1_000)) + rng.normal(0, 0.3, (500, 1))).ravel(), 1_000)
    assert 0.2 < heterogeneity(ordered(counts), reference(counts)) < 0.5, "(1.96 · 0.3)² is 0.35"
