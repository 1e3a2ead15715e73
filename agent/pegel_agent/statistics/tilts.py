"""The fixed bets: ways in which a feature's shares are known to move."""

from dataclasses import dataclass

import numpy as np
from scipy import special

from pegel_agent.statistics.slots import FloatArray, Reference, ReferenceShares, Slot

_LOCATION = (0.05, 0.1, 0.2, 0.4, 0.8)
_SPREAD = (0.05, 0.1, 0.2, 0.4)
_TAIL = (0.1, 0.2, 0.4)
_GAINS = (0.003, 0.01, 0.03, 0.1)
_UNORDERED = {Slot.OTHER: "new", Slot.MISSING: "missing"}
"""Bins that have no place in the order, and the direction in which a feature moves when they fill."""
APPEARING = frozenset(_UNORDERED.values())
"""Directions of bets on rows that the reference has few of or none."""


@dataclass(frozen=True, slots=True)
class Tilt:
    """A bet on `shares` (k,), which differ from the reference's in the way that `direction` says.

    `size` is how far along a direction, with its sign; both together name a bet whatever the reference.
    """

    direction: str
    size: float
    shares: FloatArray


def tilts(reference: ReferenceShares) -> tuple[Tilt, ...]:
    """All fixed bets for a reference.

    Exponential tilts q ∝ p·exp(θu) along directions u that are orthonormal under p: location and spread by normal
    scores of the mid-ranks, the two outer bins, each over the ordered bins; and more `missing` and `new` rows than
    the reference has. Directions that the shares leave no room for are left out.
    """
    p = reference.shares
    ordered = np.array([slot not in _UNORDERED for slot in reference.slots])
    in_order = float(np.sum(p * ordered)) or 1.0  # a feature may have none of these: then nothing is left to tilt
    mid_ranks = np.where(ordered, (np.cumsum(p * ordered) - p / 2) / in_order, 0.5)
    scores = np.where(ordered, special.ndtri(np.clip(mid_ranks, 1e-9, 1 - 1e-9)), 0.0)
    outer = np.zeros_like(p)
    outer[np.flatnonzero(ordered)[:1]] = outer[np.flatnonzero(ordered)[-1:]] = 1.0
    found: list[Tilt] = []
    # Being missing or new is a bet of its own, so the other directions leave it alone.
    basis: list[FloatArray] = [np.ones_like(p)]
    if (apart := _orthonormal(np.where(ordered, 0.0, 1.0), basis, p)) is not None:
        basis.append(apart)
    for up, down, raw, sizes in (
        ("up", "down", scores, _LOCATION),
        ("wider", "narrower", scores**2 * ordered, _SPREAD),
        ("tails", "tails", outer, _TAIL),
    ):
        direction = _orthonormal(raw, basis, p)
        if direction is None:
            continue
        basis.append(direction)
        for name, signed in ((up, sizes), (down, tuple(-size for size in sizes))):
            tilted = zip(signed, _tilted(p, direction, signed), strict=True)
            # Where nearly all rows are missing, a tilt can leave a bin a share that is rounded to none.
            found += [Tilt(name, size, q) for size, q in tilted if q.all()]
    for position, slot in enumerate(reference.slots):
        if slot in _UNORDERED and p[position] < 1:
            at = np.arange(len(p)) == position
            for gain in _GAINS:
                found.append(Tilt(_UNORDERED[slot], gain, np.where(at, gain, 0.0) + (1 - gain) * p))
    return tuple(found)


Bet = tuple[str, float]
"""A tilt's direction and size."""


def bets_of(reference: Reference) -> tuple[Bet, ...]:
    """All fixed bets on a feature: those that its whole reference leaves room for."""
    return tuple((tilt.direction, tilt.size) for tilt in tilts(reference.whole))


def shares_of(bets: tuple[Bet, ...], stratum: ReferenceShares) -> FloatArray:
    """The bets' shares (bets, k) in a stratum: its own where it leaves no room for a bet."""
    found = {(tilt.direction, tilt.size): tilt.shares for tilt in tilts(stratum)}
    return np.array([found.get(bet, stratum.shares) for bet in bets]).reshape(len(bets), len(stratum.shares))


def _tilted(p: FloatArray, direction: FloatArray, sizes: tuple[float, ...]) -> FloatArray:
    """Shares (sizes, k)."""
    exponents = np.outer(sizes, direction)
    q = p * np.exp(exponents - exponents.max(axis=1, keepdims=True))
    shares: FloatArray = q / q.sum(axis=1, keepdims=True)
    return shares


def _orthonormal(raw: FloatArray, basis: list[FloatArray], p: FloatArray) -> FloatArray | None:
    """`raw` less its projections on the basis under p, with unit norm; None where nothing is left."""
    left = raw.astype(np.float64)
    for _ in range(2):  # a second pass removes what rounding left of the first
        for vector in basis:
            norm = float(np.sum(p * vector * vector))
            if norm > 0:
                left = left - vector * float(np.sum(p * vector * left)) / norm
    norm = float(np.sqrt(np.sum(p * left * left)))
    return left / norm if norm > 1e-6 else None
