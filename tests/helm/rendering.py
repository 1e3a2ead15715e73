"""helm, and the render matrix: the chart with the values of each file in `values/`, as users of that kind set them."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any, ClassVar

import yaml

from tests.apiserver.binaries import binary

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "pegel"
VALUES = Path(__file__).with_name("values")
GOLDEN = Path(__file__).with_name("golden")
NAMES = sorted(path.stem for path in VALUES.glob("*.yaml"))
"""The matrix' entries."""

OPERATOR = [f"monitoring.coreos.com/v1/{kind}" for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule")]
_KNOWS_OPERATOR = {"kube-prometheus-stack", "no-gpu", "simulate"}


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """helm's answer. It is given no cluster."""
    return subprocess.run(
        [binary("helm"), *map(str, arguments)],
        capture_output=True, text=True, check=False, env={**os.environ, "KUBECONFIG": os.devnull},
    )  # fmt: skip


def template(*arguments: str | Path, chart: Path = CHART) -> str:
    """What the chart renders as release `pegel` in namespace `pegel`. AssertionError with helm's words if it won't."""
    answer = helm("template", "pegel", chart, "--namespace", "pegel", *arguments)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def refusal(*arguments: str | Path) -> str:
    """What helm says when it won't render."""
    answer = helm("template", "pegel", CHART, *arguments)
    assert answer.returncode != 0, "helm renders it"
    return answer.stderr


def operator_arguments() -> list[str]:
    """What stands for a cluster that knows the Prometheus operator."""
    return [word for version in OPERATOR for word in ("--api-versions", version)]


def arguments(name: str) -> list[str | Path]:
    """helm's arguments for an entry of the matrix."""
    return ["--values", VALUES / f"{name}.yaml", *(operator_arguments() if name in _KNOWS_OPERATOR else [])]


def render(name: str) -> str:
    """The manifests of an entry of the matrix."""
    return template(*arguments(name))


def renders() -> list[tuple[str, str]]:
    """Each entry of the matrix with its manifests. All objects that have a namespace are in `pegel`."""
    return [(name, render(name)) for name in NAMES]


class Loader(yaml.SafeLoader):
    """YAML as Kubernetes' tools read it: to them y is a boolean and 1e3 a number too, to PyYAML text."""

    bool_values: ClassVar = {**yaml.SafeLoader.bool_values, "y": True, "n": False}


Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^[yYnN]$"), list("yYnN"))
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile("^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def objects(manifests: str) -> list[dict[str, Any]]:
    """The objects in manifests."""
    return [document for document in yaml.load_all(manifests, Loader) if document]


def of_kind(manifests: str, kind: str) -> list[dict[str, Any]]:
    """The objects of one kind in manifests."""
    return [document for document in objects(manifests) if document["kind"] == kind]


def changes(path: Path, text: str) -> bool:
    """Whether a committed file differs from what it should be. With PEGEL_WRITE_CHART=1 it is written first."""
    if os.environ.get("PEGEL_WRITE_CHART"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return not path.exists() or path.read_text(encoding="utf-8") != text
