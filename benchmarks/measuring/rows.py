"""Rows whose truth is known, and their profile, made by the functions that `pegel profile build` uses."""

from typing import Literal

import numpy as np
from pegel_agent.reference.columns import learn_feature, positions_of
from pegel_agent.reference.order import in_order, order_of
from pegel_agent.reference.profile import FORMAT, Feature, Profile
from pegel_agent.statistics.budget import Window
from pegel_agent.statistics.slots import FloatArray, IntArray
from scipy.signal import lfilter
from scipy.special import ndtr

Kind = Literal["independent", "AR(1)", "season"]

PHI = 0.9
"""Each row of an AR(1) stream keeps so much of the one before it: its design effect is (1 + φ)/(1 − φ) = 19."""
_HOUR = 3_600


class Stream:
    """Features that go on for ever, all of mean 0 and standard deviation 1 apart from the season, which adds a sine of
    that size over the day. `hourly` rows make an hour."""

    def __init__(self, kind: Kind, features: int, hourly: int, random_numbers: np.random.Generator) -> None:
        self._kind = kind
        self._hourly = hourly
        self._random = random_numbers
        self._rows = 0
        self._last = random_numbers.normal(size=(features, 1))

    @property
    def now(self) -> float:
        """The Unix time of the next row."""
        return self._rows / self._hourly * _HOUR

    def next(self, rows: int) -> FloatArray:
        """The next values (features, rows)."""
        values: FloatArray = self._random.normal(size=(len(self._last), rows))
        if self._kind == "AR(1)":
            values, _ = lfilter([np.sqrt(1 - PHI**2)], [1, -PHI], values, axis=1, zi=PHI * self._last)
            self._last = values[:, -1:]
        elif self._kind == "season":
            day = (self._rows + np.arange(rows)) / self._hourly / 24
            values += np.sin(2 * np.pi * day)
        self._rows += rows
        return values


def profile_of(columns: FloatArray, *, window: int, in_time_order: bool) -> Profile:
    """A profile of columns (features, rows), whose windows are an hour where their order matters."""
    found = (learn_feature(f"f{number}", "input", column) for number, column in enumerate(columns))
    features = [feature for feature in found if feature is not None]
    numbers = np.arange(columns.shape[1] // window)
    order = order_of(len(numbers), Window(rows=window)) if in_time_order else None
    if order is not None and order.state == "measured":
        features = [
            in_order(feature, counts_of(feature, column, window), numbers, (numbers + 0.5) * _HOUR)
            for feature, column in zip(features, columns, strict=True)
        ]
    return Profile(FORMAT, 0.0, "m", "1", columns.shape[1], tuple(features), order)


def counts_of(feature: Feature, column: FloatArray, window: int) -> IntArray:
    """Rows per bin (windows, k) of a column in windows of so many rows; what is left over is not counted."""
    bins, windows = len(feature.counts), len(column) // window
    places = positions_of(feature.bins, column[: windows * window])[0] + bins * np.repeat(np.arange(windows), window)
    return np.bincount(places, minlength=windows * bins).reshape(windows, bins).astype(np.int64)


def normal_shares(feature: Feature, *, shift: float = 0.0, spread: float = 1.0) -> FloatArray:
    """What part (k,) of normal values falls into each bin of a numeric feature; none is missing."""
    below = ndtr((np.asarray(feature.edges) - shift) / spread)
    shares: FloatArray = np.diff(np.concatenate(([0.0], below, [1.0, 1.0])))
    return shares
