"""A reference in time order: which row is in which window, and what the windows tell of a feature.

Rows may come in any order. For windows of time a row's own time is all that it takes. For windows of rows, rows that
come in order of time are numbered; where they don't, all times must be kept to rank them, at 8 bytes a row.
"""

import msgspec
import numpy as np
from pegel_exporters.errors import UserError

from pegel_agent.reference.profile import Feature, Order, packed
from pegel_agent.reference.seasons import HOURS, hour_of, quarter_of
from pegel_agent.statistics.budget import Window
from pegel_agent.statistics.dependence import MIN_BATCHES, Windows, design_effects, heterogeneity
from pegel_agent.statistics.slots import FloatArray, IntArray

HOUR_ROWS = 4_000
"""So many reference rows in each hour of the day are enough to tell the hours apart."""
_SEASONAL = 2.0
"""Telling the hours apart makes 24 small references of one: it must at least halve the design effect."""
_KEPT_BYTES = 256 << 20
_RANKED_ROWS = 1 << 25


class RowOrder:
    """Times of all rows in, in the first pass over a file; each row's window out, in the second."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._rows = 0
        self._last = -np.inf
        self._ascending = True
        self._times: list[FloatArray] = []
        self._numbers: IntArray = np.zeros(0, dtype=np.int64)
        self._ranks: IntArray | None = None

    def see(self, times: FloatArray) -> None:
        """Take in the next rows' Unix times. Raises UserError for too many rows that are not in order."""
        if self._window.seconds is not None:
            self._numbers = np.union1d(self._numbers, self._number_in_time(times))
            return
        if len(times):
            self._ascending = self._ascending and self._last <= times[0] and bool((np.diff(times) >= 0).all())
            self._last = float(times[-1])
        self._rows += len(times)
        if self._rows <= _RANKED_ROWS:
            self._times.append(times)
        elif self._ascending:
            self._times.clear()
        else:
            raise UserError(
                f"more than {_RANKED_ROWS:,} rows that are not in order of time:"
                " sort the file by time, or give --window in time, such as 5m"
            )

    def finish(self, bins: int) -> IntArray:
        """The numbers (windows,) of the windows with rows, ascending: of the latest ones, as many as may be kept
        with `bins` counts each."""
        if self._window.rows is not None:
            self._numbers = np.arange(-(-self._rows // self._window.rows))
            if not self._ascending:
                ranks = np.empty(self._rows, dtype=np.int64)
                ranks[np.argsort(np.concatenate(self._times), kind="stable")] = np.arange(self._rows)
                self._ranks = ranks
            self._times.clear()
        self._numbers = self._numbers[-max(_KEPT_BYTES // (4 * bins), MIN_BATCHES) :]
        return self._numbers

    def windows_of(self, first: int, times: FloatArray) -> IntArray:
        """The positions (rows,) among the kept windows of rows from number `first` on; −1 for a row of no kept one."""
        if self._window.rows is None:
            numbers = self._number_in_time(times)
        else:
            places = np.arange(first, first + len(times)) if self._ranks is None else self._ranks[first:][: len(times)]
            numbers = places // self._window.rows
        positions: IntArray = np.searchsorted(self._numbers, numbers)
        return np.where(numbers < self._numbers[0], -1, positions)

    def _number_in_time(self, times: FloatArray) -> IntArray:
        assert self._window.seconds is not None
        return np.floor(times / self._window.seconds).astype(np.int64)


def order_of(windows: int, window: Window) -> Order:
    """What a profile says of so many windows with rows."""
    text = f"{window.seconds:g}s" if window.rows is None else f"{window.rows}"
    return Order(text, windows, "measured" if windows >= MIN_BATCHES else "unknown")


def in_order(feature: Feature, counts: IntArray, numbers: IntArray, middles: FloatArray | None = None) -> Feature:
    """A feature with what its reference's windows tell: their `counts` (windows, k) and `numbers` (windows,).

    With the Unix times of the windows' `middles` (windows,) and rows enough, the hours of the day are told apart where
    they differ. Windows without rows are left out.
    """
    seen = counts.any(axis=1)
    whole = Windows(counts[seen], numbers[seen], np.zeros(int(seen.sum()), dtype=np.int64))
    effects = design_effects(whole, feature.reference)
    if effects is None:
        return feature
    found = msgspec.structs.replace(feature, design_effects=_rounded(effects))
    if middles is None or len(effects) == 0:
        return found
    return _by_hour(found, Windows(whole.counts, whole.numbers, quarter_of(middles[seen])))


def _by_hour(feature: Feature, windows: Windows) -> Feature:
    """The feature with its hours, where that pays."""
    by_hour = np.zeros((HOURS, windows.counts.shape[1]), dtype=np.int64)
    np.add.at(by_hour, hour_of(windows.strata), windows.counts)
    if by_hour.sum(axis=1).min() < HOUR_ROWS:
        return feature
    stratified = msgspec.structs.replace(feature, hours=packed(by_hour), design_effects={})
    effects = design_effects(windows, stratified.reference, fitted=HOURS)
    if effects is None or max(effects.values()) > feature.reference.largest_effect / _SEASONAL:
        return feature
    stratified = msgspec.structs.replace(stratified, design_effects=_rounded(effects))
    floor = heterogeneity(windows, stratified.reference)
    return msgspec.structs.replace(stratified, heterogeneity=float(f"{floor:.3g}"))


def _rounded(effects: dict[str, float]) -> dict[str, float]:
    return {direction: float(f"{effect:.3g}") for direction, effect in effects.items()}
