"""How fast the analyser takes in exchanges, and its memory. Takes three times --seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
from measuring.figures import aligned

COLUMNS = 50
ROWS = (1, 8, 64)
_HERE = Path(__file__).parent


@click.command()
@click.option("--seconds", default=5.0, show_default=True, type=click.FloatRange(1), help="For each size.")
def main(seconds: float) -> None:
    """Measure exchanges of TensorFlow Serving's protocol with 50 features: JSON, bins, windows of 500 rows.

    Seconds are of processor time. Bytes come from memory: what the tap adds is measured by benchmarks/tap.py.

    \b
    Example:
      .venv/bin/python benchmarks/analyser.py --seconds 20
    """
    lines = []
    for rows in ROWS:
        click.echo(f"analyser: {rows} rows an exchange", err=True)
        done = subprocess.run(
            [sys.executable, _HERE / "contenders" / "pegel_updates.py", str(rows), str(seconds)],
            env=os.environ | {"PYTHONPATH": str(_HERE)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise click.ClickException(f"it failed: {done.stderr.strip().splitlines()[-1:]}")
        found = json.loads(done.stdout)
        rate = found["rate"]
        lines.append(
            (
                str(rows), f"{rate:,.0f}", f"{rate * rows:,.0f}", f"{rate * rows * COLUMNS / 1e6:.2f} million",
                f"{found['peak']:.0f} MiB",
            )
        )  # fmt: skip
    header = ("rows an exchange", "exchanges a second", "rows", "values", "memory at its peak")
    click.echo(f"\nThe analyser, {COLUMNS} features, on one core\n{aligned(header, lines)}")


if __name__ == "__main__":
    main()
