"""How much the rows of a reference in time order resemble their neighbours, and its windows their strata.

A design effect (Kish, 1965) is the factor by which the variance of a mean exceeds that of independent rows. It is
estimated for each bet from means of batches (Conway, 1963): the bet's excess q/p − 1 has mean 0 and variance χ²(q‖p)
under the reference, so that deff = b·Var(mean over b rows)/χ²(q‖p). A statistic of all bins at once would average the
few directions in which neighbours resemble each other with the many in which they don't.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from pegel_agent.statistics.slots import FloatArray, IntArray, Reference
from pegel_agent.statistics.tilts import bets_of, shares_of

MIN_BATCHES = 20
"""Fewer batches say too little of their variance."""
_BATCH_WINDOWS = (1, 2, 4)
_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Windows:
    """A feature's reference, window by window: `counts` (windows, k), none of them empty; their places in time
    `numbers` (windows,), ascending with gaps where there were no rows; and their `strata` (windows,), from 0."""

    counts: IntArray
    numbers: IntArray
    strata: IntArray


def design_effects(windows: Windows, reference: Reference, *, fitted: int = 1) -> dict[str, float] | None:
    """Design effects by direction, at least 1; None where too few windows leave them unknown.

    The windows against the reference, alone and in batches of 2 and 4 as far as these leave 20 batches: the highest
    over batches and over the sizes of a direction's tilts, times the factor that makes it a 95 % bound. Batches next to
    each other are taken to be independent. `fitted` is the number of distributions that make up the reference.
    """
    bets = bets_of(reference)
    rows = windows.counts.sum(axis=1)
    excess = np.zeros((len(rows), len(bets)))
    variance = np.zeros(len(bets))
    for stratum in np.unique(windows.strata).tolist():
        here, p = windows.strata == stratum, reference.at(stratum)
        of_bets = shares_of(bets, p) / p.shares - 1
        excess[here] = windows.counts[here] @ of_bets.T
        variance += rows[here].sum() / rows.sum() * (of_bets**2 @ p.shares)
    sizes = [_upper_bounds(excess, rows, windows.numbers // size, fitted=fitted) for size in _BATCH_WINDOWS]
    enough = [bounds for bounds in sizes if bounds is not None]
    if not enough:
        return None
    largest = np.max(enough, axis=0) / variance
    effects: dict[str, float] = {}
    for (direction, _), effect in zip(bets, largest.tolist(), strict=True):
        effects[direction] = max(effects.get(direction, 1.0), effect)
    return effects


def _upper_bounds(excess: FloatArray, rows: IntArray, batches: IntArray, *, fitted: int) -> FloatArray | None:
    """Upper bounds (bets,) of the variance of a bet's mean over a batch, times the batch's rows; None for few batches.

    `excess` (windows, bets) are sums over the windows' `rows`; windows of the same number in `batches` are one batch.
    """
    starts = np.flatnonzero(np.diff(batches, prepend=batches[:1] - 1))
    freedom = len(starts) - fitted
    if freedom < MIN_BATCHES - 1:
        return None
    of_batch = np.add.reduceat(rows, starts)[:, None]
    means = np.add.reduceat(excess, starts) / of_batch - excess.sum(axis=0) / rows.sum()
    bounds: FloatArray = np.sum(of_batch * means**2, axis=0) / special.chdtri(freedom, _CONFIDENCE)
    return bounds


def heterogeneity(windows: Windows, reference: Reference) -> float:
    """By how much χ² windows differ from their stratum beyond chance, which no bet must win on; 0 or more.

    The 95 % quantile over windows of χ² less what 95 % of windows stay below when only chance moves them.
    """
    rows = windows.counts.sum(axis=1)
    shares = np.array([stratum.shares for stratum in reference.strata or (reference.whole,)])[windows.strata]
    chi2: FloatArray = np.sum((windows.counts / rows[:, None] - shares) ** 2 / shares, axis=1)
    chance = reference.largest_effect * special.chdtri(shares.shape[1] - 1, 1 - _CONFIDENCE) / rows
    return max(0.0, float(np.quantile(chi2 - chance, _CONFIDENCE)))
