"""`pegel check` beside Evidently: whole processes, from the start of Python to the verdict on a file.

Takes about three minutes, most of it Evidently's; a batch is left out where the one before it took too long.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measuring.figures import aligned
from measuring.peers import python_of

REFERENCE = 10_000
SIZES = ((50, 10_000), (50, 100_000), (200, 10_000), (200, 100_000))
_HERE = Path(__file__).parent
_DRIFT = 1


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a process: processor time, time on the clock, and the most resident memory."""

    cpu_seconds: float
    seconds: float
    peak_mib: float

    def __str__(self) -> str:
        return f"{self.cpu_seconds:.2f} s, {self.peak_mib:,.0f} MiB"


def cost(*command: str | Path) -> Cost:
    """Run a command to its end. Raises ClickException where it fails; 1 says that it found drift."""
    began = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | {"DO_NOT_TRACK": "1"}
    )
    assert process.stderr is not None
    said = process.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode not in {0, _DRIFT} or "Traceback" in said:
        raise click.ClickException(f"{command[0]} failed: {said.strip().splitlines()[-1:]}")
    return Cost(usage.ru_utime + usage.ru_stime, time.monotonic() - began, usage.ru_maxrss / 1024)


def write(path: Path, columns: int, rows: int, random_numbers: np.random.Generator, *, shift: float = 0.0) -> None:
    """Half the columns normal, half log-normal; the first has moved."""
    values = random_numbers.normal(size=(columns, rows))
    values[0] += shift
    values[columns // 2 :] = np.exp(values[columns // 2 :])
    pq.write_table(pa.table({f"f{number}": column for number, column in enumerate(values)}), path)


@click.command()
@click.option(
    "--seconds", default=100.0, envvar="BENCH_SECONDS", show_default=True, show_envvar=True, type=click.FloatRange(1),
    help="No batch is begun after this; the first is in any case.",
)  # fmt: skip
def main(seconds: float) -> None:
    """Measure processor time and peak memory of `pegel check` and of Evidently's DataDriftPreset on the same Parquet.

    Both start anew for each batch, and the reference has 10,000 rows: a profile for Pegel, the rows themselves for
    Evidently, which gets an environment of its own (about 1 GB) in PEGEL_CACHE at the first run.

    \b
    Example, all sizes:
      .venv/bin/python benchmarks/check.py --seconds 600
    """
    evidently = python_of("evidently")
    pegel = Path(sys.executable).with_name("pegel")
    random_numbers = np.random.default_rng(1)
    lines: list[tuple[str, ...]] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pegel-bench-") as name:
        folder = Path(name)
        reference, batch, profile = (folder / file for file in ("reference.parquet", "batch.parquet", "profile.json"))
        for columns, rows in SIZES:
            if lines and time.monotonic() - began > seconds:
                click.echo(f"check: {columns} columns, {rows:,} rows left out: the time is over", err=True)
                continue
            click.echo(f"check: {columns} columns, {rows:,} rows", err=True)
            write(reference, columns, REFERENCE, random_numbers)
            write(batch, columns, rows, random_numbers, shift=0.25)
            cost(pegel, "profile", "build", reference, "-o", profile)
            mine = cost(pegel, "check", "--profile", profile, batch)
            theirs = cost(evidently, _HERE / "contenders" / "evidently_check.py", reference, batch)
            lines.append(
                (
                    f"{columns} × {rows:,}", str(mine), str(theirs), f"1/{theirs.cpu_seconds / mine.cpu_seconds:.0f}",
                    f"1/{theirs.peak_mib / mine.peak_mib:.1f}",
                )
            )  # fmt: skip
    header = ("columns × rows", "pegel check", "Evidently", "processor time", "memory")
    click.echo(f"\nA check of one file: processor time and peak memory of a whole process\n{aligned(header, lines)}")


if __name__ == "__main__":
    main()
