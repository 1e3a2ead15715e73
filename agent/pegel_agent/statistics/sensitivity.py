"""What a reference of a given size leaves uncertain, and so can't show, however long one watches."""

import math
from itertools import pairwise

import numpy as np
from scipy import special

from pegel_agent.statistics.slots import FloatArray, ReferenceShares
from pegel_agent.statistics.tilts import APPEARING, Bet, shares_of

OF_TILTS = 0.8
"""How much of the chance of an unlucky reference the tilts may use; the adaptive experts have the rest."""
_SMALLEST_TILT = 0.05
_EVENTS = 12
"""As many independent bets as a numeric feature's tilts amount to; the result hardly depends on it."""


def unlucky_quantile(bets: tuple[Bet, ...], reference: ReferenceShares, chance: float) -> float:
    """How many standard errors z the reference's error of any bet exceeds with probability `chance` at most.

    Bets of one direction and different sizes win from nearly the same errors. As a point moves over the unit sphere
    from bet to bet, its error exceeds z somewhere with a probability of no more than that of the first bet and
    exp(−z²/2)/2π for each radian of the way (Davies, 1977); for bets apart from each other, the sum of theirs.
    """
    q, p = shares_of(bets, reference), reference.shares
    excess = (q / p - 1) * np.sqrt(p)
    norms = np.linalg.norm(excess, axis=1)
    chains: dict[tuple[str, bool], list[tuple[float, FloatArray]]] = {}
    for (direction, size), vector, norm in zip(bets, excess, norms, strict=True):
        if norm > 0:
            chains.setdefault((direction, size > 0), []).append((abs(size), vector / norm))
    way = 0.0
    for chain in chains.values():
        ordered = [vector for _, vector in sorted(chain, key=lambda bet: bet[0])]
        way += sum(math.acos(min(1.0, max(-1.0, float(a @ b)))) for a, b in pairwise(ordered))
    low, high = 0.0, 40.0
    while high - low > 1e-6:
        z = (low + high) / 2
        exceeds = len(chains) * float(special.ndtr(-z)) + way * math.exp(-z * z / 2) / (2 * math.pi)
        low, high = (z, high) if exceeds > chance else (low, z)
    return high


def unlucky_errors(
    bets: tuple[Bet, ...], q: FloatArray, reference: ReferenceShares, z: float, effects: FloatArray
) -> FloatArray:
    """What bets on shares `q` (bets, k) win of each row by a reference that is unlucky by z standard errors; `effects`
    (bets,) are design effects.

    The error of a mean whose standard error is estimated from the same rows has the quantile z + γ(2z² + 1)/6, where γ
    is the mean's skewness (Hall, 1992); without it the outer bins would be unlucky several times as often. Bets on rows
    that appear have z alone: where nothing appears they lose by row as much as they bet on, which is more than an
    unlucky reference lets them win.
    """
    p, m = reference.shares, reference.rows / effects
    variance = np.sum((q - p) ** 2 / p, axis=1)
    third = np.sum((q - p) ** 3 / p**2, axis=1)
    third[[direction in APPEARING for direction, _ in bets]] = 0.0
    skewness = np.divide(third, variance**1.5, out=np.zeros_like(third), where=variance > 0) / np.sqrt(m)
    errors: FloatArray = (z + np.maximum(skewness, 0.0) * (2 * z * z + 1) / 6) * np.sqrt(variance / m)
    return errors


def smallest_shift(rows: int, features: int, *, delta: float = 0.05) -> float:
    """The smallest shift of a mean, in standard deviations, that the detector can ever prove against a reference.

    A bet on a shift by s wins sδ − s²/2 a row where the truth is δ, and pays s·z/√m for what `rows` m reference rows
    leave uncertain, so that it gains from δ > z/√m + s/2.
    """
    z = -float(special.ndtri(OF_TILTS * delta / (features * _EVENTS)))
    return z / math.sqrt(rows) + _SMALLEST_TILT / 2
