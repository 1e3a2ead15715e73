"""Whether rows that were chosen somehow look as if they had been drawn at random.

Labels come for some predictions and not for others. Where they come for one kind sooner, or for it alone, what they say
of all predictions is wrong, however many they are. The kinds are strata: what was predicted, and how surely.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from pegel_agent.statistics.slots import FloatArray, IntArray

_SCREEN = 3.0
"""Strata within so many standard errors of their expectation are not looked at closely."""


@dataclass(frozen=True, slots=True)
class Difference:
    """`p`: the chance of a draw at random that differs so much in any stratum, at most. `share`: the total variation
    between the drawn rows and all of them, which is the share of the drawn that would have to be others."""

    p: float
    share: float


def difference(rows: IntArray, drawn: IntArray, *, design_effect: float = 1.0) -> Difference:
    """Compare the drawn rows with all rows, each by stratum (k,).

    Exact for a draw without replacement: given their totals, each stratum's part of the drawn rows is hypergeometric;
    p is Bonferroni's over the strata. `design_effect`: so many rows are drawn together and count as one.
    """
    drawn = np.minimum(drawn, rows)
    total, chosen = int(rows.sum()), int(drawn.sum())
    if not chosen or chosen == total:
        return Difference(1.0, 0.0)
    share = float(np.abs(drawn / chosen - rows / total).sum() / 2)
    effective, of_them = (np.rint(counts / max(1.0, design_effect)).astype(np.int64) for counts in (rows, drawn))
    of_them = np.minimum(of_them, effective)
    total, chosen = int(effective.sum()), int(of_them.sum())
    if not 0 < chosen < total:
        return Difference(1.0, share)
    expected = effective * (chosen / total)
    deviation = np.sqrt(expected * (1 - effective / total) * (total - chosen) / max(1, total - 1))
    suspect = np.flatnonzero(np.abs(of_them - expected) > _SCREEN * deviation)
    tails = [_tail(total, int(effective[one]), chosen, int(of_them[one])) for one in suspect]
    strata = int(np.count_nonzero(effective))
    return Difference(min(1.0, 2 * strata * min(tails, default=1.0)), share)


def design_effect(rows: int, drawn: int, rows_squared: float, drawn_squared: float) -> float:
    """How many rows are drawn together, from sums of squares of rows, and of drawn rows, over what they come in.

    1 where a request's rows are drawn each for itself; a request's number of rows where all of them are drawn, or none:
    the excess of the drawn rows' variance over the binomial one.
    """
    share = drawn / rows if rows else 0.0
    if not 0 < share < 1:
        return 1.0
    excess = (drawn_squared - share * share * rows_squared) / (rows * share * (1 - share))
    return min(max(1.0, excess), max(1.0, rows_squared / rows))


def _tail(total: int, marked: int, chosen: int, found: int) -> float:
    """Chance of so many marked rows among the chosen, or of more; or of fewer, whichever is less likely."""
    low, high = max(0, chosen + marked - total), min(chosen, marked)
    upward = found * total >= chosen * marked
    counts = np.arange(found, high + 1) if upward else np.arange(low, found + 1)
    logs = _log_choose(marked, counts) + _log_choose(total - marked, chosen - counts)
    return min(1.0, math.exp(float(special.logsumexp(logs)) - float(_log_choose(total, np.array(chosen)))))


def _log_choose(of: int, counts: IntArray) -> FloatArray:
    found: FloatArray = special.gammaln(of + 1) - special.gammaln(counts + 1) - special.gammaln(of - counts + 1)
    return found
