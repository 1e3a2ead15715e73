"""What the rules' tests feed to promtool is what the product publishes: pages of running commands have the catalogue's
labels, which the tests' series must have."""

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from pegel_exporters.catalogue import CATALOGUE
from prometheus_client.parser import text_string_to_metric_families

from tests.agent.sidecar.tap.tap_process import ANSWER, ASK, connected, free_ports, model, predict, received, tap, until

pytestmark = pytest.mark.integration

LABELS = {metric.openmetrics_name: set(metric.labels) for metric in CATALOGUE}


def published(page: str) -> Iterator[tuple[str, set[str]]]:
    """The families of a page, each with the labels of its samples."""
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            yield family.name, set(sample.labels) - {"le"}


def test_a_sidecar_s_page_has_the_catalogue_s_labels() -> None:
    with model(predict) as port, tap(port, ready=True) as running, connected(running.port) as client:
        client.sendall(ASK)
        assert received(client, len(ANSWER)) == ANSWER
        until(lambda: sum(running.copies().values()) == 1)
        found = list(published(running.ask("/metrics")[1].decode()))
    assert {name for name, _ in found} > {"pegel_tap_exchanges", "pegel_tap_undecodable", "ml_reference_ready"}
    assert all(labels == LABELS[name] for name, labels in found)


@pytest.mark.parametrize("scenario", ["dgx-a100", "h100-mig"])
def test_an_exporter_s_page_has_the_catalogue_s_labels(scenario: str) -> None:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "pegel_agent.cli.main", "gpu-exporter", "--simulate", scenario]
    process = subprocess.Popen([*command, "--listen", f"127.0.0.1:{port}"], stderr=subprocess.DEVNULL)

    def page() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, ConnectionError):
            return ""

    try:
        until(lambda: "nvidia_gpu_devices" in page() and "nvidia_gpu_pod_allocated" in page())
        found = list(published(page()))
    finally:
        process.terminate()
        process.wait(20)
    assert {name for name, _ in found} > {"nvidia_gpu_up", "nvidia_gpu_xid_errors", "nvidia_gpu_ecc_errors"}
    assert all(labels == LABELS[name] for name, labels in found)
