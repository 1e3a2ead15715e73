"""promtool, and what its `test rules` is asked in these tests."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """promtool's answer. Without promtool the test is skipped, in CI it fails."""
    promtool = shutil.which("promtool")
    if promtool is None:
        message = "promtool is missing: apt-get install prometheus"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return subprocess.run([promtool, *map(str, arguments)], capture_output=True, text=True, check=False)


def model(name: str, *, metric: str, replica: int = 0, **labels: str) -> str:
    """A series of one replica as a scrape would name it."""
    own = {
        "model_name": name, "model_version": "3", "namespace": "shop", "pod": f"{name}-{replica}", "job": "pegel",
        **labels,
    }  # fmt: skip
    return f"{metric}{{{','.join(f'{key}={value!r}' for key, value in own.items())}}}"


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
