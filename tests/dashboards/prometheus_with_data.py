"""A real Prometheus that holds series which a test has made up."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

START = 1_704_067_200  # 2024-01-01
STEP_SECONDS = 15
SAMPLES = 41
END = START + (SAMPLES - 1) * STEP_SECONDS

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Series:
    """A name, labels, the first value and by how much each second adds to it."""

    name: str
    labels: Labels
    value: float
    per_second: float = 0.0

    def lines(self) -> Iterator[str]:
        labels = ",".join(f'{key}="{value}"' for key, value in self.labels.items())
        for moment in range(START, END + 1, STEP_SECONDS):
            yield f"{self.name}{{{labels}}} {self.value + self.per_second * (moment - START)} {moment}\n"


class Prometheus:
    """Answers queries as of the last sample that was made up, or as of now."""

    def __init__(self, url: str, at: int | None = END) -> None:
        self._url = url
        self._at = {} if at is None else {"time": at}

    def query(self, expression: str) -> dict[frozenset[tuple[str, str]], float]:
        """Values by label pairs, the metric's name left out. A query that Prometheus refuses is a HTTPError."""
        result = self._get("query", {"query": expression, **self._at})["result"]
        return {
            frozenset((key, value) for key, value in sample["metric"].items() if key != "__name__"): float(
                sample["value"][1]
            )
            for sample in result
        }

    def label_values(self, label: str, selector: str) -> list[str]:
        return self._get(f"label/{label}/values", {"match[]": selector, "start": START, "end": END})

    def _get(self, path: str, parameters: Mapping[str, Any]) -> Any:
        with urlopen(f"{self._url}/api/v1/{path}?{urlencode(parameters)}", timeout=20) as answer:
            return json.load(answer)["data"]


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        message = f"{name} is missing: apt-get install prometheus"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return path


@contextmanager
def prometheus(folder: Path, series: Sequence[Series]) -> Iterator[Prometheus]:
    """Run Prometheus on the series for as long as the context lasts."""
    page, data = folder / "page.txt", folder / "data"
    page.write_text("".join(line for each in series for line in each.lines()) + "# EOF\n")
    promtool = [_program("promtool"), "tsdb", "create-blocks-from", "openmetrics", str(page), str(data)]
    subprocess.run(promtool, check=True, capture_output=True)
    with _running(folder, {}, data) as url:
        yield Prometheus(url)


@contextmanager
def prometheus_scraping(folder: Path, *targets: str) -> Iterator[Prometheus]:
    """Run Prometheus that scrapes the targets (HOST:PORT) every second for as long as the context lasts."""
    job = {"job_name": "pegel", "honor_labels": True, "static_configs": [{"targets": list(targets)}]}
    settings = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
    with _running(folder, settings, folder / "data") as url:
        yield Prometheus(url, at=None)


@contextmanager
def _running(folder: Path, configuration: Mapping[str, Any], data: Path) -> Iterator[str]:
    settings = folder / "prometheus.yml"
    settings.write_text(json.dumps(configuration))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [
                _program("prometheus"),
                f"--config.file={settings}",
                f"--storage.tsdb.path={data}",
                f"--web.listen-address={address}",
            ],
            stderr=log,
        )
        try:
            _wait_until_ready(process, f"http://{address}", folder / "log.txt")
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(20)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(300):
        if process.poll() is not None:
            break
        try:
            with urlopen(f"{url}/-/ready", timeout=5):
                return
        except URLError:
            time.sleep(0.1)
    pytest.fail(f"prometheus did not become ready:\n{log.read_text()}")
