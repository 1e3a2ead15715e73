"""What a reference of a given size can't show, however long one watches."""

import math

from scipy import special

_SMALLEST_TILT = 0.05
_EXPERTS = 34
"""About as many as a numeric feature has; the result hardly depends on it."""


def smallest_shift(rows: int, features: int, *, delta: float = 0.05) -> float:
    """The smallest shift of a mean, in standard deviations, that the detector can ever prove against a reference.

    A bet on a shift by s wins sδ − s²/2 a row where the truth is δ, and pays s·z/√m for what `rows` m reference rows
    leave uncertain, so that it gains from δ > z/√m + s/2.
    """
    z = -float(special.ndtri(delta / (features * _EXPERTS)))
    return z / math.sqrt(rows) + _SMALLEST_TILT / 2
