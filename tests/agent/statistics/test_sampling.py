"""Drawn rows are compared with all rows exactly, and rarely found other than at random where they are not."""

import numpy as np
import pytest
from pegel_agent.statistics.sampling import design_effect, difference
from scipy import stats


@pytest.mark.parametrize(
    ("rows", "drawn"), [((60, 40), (30, 2)), ((500, 20), (10, 12)), ((90, 10, 900), (2, 9, 40)), ((1_000, 5), (990, 0))]
)
def test_a_tail_is_the_hypergeometric_one(rows: tuple[int, ...], drawn: tuple[int, ...]) -> None:
    total, chosen = sum(rows), sum(drawn)
    tails = []
    for marked, found in zip(rows, drawn, strict=True):
        law = stats.hypergeom(total, marked, chosen)
        tails.append(min(law.cdf(found), law.sf(found - 1)))
    assert difference(np.array(rows), np.array(drawn)).p == pytest.approx(
        min(1.0, 2 * len(rows) * min(tails)), rel=1e-6
    )


def test_what_is_drawn_at_random_is_rarely_taken_for_chosen() -> None:
    random = np.random.default_rng(1)
    for shares in ([0.5, 0.5], [0.01, 0.99], [0.02] * 10 + [0.8], [1.0]):
        found = 0
        for _ in range(2_000):
            rows = random.multinomial(int(random.integers(2, 600)), shares)
            drawn = random.multivariate_hypergeometric(rows, int(random.integers(0, rows.sum() + 1)))
            found += difference(rows, drawn).p < 0.01
        assert found <= 2_000 * 0.01 * 1.5


def test_what_is_chosen_by_its_kind_is_seen_and_by_how_much() -> None:
    found = difference(np.array([72, 18]), np.array([0, 18]))
    assert found.p < 1e-9
    assert found.share == pytest.approx(0.8)


@pytest.mark.parametrize("drawn", [(0, 0), (50, 50)])
def test_none_or_all_of_the_rows_tell_nothing(drawn: tuple[int, int]) -> None:
    assert difference(np.array([50, 50]), np.array(drawn)).p == 1.0


def test_rows_that_are_drawn_together_count_as_one() -> None:
    random = np.random.default_rng(2)
    together = random.random(500) < 0.5
    squared = 20.0 * 20 * 500
    assert design_effect(10_000, int(together.sum()) * 20, squared, 400.0 * together.sum()) == pytest.approx(
        20, rel=0.1
    )
    alone = random.binomial(20, 0.5, 500)
    assert design_effect(10_000, int(alone.sum()), squared, float((alone**2).sum())) < 1.3
    rows, drawn = np.array([5_000, 5_000]), np.array([2_700, 2_300])
    assert difference(rows, drawn).p < 1e-9
    assert difference(rows, drawn, design_effect=20.0).p > 1e-3


@pytest.mark.parametrize(("rows", "drawn"), [(0, 0), (10, 0), (10, 10)])
def test_without_a_part_there_is_no_effect(rows: int, drawn: int) -> None:
    assert design_effect(rows, drawn, 100.0, 50.0) == 1.0
