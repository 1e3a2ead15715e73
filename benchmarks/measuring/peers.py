"""Peers whose packages don't go beside ours: each has an environment of its own in PEGEL_CACHE."""

import os
import subprocess
import sys
from pathlib import Path

import click


def python_of(peer: str) -> Path:
    """The Python of `evidently` or `nannyml`, whose environment is built where there is none. Raises ClickException."""
    install = Path(__file__).parents[1] / f"install-{peer}"
    done = subprocess.run(
        [install], env=os.environ | {"PYTHON": sys.executable}, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise click.ClickException(f"the environment of {peer} could not be built")
    return Path(done.stdout.strip(), "bin", "python")
