"""One batch against a reference, with no history: a fixed-sample test whose false alarms are counted per batch.

The detector's guarantee needs windows in time order; a pipeline that checks a single batch has none. Each feature is
looked at in two ways, each with half of its level. PSI against its χ² limit, with the sampling errors of the batch
and of the reference, sees a change that is spread over bins. An exact test of each bin on its own, corrected for
their number, sees a few rows in a bin that was empty (missing, out of range, a new category), of which PSI's
logarithm makes little. Holm's procedure (1979) then keeps the chance of any false alarm over all features below alpha,
whatever their dependence. Rows are taken to be independent: with rows in time order that resemble their neighbours
there are more false alarms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from pegel_agent.statistics import distances
from pegel_agent.statistics.slots import FloatArray, IntArray, Slot, reference_shares
from pegel_agent.statistics.tilts import tilts

PSI_FLOOR = 0.005
"""Less is not worth an alarm, however sure: a shift of the mean by 0.07 standard deviations."""
_LOOKS = 2


@dataclass(frozen=True, slots=True)
class Counts:
    """A feature's rows per bin (k,) in the batch and in the reference, and what the bins are."""

    batch: IntArray
    reference: IntArray
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Measures:
    """How far a feature is from its reference, and whether that is drift.

    `psi_limit` is what PSI stays below without drift, or the floor if that is higher. `p_value` is before the
    correction for the number of features. `ks` and `rank_wasserstein` are of the values that aren't missing, None for
    categories, which have no order. `direction` is a word of the detector's, empty without drift.
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
    """How likely a batch this far from the reference is without drift: the lower of both looks, twice."""
    batch, reference = _filled(counts)
    if len(batch) < 2:
        return 1.0
    n, m = int(batch.sum()), int(reference.sum())
    together = float(special.chdtrc(len(batch) - 1, _psi(batch, reference) / (1 / n + 1 / m)))
    apart = len(batch) * float(_bin_p_values(batch, reference).min())
    return min(1.0, _LOOKS * min(together, apart))


def _bin_p_values(batch: FloatArray, reference: FloatArray) -> FloatArray:
    """Two-sided p-values (k,) of each bin on its own.

    Of a bin's rows in both, the batch's are binomial with its part of all rows: the conditional test of two Poisson
    rates (Przyborowski and Wilenski, 1940), which is exact for a small bin and cautious for a large one.
    """
    both, part = batch + reference, batch.sum() / (batch.sum() + reference.sum())
    at_least = np.where(batch > 0, special.bdtrc(batch - 1, both.astype(np.int64), part), 1.0)
    at_most = special.bdtr(batch, both.astype(np.int64), part)
    p_values: FloatArray = np.minimum(1.0, 2 * np.minimum(at_least, at_most))
    return p_values


def _measures(counts: Counts, p: float, *, level: float, psi_floor: float) -> Measures:
    batch, reference = _filled(counts)
    psi = _psi(batch, reference)
    limit = psi_floor
    if len(batch) > 1:
        sampling = distances.psi_limit(batch.sum(), reference.sum(), len(batch), alpha=level / _LOOKS)
        limit = max(limit, sampling)
    current, expected = distances.smoothed_shares(counts.batch), distances.smoothed_shares(counts.reference)
    ordered = Slot.CATEGORY not in counts.slots and Slot.OTHER not in counts.slots
    present, wanted = current[:-1] / current[:-1].sum(), expected[:-1] / expected[:-1].sum()
    drifted = p <= level and psi >= psi_floor
    return Measures(
        psi=psi,
        psi_limit=limit,
        js=distances.js(current, expected),
        ks=distances.ks(present, wanted) if ordered else None,
        tvd=distances.tvd(current, expected),
        rank_wasserstein=distances.rank_wasserstein(present, wanted) if ordered else None,
        p_value=p,
        drifted=drifted,
        direction=_direction(counts, ordered=ordered) if drifted else "",
    )


def _direction(counts: Counts, *, ordered: bool) -> str:
    """The detector's bet that the batch would have paid best."""
    reference = reference_shares(counts.reference, counts.slots)
    bets = tilts(reference)
    if not bets:
        return "shape"
    gains = [float(counts.batch @ np.log(bet.shares / reference.shares)) for bet in bets]
    direction = bets[int(np.argmax(gains))].direction
    return direction if ordered or direction in {"new", "missing"} else "shape"


def _filled(counts: Counts) -> tuple[FloatArray, FloatArray]:
    """Batch and reference in the bins that either has filled."""
    filled = counts.batch + counts.reference > 0
    return counts.batch[filled].astype(np.float64), counts.reference[filled].astype(np.float64)


def _psi(batch: FloatArray, reference: FloatArray) -> float:
    return distances.psi(distances.smoothed_shares(batch), distances.smoothed_shares(reference))
