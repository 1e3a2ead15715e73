"""`pegel what-leaves`: what a real sidecar publishes under unusual traffic is in the list, and nothing else is."""

import contextlib
import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from pegel_agent.batch.leaves import leaves_of
from pegel_agent.cli.main import pegel
from pegel_agent.reference.columns import learn_feature
from pegel_agent.reference.performance import Performance
from pegel_agent.reference.profile import FORMAT, Profile, load, save
from pegel_agent.sidecar.monitor.model import Monitor, MonitorSettings
from pegel_agent.statistics.budget import Window
from pegel_exporters.catalogue import CATALOGUE, FEATURE_ROWS

from tests.agent.sidecar.tap.tap_process import Tap, model, read_message, tap, until

SECRET = "Anna-Mueller-4711"
PLAIN = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}
CITIES = np.array(["Köln", "other", 'O\'Brien "Ulm" \\ |', "a\nb"], dtype=object)


def profile() -> Profile:
    rng = np.random.default_rng(1)
    columns: dict[str, Any] = {
        "age": rng.normal(40, 10, 5_000),
        "city | Ort": rng.choice(CITIES, 5_000),
        "price": rng.normal(0, 1, 5_000),
    }
    features = [learn_feature(name, "prediction" if name == "price" else "input", columns[name]) for name in columns]
    return Profile(FORMAT, 1_700_000_000.0, "churn", "3", 5_000, tuple(one for one in features if one is not None))


def test_relations_between_inputs_are_listed_like_features(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    area = rng.normal(80, 20, 2_000)
    rows = zip(area, area / 20 + rng.normal(size=2_000), rng.normal(size=2_000), strict=True)
    (tmp_path / "flats.csv").write_text("area,rooms,age\n" + "".join(f"{a:.2f},{b:.2f},{c:.2f}\n" for a, b, c in rows))
    built = CliRunner().invoke(
        pegel, ["profile", "build", str(tmp_path / "flats.csv"), "-o", str(tmp_path / "flats.json")]
    )
    assert "3 features and 1 relation from 2,000 rows" in built.stdout
    listing = listed(tmp_path / "flats.json")
    related = next(name for name in listing["features"] if name.startswith("relation of "))
    families = Monitor(
        MonitorSettings("m", "1", Window(rows=500), 8640.0), load(tmp_path / "flats.json"), 0.0
    ).families()
    published = {labels[2:4] for one in families if one.metric == FEATURE_ROWS for labels in one.samples}
    assert published == {(name, of) for name, one in listing["features"].items() for of in one["bins"]}
    assert related in {name for name, _ in published}
    assert related[:20] in CliRunner().invoke(pegel, ["profile", "show", str(tmp_path / "flats.json")]).stdout


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "profile.json"
    save(profile(), path)
    return path


def listed(path: Path) -> dict[str, Any]:
    done = CliRunner().invoke(pegel, ["what-leaves", "--profile", str(path), "--output", "json"])
    assert done.exit_code == 0, done
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def series(page: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Each sample's name and labels, their values as they were before they were escaped."""
    for line in page.splitlines():
        if line and not line.startswith("#"):
            found = re.fullmatch(r"([a-zA-Z_]\w*)(?:\{(.*)\})? (\S+)(?: # .*)?", line)
            assert found is not None, line
            pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found[2] or "")
            yield found[1], {name: re.sub(r"\\.", lambda escaped: PLAIN[escaped[0]], value) for name, value in pairs}


def allowed(leaves: dict[str, Any], name: str, labels: dict[str, str]) -> bool:
    """Whether the list has this series."""
    metric = next((one for one in leaves["metrics"] if name in one["series"]), None)
    if metric is None or set(labels) - set(metric["labels"]):
        return False
    if "bin" in labels and labels["bin"] not in leaves["features"][labels["feature"]]["bins"]:
        return False
    return all(
        value in metric["labels"][label].get("values", ())
        or re.fullmatch(metric["labels"][label].get("pattern", r"\Z."), value)
        for label, value in labels.items()
    )


async def odd_model(reader: Any, writer: Any) -> None:
    """Answers with the status and the body that the path and the request ask for."""
    while True:
        message = await read_message(reader)
        asked = re.search(rb"x-status: (\d+)", message, re.IGNORECASE)
        status = asked[1] if asked else b"200"
        body = json.dumps({"predictions": [0.5, SECRET][: message.count(b"instances")]}).encode()
        writer.write(b"HTTP/1.1 %s %s\r\nContent-Length: %d\r\n\r\n%s" % (status, SECRET.encode(), len(body), body))
        await writer.drain()


def ask(running: Tap, target: str, body: object, *, method: str = "POST", **headers: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    with contextlib.closing(connection):
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, target, sent, {"X-Request-Id": SECRET, "Authorization": SECRET, **headers})
        connection.getresponse().read()


def odd_traffic(running: Tap) -> None:
    predict = "/v1/models/m:predict"
    rows: list[dict[str, object]] = [
        {"age": 41.5, "city | Ort": "Köln"},
        {"age": 1e300, "city | Ort": SECRET},
        {"age": None, "city | Ort": None},
        {"age": "old", "city | Ort": "missing"},
        {"age": 3, "city | Ort": "x" * 5_000},
        {"age": -1e9, "city | Ort": 'new\nline="x"} 1'},
    ]
    for row in rows:
        ask(running, predict, {"instances": [row]})
    ask(running, predict, {"instances": rows[:2]})
    ask(running, predict, {"instances": [{**rows[0], SECRET: 1}]})
    ask(running, predict, {"instances": [{SECRET: 1}]})
    ask(running, predict, {"instances": [[[SECRET]]]})
    ask(running, predict, SECRET.encode())
    ask(running, f"/v1/models/{SECRET}/versions/9:predict?{SECRET}=1", {"instances": [rows[0]]})
    ask(running, f"/v2/models/{SECRET}/infer", {"id": SECRET, "inputs": [
        {"name": SECRET, "shape": [1, 1], "datatype": "BYTES", "data": [SECRET]}]})  # fmt: skip
    ask(running, f"/{SECRET}", {SECRET: SECRET}, method="PUT")
    ask(running, f"/{SECRET}", {SECRET: SECRET})
    for status in ("201", "404", "418", "503", "599", "999"):
        ask(running, predict, {"instances": [rows[0]]}, **{"X-Status": status})


def odd_labels(running: Tap) -> None:
    items: list[object] = [
        {"id": SECRET, "label": SECRET},
        {"prediction": SECRET, "label": SECRET, "score": 0.5},
        {"prediction": "Köln", "label": 'new\nclass"'},
        {"id": SECRET, "label": 1, "model_name": SECRET},
        {"label": SECRET},
        SECRET,
        *({"prediction": number % 3, "label": number % 2} for number in range(100)),
    ]
    assert running.ask("/v1/feedback", "POST", json.dumps(items).encode())[0] == 202


@pytest.mark.integration
def test_each_series_of_a_sidecar_under_unusual_traffic_is_in_the_list_and_nothing_else_is(path: Path) -> None:
    leaves = listed(path)
    with model(odd_model) as upstream, tap(upstream, "--profile", str(path), "--window", "5", ready=True) as running:
        odd_traffic(running)
        odd_labels(running)
        until(lambda: sum(running.copies().values()) >= 18)
        pages = [running.ask("/metrics")[1].decode()]
        pages.append(running.ask("/metrics", Accept="application/openmetrics-text; version=1.0.0")[1].decode())
        shown = [running.ask(path)[1].decode() for path in ("/", "/api/status")]
        log = running.log.read_text()
    for page in pages:
        found = list(series(page))
        assert [one for one in found if not allowed(leaves, *one)] == []
        published = {name for name, _ in found}
        missing = [one["name"] for one in leaves["metrics"] if published.isdisjoint(one["series"])]
        unseen = {"ml_label_coverage_ratio", "ml_predictions_retention_seconds"}
        assert set(missing) <= unseen, "what nothing was seen of yet"
        bins = {(labels["feature"], labels["bin"]) for name, labels in found if "bin" in labels}
        assert bins == {(name, one) for name, feature in leaves["features"].items() for one in feature["bins"]}
    for text in (*pages, *shown, log):
        assert SECRET not in text


def test_a_series_that_a_client_could_name_is_not_in_the_list(path: Path) -> None:
    leaves = listed(path)
    model_labels = {"model_name": "churn", "model_version": "3"}
    assert allowed(leaves, "ml_feature_invalid_total", {**model_labels, "feature": "age", "reason": "not_a_number"})
    assert not allowed(leaves, "ml_feature_invalid_total", {**model_labels, "feature": "x", "reason": "not_a_number"})
    assert not allowed(leaves, "ml_feature_rows", {**model_labels, "feature": "age"})
    assert not allowed(leaves, "ml_inference_rows_total", {**model_labels, "client": "10.0.0.1"})
    assert not allowed(leaves, "ml_inference_rows_total", {**model_labels, "model_name": "other"})
    assert not allowed(leaves, "nvidia_gpu_up", {"uuid": "GPU-1", "gpu": "0"})


PERFORMANCES = [
    Performance("binary", 100, 80, ("0", "1"), ((40, 10, 0), (10, 40, 0), (0, 0, 0))),
    Performance("multiclass", 3, 3, tuple("abc"), ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 0))),
]


@pytest.mark.parametrize("performance", PERFORMANCES, ids=lambda one: one.kind)
def test_classes_are_in_the_list_where_the_reference_has_labels(performance: Performance) -> None:
    metrics = {metric.name: metric for metric in leaves_of(profile(), performance).metrics}
    assert metrics["ml_confusion_total"].labels["predicted"].values == (*performance.classes, "other")
    assert "ml_class_outcomes_total" not in metrics
    assert "f1" in metrics["ml_model_quality"].labels["metric"].values


def test_every_metric_of_a_model_has_its_label_values_listed() -> None:
    """So that a new metric or label is thought about here, too."""
    found = {
        metric.name for each in (None, *PERFORMANCES) for metric in leaves_of(profile(), each).metrics
    } | {
        "ml_class_outcomes_total", "ml_model_accuracy_estimated", "ml_model_accuracy_estimated_error",
        "ml_feature_expected_rows_total", "ml_feature_heterogeneity",
    }  # fmt: skip
    of_models = {metric.name for metric in CATALOGUE if metric.labels[:1] == ("model_name",)}
    assert of_models <= found
    for each in (None, *PERFORMANCES):
        for metric in leaves_of(profile(), each).metrics:
            assert all(values.values or values.pattern for values in metric.labels.values()), metric.name


def test_people_get_markdown_whose_tables_hold_whatever_the_names_are(path: Path) -> None:
    done = CliRunner().invoke(pegel, ["what-leaves", "--profile", str(path)])
    assert done.exit_code == 0, done
    text = done.stdout
    assert text.startswith("# What leaves the sidecar of `churn 3`\n")
    (city,) = (line for line in text.splitlines() if line.startswith("| `city"))
    assert city.startswith("| `city \\| Ort` | categorical | input | ")
    for name in ('`O\'Brien "Ulm" \\ \\|`', "`a b`", '`"other"`', "`Köln`", "`other`", "`missing`"):
        assert name in city
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert len(tables) == 3
    for table in tables:
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(cells) == 1, table


def test_a_file_that_is_no_profile_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("{}")
    done = CliRunner().invoke(pegel, ["what-leaves", "--profile", str(tmp_path / "no.json")])
    assert "is not a pegel-profile/1 profile" in str(done.exception)
