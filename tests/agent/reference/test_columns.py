"""Columns are counted whatever they hold, and a feature is learned from one."""

import numpy as np
import pytest
from pegel_agent.reference.columns import Column, count_columns, learn_feature
from pegel_agent.reference.profile import Feature
from pegel_agent.statistics.detector import Detector, Settings

AGE = Feature("age", "numeric", "input", counts=(1, 5, 5, 1, 0), edges=(10.0, 20.0, 30.0))
CITY = Feature("floor", "categorical", "input", counts=(10, 10, 1, 1), categories=("1.5", "12"))


def texts(*values: str | None) -> Column:
    return np.array(values, dtype=object)


def test_numbers_are_counted_in_their_intervals() -> None:
    counts, invalid = count_columns(AGE, np.array([9.0, 10.0, 25.0, np.nan, np.inf]))
    assert (counts.tolist(), invalid) == ([1, 1, 1, 1, 1], 0)


def test_a_text_in_a_numeric_feature_is_invalid_and_counted_as_missing() -> None:
    counts, invalid = count_columns(AGE, texts("old", None, "12"))
    assert (counts.tolist(), invalid) == ([0, 0, 0, 0, 3], 2)


def test_a_number_in_a_categorical_feature_is_its_shortest_text() -> None:
    counts, invalid = count_columns(CITY, np.array([12.0, 1.5, 3.0, np.nan, np.inf]))
    assert (counts.tolist(), invalid) == ([1, 1, 2, 1], 0)


@pytest.mark.parametrize("feature", [AGE, CITY])
@pytest.mark.parametrize("values", [np.empty(0), np.empty(0, dtype=object)])
def test_no_rows_are_no_counts(feature: Feature, values: Column) -> None:
    counts, invalid = count_columns(feature, values)
    assert (counts.sum(), invalid) == (0, 0)
    assert len(counts) == len(feature.counts)


def test_a_learned_feature_counts_its_own_rows() -> None:
    values = np.random.default_rng(0).normal(size=500)
    values[:7] = np.nan
    feature = learn_feature("x", "input", values)
    assert feature is not None
    assert (feature.kind, sum(feature.counts), feature.counts[-1]) == ("numeric", 500, 7)
    assert feature.counts == tuple(count_columns(feature, values)[0])


def test_a_learned_category_is_never_the_name_of_few() -> None:
    feature = learn_feature("x", "prediction", texts(*["yes"] * 30, *["no"] * 25, *["maybe"] * 9, None))
    assert feature is not None
    assert (feature.kind, feature.role) == ("categorical", "prediction")
    assert (feature.categories, feature.counts) == (("no", "yes"), (25, 30, 9, 1))


def test_where_naming_is_a_near_thing_half_the_rows_decide_and_the_others_are_counted() -> None:
    feature = learn_feature("x", "input", texts(*["yes", "no", "maybe", None] * 15))
    assert feature is not None
    assert sum(feature.counts) == 60, "three categories that are all named: nothing was chosen"
    many = [f"c{number}" for number in range(70)]
    feature = learn_feature("x", "input", texts(*many * 51))
    assert feature is not None
    assert len(feature.categories) == 64
    assert 0.4 < sum(feature.counts) / (70 * 51) < 0.6
    assert feature.counts[-2] < 0.2 * sum(feature.counts), "the same categories are in both halves"


def test_nothing_can_be_learned_from_texts_that_no_ten_rows_share() -> None:
    assert learn_feature("id", "input", texts(*(f"u{i // 9}" for i in range(900)))) is None


@pytest.mark.parametrize("values", [np.full(50, np.nan), texts(None, None), np.empty(0)])
def test_nothing_can_be_learned_without_a_value(values: Column) -> None:
    assert learn_feature("x", "input", values) is None


@pytest.mark.parametrize(("categories", "rows"), [(100, 10_000), (200, 10_000), (100, 1_000), (200, 100_000)])
def test_more_categories_than_can_be_named_raise_no_false_alarm(categories: int, rows: int) -> None:
    """Naming the most frequent by the counted rows themselves raised one within 60 windows."""
    rng = np.random.default_rng(categories + rows)
    names = np.array([f"c{number}" for number in range(categories)], dtype=object)
    feature = learn_feature("city", "input", rng.choice(names, rows))
    if feature is None:
        assert rows < 20 * categories, "too few rows to name any category"
        return
    detector = Detector({"city": feature.reference}, Settings(8640))
    for _ in range(150):
        counts, _ = count_columns(feature, rng.choice(names, 500))
        assert not detector.observe({"city": counts}).drifted
