"""Every value falls into one bin, and no bin tells of one row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pegel_agent.reference.bins import category_bins, numeric_bins
from pegel_agent.statistics.slots import Slot, reference_shares

numbers = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=60)
words = st.lists(st.sampled_from([None, "a", "b", "c", "d"]), min_size=1, max_size=60)


@given(numbers, numbers)
def test_every_number_falls_into_exactly_one_bin(reference: list[float], values: list[float]) -> None:
    bins = numeric_bins(np.array(reference, dtype=float))
    if bins is None:
        assert not np.isfinite(reference).any()
        return
    counts = bins.counts(np.array(values, dtype=float))
    assert counts.sum() == len(values)
    assert len(counts) == len(bins.slots) == len(bins.names)
    assert counts[-1] == np.isnan(values).sum()


@given(words, words, st.integers(0, 60))
def test_counts_of_any_split_add_up(reference: list[str | None], values: list[str | None], cut: int) -> None:
    bins = category_bins(np.array(reference, dtype=object))
    whole = np.array(values, dtype=object)
    assert (bins.counts(whole[:cut]) + bins.counts(whole[cut:]) == bins.counts(whole)).all()


def test_bins_hold_even_shares_of_a_smooth_reference() -> None:
    values = np.random.default_rng(5).normal(size=10_000)
    bins = numeric_bins(values)
    assert bins is not None
    shares = reference_shares(bins.counts(values), bins.slots).shares
    assert shares[1:-2] == pytest.approx(0.05, abs=0.01)


def test_the_outer_edges_are_the_tenth_smallest_and_largest_value() -> None:
    bins = numeric_bins(np.arange(1000.0))
    assert bins is not None
    assert (bins.edges[0], bins.edges[-1]) == (9.0, 990.0)


def test_a_category_needs_ten_rows_for_a_bin() -> None:
    bins = category_bins(np.array(["a"] * 10 + ["b"] * 9 + [None], dtype=object))
    assert bins.categories == ("a",)
    assert bins.counts(np.array(["a", "b", "z", None], dtype=object)).tolist() == [1, 1, 1, 1]
    assert bins.slots == (Slot.CATEGORY, Slot.OTHER, Slot.NEW, Slot.MISSING)


def test_a_constant_has_a_bin_of_its_own() -> None:
    bins = numeric_bins(np.full(100, 3.0))
    assert bins is not None
    assert bins.counts(np.array([2.0, 3.0, 3.0, 4.0, 4.0, 4.0])).tolist() == [1, 2, 3, 0]
