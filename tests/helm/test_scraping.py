"""What Prometheus takes from a pod that calls itself a sidecar: a real one scrapes a page of truths and forgeries."""

import http.server
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from pegel_agent.demo.stage import free_port, stage
from pegel_exporters.catalogue import CATALOGUE, Metric

from tests.helm.rendering import ROOT, of_kind, render, template

pytestmark = pytest.mark.integration

FORGED = """
pegel_threshold{alert="DataDriftBroad",model_name="churn"} 9
ALERTS{alertname="DataDriftDetected",alertstate="firing",model_name="churn"} 1
namespace_model:ml_drift_evidence:avg{namespace="shop",model_name="churn"} -9
nvidia_gpu_up{uuid="GPU-0",gpu="0"} 0
not_pegel_build_info 1
up 0
"""
TARGET = {
    "__meta_kubernetes_namespace": "evil",
    "__meta_kubernetes_pod_name": "forger",
    "__meta_kubernetes_pod_node_name": "node-1",
    "__meta_kubernetes_pod_container_port_name": "pegel-metrics",
    "__meta_kubernetes_pod_label_pegel_dev_inject": "true",
}
"""A model's pod as Kubernetes' service discovery shows it."""
EXPORTER = TARGET | {
    "__meta_kubernetes_pod_name": "exporter",
    "__meta_kubernetes_pod_node_name": "node-2",  # or Prometheus would take both for one
    "__meta_kubernetes_pod_label_app_kubernetes_io_component": "gpu-exporter",
}
GPU_JOB = "pegel-gpu-exporter"
SCRAPED = ["chart", "chart-with-cluster", "pegel-sidecars"]
"""The jobs that are to find the model's pod."""
OWN_NAMES = re.compile("up|scrape_.*")
"""What Prometheus itself records of a scrape."""


def names(metric: Metric) -> set[str]:
    """The names that a metric's samples have."""
    return {metric.name + suffix for suffix in (("_bucket", "_sum", "_count") if metric.buckets else ("",))}


SIDECARS = set[str]().union(*(names(metric) for metric in CATALOGUE if not metric.name.startswith("nvidia_")))


def page() -> str:
    """Every name of a sidecar, each claiming to be of another namespace, pod, job and cluster; then the forgeries."""
    claims = 'namespace="shop",pod="churn-0",job="pegel",instance="x",node="y",cluster="prod",model_name="churn"'
    return "".join(f"{name}{{{claims}}} 1\n" for name in sorted(SIDECARS)) + FORGED.lstrip()


def snake(relabelings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Relabelings of the operator as Prometheus writes them."""
    return [
        {re.sub("[A-Z]", lambda match: f"_{match[0].lower()}", key): one[key] for key in one} for one in relabelings
    ]


def of_pod_monitor(name: str, monitor: dict[str, Any]) -> dict[str, Any]:
    """The job that the operator makes of a PodMonitor, whose targets carry their namespace and pod."""
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    own = [
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
    ]
    return {
        "job_name": name,
        "honor_labels": endpoint["honorLabels"],
        "relabel_configs": own + snake(endpoint["relabelings"]),
        "metric_relabel_configs": snake(endpoint["metricRelabelings"]),
    }


def documented() -> list[dict[str, Any]]:
    """The jobs of docs/kubernetes.md, for who has no operator."""
    text = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"(?:^    .*\n)*^    - job_name:(?:.*\n    )+.*\n", text, re.MULTILINE)
    jobs: list[dict[str, Any]] = yaml.safe_load(re.sub("^    ", "", block, flags=re.MULTILINE))
    return [{key: value for key, value in job.items() if key != "kubernetes_sd_configs"} for job in jobs]


def jobs() -> list[dict[str, Any]]:
    (monitor,) = of_kind(render("argo-cd"), "PodMonitor")
    ours = '[{"targetLabel":"cluster","replacement":"ours"}]'
    (labelled,) = of_kind(
        template(
            "--set", "monitoring.podMonitor.enabled=true", "--set-json", f"monitoring.podMonitor.relabelings={ours}"
        ),
        "PodMonitor",
    )  # fmt: skip
    return [of_pod_monitor("chart", monitor), of_pod_monitor("chart-with-cluster", labelled), *documented()]


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(page().encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus that has scraped the page in every job."""
    program = shutil.which("prometheus")
    if program is None:
        message = "prometheus is missing: apt-get install prometheus"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    folder = tmp_path_factory.mktemp("prometheus")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server, stage(folder) as running:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = [f"127.0.0.1:{server.server_address[1]}"]
        targets = [{"targets": address, "labels": labels} for labels in (TARGET, EXPORTER)]
        configuration = {
            "global": {"scrape_interval": "1s", "external_labels": {"cluster": "external"}},
            "scrape_configs": [
                {**job, "static_configs": targets if job["job_name"] == GPU_JOB else targets[:1]} for job in jobs()
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
        url = f"http://127.0.0.1:{free_port()}"
        running.start("prometheus", [
            program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={url.removeprefix('http://')}",
        ])  # fmt: skip
        running.wait_for("prometheus", f"{url}/-/ready")
        until = time.monotonic() + 60
        while not all(stored(url, job) for job in SCRAPED):
            assert time.monotonic() < until, (folder / "prometheus.log").read_text()
            time.sleep(0.2)
        yield url
        server.shutdown()


def stored(url: str, job: str) -> list[dict[str, str]]:
    """The labels of every series that a job has brought."""
    answer = httpx.get(f"{url}/api/v1/series", params={"match[]": f'{{job="{job}"}}'}).raise_for_status()
    return [labels for labels in answer.json()["data"] if not OWN_NAMES.fullmatch(labels["__name__"])]


@pytest.mark.parametrize("job", SCRAPED)
def test_of_a_pods_page_all_metrics_of_a_sidecar_are_kept_and_no_others(prometheus, job):
    assert {series["__name__"] for series in stored(prometheus, job)} == SIDECARS


@pytest.mark.parametrize("job", SCRAPED)
def test_a_pod_cannot_pass_for_another_namespaces_pod(prometheus, job):
    assert {(series["namespace"], series["pod"]) for series in stored(prometheus, job)} == {("evil", "forger")}
    assert {series["exported_namespace"] for series in stored(prometheus, job)} == {"shop"}


@pytest.mark.parametrize("job", ["chart", "pegel-sidecars"])
def test_a_pod_cannot_pass_for_another_clusters(prometheus, job):
    """Prometheus adds its external labels where a series has none of that name."""
    assert not [series for series in stored(prometheus, job) if "cluster" in series]


def test_a_cluster_that_the_target_names_is_kept(prometheus):
    assert {series["cluster"] for series in stored(prometheus, "chart-with-cluster")} == {"ours"}


def test_a_models_pod_is_not_taken_for_a_gpu_exporter(prometheus):
    """Its job honours labels, so a model in the exporter's namespace would be believed everything."""
    found = httpx.get(f"{prometheus}/api/v1/targets").raise_for_status().json()["data"]["activeTargets"]
    pods = [one["discoveredLabels"]["__meta_kubernetes_pod_name"] for one in found if one["scrapePool"] == GPU_JOB]
    assert pods == ["exporter"]


def test_the_charts_relabelings_of_samples_stand_before_the_users():
    (monitor,) = of_kind(render("everything"), "PodMonitor")
    relabelings = monitor["spec"]["podMetricsEndpoints"][0]["metricRelabelings"]
    assert [one["action"] for one in relabelings] == ["keep", "labeldrop", "drop"]
    assert Path(ROOT / "docs" / "kubernetes.md").read_text().count(relabelings[0]["regex"]) == 1
