"""Pods in the shapes that people give them, each a file in shapes/, and what injection makes of them.

A first line `# options: …` is what the command is given.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pegel_agent.cli.main import pegel

SHAPES = sorted(Path(__file__).with_name("shapes").glob("*.yaml"))
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda path: path.stem)


def options(shape: Path) -> list[str]:
    first = shape.read_text(encoding="utf-8").partition("\n")[0]
    return shlex.split(first.removeprefix("# options:")) if first.startswith("# options:") else []


def run(text: str, arguments: Sequence[str] = ()) -> Result:
    """`pegel inject -f -` on a text. Its return value is the exit code, a UserError the result's exception."""
    arguments = ["inject", "-f", "-", *arguments]
    return CliRunner().invoke(pegel, arguments, input=text, prog_name="pegel", standalone_mode=False)


def injected(text: str, arguments: Sequence[str] = ()) -> str:
    """The manifest that the command prints."""
    result = run(text, arguments)
    assert result.exception is None, result.exception
    return result.stdout
