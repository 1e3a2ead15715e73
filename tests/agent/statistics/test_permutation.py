"""Chances by drawing are those that adding up every possibility gives."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pegel_agent.statistics.permutation import Population, moved_tail, spread_tail
from pegel_agent.statistics.slots import FloatArray
from scipy import stats

POPULATIONS = [
    Population(np.array([3, 30, 7, 60]), 12),
    Population(np.array([1, 2, 200]), 20),
    Population(np.array([13, 10_007]), 20),
    Population(np.array([25, 25, 25, 25]), 90),
    Population(np.array([2, 12, 2, 400]), 30),
    Population(np.array([1, 1, 1, 1, 1, 500]), 40),
]


def apart(counts: FloatArray, together: int) -> FloatArray:
    """Distance from half: it needs to know nothing else of a population."""
    far: FloatArray = (counts - 0.4 * together) ** 2 / (together + 1)
    return far


def possibilities(population: Population) -> tuple[np.ndarray, np.ndarray]:
    """All counts (all, k) that the batch may have, and their chances (all,)."""
    *first, last = population.together.tolist()
    counts = np.array(list(product(*(range(min(most, population.rows) + 1) for most in first))))
    left = population.rows - counts.sum(axis=1)
    counts = np.column_stack([counts, left])[(left >= 0) & (left <= last)]
    return counts, stats.multivariate_hypergeom.pmf(counts, population.together, population.rows)


@pytest.mark.parametrize("population", POPULATIONS, ids=str)
@pytest.mark.parametrize("chance", [0.3, 1e-2, 1e-4, 1e-7])
def test_a_sum_is_as_likely_as_all_that_come_so_far(population: Population, chance: float) -> None:
    counts, chances = possibilities(population)
    scores = np.arange(len(population.together)) ** 2 - 1.5
    sums = {
        "spread": sum(apart(counts[:, i], int(rows)) for i, rows in enumerate(population.together)),
        "moved": counts @ scores,
    }
    for name, of_counts in sums.items():
        order = np.argsort(-of_counts)
        at_least = float(of_counts[order][np.searchsorted(np.cumsum(chances[order]), chance)])
        truth = float(chances[of_counts >= at_least - 1e-9].sum())
        found = (
            spread_tail(population, apart, at_least) if name == "spread" else moved_tail(population, scores, at_least)
        )
        assert 0.8 * truth <= found <= 1.6 * truth + 1e-12, name


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(5)))
def test_the_order_of_the_bins_changes_nothing(order: list[int]) -> None:
    together, scores = np.array([4, 4, 90, 17, 1]), np.array([-1.0, 2.0, 0.0, 1.0, 5.0])
    shuffled = Population(together[order], 30)
    assert spread_tail(shuffled, apart, 9.0) == spread_tail(Population(together, 30), apart, 9.0)
    assert moved_tail(shuffled, scores[order], 20.0) == moved_tail(Population(together, 30), scores, 20.0)


def test_scores_that_are_all_alike_say_nothing() -> None:
    assert moved_tail(Population(np.array([5, 9]), 3), np.zeros(2), 0.0) == 1.0
