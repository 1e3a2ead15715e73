"""The rules over all replicas: false alarms in simulated months, and how soon a small drift is seen.

A month of 50 features takes two to ten seconds; by default there are two of each kind.
"""

import statistics
from dataclasses import dataclass

import click
import numpy as np
from measuring.figures import aligned, poisson_bounds
from measuring.rows import Kind, Stream, counts_of, normal_shares
from pegel_agent.reference.columns import learn_feature
from pegel_agent.reference.order import in_order
from pegel_agent.reference.profile import Feature
from pegel_agent.reference.seasons import expected_shares, quarter_of
from pegel_agent.statistics.slots import FloatArray, Reference
from pegel_rules.fleet import (
    BUDGET_DAYS,
    END,
    LOOKS_PER_WINDOW,
    ROWS_PER_BIN,
    SHARE_OF_BUDGET,
    STEP_SECONDS,
    WINDOWS,
)

FEATURES = 50
REFERENCE = 10_000
SEASONAL_REFERENCE = 240_000
"""Enough for the hours of the day to be told apart."""
RATES = (120, 480, 6_000)
AR_RATE = 480
SEASON_RATE = 6_000
SHIFT = 0.15
SCRAPES = 20
"""In five minutes. increase() does not see the rows between the last scrape before and the first in them."""
STEPS_AN_HOUR = 3_600 // STEP_SECONDS
STEPS = BUDGET_DAYS * 24 * STEPS_AN_HOUR
_SEEN = (SCRAPES - 1) / SCRAPES


@dataclass(frozen=True, slots=True)
class Traffic:
    """Rows an hour of all replicas together."""

    rate: int
    kind: Kind = "independent"

    @property
    def name(self) -> str:
        return f"{self.rate:,}/h{'' if self.kind == 'independent' else f', {self.kind}'}"


def reference_of(traffic: Traffic, random_numbers: np.random.Generator) -> tuple[Feature, Stream]:
    """A feature's reference, and the stream that it was taken from."""
    step = max(1, traffic.rate // STEPS_AN_HOUR)
    stream = Stream(traffic.kind, 1, traffic.rate, random_numbers)
    column = stream.next(SEASONAL_REFERENCE if traffic.kind == "season" else REFERENCE)[0]
    feature = learn_feature("f", "input", column)
    assert feature is not None
    if traffic.kind != "independent":
        counts = counts_of(feature, column, step)
        numbers = np.arange(len(counts))
        middles = (numbers + 0.5) * STEP_SECONDS if traffic.kind == "season" else None
        feature = in_order(feature, counts, numbers, middles)
    return feature, stream


def pieces(
    traffic: Traffic, feature: Feature, stream: Stream, shift: float, random_numbers: np.random.Generator
) -> FloatArray:
    """A month of increase(…[5m]) per bin (steps, k), over all replicas."""
    rows = random_numbers.poisson(traffic.rate / STEPS_AN_HOUR, STEPS)
    if traffic.kind != "AR(1)":
        seen = random_numbers.binomial(rows, _SEEN)
        if traffic.kind == "independent":
            return random_numbers.multinomial(seen, normal_shares(feature, shift=shift)) / _SEEN
        a_day = np.arange(24 * STEPS_AN_HOUR)
        swing = np.sin(2 * np.pi * (a_day + 0.5) / len(a_day))
        shares = np.array([normal_shares(feature, shift=shift + moved) for moved in swing])
        return random_numbers.multinomial(seen, np.resize(shares, (STEPS, shares.shape[1]))) / _SEEN
    step = np.repeat(np.arange(STEPS), rows)
    place = np.arange(len(step)) - np.repeat(np.cumsum(rows) - rows, rows)
    seen_rows = place >= rows[step] / SCRAPES
    bins = feature.bins.positions(stream.next(len(step))[0] + shift)
    flat = (step * len(feature.counts) + bins)[seen_rows]
    return np.bincount(flat, minlength=STEPS * len(feature.counts)).reshape(STEPS, -1) / _SEEN


def strongest(feature: Feature, counts: FloatArray) -> FloatArray:
    """The highest ratio of PSI to its limit over all windows (steps,), as the rules compute it."""
    reference = feature.reference
    quarters = quarter_of(np.arange(len(counts)) * STEP_SECONDS)
    shares = expected_shares(reference)[quarters] if reference.strata else reference.whole.shares
    hour, foreseen = (_rolled(rows, STEPS_AN_HOUR) for rows in (counts, counts.sum(axis=1)[:, None] * shares))
    hours, foreseen_hours = hour[::STEPS_AN_HOUR], foreseen[::STEPS_AN_HOUR]
    found = np.zeros(len(counts))
    for window in WINDOWS:
        if window.hours == 1:
            ratio = _ratio(hour, foreseen, reference, window.hours)
        else:
            hourly = _ratio(
                _rolled(hours, window.hours), _rolled(foreseen_hours, window.hours), reference, window.hours
            )
            ratio = np.repeat(hourly, STEPS_AN_HOUR)
        found = np.maximum(found, ratio)
    return found


def _rolled(counts: FloatArray, pieces_: int) -> FloatArray:
    sums = np.cumsum(counts, axis=0)
    sums[pieces_:] -= sums[:-pieces_].copy()
    return sums


def _ratio(counts: FloatArray, foreseen: FloatArray, reference: Reference, hours: int) -> FloatArray:
    looks = len(WINDOWS) * LOOKS_PER_WINDOW * BUDGET_DAYS * 24 / hours
    y = 2 * np.log(looks * FEATURES / SHARE_OF_BUDGET) - np.log(2 * np.pi)
    z = np.sqrt(y - np.log(y - np.log(y)))
    k = counts.shape[1]
    variance = 2 / (9 * (k - 1))
    rows = counts.sum(axis=1)
    q = foreseen / np.maximum(rows, 1)[:, None]
    q[rows == 0] = reference.whole.shares
    m = reference.whole.rows * (min(1, hours / 24) if reference.strata else 1)
    p = (counts + 0.5) / (rows + 0.5 * k)[:, None]
    psi = np.sum((p - q) * np.log(p / q), axis=1)
    scale = reference.largest_effect * (1 / _SEEN / np.maximum(rows, 1) + 1 / m)
    chance = scale * (k - 1) * (1 - variance + z * np.sqrt(variance)) ** 3
    limit = (np.sqrt(chance) + np.sqrt(reference.heterogeneity)) ** 2
    return np.where(rows >= ROWS_PER_BIN * k, psi / limit, 0.0)


def alarms(ratio: FloatArray) -> int:
    """How often the alert begins in (steps,)."""
    began, firing = 0, False
    for value in ratio[(ratio > END) | np.concatenate(([False], ratio[:-1] > END))]:
        if not firing and value > 1:
            firing, began = True, began + 1
        elif value <= END:
            firing = False
    return began


def quiet_month(traffic: Traffic, random_numbers: np.random.Generator) -> int:
    """Alarms in a month of 50 features without drift."""
    most = np.zeros(STEPS)
    for _ in range(FEATURES):
        feature, stream = reference_of(traffic, random_numbers)
        most = np.maximum(most, strongest(feature, pieces(traffic, feature, stream, 0.0, random_numbers)))
    return alarms(most)


def hours_until_seen(traffic: Traffic, random_numbers: np.random.Generator) -> float:
    """Hours from when one of the features moved to the alert; infinite where the month ends before."""
    feature, stream = reference_of(traffic, random_numbers)
    over = np.flatnonzero(strongest(feature, pieces(traffic, feature, stream, SHIFT, random_numbers)) > 1)
    return float(over[0] + 1) / STEPS_AN_HOUR if len(over) else float("inf")


@click.command()
@click.option("--months", default=2, show_default=True, type=click.IntRange(1), help="Quiet months of each kind.")
@click.option("--runs", default=9, show_default=True, type=click.IntRange(1), help="Drifting months of each kind.")
def main(months: int, runs: int) -> None:
    """Simulate the rules of DataDriftFleet on 50 features with references of 10,000 rows, and 15 s between scrapes.

    The reference of the season has 240,000, which is what it takes to tell the hours of the day apart.

    Rows of ten replicas are added up by the rules before anything else is done, so that a tenth of the rate in each of
    ten replicas is the rate here. Takes five seconds a month, about.

    \b
    Example, at length:
      .venv/bin/python benchmarks/fleet.py --months 8 --runs 25
    """
    random_numbers = np.random.default_rng(1)
    lines = []
    kinds = [*(Traffic(rate) for rate in RATES), Traffic(AR_RATE, "AR(1)"), Traffic(SEASON_RATE, "season")]
    for traffic in kinds:
        false = 0
        for month in range(months):
            click.echo(f"fleet: {traffic.name}, month {month + 1} of {months}", err=True)
            false += quiet_month(traffic, random_numbers)
        seen = sorted(hours_until_seen(traffic, random_numbers) for _ in range(runs))
        low, high = poisson_bounds(false)
        median = statistics.median(seen)
        lines.append(
            (
                traffic.name, f"{traffic.rate / 10 / STEPS_AN_HOUR:g}", f"{months * SHARE_OF_BUDGET:g}",
                f"{false} ({low:.1f} to {high:.1f})",
                f"{median:.1f} h" if np.isfinite(median) else f"never in {BUDGET_DAYS} days",
            )
        )  # fmt: skip
    header = (
        "all replicas",
        "rows in 5 min, one of ten",
        "allowed",
        "false alarms (95 %)",
        f"+ {SHIFT:g} σ in one seen",
    )
    click.echo(f"\nFleet rules: {months} quiet months and {runs} drifting ones of each kind\n{aligned(header, lines)}")


if __name__ == "__main__":
    main()
