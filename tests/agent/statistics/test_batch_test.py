"""The fixed-sample test keeps its level, and finds what a batch can show."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pegel_agent.reference.columns import Column, count_columns, learn_feature
from pegel_agent.reference.order import in_order
from pegel_agent.reference.profile import Feature
from pegel_agent.statistics.batch_test import Counts, Measures, compare, holm_level
from pegel_agent.statistics.slots import Slot
from scipy import signal, stats

Draw = Callable[[np.random.Generator, int], Column]


def normal(rng: np.random.Generator, rows: int) -> Column:
    return rng.normal(size=rows)


def amounts(rng: np.random.Generator, rows: int) -> Column:
    return np.where(rng.random(rows) < 0.9, 0.0, rng.lognormal(size=rows))


def events(rng: np.random.Generator, rows: int) -> Column:
    return rng.poisson(2, rows).astype(float)


def gaps(rng: np.random.Generator, rows: int) -> Column:
    return np.where(rng.random(rows) < 0.01, np.nan, rng.normal(size=rows))


def words(rng: np.random.Generator, rows: int) -> Column:
    return np.array([f"w{rank}" for rank in rng.zipf(1.5, rows)], dtype=object)


def alike(rng: np.random.Generator, rows: int) -> Column:
    """With a correlation of 0.9 from row to row, so that 19 rows are worth one."""
    return signal.lfilter([1.0], [1.0, -0.9], rng.normal(size=rows + 200) * np.sqrt(1 - 0.9**2))[200:]


def learned(draw: Draw, rng: np.random.Generator, rows: int) -> Feature:
    feature = learn_feature("x", "input", draw(rng, rows))
    assert feature is not None
    return feature


def learned_in_order(draw: Draw, rng: np.random.Generator) -> Feature:
    """From 10,000 rows in 20 windows."""
    values = draw(rng, 10_000)
    feature = learn_feature("x", "input", values)
    assert feature is not None
    by_window = np.array([count_columns(feature, part)[0] for part in np.split(values, 20)])
    return in_order(feature, by_window, np.arange(20))


def against(feature: Feature, values: Column) -> Counts:
    counts = count_columns(feature, values)[0]
    return Counts(counts, np.array(feature.counts), feature.bins.slots, feature.design_effects, feature.heterogeneity)


def measure(reference: Column, batch: Column, *, alpha: float = 0.001) -> Measures:
    """One feature of twenty; the others are as they were."""
    rng = np.random.default_rng(20)
    feature = learn_feature("x", "input", reference)
    assert feature is not None
    others = {f"f{i}": against(learned(normal, rng, 10_000), normal(rng, len(batch))) for i in range(19)}
    return compare({"x": against(feature, batch), **others}, alpha=alpha)["x"]


def test_batches_without_drift_raise_some_alarms_and_no_more_than_alpha_says() -> None:
    rng = np.random.default_rng(11)
    draws = (normal, amounts, events, gaps, words) * 4
    alarms, alpha = 0, 0.05
    for _ in range(20):
        features = [learned(draw, rng, 2_000) for draw in draws]
        for _ in range(20):
            batch = {f"f{i}": against(features[i], draw(rng, 500)) for i, draw in enumerate(draws)}
            alarms += any(m.drifted for m in compare(batch, alpha=alpha, psi_floor=0).values())
    assert 0 < alarms <= stats.binom.ppf(0.9999, 400, alpha)


def test_rows_like_their_neighbours_raise_no_more_alarms_where_the_design_effects_are_known() -> None:
    rng = np.random.default_rng(21)
    alarms = unaware = 0
    for _ in range(5):
        features = [learned_in_order(alike, rng) for _ in range(5)]
        for rows in (200, 500, 2_000) * 3:
            batch = {f"f{i}": against(feature, alike(rng, rows)) for i, feature in enumerate(features)}
            alarms += any(m.drifted for m in compare(batch, alpha=0.05).values())
            plain = {name: replace(counts, design_effects={}) for name, counts in batch.items()}
            unaware += any(m.drifted for m in compare(plain, alpha=0.05).values())
    assert alarms <= stats.binom.ppf(0.9999, 45, 0.05)
    assert unaware > 40


@pytest.mark.parametrize(("draw", "shift"), [(alike, 1.5), (normal, 0.25)])
def test_a_shift_is_found_by_a_reference_in_time_order(draw: Draw, shift: float) -> None:
    rng = np.random.default_rng(22)
    found = [
        compare(
            {f"f{i}": against(learned_in_order(draw, rng), draw(rng, 2_000) + shift) for i in range(5)}, alpha=0.001
        )
        for _ in range(4)
    ]
    assert all(m.drifted and m.direction == "up" for one in found for m in one.values())


@pytest.mark.parametrize("rows", [1, 2, 5, 20])
def test_a_tiny_batch_raises_no_more_alarms_than_alpha_says(rows: int) -> None:
    rng = np.random.default_rng(23)
    draws = (normal, amounts, events, gaps, words)
    features = [learned(draw, rng, 10_000) for draw in draws]
    alarms = 0
    for _ in range(400):
        batch = {f"f{i}": against(features[i], draw(rng, rows)) for i, draw in enumerate(draws)}
        alarms += any(m.drifted for m in compare(batch, alpha=0.05).values())
    assert alarms <= stats.binom.ppf(0.9999, 400, 0.05)


def rare(rng: np.random.Generator, rows: int) -> Column:
    return (rng.random(rows) < 0.0012).astype(float)


def rare_counts(rng: np.random.Generator, rows: int) -> Column:
    return rng.poisson(0.05, rows).astype(float)


def rarely_missing(rng: np.random.Generator, rows: int) -> Column:
    return np.where(rng.random(rows) < 0.001, np.nan, rng.normal(size=rows))


def rare_words(rng: np.random.Generator, rows: int) -> Column:
    return rng.choice(np.array([*"abcd"], dtype=object), rows, p=[0.95, 0.045, 0.004, 0.001])


@pytest.mark.parametrize("rows", [20, 100, 1_000])
@pytest.mark.parametrize("draw", [rare, rare_counts, rarely_missing, rare_words])
def test_batches_of_ten_features_with_rare_values_raise_no_more_alarms_than_alpha_says(draw: Draw, rows: int) -> None:
    rng = np.random.default_rng(25)
    alarms = 0
    for _ in range(40):
        features = [learned(draw, rng, 10_000) for _ in range(10)]
        for _ in range(10):
            batch = {f"f{i}": against(feature, draw(rng, rows)) for i, feature in enumerate(features)}
            alarms += any(m.drifted for m in compare(batch, alpha=0.001, psi_floor=0).values())
    assert alarms <= stats.binom.ppf(0.9999, 400, 0.001)


def test_one_rare_row_is_as_likely_as_it_is() -> None:
    reference = np.repeat([0.0, 1.0], [9_988, 12])
    found = measure(reference, np.repeat([0.0, 1.0], [19, 1]))
    exactly = stats.hypergeom(10_020, 13, 20).sf(0)
    assert (found.drifted, found.p_value) == (False, pytest.approx(exactly))
    assert exactly == pytest.approx(0.026, abs=0.001)


def test_many_rare_rows_are_found() -> None:
    reference = np.repeat([0.0, 1.0], [9_988, 12])
    found = measure(reference, np.repeat([0.0, 1.0], [94, 6]))
    assert found.drifted
    assert found.p_value == pytest.approx(stats.hypergeom(10_100, 18, 100).sf(5))


@pytest.mark.parametrize("rows", [30, 1_000])
def test_a_large_batch_against_a_small_reference_raises_no_more_alarms_than_alpha_says(rows: int) -> None:
    rng = np.random.default_rng(26)
    draws = (normal, rare_counts, rarely_missing, rare_words)
    alarms = 0
    for _ in range(200):
        batch = {f"f{i}": against(learned(draw, rng, rows), draw(rng, 50_000)) for i, draw in enumerate(draws)}
        alarms += any(m.drifted for m in compare(batch, alpha=0.01, psi_floor=0).values())
    assert alarms <= stats.binom.ppf(0.9999, 200, 0.01)


def test_a_few_missing_values_are_found_though_the_others_resemble_their_neighbours() -> None:
    rng = np.random.default_rng(24)
    feature = learned_in_order(alike, rng)
    batch = alike(rng, 500)
    batch[:6] = np.nan
    found = compare({"x": against(feature, batch)}, alpha=0.001)["x"]
    assert (found.drifted, found.direction) == (True, "missing")


def test_what_windows_differ_by_anyway_is_no_drift() -> None:
    slots = (Slot.BELOW, Slot.INTERVAL, Slot.INTERVAL, Slot.ABOVE, Slot.MISSING)
    counts = Counts(np.array([0, 400, 600, 0, 0]), np.array([0, 5_000, 5_000, 0, 0]), slots)
    assert compare({"x": counts}, alpha=0.001)["x"].drifted
    measured = compare({"x": replace(counts, heterogeneity=0.05)}, alpha=0.001)["x"]
    assert (measured.drifted, measured.psi_limit) == (False, 0.05)


@pytest.mark.parametrize(("shift", "direction"), [(0.25, "up"), (-0.25, "down")])
def test_a_quarter_of_a_standard_deviation_is_found_with_2000_rows(shift: float, direction: str) -> None:
    rng = np.random.default_rng(12)
    found = [measure(rng.normal(size=10_000), rng.normal(shift, 1, 2_000)) for _ in range(10)]
    assert [m.direction for m in found if m.drifted] == [direction] * 10
    assert all(m.psi > m.psi_limit for m in found)


@pytest.mark.parametrize(("spread", "direction"), [(1.5, "wider"), (0.7, "narrower")])
def test_another_spread_is_found_with_its_direction(spread: float, direction: str) -> None:
    rng = np.random.default_rng(13)
    found = measure(rng.normal(size=10_000), rng.normal(0, spread, 2_000))
    assert (found.drifted, found.direction) == (True, direction)


def test_a_few_missing_values_are_found_where_there_were_none() -> None:
    rng = np.random.default_rng(14)
    batch = rng.normal(size=500)
    batch[:6] = np.nan
    found = measure(rng.normal(size=10_000), batch)
    assert (found.drifted, found.direction) == (True, "missing")
    assert found.psi < found.psi_limit, "PSI alone would not have seen them"


def test_a_new_category_is_found() -> None:
    rng = np.random.default_rng(15)
    cities = np.array(["Ulm", "Köln", "Berlin"], dtype=object)
    batch = rng.choice(cities, 500)
    batch[:6] = "Atlantis"
    found = measure(rng.choice(cities, 10_000), batch)
    assert (found.drifted, found.direction) == (True, "new")


def test_another_mix_of_categories_has_no_up_or_down_nor_distances_along_an_order() -> None:
    rng = np.random.default_rng(16)
    cities = np.array(["Ulm", "Köln", "Berlin"], dtype=object)
    found = measure(rng.choice(cities, 10_000), rng.choice(cities, 2_000, p=[0.5, 0.3, 0.2]))
    assert (found.drifted, found.direction, found.ks, found.rank_wasserstein) == (True, "shape", None, None)


def test_a_sure_but_tiny_change_is_below_the_floor() -> None:
    rng = np.random.default_rng(17)
    reference, batch = rng.normal(size=400_000), rng.normal(0.03, 1, 400_000)
    found = measure(reference, batch)
    assert found.p_value < 1e-6
    assert not found.drifted
    assert found.psi < found.psi_limit


def test_a_constant_that_stays_has_no_drift_and_one_that_moves_has() -> None:
    ones = np.ones(2_000)
    assert measure(ones, ones[:500]).p_value == 1
    moved = measure(ones, 2 * ones[:500])
    assert moved.drifted


def test_distances_along_the_order_are_of_the_values_that_are_there() -> None:
    reference, batch = np.arange(1_000.0), np.arange(1_000.0)
    batch[::2] = np.nan
    found = measure(reference, batch)
    assert found.drifted
    assert found.ks == pytest.approx(0, abs=0.01)
    assert found.rank_wasserstein == pytest.approx(0, abs=0.01)
    assert found.tvd == pytest.approx(0.5, abs=0.02)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holms_level_parts_what_holms_procedure_rejects_from_what_it_keeps(p_values: list[float]) -> None:
    alpha = 0.3
    level = holm_level(p_values, alpha=alpha)
    adjusted = np.maximum.accumulate([p * (len(p_values) - i) for i, p in enumerate(sorted(p_values))])
    close = np.isclose(adjusted, alpha, rtol=1e-9)  # where rounding decides
    assert ((np.sort(p_values) <= level) == (adjusted <= alpha))[~close].all()
