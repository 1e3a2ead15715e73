"""promtool, and what its `test rules` is asked in these tests."""

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from pegel_exporters.catalogue import CATALOGUE


@functools.cache
def promtools() -> tuple[str, ...]:
    """Debian's promtool and a current one: ranges include their left end in the one and not in the other. Where one is
    missing the test is skipped, in CI it fails."""
    debians = shutil.which("promtool")
    built = subprocess.run(
        [Path(__file__).with_name("install-promtool"), "--where"], capture_output=True, text=True, check=False
    )
    if debians is None or built.returncode:
        message = built.stderr if debians else "promtool is missing: apt-get install prometheus"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return debians, built.stdout.strip()


@pytest.fixture
def debians_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's promtool alone: a current one leaves out a range's left end, and the expected counts here include it."""
    monkeypatch.setattr(sys.modules[__name__], "promtools", functools.partial(_first, promtools))


def _first(tools: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
    return tools()[:1]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What both say, as one: what is wrong by either is wrong."""
    running = [
        subprocess.Popen([tool, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for tool in promtools()
    ]
    said = [(*one.communicate(), one.returncode) for one in running]
    out, err = ("".join(text) for text in zip(*((out, err) for out, err, _ in said), strict=True))
    return subprocess.CompletedProcess([*map(str, arguments)], max(code for _, _, code in said), out, err)


METRICS = {metric.name: metric for metric in CATALOGUE}


TARGET = {"cluster", "namespace", "node", "pod", "instance", "job"}


def series(metric: str, labels: Mapping[str, str]) -> str:
    """A series as a scrape would name it; AssertionError for labels that neither the product nor a target has.

    Empty labels are none, as Prometheus has it. `up` is what Prometheus itself says of a target.
    """
    published = set() if metric == "up" else set(METRICS[metric].labels)
    of_pods = {"namespace", "pod"} & published  # whose labels are honoured
    assert set(labels) - TARGET | of_pods == published, f"{metric} has the labels {published}"
    return f"{metric}{{{','.join(f'{key}={value!r}' for key, value in labels.items() if value)}}}"


def model(name: str, *, metric: str, replica: int = 0, **labels: str) -> str:
    """A series of one replica as a scrape would name it."""
    target = {"namespace": "shop", "pod": f"{name}-{replica}", "instance": f"{name}-{replica}:9466", "job": "pegel"}
    said = {} if metric == "up" else {"model_name": name, "model_version": "3"}
    return series(metric, said | target | labels)


def gpu(metric: str, number: int = 0, **labels: str) -> str:
    """A series of a node's exporter as a scrape would name it; of its GPU of this number, where the metric has GPUs."""
    target = {"namespace": "pegel", "node": "node-1", "instance": "node-1", "pod": "exporter-a"}
    of = {"gpu": str(number), "uuid": f"GPU-{number}"} if metric != "up" and "uuid" in METRICS[metric].labels else {}
    return series(metric, {key: value for key, value in of.items() if key in METRICS[metric].labels} | target | labels)


@dataclass(frozen=True, kw_only=True)
class Firing:
    """Which models an alert fires for after so many minutes; or what else it tells apart `by`."""

    minute: int
    alert: str
    models: Sequence[str]
    by: str = "model_name"


def check(
    folder: Path,
    *,
    series: Mapping[str, str],
    firing: Sequence[Firing] = (),
    extra: Mapping[str, Any] | None = None,
    interval: str = "1m",
    evaluation: str = "1m",
) -> str:
    """Run every rule file of the folder on series (a value an interval); empty when all is as expected, else what
    differs.

    promtool evaluates all groups at the one interval that it is given, whatever their own. `extra` are further parts
    of its test, such as `alert_rule_test`.
    """
    files = sorted(str(path) for path in folder.glob("*.yaml"))
    groups = [group["name"] for file in files for group in yaml.safe_load(Path(file).read_text())["groups"]]
    expressions = [
        {
            "expr": f'count by ({expected.by}) (ALERTS{{alertname="{expected.alert}",alertstate="firing"}})',
            "eval_time": f"{expected.minute}m",
            "exp_samples": [{"labels": f'{{{expected.by}="{name}"}}', "value": 1} for name in expected.models],
        }
        for expected in firing
    ]
    test = {
        "interval": interval,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": expressions,
        **(extra or {}),
    }
    path = folder / "case.test"
    # Thresholds first, as a Prometheus that runs has long had them. JSON is YAML, and read and written far faster.
    order = sorted(groups, key=lambda name: name != "pegel-thresholds")
    path.write_text(
        json.dumps({"rule_files": files, "evaluation_interval": evaluation, "group_eval_order": order, "tests": [test]})
    )
    answer = run("test", "rules", path)
    return "" if answer.returncode == 0 else answer.stdout + answer.stderr
