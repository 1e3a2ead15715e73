"""Every value falls into one bin, and no bin tells of one row."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pegel_agent.reference.bins import category_bins, numeric_bins
from pegel_agent.statistics.slots import FloatArray, Slot, reference_shares

numbers = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=60)
words = st.lists(st.sampled_from([None, "a", "b", "c", "d"]), min_size=1, max_size=60)


def single(values: list[float]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return np.array(values).astype(np.float32)


@given(numbers, numbers)
def test_every_number_falls_into_exactly_one_bin(reference: list[float], values: list[float]) -> None:
    bins = numeric_bins(np.array(reference, dtype=float))
    if bins is None:
        assert not np.isfinite(single(reference)).any()
        return
    counts = bins.counts(np.array(values, dtype=float))
    assert counts.sum() == len(values)
    assert (counts == np.bincount(bins.positions(np.array(values, dtype=float)), minlength=len(counts))).all()
    assert len(counts) == len(bins.slots) == len(bins.names)
    assert counts[-1] == np.isnan(values).sum()
    assert len(set(bins.names)) == len(bins.names)


@given(words, words, st.integers(0, 60))
def test_counts_of_any_split_add_up(reference: list[str | None], values: list[str | None], cut: int) -> None:
    bins = category_bins(Counter([*(value for value in reference if value is not None), *["a"] * 10]))
    assert bins is not None
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
    bins = category_bins(Counter({"a": 10, "b": 9}))
    assert bins is not None
    assert bins.categories == ("a",)
    assert bins.counts(np.array(["a", "b", "z", None], dtype=object)).tolist() == [1, 2, 1]
    assert bins.slots == (Slot.CATEGORY, Slot.OTHER, Slot.MISSING)


def test_categories_that_no_ten_rows_share_have_no_bins() -> None:
    assert category_bins(Counter({"a": 9, "b": 9})) is None
    assert category_bins(Counter()) is None


def test_the_most_frequent_categories_have_the_bins() -> None:
    bins = category_bins(Counter({f"c{rows:03}": rows for rows in range(10, 110)}))
    assert bins is not None
    assert bins.categories == tuple(f"c{rows:03}" for rows in range(46, 110))


def test_a_category_that_is_called_as_another_bin_keeps_a_name_of_its_own() -> None:
    bins = category_bins(Counter(dict.fromkeys(["other", "missing", "", '"other"', "Ulm"], 10)))
    assert bins is not None
    assert bins.names == ('""', '""other""', "Ulm", '"missing"', '"other"', "other", "missing")
    assert bins.counts(np.array(["other", "new", None], dtype=object)).tolist() == [0, 0, 0, 0, 1, 1, 1]


def rows_by_name(reference: FloatArray) -> dict[str, int]:
    bins = numeric_bins(reference)
    assert bins is not None
    return dict(zip(bins.names, bins.counts(reference).tolist(), strict=True))


def test_each_of_a_few_integers_has_a_bin() -> None:
    rows = rows_by_name(np.repeat([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [500, 200, 150, 100, 45, 10]))
    assert list(rows.items())[1:-2] == [
        ("0", 500), ("0 to 1", 200), ("1 to 2", 150), ("2 to 3", 100), ("3 to 4", 45), ("4 to 5", 10),
    ]  # fmt: skip


def test_many_zeros_have_a_bin_apart_from_what_lies_around_them() -> None:
    around = np.concatenate((np.zeros(900), np.linspace(0.1, 8, 80), np.linspace(-8, -0.1, 80)))
    rows = rows_by_name(around)
    assert rows["0"] == 900
    assert sum(list(rows.values())[: list(rows).index("0")]) == 80


def test_no_interval_holds_fewer_than_ten_rows() -> None:
    rng = np.random.default_rng(8)
    for size in (40, 100, 500, 5_000):
        values = rng.normal(50, 10, size)
        values[rng.random(size) < 0.3] = 50
        rows = rows_by_name(values)
        assert min(rows_in for name, rows_in in rows.items() if name != "missing") >= 9


def test_an_edge_that_few_rows_share_is_rounded_and_one_that_many_share_is_exact() -> None:
    bins = numeric_bins(np.concatenate((np.full(500, 1234.5678), np.linspace(0, 999.98765, 500))))
    assert bins is not None
    assert bins.edges[-1] == pytest.approx(1234.5678, abs=1e-4)
    assert all(float(f"{edge:.6g}") == edge for edge in bins.edges[:-1])


def test_a_single_precision_value_falls_where_its_double_does() -> None:
    values = np.repeat([0.1, 0.3, 0.7], 50)
    bins = numeric_bins(values)
    assert bins is not None
    assert (bins.counts(values.astype(np.float32).astype(float)) == bins.counts(values)).all()


def test_a_constant_has_a_bin_of_its_own() -> None:
    bins = numeric_bins(np.full(100, 3.0))
    assert bins is not None
    assert bins.counts(np.array([2.0, 3.0, 3.0, 4.0, 4.0, 4.0])).tolist() == [1, 2, 3, 0]
