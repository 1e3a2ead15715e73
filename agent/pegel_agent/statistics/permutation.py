"""How likely a sum over bins is when batch and reference are one population: exact, however few rows a bin has.

Given how many rows of both together are in each bin (k,), and how many of all are the batch's, its rows in the bins are
multivariate hypergeometric: binomials with the batch's part of all rows, given their sum. No share has to be known and
no count has to be large, as a χ² or normal limit would have it.

Two bins leave one number open, which is enumerated. With more, counts are drawn from a wider or a moved distribution
and weighted by how much less likely the true one has them (importance sampling; Siegmund, 1976), so that some thousand
draws find a chance of 1e-9 as well as one of 0.01. The draws are the same each time and in any order of the bins, and
three standard errors are added: the chance is said to be too high rather than too low.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from pegel_agent.statistics.slots import FloatArray, IntArray

Parts = Callable[[FloatArray, int], FloatArray]
"""What a bin adds to the sum for each of the batch's counts (…) in it, by how many rows of both it has."""

_DRAWS = 4_096
_MOST_DRAWS = 16 * _DRAWS
_CLOSE_ENOUGH = 0.05
"""Drawing ends where the standard error is this part of the chance."""
_FLATTEST = 0.1
"""The highest root of the chances that counts are drawn by."""
_STEEPEST = 50.0
"""The most by which the tilts of two bins differ."""
_HALVINGS = 30
_REACH = 10.0
"""Standard deviations from what is expected, beyond which nothing is drawn."""
_ALL_OF_IT = 40.0
"""The same where everything is enumerated."""
_SEED = 1_976


@dataclass(frozen=True, slots=True)
class Population:
    """`together` (k,) rows of batch and reference in each bin; `rows` of them are the batch's, and some are not."""

    together: IntArray
    rows: int

    @property
    def part(self) -> float:
        """The batch's part of all rows."""
        return self.rows / float(self.together.sum())


@dataclass(frozen=True, slots=True)
class _Bin:
    """What is drawn of a bin: `counts` (c,) by their `cumulative` chances, what each adds to the sum (`parts`), and
    the logarithm of how much less likely the true distribution has it (`weights`)."""

    counts: FloatArray
    cumulative: FloatArray
    parts: FloatArray
    weights: FloatArray


def spread_tail(population: Population, parts: Parts, at_least: float) -> float:
    """The chance that the parts' sum is at least so high, where a part grows with the distance from what is expected.

    Counts are drawn by a root of their true chances, which makes them vary more: the one by which the sum is expected
    to be as high as it is asked for.
    """
    if len(population.together) == 2:
        return _enumerated(population, parts, at_least)
    rows = np.sort(population.together).tolist()
    supports = [_near(together, population.part, _REACH / np.sqrt(_FLATTEST)) for together in rows]
    chances = [_log_chances(counts, together, population.part) for counts, together in zip(supports, rows, strict=True)]
    sizes = [parts(counts, together) for counts, together in zip(supports, rows, strict=True)]
    starts = np.cumsum([0, *map(len, supports[:-1])])
    every_chance, every_size = np.concatenate(chances), np.concatenate(sizes)

    def expected(root: float) -> float:
        drawn = np.exp(root * every_chance)
        return float(np.sum(np.add.reduceat(drawn * every_size, starts) / np.add.reduceat(drawn, starts)))

    root = _solved(expected, at_least, 1.0, _FLATTEST)
    bins = [
        _bin(counts, chance, root * chance, size)
        for counts, chance, size in zip(supports[:-1], chances[:-1], sizes[:-1], strict=True)
    ]
    return _drawn(population, bins, rows[-1], lambda counts: parts(counts, rows[-1]), at_least)


def moved_tail(population: Population, scores: FloatArray, at_least: float) -> float:
    """The chance that the scores (k,) of the batch's rows add up to so much or more.

    Counts are drawn from binomials whose chances are tilted by the scores, by as much as brings the sum there.
    """
    order = np.lexsort((scores, population.together))
    together, scores = population.together[order], scores[order]
    spread = float(scores.max() - scores.min())
    if spread == 0:
        return 1.0

    def tilted(tilt: float) -> FloatArray:
        """The chances (k,) that add up to the batch's rows."""
        return special.expit(_level(together, tilt * scores, population.rows) + tilt * scores)

    tilt = _solved(lambda tilt: float(together * tilted(tilt) @ scores), at_least, 0.0, _STEEPEST / spread)
    bins = []
    for rows, score, moved in zip(together.tolist(), scores.tolist(), tilted(tilt).tolist(), strict=True):
        counts = _near(rows, moved, _REACH)
        bins.append(
            _bin(counts, _log_chances(counts, rows, population.part), _log_chances(counts, rows, moved), score * counts)
        )
    last = float(scores[-1])
    return _drawn(population, bins[:-1], int(together[-1]), lambda counts: last * counts, at_least)


def _solved(function: Callable[[float], float], wanted: float, start: float, end: float) -> float:
    """Where between start and end a function that rises from the one to the other has a value, or the nearer end."""
    for _ in range(_HALVINGS):
        middle = (start + end) / 2
        start, end = (middle, end) if function(middle) < wanted else (start, middle)
    return (start + end) / 2


def _level(together: IntArray, tilts: FloatArray, rows: int) -> float:
    """What is to be added to all tilts (k,) so that the bins are expected to have so many of the batch's rows."""
    at = float(special.logit(rows / together.sum()))
    return _solved(
        lambda level: float(together @ special.expit(level + tilts)), rows, at - tilts.max(), at - tilts.min()
    )


def _enumerated(population: Population, parts: Parts, at_least: float) -> float:
    few, many = sorted(population.together.tolist())
    counts = _near(few, population.part, _ALL_OF_IT)
    others = population.rows - counts
    possible = (others >= 0) & (others <= many)
    counts, others = counts[possible], others[possible]
    chances = np.exp(_log_chances(counts, few, population.part) + _log_chances(others, many, population.part))
    far = parts(counts, few) + parts(others, many) >= _nearly(at_least)
    return float(min(1.0, chances[far].sum() / chances.sum()))


def _drawn(
    population: Population, bins: list[_Bin], last: int, of_last: Callable[[FloatArray], FloatArray], at_least: float
) -> float:
    """The chance that all parts add up to so much; the last bin, with so many rows, has what the others leave."""
    random_numbers = np.random.default_rng(_SEED)
    everything = int(population.together.sum())
    of_rows = _log_chances(np.array([float(population.rows)]), everything, population.part)[0]
    draws, total, squares, highest = 0, 0.0, 0.0, 0.0
    while draws < _MOST_DRAWS:
        left, sums, logs = np.full(_DRAWS, float(population.rows)), np.zeros(_DRAWS), np.full(_DRAWS, -of_rows)
        for one in bins:
            at = np.searchsorted(one.cumulative, random_numbers.random(_DRAWS), side="right")
            left -= one.counts[at]
            sums += one.parts[at]
            logs += one.weights[at]
        possible = (left >= 0) & (left <= last)
        left = left[possible]
        weights = np.exp(logs[possible] + _log_chances(left, last, population.part))
        far = weights[sums[possible] + of_last(left) >= _nearly(at_least)]
        draws += _DRAWS
        total, squares = total + float(far.sum()), squares + float(far @ far)
        highest = max(highest, float(weights.max(initial=0.0)))
        chance = total / draws
        error = np.sqrt(max(0.0, squares / draws - chance**2) / draws)
        if 0 < error <= _CLOSE_ENOUGH * chance:
            break
    # Where no draw came so far, the chance is below three draws' worth with 95 % confidence.
    return float(min(1.0, chance + 3 * error if total else 3 * highest / draws))


def _bin(counts: FloatArray, chances: FloatArray, drawn: FloatArray, parts: FloatArray) -> _Bin:
    """From logarithms of the true chances and of those to draw by, which need not add up to 1."""
    by = np.exp(drawn - drawn.max())
    whole = float(by.sum())
    cumulative = np.cumsum(by) / whole
    cumulative[-1] = 1.0
    return _Bin(counts, cumulative, parts, chances - (drawn - drawn.max() - np.log(whole)))


def _near(together: int, part: float, deviations: float) -> FloatArray:
    """Counts around what a bin is expected to have, a few more where that is few."""
    reach = deviations * (np.sqrt(together * part * (1 - part)) + 3)
    lowest, highest = max(0, int(together * part - reach)), min(together, int(together * part + reach) + 1)
    return np.arange(lowest, highest + 1, dtype=np.float64)


def _log_chances(counts: FloatArray, together: int, part: float) -> FloatArray:
    """Logarithms of binomial chances."""
    ways = special.gammaln(together + 1) - special.gammaln(counts + 1) - special.gammaln(together - counts + 1)
    found: FloatArray = ways + special.xlogy(counts, part) + special.xlog1py(together - counts, -part)
    return found


def _nearly(at_least: float) -> float:
    """A little less, so that rounding doesn't part what is equal."""
    return at_least - 1e-9 * max(1.0, abs(at_least))
