"""A column of times as Unix times."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pegel_exporters.errors import UserError

from pegel_agent.reference.columns import Column
from pegel_agent.statistics.slots import FloatArray

_EARLIEST, _LATEST = -6e10, 1e11
"""Beyond these years (68 and 5138) a number counts something else than seconds."""


class NoTime(ValueError):
    """A value says no time: `position` is its place in the column, `reason` what is wrong, without the value."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(reason)
        self.position = position
        self.reason = reason


def unix_times(values: Column) -> FloatArray:
    """Unix times (rows,) of numbers, which are seconds since 1970, or of texts in ISO 8601, by default in UTC.

    Raises NoTime for the first value that says no time.
    """
    if values.dtype != object:
        times = values.astype(np.float64)
    else:
        times = np.fromiter(_parsed(values), dtype=np.float64, count=len(values))
    outside = ~((times > _EARLIEST) & (times < _LATEST))
    if outside.any():
        position = int(outside.argmax())
        reason = "is missing" if np.isnan(times[position]) else "is no Unix time in seconds; milliseconds, perhaps?"
        raise NoTime(position, reason)
    return times


def times_of(path: Path, column: str, values: Column, *, after: int) -> FloatArray:
    """Unix times (rows,) of a file's column, of which `after` rows came before. Raises UserError for the first value
    that says no time."""
    try:
        return unix_times(values)
    except NoTime as error:
        raise UserError(f"{path}: {column!r} in row {after + 1 + error.position:,} {error.reason}") from None


def _parsed(values: Column) -> Iterator[float]:
    for position, value in enumerate(values.tolist()):
        if value is None:
            raise NoTime(position, "is missing")
        try:
            yield _unix(str(value).strip())
        except (ValueError, OverflowError):
            raise NoTime(position, "is no time; write 2024-03-01T10:05:00Z, or seconds since 1970") from None


def _unix(text: str) -> float:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return float(text)  # a number among texts
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
