"""What a bin is for, and the shares that a reference's counts stand for."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Slot(enum.Enum):
    """A bin's part in its feature.

    In this order: numeric BELOW, INTERVAL…, ABOVE, MISSING; categorical CATEGORY…, OTHER, MISSING. OTHER holds every
    category without a bin of its own: rare in the reference, or never seen there.
    """

    BELOW = "below"
    INTERVAL = "interval"
    ABOVE = "above"
    CATEGORY = "category"
    OTHER = "other"
    MISSING = "missing"


_OFTEN_EMPTY = frozenset({Slot.BELOW, Slot.ABOVE, Slot.OTHER, Slot.MISSING})


@dataclass(frozen=True, slots=True)
class ReferenceShares:
    """A feature's reference: `shares` (k,), positive and summing to 1, from `rows` rows; `slots` (k,)."""

    shares: FloatArray
    rows: int
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """What a feature's windows are compared with: the `whole` reference, or the stratum of a window where there are
    `strata`, all with the same bins.

    `design_effects` says by direction of a tilt how many rows count as one because they resemble their neighbours, 1
    where it says nothing. `heterogeneity` is the χ² by which windows of the reference differ from their stratum beyond
    chance.
    """

    whole: ReferenceShares
    strata: tuple[ReferenceShares, ...] = ()
    design_effects: Mapping[str, float] = field(default_factory=dict)
    heterogeneity: float = 0.0

    def at(self, stratum: int) -> ReferenceShares:
        """The shares of a window in this stratum."""
        return self.strata[stratum] if self.strata else self.whole

    @property
    def largest_effect(self) -> float:
        """The largest design effect of any direction."""
        return max(self.design_effects.values(), default=1.0)


def reference_shares(counts: Sequence[int] | IntArray, slots: Sequence[Slot]) -> ReferenceShares:
    """Shares from a reference's counts (k,), none of them zero.

    Ordinary bins get (r + ½)/(m + k/2) (Jeffreys' prior). Below, above, other and missing bins that the reference
    never filled get 1/(m + 1). Categories never seen need no share of their own: they fall into OTHER, whose rows are
    those of the rare categories, and by Good (1953) the unseen ones' share is about that of the categories seen once.
    Raises ValueError on lengths that differ or a reference without rows.
    """
    filled = np.asarray(counts, dtype=np.float64)
    if filled.shape != (len(slots),):
        raise ValueError(f"{filled.shape[0]} counts for {len(slots)} bins")
    rows = int(filled.sum())
    if rows == 0:
        raise ValueError("a reference without rows has no shares")
    shares = (filled + 0.5) / (rows + 0.5 * len(slots))
    for position, slot in enumerate(slots):
        if slot in _OFTEN_EMPTY and filled[position] == 0:
            shares[position] = 1 / (rows + 1)
    return ReferenceShares(shares / shares.sum(), rows, tuple(slots))
