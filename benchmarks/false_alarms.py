"""False alarms against the stated budget, and how soon drift is seen beside KS, PSI, Evidently and NannyML.

A round takes about two minutes at the default number of windows, and eight with 1,000; the peers take two more.
"""

import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from measuring.delays import AT_MOST, BUDGET, REFERENCES, Delays, correlation_seen
from measuring.figures import aligned
from measuring.peers import python_of
from measuring.quiet import FEATURES, Cell, cells, words

ROWS = 500
PEER_REFERENCE = 10_000
PEER_WINDOWS = {"evidently": 6, "nannyml": 40}
SHIFT = 0.25
DELAYS_A_ROUND = 10
INDEPENDENT_TIMES = 2
"""As many windows of independent rows, which are drawn as counts and cost little."""
_HERE = Path(__file__).parent


def peer(name: str, random_numbers: np.random.Generator) -> list[str]:
    """A line of what a peer's defaults say of quiet windows, and of windows whose first feature has moved."""
    python = python_of(name)
    with tempfile.TemporaryDirectory(prefix="pegel-bench-") as folder:
        windows = PEER_WINDOWS[name]
        click.echo(f"false alarms: {name}, {windows} windows twice", err=True)
        np.save(Path(folder, "reference.npy"), random_numbers.normal(size=(PEER_REFERENCE, FEATURES)))
        np.save(Path(folder, "quiet.npy"), random_numbers.normal(size=(windows, ROWS, FEATURES)))
        drifted = random_numbers.normal(size=(windows, ROWS, FEATURES))
        drifted[:, :, 0] += SHIFT
        np.save(Path(folder, "drifted.npy"), drifted)
        done = subprocess.run(
            [python, _HERE / "contenders" / f"{name}_windows.py", folder],
            env=os.environ | {"PYTHONPATH": str(_HERE), "DO_NOT_TRACK": "1"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode != 0:
        raise click.ClickException(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    quiet, moved = found["quiet"], found["drifted"]
    return [name, f"{quiet['any']} of {quiet['windows']}", f"{moved['first']} of {moved['windows']}"]


def a_round(measured: list[Cell], delays: Delays, windows: int, random_numbers: np.random.Generator) -> None:
    """A new reference for each cell, and a few for the delays."""
    for number, cell in enumerate(measured):
        if cell.known:
            click.echo(
                f"false alarms: {number + 1} of {len(measured)}: {cell.kind}, {cell.rows} rows a window", err=True
            )
            cell.run(windows * (INDEPENDENT_TIMES if cell.kind == "independent" else 1), random_numbers)
    for number in range(DELAYS_A_ROUND):
        click.echo(f"false alarms: delays, {number + 1} of {DELAYS_A_ROUND}", err=True)
        delays.run(random_numbers)


@click.command()
@click.option(
    "--seconds", default=100.0, envvar="BENCH_SECONDS", show_default=True, show_envvar=True, type=click.FloatRange(1),
    help="No round begins that would end later than this; one is run in any case.",
)  # fmt: skip
@click.option(
    "--windows", default=200, show_default=True, type=click.IntRange(1),
    help="Windows after each reference; twice as many of independent rows.",
)  # fmt: skip
@click.option("--peers/--no-peers", default=True, show_default=True, help="Whether Evidently and NannyML take part.")
def main(seconds: float, windows: int, peers: bool) -> None:
    """Count false alarms of Pegel's data drift on 50 features, and the windows until drift is seen.

    A budget is the whole model's, as a user sets it; the data has a quarter of it, with which its alarms are compared.
    Evidently and NannyML get environments of their own (1 GB each) in PEGEL_CACHE, at the first run. A round takes
    about two minutes at 200 windows and eight at 1,000, the peers two.

    \b
    Example, all of it at length:
      .venv/bin/python benchmarks/false_alarms.py --windows 1000 --seconds 300
    """
    random_numbers = np.random.default_rng(1)
    measured, delays = cells(), Delays()
    rounds, began, longest = 0, time.monotonic(), 0.0
    while not rounds or time.monotonic() - began + longest <= seconds:
        round_began = time.monotonic()
        a_round(measured, delays, windows, random_numbers)
        rounds += 1
        longest = max(longest, time.monotonic() - round_began)
    click.echo(
        f"\nFalse alarms: {FEATURES} features, {rounds} {'reference' if rounds == 1 else 'references'} in each line;"
        f" 'allowed' is the data's quarter of the model's budget\n{words(measured)}"
    )
    click.echo(
        f"\nDelay: windows of {ROWS} rows until drift is seen, median over {rounds * DELAYS_A_ROUND} references;"
        f" all with one false alarm in {BUDGET:,.0f} windows, never: not in {AT_MOST}\n{delays.words()}"
    )
    if later := delays.later():
        click.echo("later than the better test by more than a window: " + "; ".join(later))
    joint = {rows: [correlation_seen(rows, random_numbers) for _ in range(DELAYS_A_ROUND)] for rows in REFERENCES}
    said = (
        f"{statistics.median(found):g}" if statistics.median(found) <= AT_MOST else "not seen"
        for found in joint.values()
    )
    click.echo(
        "correlation of a pair of ten features 0.8 to 0.4, references of "
        + ", ".join(f"{rows:,}: {word}" for rows, word in zip(joint, said, strict=True))
    )
    if peers:
        header = ("with their defaults", "quiet windows with drift", f"windows that see + {SHIFT:g} σ in one feature")
        lines = [peer(name, np.random.default_rng(2)) for name in PEER_WINDOWS]
        click.echo(f"\nPeers: windows of {ROWS} rows, reference {PEER_REFERENCE:,}\n{aligned(header, lines)}")


if __name__ == "__main__":
    main()
