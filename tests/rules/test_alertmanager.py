"""The example for Alertmanager, on a real one: one fault makes one page."""

import contextlib
import json
import os
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from pegel_rules import Alert, Settings, groups

from tests.agent.sidecar.tap.tap_process import free_ports, until

pytestmark = pytest.mark.integration

EXAMPLE = Path(__file__).parents[2] / "docs/alertmanager.yaml"
ALERTS = {rule.name: rule for group in groups(Settings()) for rule in group.rules if isinstance(rule, Alert)}
MODEL = {"cluster": "a", "namespace": "shop", "model_name": "churn", "model_version": "3"}
GPU = {"cluster": "a", "namespace": "pegel", "node": "node-1", "instance": "node-1", "gpu": "0", "uuid": "GPU-0"}


def need(*names: str) -> str:
    """The first program of these names that is there; without one the test is skipped, in CI it fails."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        message = f"{names[0]} is missing: apt-get install prometheus-alertmanager"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return found


class Alertmanager:
    """One that runs with the example, and what it has sent to each receiver."""

    def __init__(self, url: str, pages: list[tuple[str, list[str]]]) -> None:
        self.url = url
        self.pages = pages

    def tell(self, *names: str, labels: dict[str, str]) -> None:
        """Alerts as Prometheus would send them."""
        alerts = [{"labels": {"alertname": name, "severity": ALERTS[name].severity, **labels}} for name in names]
        body = json.dumps(alerts).encode()
        asked = urllib.request.Request(
            f"{self.url}/api/v2/alerts", body, {"Content-Type": "application/json"}, method="POST"
        )
        urllib.request.urlopen(asked, timeout=10).close()


@contextlib.contextmanager
def alertmanager(folder: Path) -> Iterator[Alertmanager]:
    program = need("prometheus-alertmanager", "alertmanager")
    pages: list[tuple[str, list[str]]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            pages.append((told["receiver"], sorted(alert["labels"]["alertname"] for alert in told["alerts"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    settings: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    settings["route"]["group_wait"] = "2s"
    for one in settings["receivers"]:
        one["webhook_configs"] = [{"url": f"http://127.0.0.1:{receiver.server_port}/", "send_resolved": False}]
    (folder / "alertmanager.yaml").write_text(yaml.safe_dump(settings))
    (port,) = free_ports(1)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, f"--config.file={folder / 'alertmanager.yaml'}", f"--storage.path={folder / 'data'}",
             f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="],
            stdout=log, stderr=log,
        )  # fmt: skip
    running = Alertmanager(f"http://127.0.0.1:{port}", pages)

    def ready() -> bool:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            return bool(urllib.request.urlopen(f"{running.url}/-/ready", timeout=5).status == 200)
        return False

    try:
        until(lambda: process.poll() is not None or ready())
        assert process.poll() is None, (folder / "log").read_text()
        yield running
    finally:
        process.terminate()
        process.wait(20)
        receiver.shutdown()


def test_amtool_finds_nothing_wrong() -> None:
    done = subprocess.run([need("amtool"), "check-config", EXAMPLE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_that_the_example_names_exists() -> None:
    settings = yaml.safe_load(EXAMPLE.read_text())
    matchers = [text for rule in settings["inhibit_rules"] for side in ("source", "target")
                for text in rule[f"{side}_matchers"]]  # fmt: skip
    named = {name for text in matchers for name in text.split('"')[1].split("|")}
    assert named <= set(ALERTS)


def test_a_model_whose_data_and_accuracy_go_wrong_makes_one_page_with_two_alerts(tmp_path: Path) -> None:
    with alertmanager(tmp_path) as running:
        running.tell(
            "DataDriftDetected", "DataDriftFleet", "DataDriftBroad", "DataDriftRising", "ModelAccuracyDrop",
            "ModelAccuracyDrift", labels=MODEL,
        )  # fmt: skip
        running.tell("DataDriftFleet", labels=MODEL | {"cluster": "b"})
        running.tell("GPULost", "GPUXidError", "GPUNeedsService", labels=GPU)
        until(lambda: len(running.pages) >= 3)
        assert sorted(running.pages) == [
            ("models", ["DataDriftDetected", "ModelAccuracyDrop"]),
            ("models", ["DataDriftFleet"]),
            ("platform", ["GPULost"]),
        ]
