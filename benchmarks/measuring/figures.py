"""The table that a benchmark ends with."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line: what was measured, what it may be, what it was. `met` is None for what has no budget."""

    what: str
    budget: str
    measured: str
    met: bool | None = None


def median_and_spread(values: Sequence[float], digits: int = 2) -> str:
    """`1.31 (1.25 to 1.40)`: the median, then the lowest and the highest."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def table(figures: Sequence[Figure]) -> str:
    """The figures in aligned columns."""
    words = {True: "met", False: "MISSED", None: ""}
    rows = [("", "at most", "measured: median (lowest to highest)", "")]
    rows += [(figure.what, figure.budget, figure.measured, words[figure.met]) for figure in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
