"""One batch against a reference, with no history: a fixed-sample test whose false alarms are counted per batch.

The detector's guarantee needs windows in time order; a pipeline that checks a single batch has none. Each feature is
looked at in up to three ways, each with its part of the level. PSI sees any change that is spread over bins. The mean
of the normal scores of the ranks (van der Waerden, 1952), where values have an order, sees those that move up or down
sooner. An exact test of each bin on its own, corrected for their number, sees a few rows in a bin that was empty
(missing, out of range, a new category), of which PSI's logarithm makes little. Where a feature fills two bins, one look
is all there is. Holm's procedure (1979) then keeps the chance of any false alarm over all features below alpha,
whatever their dependence.

PSI is near χ² and a mean near normal where all bins have many rows. A single row in a bin that has hardly any is far
from either, so what these limits call drift is drift only if the exact chance says so too, given how many rows batch
and reference have in each bin together (`permutation`).

Where the reference has design effects, as many rows as they say count as one, in the batch as in the reference: PSI,
which looks in all directions at once, takes the largest of them, the scores and a bin that of their own direction.
Chances are then those of as many whole rows as the counts are worth.
Without them rows are taken to be independent, and those that resemble their neighbours raise more alarms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pegel_agent.statistics import distances
from pegel_agent.statistics.permutation import Population, moved_tail, spread_tail
from pegel_agent.statistics.slots import FloatArray, IntArray, Slot, reference_shares
from pegel_agent.statistics.tilts import Tilt, tilts

PSI_FLOOR = 0.005
"""Less is not worth an alarm, however sure: a shift of the mean by 0.07 standard deviations."""
_SURE = 1e-10
"""A bin of its own that is less likely settles it: how unlikely the rest is needs no finding out."""
_DIRECTIONS = {Slot.OTHER: "new", Slot.MISSING: "missing"}


@dataclass(frozen=True, slots=True)
class Counts:
    """A feature's rows per bin (k,) in the batch and in the reference, and what the bins are.

    `design_effects` and `heterogeneity` are those of `Reference`: by direction how many rows count as one, and the χ²
    by which windows differ without drift.
    """

    batch: IntArray
    reference: IntArray
    slots: tuple[Slot, ...]
    design_effects: Mapping[str, float] = field(default_factory=dict)
    heterogeneity: float = 0.0

    @property
    def ordered(self) -> bool:
        """Whether its values have an order, as those of categories have not."""
        return Slot.CATEGORY not in self.slots and Slot.OTHER not in self.slots

    @property
    def looks(self) -> int:
        """In how many ways the feature is looked at."""
        return 3 if self.ordered else 2

    @property
    def largest_effect(self) -> float:
        """The largest design effect of any direction, 1 where there is none."""
        return max(self.design_effects.values(), default=1.0)

    @property
    def bin_effects(self) -> FloatArray:
        """The design effect (k,) of each bin: that of its direction, of a bin along the order the largest."""
        return np.array(
            [
                self.design_effects.get(_DIRECTIONS[slot], 1.0) if slot in _DIRECTIONS else self.largest_effect
                for slot in self.slots
            ]
        )


@dataclass(frozen=True, slots=True)
class Measures:
    """How far a feature is from its reference, and whether that is drift.

    `psi_limit` is what PSI stays below without drift, or the floor if that is higher; where all rows are in one bin, it
    is that of two. `p_value` is before the correction for the number of features. `ks` and `rank_wasserstein` are of
    the values that aren't missing, None for categories, which have no order. `direction` is a word of the detector's,
    empty without drift.
    """

    psi: float
    psi_limit: float
    js: float
    ks: float | None
    tvd: float
    rank_wasserstein: float | None
    p_value: float
    drifted: bool
    direction: str


def compare(features: Mapping[str, Counts], *, alpha: float, psi_floor: float = PSI_FLOOR) -> dict[str, Measures]:
    """Test all features of a batch, with at most `alpha` chance of any false alarm. Needs rows on both sides."""
    p_values = {name: p_value(counts, alpha=alpha) for name, counts in features.items()}
    level = holm_level(list(p_values.values()), alpha=alpha)
    return {
        name: _measures(counts, p_values[name], level=level, psi_floor=psi_floor) for name, counts in features.items()
    }


def holm_level(p_values: Sequence[float], *, alpha: float) -> float:
    """The level that Holm's procedure ends at: it rejects exactly the p-values that are no higher."""
    rejected = 0
    for p in sorted(p_values):
        if p > alpha / (len(p_values) - rejected):
            break
        rejected += 1
    return alpha / max(len(p_values) - rejected, 1)


def p_value(counts: Counts, *, alpha: float) -> float:
    """How likely a batch this far from the reference is without drift: the lowest of the looks, times their number.

    Up to `alpha` it is exact, or a little too high. Above, where it decides nothing, it may be that of a limit.
    """
    filled = _filled(counts)
    batch, reference = counts.batch[filled], counts.reference[filled]
    if len(batch) < 2:
        return 1.0
    worth = _Worth.of(batch, reference, counts.largest_effect)
    if len(batch) == 2:  # of which there is but one look
        return worth.spread_p_value()
    lowest = len(batch) * float(_bin_p_values(batch, reference, counts.bin_effects[filled]).min())
    looks = [(worth.spread_limit(), worth.spread_p_value)]
    if counts.ordered:
        slots = [slot for slot, there in zip(counts.slots, filled, strict=True) if there]
        scores = _normal_scores(batch + reference, slots)
        effect = max(counts.design_effects.get(direction, 1.0) for direction in ("up", "down"))
        moved = _Worth.of(batch, reference, effect)
        looks.append((moved.moved_limit(scores), partial(moved.moved_p_value, scores)))
    for limit, exact in looks:
        if lowest > _SURE and limit < lowest:
            lowest = min(lowest, exact() if counts.looks * limit <= alpha else limit)
    return min(1.0, counts.looks * lowest)


@dataclass(frozen=True, slots=True)
class _Worth:
    """The rows (k,) of batch and reference as independent ones would be, and a population of whole ones like it."""

    batch: FloatArray
    reference: FloatArray
    population: Population

    @classmethod
    def of(cls, batch: IntArray, reference: IntArray, effect: float) -> "_Worth":
        """By the design effect: as many rows as that count as one."""
        mine, theirs = batch / effect, reference / effect
        together = np.maximum(1, np.rint(mine + theirs)).astype(np.int64)
        rows = min(max(1, round(float(mine.sum()))), int(together.sum()) - 1)
        return cls(mine, theirs, Population(together, rows))

    @property
    def error(self) -> float:
        """The variance of a mean, of values that have a variance of 1, from both."""
        return float(1 / self.batch.sum() + 1 / self.reference.sum())

    @property
    def psi(self) -> float:
        return distances.psi(distances.smoothed_shares(self.batch), distances.smoothed_shares(self.reference))

    def spread_limit(self) -> float:
        """PSI's p-value where all bins have many rows."""
        return float(special.chdtrc(len(self.batch) - 1, self.psi / self.error))

    def spread_p_value(self) -> float:
        """PSI's p-value."""
        rows, everything, half = self.population.rows, int(self.population.together.sum()), len(self.batch) / 2

        def parts(counts: FloatArray, together: int) -> FloatArray:
            p = (counts + 0.5) / (rows + half)
            q = (together - counts + 0.5) / (everything - rows + half)
            return distances.psi_parts(p, q)

        return spread_tail(self.population, parts, self.psi)

    def _gap(self, scores: FloatArray) -> float:
        """How much higher the batch's mean is than that of all rows."""
        together = self.batch + self.reference
        return float(self.batch @ scores / self.batch.sum() - together @ scores / together.sum())

    def moved_limit(self, scores: FloatArray) -> float:
        """Two-sided p-value of the batch's mean of the scores (k,) where all bins have many rows."""
        together = self.batch + self.reference
        everything = float(together.sum())
        variance = float(together @ (scores - together @ scores / everything) ** 2) / everything
        gap = self._gap(scores) * everything / float(self.reference.sum())  # to the reference's mean
        return float(2 * special.ndtr(-abs(gap) / np.sqrt(variance * self.error))) if variance > 0 else 1.0

    def moved_p_value(self, scores: FloatArray) -> float:
        """Two-sided p-value of the batch's mean of the scores (k,)."""
        gap, together, rows = self._gap(scores), self.population.together, self.population.rows
        scores = scores if gap > 0 else -scores
        expected = float(together @ scores) / float(together.sum())
        return 2 * moved_tail(self.population, scores, rows * (expected + abs(gap)))


def _normal_scores(together: IntArray, slots: Sequence[Slot]) -> FloatArray:
    """The normal scores (k,) of the mid-ranks of all rows, less their mean; 0 for missing values."""
    there = np.array([slot is not Slot.MISSING for slot in slots])
    rows = together * there
    if not rows.any():
        return np.zeros(len(rows))
    scores = special.ndtri((np.cumsum(rows) - rows / 2) / rows.sum())
    centred: FloatArray = np.where(there, scores - rows @ np.where(there, scores, 0.0) / rows.sum(), 0.0)
    return centred


def _bin_p_values(batch: IntArray, reference: IntArray, effects: FloatArray) -> FloatArray:
    """Two-sided p-values (k,) of each bin on its own, of whose rows as many as its design effect (k,) count as one.

    Of a bin's rows in both, the batch's are binomial with its part of all rows: the conditional test of two Poisson
    rates (Przyborowski and Wilenski, 1940), which is exact for a small bin and cautious for a large one. The binomial's
    tails are incomplete beta functions, which take numbers of rows that are not whole.
    """
    part = batch.sum() / (batch.sum() + reference.sum())
    mine, theirs = batch / effects, reference / effects
    # The beta function has no value at 0 rows, of which there are always at least as many, and never fewer.
    at_least = np.where(batch > 0, special.betainc(np.maximum(mine, 1e-9), theirs + 1, part), 1.0)
    at_most = np.where(reference > 0, special.betaincc(mine + 1, np.maximum(theirs, 1e-9), part), 1.0)
    p_values: FloatArray = np.minimum(1.0, 2 * np.minimum(at_least, at_most))
    return p_values


def _measures(counts: Counts, p: float, *, level: float, psi_floor: float) -> Measures:
    filled = _filled(counts)
    psi = _psi(counts.batch[filled], counts.reference[filled])
    floor = max(psi_floor, counts.heterogeneity)
    sampling = distances.psi_limit(
        counts.batch.sum(),
        counts.reference.sum(),
        max(int(filled.sum()), 2),
        alpha=level / counts.looks,
        deff=counts.largest_effect,
        reference_deff=counts.largest_effect,
    )
    current, expected = distances.smoothed_shares(counts.batch), distances.smoothed_shares(counts.reference)
    present, wanted = current[:-1] / current[:-1].sum(), expected[:-1] / expected[:-1].sum()
    drifted = p <= level and psi >= floor
    return Measures(
        psi=psi,
        psi_limit=max(floor, sampling),
        js=distances.js(current, expected),
        ks=distances.ks(present, wanted) if counts.ordered else None,
        tvd=distances.tvd(current, expected),
        rank_wasserstein=distances.rank_wasserstein(present, wanted) if counts.ordered else None,
        p_value=p,
        drifted=drifted,
        direction=_direction(counts) if drifted else "",
    )


def _direction(counts: Counts) -> str:
    """The detector's bet that the batch would have paid best."""
    bets = _bets(counts)
    if not bets:
        return "shape"
    shares = reference_shares(counts.reference, counts.slots).shares
    gains = [float(counts.batch @ np.log(bet.shares / shares)) for bet in bets]
    direction = bets[int(np.argmax(gains))].direction
    return direction if counts.ordered or direction in {"new", "missing"} else "shape"


def _bets(counts: Counts) -> tuple[Tilt, ...]:
    return tilts(reference_shares(counts.reference, counts.slots))


def _filled(counts: Counts) -> NDArray[np.bool_]:
    """Which bins (k,) the batch or the reference has filled."""
    filled: NDArray[np.bool_] = counts.batch + counts.reference > 0
    return filled


def _psi(batch: IntArray, reference: IntArray) -> float:
    return distances.psi(distances.smoothed_shares(batch), distances.smoothed_shares(reference))
