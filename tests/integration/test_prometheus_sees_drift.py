"""A real Prometheus with the generated rules scrapes a running sidecar: quiet with the traffic, loud when it drifts.

One run serves all tests of this file: stable traffic with labels, then traffic in which one feature of six has moved.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pegel_agent.demo import prometheus
from pegel_agent.demo.stage import Stage, free_port, pegel, stage
from pegel_dashboards import dashboards, queries
from scipy.stats import binomtest

pytestmark = pytest.mark.integration

FEATURES = ("age", "income", "visits", "distance", "region", "device")
ROWS_A_REQUEST = 50
WINDOW = 200
RATE_SECONDS = 10
Rows = list[dict[str, Any]]


def rows(rng: np.random.Generator, size: int, *, income: float = 1.0) -> Rows:
    columns: dict[str, Sequence[Any]] = {
        "age": rng.normal(45, 12, size).round(1).tolist(),
        "income": (income * rng.lognormal(10, 0.6, size)).round().tolist(),
        "visits": rng.poisson(3, size).tolist(),
        "distance": rng.exponential(20, size).round(2).tolist(),
        "region": rng.choice(["north", "south", "west"], size, p=[0.5, 0.3, 0.2]).tolist(),
        "device": rng.choice(["phone", "desktop"], size, p=[0.7, 0.3]).tolist(),
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


class Model(BaseHTTPRequestHandler):
    """Speaks TF Serving's REST predict: older than 45, or not."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"predictions": [int(row["age"] > 45) for row in asked["instances"]]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server:
    """Prometheus' answers. A sample is its labels and its value."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str, at: float | None = None) -> list[tuple[dict[str, str], float]]:
        return [(one["metric"], float(one["value"][1])) for one in self._ask(expression, at)]

    def samples(self, selector: str, at: float) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        """All samples of a range selector."""
        return [
            (one["metric"], [(moment, float(value)) for moment, value in one["values"]])
            for one in self._ask(selector, at)
        ]

    def _ask(self, expression: str, at: float | None) -> Any:
        parameters = {"query": expression, **({} if at is None else {"time": f"{at:.3f}"})}
        answer = httpx.get(f"{self.url}/api/v1/query", params=parameters, timeout=20)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]["result"]


@dataclass
class Run:
    server: Server
    admin: str
    quiet_detected: list[float] = field(default_factory=list)
    quiet_alerts: list[str] = field(default_factory=list)
    busy_at: float = 0.0
    labelled: list[bool] = field(default_factory=list)
    alerts: dict[str, dict[str, str]] = field(default_factory=dict)


def need(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        message = f"{program} is missing: apt-get install prometheus"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return path


def profile(folder: Path, rng: np.random.Generator) -> Path:
    """Built by the command that a user types."""
    with (folder / "reference.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, FEATURES)
        writer.writeheader()
        writer.writerows(rows(rng, 5_000))
    built = folder / "profile.json"
    subprocess.run(
        pegel("profile", "build", str(folder / "reference.csv"), "-o", str(built), "--model-name", "shop"),
        check=True,
        capture_output=True,
    )
    return built


def send(run: Run, traffic: httpx.Client, rng: np.random.Generator, requests: int, *, income: float = 1.0) -> None:
    """Ask, and say of each row what was true: the opposite of what the model says in one row of eight."""
    for _ in range(requests):
        sent = rows(rng, ROWS_A_REQUEST, income=income)
        answer = traffic.post("/v1/models/shop:predict", json={"instances": sent})
        assert answer.status_code == 200
        items = []
        for prediction in answer.json()["predictions"]:
            right = bool(rng.random() < 0.875)
            run.labelled.append(right)
            items.append({"prediction": prediction, "label": prediction if right else 1 - prediction})
        assert httpx.post(f"{run.admin}/v1/feedback", json=items).status_code == 202
        time.sleep(0.04)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("product")
    program = need("prometheus")
    rng = np.random.default_rng(11)
    model = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=model.serve_forever, daemon=True).start()
    listen, admin, gpu, port = free_port(), free_port(), free_port(), free_port()
    with stage(folder) as on_stage:
        start(on_stage, program, folder, rng, model.server_port, (listen, admin, gpu, port))
        found = Run(Server(f"http://127.0.0.1:{port}"), f"http://127.0.0.1:{admin}")
        while sum(value for _, value in found.server.query("up")) < 2:
            time.sleep(0.2)
        with httpx.Client(base_url=f"http://127.0.0.1:{listen}") as traffic:
            for _ in range(4):  # 40 windows
                send(found, traffic, rng, 40)
                found.quiet_detected += [value for _, value in found.server.query("ml_data_drift_detected")]
                found.quiet_alerts += [labels["alertname"] for labels, _ in found.server.query("ALERTS")]
            found.busy_at = round(time.time() - 1.5, 3)  # so that the last scrape before it is in
            give_up = time.monotonic() + 60
            while "DataDriftDetected" not in found.alerts and time.monotonic() < give_up:
                send(found, traffic, rng, 20, income=1.35)
                found.alerts = firing(found.server)
        time.sleep(2.5)  # two scrapes of what came last
        yield found
    model.shutdown()


def start(
    on_stage: Stage, program: str, folder: Path, rng: np.random.Generator, model: int, ports: tuple[int, int, int, int]
) -> None:
    listen, admin, gpu, port = ports
    on_stage.start(
        "sidecar",
        pegel(
            "sidecar", "--listen", f"127.0.0.1:{listen}", "--upstream", f"127.0.0.1:{model}", "--admin",
            f"127.0.0.1:{admin}", "--profile", str(profile(folder, rng)), "--window", str(WINDOW),
        ),
    )  # fmt: skip
    on_stage.start(
        "GPUs", pegel("gpu-exporter", "--simulate", "v100", "--interval", "1s", "--listen", f"127.0.0.1:{gpu}")
    )
    targets = (prometheus.Target("sidecar", admin), prometheus.Target("gpu", gpu))
    on_stage.start(
        "Prometheus", prometheus.command(program, folder, port=port, targets=targets, accuracy_threshold=0.8)
    )
    on_stage.wait_for("sidecar", f"http://127.0.0.1:{admin}/api/status")
    on_stage.wait_for("GPUs", f"http://127.0.0.1:{gpu}/readyz")
    on_stage.wait_for("Prometheus", f"http://127.0.0.1:{port}/-/ready")


def firing(server: Server) -> dict[str, dict[str, str]]:
    """Labels and annotations of the alerts that fire, by name."""
    alerts = httpx.get(f"{server.url}/api/v1/alerts").json()["data"]["alerts"]
    return {a["labels"]["alertname"]: a["labels"] | a["annotations"] for a in alerts if a["state"] == "firing"}


def test_stable_traffic_raises_no_alarm(run: Run) -> None:
    assert run.quiet_detected == [0.0] * 4
    assert run.quiet_alerts == []


def test_drifted_traffic_is_detected_and_the_alert_names_the_feature(run: Run) -> None:
    assert [value for _, value in run.server.query("ml_data_drift_detected")] == [1.0]
    alert = run.alerts["DataDriftDetected"]
    assert (alert["severity"], alert["model_name"]) == ("critical", "shop")
    assert "in feature income" in alert["description"]
    strongest = run.server.query("topk(1, ml_feature_drift_evidence)")
    assert [labels["feature"] for labels, _ in strongest] == ["income"]


def test_every_row_and_request_is_counted(run: Run) -> None:
    requests = len(run.labelled) / ROWS_A_REQUEST
    assert run.server.query("sum(ml_inference_requests_total)") == [({}, requests)]
    assert run.server.query("sum(ml_inference_rows_total)") == [({}, len(run.labelled))]
    for _, counted in run.server.query("sum by (feature) (ml_feature_rows_total)"):
        assert counted == len(run.labelled)


def test_the_pages_are_clean(run: Run) -> None:
    for job in ("sidecar", "gpu"):
        ((labels, _),) = run.server.query(f'up{{job="{job}"}}')
        page = httpx.get(f"http://{labels['instance']}/metrics").text
        checked = subprocess.run(
            [need("promtool"), "check", "metrics"], input=page, check=False, text=True, capture_output=True
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_rules_are_clean(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "pegel_agent.cli.main", "rules", "-o", str(tmp_path)], check=True)
    files = [str(path) for path in tmp_path.glob("*.yaml")]
    assert files
    checked = subprocess.run([need("promtool"), "check", "rules", *files], check=False, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


# Every query of the dashboard, against an independent calculation


def rate(samples: Sequence[tuple[float, float]], end: float) -> float:
    """What Prometheus documents for rate(): the increase, extrapolated to the range's ends where samples come near."""
    (first, low), (last, high) = samples[0], samples[-1]
    sampled, increase = last - first, high - low
    between = sampled / (len(samples) - 1)
    to_start, to_end = first - (end - RATE_SECONDS), end - last
    if increase > 0:
        to_start = min(to_start, sampled * low / increase)
    near = between * 1.1
    reach = sampled + (to_start if to_start < near else between / 2) + (to_end if to_end < near else between / 2)
    return increase * reach / sampled / RATE_SECONDS


def rates(run: Run, selector: str) -> list[tuple[dict[str, str], float]]:
    found = run.server.samples(f"{selector}[{RATE_SECONDS}s]", run.busy_at)
    assert found
    return [(labels, rate(samples, run.busy_at)) for labels, samples in found]


def quantile(share: float, buckets: Mapping[float, float]) -> float:
    """By hand: linear within the bucket that holds the rank."""
    bounds = sorted(buckets)
    rank = share * buckets[bounds[-1]]
    position = next(i for i, bound in enumerate(bounds) if buckets[bound] >= rank)
    low, below = (bounds[position - 1], buckets[bounds[position - 1]]) if position else (0.0, 0.0)
    return low + (bounds[position] - low) * (rank - below) / (buckets[bounds[position]] - below)


def expected(run: Run) -> dict[tuple[str, str], dict[str, float]]:
    """Panel and query to values, by the label that tells them apart."""
    buckets: dict[float, float] = defaultdict(float)
    for labels, value in rates(run, "ml_inference_duration_seconds_bucket"):
        buckets[float(labels["le"])] += value
    codes: dict[str, float] = defaultdict(float)
    for labels, value in rates(run, "ml_inference_requests_total"):
        codes[labels["code"]] += value
    # As the status page had it at the end, which nothing has changed since.
    status = httpx.get(f"{run.admin}/api/status").json()
    gpus = run.server.query("nvidia_gpu_utilization_ratio", run.busy_at)
    latest = run.labelled[-500:]
    interval = binomtest(sum(latest), len(latest)).proportion_ci(0.95, method="wilson")
    return {
        ("Model Inference Latency", "A"): {"shop": quantile(0.95, buckets)},
        ("GPU Utilization", "A"): {labels["gpu"]: value for labels, value in gpus},
        ("Model Accuracy Drift", "A"): {"shop": sum(latest) / len(latest)},
        ("Model Accuracy Drift", "B"): {"shop": interval.low},
        ("Model Accuracy Drift", "C"): {"shop": interval.high},
        ("Model Accuracy Drift", "D"): {"": 0.8},
        ("Data Drift: Evidence", "A"): {"shop": status["evidence"]},
        ("Data Drift: Evidence", "B"): {"shop": float(np.log10(4 * 8640))},
        ("Data Drift: Strongest Features", "A"): {
            feature["name"]: max(0.0, feature["evidence"]) for feature in status["features"]
        },
        ("Requests by Code", "A"): dict(codes),
    }


OF_A_REFERENCE_WITH_LABELS = {"Accuracy Drop: Evidence", "Accuracy Expected without Labels"}
"""This run's profile has none; test_accuracy_against_the_reference.py has."""


def test_each_dashboard_query_gives_what_an_independent_calculation_gives(run: Run) -> None:
    variables = {"namespace": ".*", "model_name": ".*", "__rate_interval": f"{RATE_SECONDS}s"}
    wanted = expected(run)
    seen = set()
    for panel, ref, expression in queries(dashboards()["ml-operations.json"], variables):
        moment = run.busy_at if "rate(" in expression or "gpu" in expression else time.time()
        key = next((k for k in ("feature", "gpu", "code") if f"{k})" in expression.replace(", ", ",")), "model_name")
        values = {labels.get(key, ""): value for labels, value in run.server.query(expression, moment)}
        if panel in OF_A_REFERENCE_WITH_LABELS:
            assert values == {}, panel
            continue
        assert values == pytest.approx(wanted[panel, ref], rel=1e-6), (panel, ref)
        seen.add((panel, ref))
    assert seen == wanted.keys()
