"""How far a window's shares are from the reference's: effect sizes that people read, and PSI's limit.

All take shares p (the window's) and q (the reference's), both (k,), positive and summing to 1.
"""

import numpy as np
from scipy import special

from pegel_agent.statistics.slots import FloatArray, IntArray


def smoothed_shares(counts: IntArray | FloatArray) -> FloatArray:
    """A window's shares (k,) from its counts (k,): (c + ½)/(n + k/2), so that no logarithm meets a zero."""
    filled = np.asarray(counts, dtype=np.float64)
    shares: FloatArray = (filled + 0.5) / (filled.sum() + 0.5 * filled.shape[-1])
    return shares


def psi(p: FloatArray, q: FloatArray) -> float:
    """Population stability index Σ(p − q)·ln(p/q): Jeffreys' symmetric divergence, in nats."""
    return float(np.sum(psi_parts(p, q)))


def psi_parts(p: FloatArray, q: FloatArray) -> FloatArray:
    """What each bin adds to PSI, (k,), none below zero."""
    parts: FloatArray = (p - q) * np.log(p / q)
    return parts


def js(p: FloatArray, q: FloatArray) -> float:
    """Jensen–Shannon distance, base 2: the root of the mean divergence from the midpoint, 0 to 1."""
    middle = (p + q) / 2
    divergence = (np.sum(special.rel_entr(p, middle)) + np.sum(special.rel_entr(q, middle))) / 2
    return float(np.sqrt(max(divergence, 0.0) / np.log(2)))


def ks(p: FloatArray, q: FloatArray) -> float:
    """Kolmogorov–Smirnov distance: the largest gap between the two distribution functions, over bins in order."""
    return float(np.max(np.abs(np.cumsum(p - q))))


def tvd(p: FloatArray, q: FloatArray) -> float:
    """Total variation distance, half of Σ|p − q|, 0 to 1."""
    return float(np.sum(np.abs(p - q)) / 2)


def rank_wasserstein(p: FloatArray, q: FloatArray) -> float:
    """∫|F_p(F_q⁻¹(u)) − u|du over the reference's ranks u, with F_p linear within a bin; 0 to ½."""
    gaps = np.concatenate(([0.0], np.cumsum(p) - np.cumsum(q)))
    left, right = gaps[:-1], gaps[1:]
    same_sign = left * right >= 0
    total = np.abs(left) + np.abs(right)
    crossing = (left**2 + right**2) / np.where(total > 0, total, 1.0)
    return float(np.sum(q * np.where(same_sign, total, crossing) / 2))


def psi_limit(
    rows: float, reference_rows: float, bins: int, *, alpha: float, deff: float = 1.0, reference_deff: float = 1.0
) -> float:
    """What PSI stays below with probability 1 − `alpha` when nothing has drifted.

    PSI/(deff/n + deff_m/m) is χ² with k − 1 degrees of freedom for large n; a window of rows in time order has
    fewer effective rows, which the design effects say.
    """
    scale = deff / rows + reference_deff / reference_rows
    return float(scale * special.chdtri(bins - 1, alpha))
