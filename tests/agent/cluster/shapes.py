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

PORT = "{name: http, containerPort: 8080}"
MODEL = f"containers: [{{name: model, ports: [{PORT}]}}]"


def shape(name: str) -> str:
    """The manifest of a shape."""
    return next(path for path in SHAPES if path.stem == name).read_text(encoding="utf-8")


def deployment(spec: str, annotations: str = "{}") -> str:
    """A Deployment whose pods have a spec."""
    return f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: scorer, namespace: shop}}
spec:
  template:
    metadata: {{labels: {{app: scorer}}, annotations: {annotations}}}
    spec: {spec}
"""


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
