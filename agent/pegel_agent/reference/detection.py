"""From a profile to the detector that watches by it: what the sidecar and a backtest have in common."""

import numpy as np
from pegel_exporters.errors import UserError

from pegel_agent.reference.profile import Profile
from pegel_agent.reference.seasons import quarter_of
from pegel_agent.statistics.detector import Detector, Settings
from pegel_agent.statistics.sensitivity import smallest_shift


def detector_for(profile: Profile, *, windows: float, tolerance: float = 0.0) -> Detector:
    """A detector for all features of a profile.

    `windows` is the budget: the mean number of windows between false alarms. `tolerance` is the χ² of drift that the
    user calls harmless. By a reference whose design effects are unknown nothing is ever called drift. Raises
    ArithmeticError, LookupError or ValueError for a profile that can't be watched by.
    """
    references = {feature.name: feature.reference for feature in profile.watched}
    return Detector(references, Settings(windows, tolerance=tolerance, judged=is_judged(profile)))


def is_judged(profile: Profile) -> bool:
    """Whether evidence against this reference may be called drift: not where its design effects are unknown."""
    return profile.order is None or profile.order.state == "measured"


def smallest_shift_of(profile: Profile) -> float:
    """The smallest shift of a mean, in standard deviations, that the detector can prove in a feature like most: as many
    independent rows as its reference, or the stratum of it with the fewest, is worth."""
    worth = [
        min(one.rows for one in reference.strata or (reference.whole,)) / reference.design_effects.get("up", 1.0)
        for reference in (feature.reference for feature in profile.features)
    ]
    return smallest_shift(max(int(np.median(worth)), 1), len(profile.watched))


def stratum_of(profile: Profile, at: float | None) -> int:
    """The stratum of the reference that a window is compared with whose middle is at the Unix time `at`.

    0 where there is only one. Raises UserError where there are several and no time.
    """
    if not any(feature.hours for feature in profile.watched):
        return 0
    if at is None:
        raise UserError("the profile tells the hours of the day apart: rows need their times (--time)")
    return int(quarter_of(np.array(at)))
