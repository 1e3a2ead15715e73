"""Accuracy expected without labels against what it turned out to be, beside NannyML's CBPE. Takes half a minute."""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from measuring.figures import aligned
from measuring.peers import python_of
from pegel_agent.reference.performance import Performance, PerformanceCollector
from pegel_agent.statistics.estimation import expected_accuracy
from pegel_agent.statistics.slots import FloatArray
from scipy.special import expit

REFERENCE = 10_000
ROWS = 1_000
WINDOWS = 20
_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class World:
    """Normal inputs with this mean and spread; `slope` is how much the label still follows them, 1 on the reference."""

    name: str
    mean: float = 0.0
    spread: float = 1.0
    slope: float = 1.0


WORLDS = (
    World("as the reference"),
    World("inputs + 1 σ", mean=1.0),
    World("inputs nearer to the border", spread=0.5),
    World("inputs wider", spread=1.5),
    World("the label follows the inputs half as much", slope=0.5),
)


def rows_of(world: World, rows: int, random_numbers: np.random.Generator) -> FloatArray:
    """Score, prediction and label (rows, 3) of a model that is too sure of itself."""
    inputs = random_numbers.normal(world.mean, world.spread, rows)
    score = expit(3 * inputs)
    label = random_numbers.random(rows) < expit(1.8 * world.slope * inputs)
    return np.column_stack((score, score >= 0.5, label)).astype(np.float64)


def performance_of(rows: FloatArray) -> Performance:
    """What `pegel profile build` says of these rows."""
    collector = PerformanceCollector("label", "predicted", "score")
    collector.add({"score": rows[:, 0], "predicted": rows[:, 1], "label": rows[:, 2]})
    found = collector.result()
    assert found is not None
    return found


def pegel(performance: Performance, windows: FloatArray) -> list[float]:
    """The accuracy to expect of each window (windows, rows, 3)."""
    curve = performance.scores
    assert curve is not None
    found = []
    for window in windows:
        counts = curve.bins.counts(window[:, 0])
        estimate = expected_accuracy(counts[:-1], np.array(curve.rows[:-1]), np.array(curve.right[:-1]))
        assert estimate is not None
        found.append(estimate.accuracy)
    return found


def nannyml(reference: FloatArray, windows: FloatArray) -> list[float]:
    """The same by CBPE, in NannyML's environment."""
    python = python_of("nannyml")
    with tempfile.TemporaryDirectory(prefix="pegel-bench-") as folder:
        np.save(Path(folder, "reference.npy"), reference)
        np.save(Path(folder, "windows.npy"), windows)
        done = subprocess.run(
            [python, _HERE / "contenders" / "nannyml_accuracy.py", folder],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode != 0:
        raise click.ClickException(f"NannyML failed: {done.stderr.strip().splitlines()[-1:]}")
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def line(world: World, realised: Sequence[float], mine: Sequence[float], theirs: Sequence[float]) -> tuple[str, ...]:
    """What was, what was expected, and the mean absolute errors of the expectations."""
    was = np.asarray(realised)
    errors = (float(np.abs(np.asarray(expected) - was).mean()) for expected in (mine, theirs))
    means = (f"{np.mean(values):.3f}" for values in (was, mine, theirs))
    return (world.name, *means, *(f"{error:.4f}" for error in errors))


@click.command()
def main() -> None:
    """Estimate accuracy from scores alone, in windows whose labels are known to the benchmark.

    NannyML gets an environment of its own (about 1 GB) in PEGEL_CACHE, at the first run. Takes half a minute then.

    \b
    Example:
      .venv/bin/python benchmarks/accuracy.py
    """
    random_numbers = np.random.default_rng(1)
    reference = rows_of(WORLDS[0], REFERENCE, random_numbers)
    windows = {world: np.array([rows_of(world, ROWS, random_numbers) for _ in range(WINDOWS)]) for world in WORLDS}
    together = np.concatenate(list(windows.values()))
    click.echo("accuracy: Pegel, then NannyML", err=True)
    mine, theirs = pegel(performance_of(reference), together), nannyml(reference, together)
    realised = (together[:, :, 1] == together[:, :, 2]).mean(axis=1)
    lines = [
        line(world, *(values[at * WINDOWS : (at + 1) * WINDOWS] for values in (realised, mine, theirs)))
        for at, world in enumerate(WORLDS)
    ]
    header = ("the world", "accuracy", "Pegel expects", "NannyML expects", "Pegel's error", "NannyML's error")
    click.echo(
        f"\nExpected accuracy: {WINDOWS} windows of {ROWS:,} rows in each line, reference {REFERENCE:,};"
        f" errors are mean absolute ones of a window\n{aligned(header, lines)}"
    )


if __name__ == "__main__":
    main()
