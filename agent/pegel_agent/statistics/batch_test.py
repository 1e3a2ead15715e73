"""One batch against a reference, with no history: a fixed-sample test whose false alarms are counted per batch.

The detector's guarantee needs windows in time order; a pipeline that checks a single batch has none. Each feature is
looked at in up to three ways, each with its part of the level. PSI against its χ² limit, with the sampling errors of
the batch and of the reference, sees any change that is spread over bins. The mean of the normal scores of the ranks
(van der Waerden, 1952), where values have an order, sees those that move up or down sooner. An exact test of each bin
on its own, corrected for their number, sees a few rows in a bin that was empty (missing, out of range, a new category),
of which PSI's logarithm makes little. Holm's procedure (1979) then keeps the chance of any false alarm over all
features below alpha, whatever their dependence.

Where the reference has design effects, as many rows as they say count as one, in the batch as in the reference: PSI,
which looks in all directions at once, takes the largest of them, the scores and a bin that of their own direction.
Without them rows are taken to be independent, and those that resemble their neighbours raise more alarms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pegel_agent.statistics import distances
from pegel_agent.statistics.slots import FloatArray, IntArray, Slot, reference_shares
from pegel_agent.statistics.tilts import Tilt, tilts

PSI_FLOOR = 0.005
"""Less is not worth an alarm, however sure: a shift of the mean by 0.07 standard deviations."""
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
    p_values = {name: p_value(counts) for name, counts in features.items()}
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


def p_value(counts: Counts) -> float:
    """How likely a batch this far from the reference is without drift: the lowest of the looks, times their number."""
    filled = _filled(counts)
    batch, reference = counts.batch[filled], counts.reference[filled]
    if len(batch) < 2:
        return 1.0
    scale = counts.largest_effect * (1 / batch.sum() + 1 / reference.sum())
    together = float(special.chdtrc(len(batch) - 1, _psi(batch, reference) / scale))
    apart = len(batch) * float(_bin_p_values(batch, reference, counts.bin_effects[filled]).min())
    return min(1.0, counts.looks * min(together, apart, _location_p_value(counts)))


def _location_p_value(counts: Counts) -> float:
    """Two-sided p-value of the mean normal score of the batch's ranks in the reference."""
    bets = [bet for bet in _bets(counts) if bet.direction == "up"] if counts.ordered else []
    if not bets:
        return 1.0
    p = reference_shares(counts.reference, counts.slots).shares
    scores = bets[0].shares / p - 1  # of the smallest tilt, which is all but linear in them
    n, m = counts.batch.sum(), counts.reference.sum()
    effect = max(counts.design_effects.get(direction, 1.0) for direction in ("up", "down"))
    error = np.sqrt(effect * (scores**2 @ p) * (1 / n + 1 / m))
    return float(2 * special.ndtr(-abs((counts.batch / n - counts.reference / m) @ scores) / error))


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
