"""A drop of accuracy is found, and no drop is not."""

import math

import numpy as np
import pytest
from pegel_agent.statistics.accuracy_drop import AccuracyDrop, ReferenceRate, upper_bound
from scipy import stats

BUDGET = 8640


def windows_until_found(error: float, *, reference_rows: int = 10_000, labels: int = 50, seed: int = 1) -> int:
    """Windows of so many labels until a drop from 0.1 to this error is reported, after fifty without one."""
    rng = np.random.default_rng(seed)
    watch = AccuracyDrop([ReferenceRate(int(rng.binomial(reference_rows, 0.1)), reference_rows)], windows=BUDGET)
    for _ in range(50):
        assert not watch.observe(labels, [int(rng.binomial(labels, 0.1))]).dropped
    for window in range(1, 400):
        if watch.observe(labels, [int(rng.binomial(labels, error))]).dropped:
            return window
    raise AssertionError("never found")


@pytest.mark.parametrize(("happened", "rows"), [(0, 10), (1, 10), (100, 1_000), (999, 1_000), (3, 4)])
def test_the_bound_is_clopper_and_pearsons(happened: int, rows: int) -> None:
    exact = stats.binomtest(happened, rows, alternative="less").proportion_ci(0.95, method="exact").high
    assert upper_bound(ReferenceRate(happened, rows)) == pytest.approx(exact)


def test_a_reference_that_was_always_wrong_or_had_no_rows_bounds_nothing() -> None:
    assert upper_bound(ReferenceRate(5, 5)) == upper_bound(ReferenceRate(0, 0)) == 1.0
    watch = AccuracyDrop([ReferenceRate(5, 5)], windows=2)
    assert not any(watch.observe(50, [50]).dropped for _ in range(50))


@pytest.mark.parametrize(("error", "within"), [(0.13, 80), (0.15, 35), (0.2, 10), (0.4, 3)])
def test_a_drop_is_found_the_sooner_the_larger_it_is(error: float, within: int) -> None:
    assert float(np.median([windows_until_found(error, seed=seed) for seed in range(7)])) <= within


@pytest.mark.parametrize("rows", [500, 2_000, 10_000])
def test_without_a_drop_alarms_keep_the_budget(rows: int) -> None:
    """In 40 runs of 300 windows and a budget of one in 100 windows at most 120 alarms are allowed."""
    rng = np.random.default_rng(rows)
    alarms = 0
    for _ in range(40):
        watch = AccuracyDrop([ReferenceRate(int(rng.binomial(rows, 0.1)), rows)], windows=100)
        states = [watch.observe(50, [int(rng.binomial(50, 0.1))]).dropped for _ in range(300)]
        alarms += sum(now and not before for before, now in zip([False, *states], states, strict=False))
    assert alarms <= 120


def test_the_budget_holds_even_where_the_error_is_at_the_bound() -> None:
    rng = np.random.default_rng(5)
    reference = ReferenceRate(100, 1_000)
    watch = AccuracyDrop([reference], windows=100)
    states = [watch.observe(50, [int(rng.binomial(50, upper_bound(reference)))]).dropped for _ in range(10_000)]
    alarms = sum(now and not before for before, now in zip([False, *states], states, strict=False))
    assert 1 <= alarms <= 100


def test_bets_gain_nothing_in_expectation_at_the_bound() -> None:
    """By enumeration of the errors among 7 labels."""
    reference = ReferenceRate(3, 40)
    bound = upper_bound(reference)
    expected = sum(
        stats.binom.pmf(errors, 7, bound) * 10 ** AccuracyDrop([reference], windows=1e9).observe(7, [errors]).evidence
        for errors in range(8)
    )
    assert expected == pytest.approx(1)


def test_a_drop_that_is_over_is_let_go_and_one_that_lasts_is_not() -> None:
    rng = np.random.default_rng(2)
    watch = AccuracyDrop([ReferenceRate(1_000, 10_000)], windows=BUDGET)
    during = [watch.observe(50, [int(rng.binomial(50, 0.25))]).dropped for _ in range(60)]
    assert all(during[during.index(True) :])
    after = [watch.observe(50, [int(rng.binomial(50, 0.08))]).dropped for _ in range(150)]
    assert after[0]
    assert not after[-1]


def test_a_model_that_gets_better_is_no_drop() -> None:
    watch = AccuracyDrop([ReferenceRate(1_000, 10_000)], windows=10)
    assert not any(watch.observe(50, [0]).dropped for _ in range(500))


def test_windows_without_labels_change_nothing() -> None:
    watch = AccuracyDrop([ReferenceRate(10, 100)], windows=10)
    assert watch.verdict().evidence == -math.inf
    before = watch.observe(50, [9])
    assert [watch.observe(0, [0]) for _ in range(100)] == [before] * 100


def test_a_part_of_a_window_stakes_that_part() -> None:
    reference = [ReferenceRate(100, 1_000)]
    whole, part = (AccuracyDrop(reference, windows=100).observe(50, [9], windows=share) for share in (1.0, 0.1))
    assert part.evidence == pytest.approx(whole.evidence - 1)


def test_what_the_user_calls_harmless_is_no_drop() -> None:
    rng = np.random.default_rng(8)
    reference = [ReferenceRate(1_000, 10_000)]
    strict = AccuracyDrop(reference, windows=100)
    lenient = AccuracyDrop(reference, windows=100, tolerance=0.1)
    wrong = [int(rng.binomial(50, 0.18)) for _ in range(200)]
    assert any(strict.observe(50, [count]).dropped for count in wrong)
    assert not any(lenient.observe(50, [count]).dropped for count in wrong)


def test_larger_errors_of_a_regression_are_a_drop_by_any_of_their_limits() -> None:
    """Events: above the reference's median, and above its 95 % quantile."""
    rng = np.random.default_rng(9)
    reference = [ReferenceRate(5_000, 10_000), ReferenceRate(500, 10_000)]
    limits = stats.norm.ppf([0.75, 0.975])

    def found(spread: float) -> bool:
        watch = AccuracyDrop(reference, windows=BUDGET)
        errors = np.abs(rng.normal(0, spread, (40, 50)))
        return any(watch.observe(50, [int((row > limit).sum()) for limit in limits]).dropped for row in errors)

    assert found(1.4)
    assert not found(1.0)
    assert not found(0.5)
