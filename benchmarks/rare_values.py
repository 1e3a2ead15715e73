"""How often `pegel check` calls a batch drift that has none, where most values are rare: is --alpha kept?

All kinds and sizes with 20,000 batches each take about an hour on a core; the default is a bounded sample.
"""

import time
from collections.abc import Callable

import click
import numpy as np
from measuring.figures import aligned
from pegel_agent.reference.columns import Column, count_columns, learn_feature
from pegel_agent.statistics.batch_test import Counts, compare
from scipy import stats

FEATURES = 10
BATCH_ROWS = (20, 100, 1_000)
REFERENCE_ROWS = (10_000, 2_000, 500)
PER_REFERENCE = 20
ALPHA = 0.001

Draw = Callable[[np.random.Generator, int], Column]
_NAMES = np.array(["a", "b", "c", "d", "e", "f"], dtype=object)
KINDS: dict[str, Draw] = {
    "12 ones in 10,000": lambda random, rows: (random.random(rows) < 0.0012).astype(float),
    "1 one in 10,000": lambda random, rows: (random.random(rows) < 0.0001).astype(float),
    "counts, Poisson 0.05": lambda random, rows: random.poisson(0.05, rows).astype(float),
    "counts, Poisson 2": lambda random, rows: random.poisson(2, rows).astype(float),
    "0.1 % missing": lambda random, rows: np.where(random.random(rows) < 0.001, np.nan, random.normal(size=rows)),
    "99 % zeros": lambda random, rows: np.where(random.random(rows) < 0.99, 0.0, random.lognormal(size=rows)),
    "rare categories": lambda random, rows: random.choice(_NAMES, rows, p=[0.95, 0.04, 0.008, 0.001, 0.0007, 0.0003]),
    "many categories": lambda random, rows: np.array([f"w{rank}" for rank in random.zipf(1.5, rows)], dtype=object),
}


def alarms(draw: Draw, *, reference_rows: int, batch_rows: int, batches: int) -> int:
    """How many quiet batches of ten features are drift, with a new reference for every twenty."""
    random_numbers = np.random.default_rng([reference_rows, batch_rows])
    found = 0
    for number in range(batches):
        if number % PER_REFERENCE == 0:
            columns = (draw(random_numbers, reference_rows) for _ in range(FEATURES))
            features = [one for column in columns if (one := learn_feature("x", "input", column)) is not None]
        counted = {
            str(place): Counts(
                count_columns(feature, draw(random_numbers, batch_rows))[0],
                np.array(feature.counts),
                feature.bins.slots,
            )
            for place, feature in enumerate(features)
        }
        found += any(one.drifted for one in compare(counted, alpha=ALPHA, psi_floor=0).values())
    return found


@click.command()
@click.option("--batches", default=1_000, show_default=True, type=click.IntRange(1), help="Of each kind and size.")
@click.option("--kind", multiple=True, type=click.Choice(list(KINDS)), help="Only this one; may be repeated.")
@click.option("--reference", multiple=True, type=int, help="Reference rows; may be repeated.")
@click.option(
    "--seconds", default=100.0, envvar="BENCH_SECONDS", show_default=True, show_envvar=True, type=click.FloatRange(1),
    help="No kind is begun after this; the first is in any case.",
)  # fmt: skip
def main(batches: int, kind: tuple[str, ...], reference: tuple[int, ...], seconds: float) -> None:
    """Count false alarms of `pegel check` at alpha 0.001, without a floor, in quiet batches with ten rare features.

    \b
    Example, all of the table in docs/statistics.md:
      .venv/bin/python benchmarks/rare_values.py --batches 20000 --reference 10000 --seconds 7200
    """
    lines: list[tuple[str, ...]] = []
    began = time.monotonic()
    for rows in reference or REFERENCE_ROWS:
        for name in kind or KINDS:
            if lines and time.monotonic() - began > seconds:
                click.echo(f"rare values: {name}, {rows:,} reference rows left out: the time is over", err=True)
                continue
            found = [alarms(KINDS[name], reference_rows=rows, batch_rows=size, batches=batches) for size in BATCH_ROWS]
            lines.append((name, f"{rows:,}", *map(str, found)))
            click.echo(f"rare values: {' | '.join(lines[-1])}", err=True)
    most = int(stats.binom.ppf(0.95, batches, ALPHA))
    header = ("ten features of", "reference rows", *(f"{size:,} rows" for size in BATCH_ROWS))
    click.echo(
        f"\nDrift in {batches:,} quiet batches at alpha {ALPHA}; {ALPHA * batches:g} are allowed on average, and up to"
        f" {most} by chance\n{aligned(header, lines)}"
    )


if __name__ == "__main__":
    main()
