"""Drift of 50 features against Evidently: the same rows, in turns, each in a process and an environment of its own."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from measuring.figures import Figure, median_and_spread, table
from measuring.peers import python_of

FEATURES = 50
ROWS = {"reference": 10_000, "batch": 10_000, "window": 500}
BUDGET = 300
_HERE = Path(__file__).parent

Found = dict[str, float]


def write_rows(folder: Path) -> None:
    """Half the features normal, half log-normal; the first has moved by half a standard deviation."""
    random_numbers = np.random.default_rng(1)
    for name, count in ROWS.items():
        rows = random_numbers.normal(size=(count, FEATURES))
        if name != "reference":
            rows[:, 0] += 0.5
        rows[:, FEATURES // 2 :] = np.exp(rows[:, FEATURES // 2 :])
        np.save(folder / f"{name}.npy", rows)


def run(python: Path, contender: str, folder: Path) -> Found:
    """One contender in a fresh process. Raises ClickException when it fails."""
    done = subprocess.run(
        [python, _HERE / "contenders" / f"{contender}.py", folder],
        # Bytecode is kept, as in an image: else every import would be a compilation.
        env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        | {"PYTHONPATH": str(_HERE), "DO_NOT_TRACK": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise click.ClickException(f"{contender} failed: {done.stderr.strip().splitlines()[-1:]}")
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def figures(pegel: Sequence[Found], evidently: Sequence[Found]) -> list[Figure]:
    """What all rounds came to."""
    lines = []
    for name in ("batch", "window"):
        ratios = [theirs[name] / mine[name] for mine, theirs in zip(pegel, evidently, strict=True)]
        mine = statistics.median(one[name] for one in pegel) * 1e3
        theirs = statistics.median(one[name] for one in evidently)
        lines.append(
            Figure(
                f"drift of {FEATURES} features, {ROWS[name]:,} rows", f"1/{BUDGET} of Evidently's time",
                f"1/{median_and_spread(ratios, 0)}: {mine:.1f} ms to {theirs:.2f} s; "
                f"{pegel[0][f'{name} drifted']:.0f} to {evidently[0][f'{name} drifted']:.0f} found drifted",
                statistics.median(ratios) >= BUDGET,
            )
        )  # fmt: skip
    lines.append(
        Figure(f"the reference, once, {ROWS['reference']:,} rows", "",
               f"{median_and_spread([one['reference'] * 1e3 for one in pegel], 0)} ms; Evidently's reads it every time")
    )  # fmt: skip
    for what, name, unit, digits in (("import", "import", "s", 2), ("memory at its peak", "peak", "MiB", 0)):
        both = [median_and_spread([one[name] for one in side], digits) for side in (pegel, evidently)]
        lines.append(Figure(what, "", f"{both[0]} {unit} to {both[1]} {unit}"))
    return lines


@click.command()
@click.option(
    "--seconds", default=100.0, envvar="BENCH_SECONDS", show_default=True, show_envvar=True, type=click.FloatRange(1),
    help="No round begins that would end later than this; one is run in any case.",
)  # fmt: skip
def main(seconds: float) -> None:
    """Measure Pegel's bins, distances and detector next to Evidently's Report with DataDriftPreset.

    Evidently gets an environment of its own (about 1 GB) in PEGEL_CACHE, at the first run.

    \b
    Example, a single round:
      .venv/bin/python benchmarks/drift.py --seconds 1
    """
    python = python_of("evidently")
    pegel: list[Found] = []
    evidently: list[Found] = []
    with tempfile.TemporaryDirectory(prefix="pegel-bench-") as name:
        folder = Path(name)
        write_rows(folder)
        began, longest = time.monotonic(), 0.0
        while not pegel or time.monotonic() - began + longest <= seconds:
            round_began = time.monotonic()
            click.echo(f"drift: round {len(pegel) + 1}, {round_began - began:.0f} of {seconds:.0f} s", err=True)
            pegel.append(run(Path(sys.executable), "pegel_drift", folder))
            evidently.append(run(python, "evidently_drift", folder))
            longest = max(longest, time.monotonic() - round_began)
    rounds = "1 round" if len(pegel) == 1 else f"{len(pegel)} rounds"
    click.echo(f"\nDrift: {rounds}, each in fresh processes\n{table(figures(pegel, evidently))}")


if __name__ == "__main__":
    main()
