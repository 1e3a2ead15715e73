"""The hours of the day (UTC) as strata of a reference.

The reference is counted by the hour, and a window compared with the quarter of an hour in which its middle lies, whose
shares lie between those of the two nearest hours: at once, a trend within the hour would look like drift.
"""

import numpy as np

from pegel_agent.statistics.slots import FloatArray, IntArray, Reference, ReferenceShares

HOURS = 24
_QUARTERS = 4
QUARTERS = HOURS * _QUARTERS
"""The strata."""
_HOUR_SECONDS = 3_600


def quarter_of(at: FloatArray) -> IntArray:
    """The stratum of each Unix time, 0 to 95."""
    quarters: IntArray = (np.asarray(at) // (_HOUR_SECONDS // _QUARTERS)).astype(np.int64) % QUARTERS
    return quarters


def hour_of(quarter: IntArray) -> IntArray:
    """The hour of the day that a stratum lies in, 0 to 23."""
    hours: IntArray = quarter // _QUARTERS
    return hours


def mixture(by_hour: IntArray, rows: IntArray) -> IntArray:
    """The reference's counts (k,) for a batch with so many `rows` (96,) in each quarter of the day.

    `by_hour` are the reference's counts (24, k). Their sum is as many as would have the variance of the mixture.
    """
    weights = np.zeros(HOURS)
    for quarter in np.flatnonzero(rows).tolist():
        before, later = _between(quarter)
        weights[before] += (1 - later) * rows[quarter]
        weights[(before + 1) % HOURS] += later * rows[quarter]
    weights /= weights.sum()
    of_hour = by_hour.sum(axis=1)
    worth = 1 / float(np.sum(weights**2 / of_hour))
    counts: IntArray = np.rint(worth * (weights / of_hour) @ by_hour).astype(np.int64)
    return counts


def quarters(hours: tuple[ReferenceShares, ...]) -> tuple[ReferenceShares, ...]:
    """The 96 strata from the shares of the 24 hours, which are those of the hours' middles.

    `rows` are as many as would have the variance of the mixture.
    """
    found = []
    for quarter in range(QUARTERS):
        before, later = _between(quarter)
        left, right = hours[before], hours[(before + 1) % HOURS]
        shares = (1 - later) * left.shares + later * right.shares
        rows = 1 / ((1 - later) ** 2 / left.rows + later**2 / right.rows)
        found.append(ReferenceShares(shares, int(rows), left.slots))
    return tuple(found)


def expected_shares(reference: Reference) -> FloatArray:
    """What part of a stratum's rows is expected in each bin (strata, k), such that all strata together are the whole.

    A stratum's own shares allow a bin that its few rows left empty what chance may have kept away; added up over many
    rows, and beside the whole's, that would be too much.
    """
    shares = np.array([stratum.shares for stratum in reference.strata])
    weights = np.array([stratum.rows for stratum in reference.strata], dtype=np.float64)
    calibrated = shares * reference.whole.shares / (weights @ shares / weights.sum())
    found: FloatArray = calibrated / calibrated.sum(axis=1, keepdims=True)
    return found


def _between(quarter: int) -> tuple[int, float]:
    """The hour whose middle a quarter's comes after, and by what part of an hour."""
    middle = (quarter + 0.5) / _QUARTERS - 0.5
    return int(np.floor(middle)) % HOURS, middle - np.floor(middle)
