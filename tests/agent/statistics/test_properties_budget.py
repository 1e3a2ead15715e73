"""Without drift a stake is worth no more than what was put in: by every window that there can be, one by one."""

from collections.abc import Iterator
from itertools import product
from math import factorial, prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pegel_agent.statistics.budget import Part, share_of
from pegel_agent.statistics.detector import Detector, Settings
from pegel_agent.statistics.slots import FloatArray, IntArray, Reference, ReferenceShares, Slot, reference_shares

NUMERIC = (Slot.BELOW, Slot.INTERVAL, Slot.MISSING)
NAMES = (Slot.CATEGORY, Slot.CATEGORY, Slot.OTHER, Slot.MISSING)
DIRECTIONS = ("up", "down", "wider", "narrower", "tails", "missing", "new")


def windows(rows: int, p: FloatArray) -> Iterator[tuple[IntArray, float]]:
    """Every window of so many rows, with its chance under the shares p (k,)."""
    for counts in product(range(rows + 1), repeat=len(p)):
        if sum(counts) == rows:
            ways = factorial(rows) / prod(map(factorial, counts))
            yield np.array(counts, dtype=np.int64), ways * float(np.prod(p ** np.array(counts)))


@st.composite
def references(draw: st.DrawFn) -> Reference:
    slots = draw(st.sampled_from((NUMERIC, NAMES)))
    counts = draw(st.lists(st.integers(0, 200), min_size=len(slots), max_size=len(slots)).filter(sum))
    effects = draw(st.dictionaries(st.sampled_from(DIRECTIONS), st.floats(1, 20)))
    floor = draw(st.sampled_from((0.0, 0.01)))
    return Reference(reference_shares(counts, slots), design_effects=effects, heterogeneity=floor)


@settings(max_examples=40)
@given(references(), st.integers(1, 3), st.sampled_from((0.0, 0.02)))
def test_two_windows_stakes_are_worth_two_at_most_whatever_the_reference(
    reference: Reference, rows: int, tolerance: float
) -> None:
    p = reference.whole.shares
    expected = np.zeros(2)
    for first, chance in windows(rows, p):
        for second, then in windows(rows, p):
            detector = Detector({"x": reference}, Settings(1e9, tolerance=tolerance))
            stakes = [10 ** detector.observe({"x": counts}).evidence for counts in (first, second)]
            expected += chance * then * np.array(stakes)
    assert (expected <= np.array([1, 2]) + 1e-9).all()


def moved(shares: ReferenceShares, by: FloatArray) -> FloatArray:
    """Shares at the χ² of 2/m from the reference's, as a truth that such a reference is a likely sample of."""
    p = shares.shares
    step = by - by @ p
    size = np.sqrt(step**2 @ p)
    distance = np.sqrt(2 / shares.rows)
    q: FloatArray = p * (1 + distance * step / size) if size > 1e-9 else p
    return q


@settings(max_examples=40)
@given(st.lists(st.integers(40, 200), min_size=3, max_size=3), st.lists(st.floats(-1, 1), min_size=3, max_size=3))
def test_that_the_reference_is_a_sample_wins_no_stake(counts: list[int], by: list[float]) -> None:
    reference = Reference(reference_shares(counts, NUMERIC))
    truth = moved(reference.whole, np.array(by))
    expected = 0.0
    for found, chance in windows(4, truth):
        expected += chance * 10 ** Detector({"x": reference}, Settings(1e9)).observe({"x": found}).evidence
    assert truth.min() > 0
    assert expected <= 1 + 1e-9


def test_each_process_alarms_in_two_windows_no_more_often_than_its_share_of_the_budget_says() -> None:
    """A budget so tight that a few rows are an alarm, and two features that know nothing of each other."""
    parts: tuple[Part, ...] = ("data_drift", "prediction_drift")
    limits = {share_of(1.0, part) for part in parts}
    reference = Reference(reference_shares([400, 5, 5], NUMERIC))
    each = list(windows(2, reference.whole.shares))
    for limit in limits:
        alarmed = likely = 0.0
        for (a, chance_a), (b, chance_b), (c, chance_c), (d, chance_d) in product(each, repeat=4):
            detector = Detector({"x": reference, "y": reference}, Settings(limit))
            either = [detector.observe(window).drifted for window in ({"x": a, "y": b}, {"x": c, "y": d})]
            chance = chance_a * chance_b * chance_c * chance_d
            alarmed += chance * any(either)
            likely += chance
        assert likely == pytest.approx(1)
        assert 0 < alarmed <= 2 / limit
    assert limits == {4.0}
