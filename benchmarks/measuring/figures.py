"""The tables that benchmarks end with."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import gammaincinv


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


def poisson_bounds(events: int) -> tuple[float, float]:
    """Between what the mean lies with 95 % confidence when so many events were seen (Garwood, 1936)."""
    return (float(gammaincinv(events, 0.025)) if events else 0.0), float(gammaincinv(events + 1, 0.975))


def table(figures: Sequence[Figure]) -> str:
    """The figures in aligned columns."""
    words = {True: "met", False: "MISSED", None: ""}
    return aligned(
        ("", "at most", "measured: median (lowest to highest)", ""),
        [(figure.what, figure.budget, figure.measured, words[figure.met]) for figure in figures],
    )


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of words in aligned columns."""
    lines = [header, *rows]
    widths = [max(len(row[column]) for row in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in lines
    )
