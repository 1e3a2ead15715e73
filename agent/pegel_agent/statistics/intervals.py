"""Intervals around shares that were counted."""

import math

from scipy import special


def wilson(successes: int, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a share (Wilson, 1927): (lower, upper), within 0 and 1.

    Raises ValueError without trials: an interval around nothing is not a result.
    """
    if trials <= 0:
        raise ValueError("no trials, no interval")
    z = float(special.ndtri((1 + confidence) / 2))
    share = successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    lower = 0.0 if successes == 0 else max(0.0, middle - half)
    upper = 1.0 if successes == trials else min(1.0, middle + half)
    return lower, upper
