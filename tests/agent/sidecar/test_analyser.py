"""The analyser: the frames of a stream, its answers, and the process with its limits."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from analyser_samples import FEATURES, MODEL, analyser, exchange, frame, profile, raw_exchange
from hypothesis import given, settings
from hypothesis import strategies as st
from pegel_agent.reference import profile as profiles
from pegel_agent.reference.performance import Curve, Performance
from pegel_agent.sidecar import frames
from pegel_agent.sidecar.analyser import MAX_BODY_BYTES, OUT_OF_MEMORY, Analyser, _analyser, _Frames
from pegel_agent.sidecar.feedback import Labels, predictions_of, scores_of
from pegel_agent.sidecar.monitor.model import Monitor, MonitorSettings
from pegel_agent.sidecar.monitor.state import ModelState
from pegel_agent.sidecar.paths import TFSERVING
from pegel_agent.sidecar.protocols import Block, Inference
from pegel_agent.sidecar.settings import AnalyserSettings
from pegel_agent.statistics.budget import Window
from pegel_agent.statistics.detector import Detector
from pegel_exporters.catalogue import CATALOGUE, INFERENCE_ROWS
from pegel_exporters.errors import UserError

SMALL = profile(features=3)


def small() -> Analyser:
    return Analyser(Monitor(MonitorSettings(*MODEL, Window(rows=500), 8640.0), SMALL, 0.0), Labels(*MODEL), MODEL)


def rows_of(of: Analyser) -> float:
    of.tick(0.0)
    (rows,) = next(family for family in of.families() if family.metric is INFERENCE_ROWS).samples.values()
    assert isinstance(rows, float)
    return rows


FRAMES = [
    frame(*exchange([[0.1, 0.2, 0.3]], [1])),
    frame(*exchange([[0.1, 0.2]], [1])),
    frame(*exchange([[0.5, 0.5, -0.5]] * 40, [0] * 40)),
    frame(b"", b""),
    frame(b"not HTTP", b"at all"),
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(range(len(FRAMES))), max_size=12), st.data())
def test_any_split_of_the_stream_gives_the_same_exchanges(which: list[int], data: st.DataObject) -> None:
    stream = b"".join(FRAMES[number] for number in which)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    of = small()
    received = _Frames(of)
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received.data_received(stream[start:end])
    assert of.analysed == which.count(0) + which.count(2)
    assert of.undecodable == len(which) - of.analysed
    assert rows_of(of) == which.count(0) + 40 * which.count(2)


def test_a_stream_byte_by_byte_gives_the_same_exchanges() -> None:
    of = small()
    received = _Frames(of)
    for byte in b"".join(FRAMES):
        received.data_received(bytes([byte]))
    assert (of.analysed, of.undecodable) == (2, 3)


def test_a_body_that_would_be_many_times_larger_in_memory_is_undecodable() -> None:
    of = small()
    for instances in ([[[]]] * 60_000, [{"a": 1}] * 60_000, ["x" * MAX_BODY_BYTES]):
        of.exchange(TFSERVING, *exchange(instances, [1]), 0.0)
    assert (of.analysed, of.undecodable) == (0, 3)


@pytest.mark.parametrize("status", ["400 Bad Request", "503 Service Unavailable", "302 Found"])
def test_an_exchange_that_the_model_refused_is_analysed_has_no_rows_and_is_not_worth_a_line(
    status: str, caplog: pytest.LogCaptureFixture
) -> None:
    of = small()
    request, response = exchange([[0.1, 0.2, 0.3]], [1])
    of.exchange(TFSERVING, request, response.replace(b"200 OK", status.encode()), 0.0)
    of.exchange(TFSERVING, b"POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: 3\r\n\r\nno!",
                f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode(), 0.0)  # fmt: skip
    assert (of.analysed, of.undecodable, rows_of(of)) == (2, 0, 0.0)
    assert caplog.text == ""


def test_the_first_name_that_fits_is_the_model_s_and_nothing_of_others_is_taken_in() -> None:
    of = small()
    fits, other = exchange([[1, 2, 3]], [1], request_id="a"), exchange([[1, 2]], [1])
    refused = (fits[0], fits[1].replace(b"200 OK", b"404 Not Found"))
    sent = [
        ("a", other),
        ("b", refused),
        ("", fits),
        ("c", fits),
        ("a", fits),
        ("b", refused),
        ("c", other),
        ("", fits),
    ]
    outcomes = [of.exchange(TFSERVING, *bodies, 0.0, name) for name, bodies in sent]
    assert outcomes == [
        frames.UNDECODABLE["content"], frames.ANALYSED, frames.ANALYSED, frames.ANALYSED,
        frames.OTHER_MODEL, frames.OTHER_MODEL, frames.UNDECODABLE["content"], frames.ANALYSED,
    ]  # fmt: skip
    assert (of.served_as, of.analysed, of.undecodable, rows_of(of)) == ("c", 4, 2, 3)


def test_a_mistake_on_one_exchange_is_logged_without_its_words_and_costs_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Monitor):
        def add(self, inference: Inference, now: float) -> None:
            raise ValueError("a value from the request")

    broken = Analyser(Broken(MonitorSettings(*MODEL, Window(rows=5), 9.0), SMALL, 0.0), Labels(*MODEL), MODEL)
    broken.exchange(TFSERVING, *exchange([[1, 2, 3]], [1]), 0.0)
    assert (broken.analysed, broken.undecodable) == (0, 1)
    assert "ValueError in test_analyser.py" in caplog.text
    assert "a value" not in caplog.text


def block(values: Any) -> Block:
    kind = object if any(isinstance(cell, str) for row in values for cell in row) else np.float64
    return Block((), np.array(values, dtype=kind))


@pytest.mark.parametrize(
    ("outputs", "predictions"),
    [
        ([[[0.5], [2.0]]], [0.5, 2.0]),
        ([[["cat"], [None]]], ["cat", None]),
        ([[[0.1, 0.7, 0.2], [0.6, 0.3, 0.1]]], [1, 0]),
        ([[[0.1, np.nan, 0.2], [0.6, 0.3, 0.1]]], [None, 0]),
        ([[["a", "b"]]], []),
        ([[[1.0]], [[2.0]]], []),
        ([], []),
    ],
)
def test_a_row_s_prediction_is_its_only_value_or_the_place_of_its_largest(outputs: Any, predictions: Any) -> None:
    assert predictions_of(Inference("id", 2, (), tuple(block(one) for one in outputs))) == predictions


@pytest.mark.parametrize(
    ("outputs", "binary", "scores"),
    [
        ([[[0.5], [2.0]]], True, [0.5, None]),
        ([[[0.0], [1.0]]], True, [None, None]),
        ([[[0.5], [0.2]]], False, [None, None]),
        ([[[0.1, 0.9], [0.7, 0.3]]], True, [0.9, 0.3]),
        ([[[0.1, 0.9], [0.7, 0.3]]], False, [0.9, 0.7]),
        ([[[0.1, 0.7, 0.2], [0.6, 0.3, 0.1]]], False, [0.7, 0.6]),
        ([[[3.0, -2.0], [0.6, np.nan]]], True, [None, None]),
        ([[["a"], ["b"]]], True, [None, None]),
        ([[[0.5], [0.6]], [[0.5], [0.6]]], True, [None, None]),
    ],
)
def test_a_row_s_score_is_a_probability_or_none(outputs: Any, binary: bool, scores: Any) -> None:
    found = scores_of(Inference("id", 2, (), tuple(block(one) for one in outputs)), binary=binary)
    assert [None if np.isnan(score) else score for score in found.tolist()] == scores


@pytest.mark.parametrize("label_first", [False, True])
def test_a_label_finds_its_request_by_the_clients_id_and_by_the_servers(label_first: bool) -> None:
    of = small()
    asked, _ = exchange([[1, 2, 3]], [1], request_id="client's")
    answered = json.dumps({"id": "server's", "predictions": [1]}).encode()
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(answered)}\r\n\r\n".encode() + answered
    labels = [{"id": "client's", "label": 1}, {"id": "server's", "label": 1}]
    if label_first:
        assert of._labels.take(labels[:1], 40.0).waiting == 1
    of.exchange(TFSERVING, asked, answer, 50.0)
    found = of._labels.take(labels, 60.0)
    assert (found.accepted, found.duplicate) == ((0, 2) if label_first else (1, 1))
    assert of._labels.outcomes["matched"] == 1


def test_scores_of_all_answers_make_the_expected_accuracy_and_those_with_an_id_are_kept_for_their_labels() -> None:
    curve = Curve((0.0, 0.5, 1.0), (0, 600, 400, 0, 0), (0, 300, 380, 0, 0))
    reference = Performance("binary", 1_000, 680, ("0", "1"), ((300, 20, 0), (300, 380, 0), (0, 0, 0)), scores=curve)
    labels = Labels(*MODEL, reference, horizon_seconds=0.0)
    of = Analyser(Monitor(MonitorSettings(*MODEL, Window(rows=500), 8640.0), SMALL, 0.0), labels, MODEL)
    for number in range(60):
        of.exchange(TFSERVING, *exchange([[1, 2, 3]], [[0.2, 0.8]], request_id=f"r{number}"), 50.0)
        of.exchange(TFSERVING, *exchange([[1, 2, 3]], [0.7]), 50.0)
    assert of.undecodable == 0
    labels.take([{"id": f"r{number}", "label": number % 2} for number in range(60)], 60.0)
    page = {family.metric.name: family.samples for family in of.families()}
    assert page["ml_model_accuracy_estimated"][MODEL] == pytest.approx(0.95, abs=0.001)
    assert page["ml_model_accuracy"][MODEL] == 0.5
    assert page["ml_model_quality"][*MODEL, "brier"] == pytest.approx((0.8**2 + 0.2**2) / 2)


def test_a_request_with_an_id_waits_for_the_labels_of_its_rows() -> None:
    of = small()
    of.exchange(TFSERVING, *exchange([[1, 2, 3], [4, 5, 6]], [1, None], request_id="a"), 50.0)
    of.exchange(TFSERVING, *exchange([[1, 2, 3]], [1]), 50.0)
    items = [{"id": "a", "row": row, "label": 1} for row in range(2)]
    answer = of._labels.take(list(items), 60.0)
    assert (answer.accepted, answer.waiting) == (1, 1)
    assert of._labels.outcomes["matched"] == 1
    assert of._labels.delay_sum == 10.0


def test_every_family_is_in_the_catalogue_with_all_its_labels() -> None:
    for family in small().families():
        assert family.metric in CATALOGUE
        assert all(len(labels) == len(family.metric.labels) for labels in family.samples)


def test_a_profile_that_cannot_be_watched_is_refused_by_the_name_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "absurd.json"
    profiles.save(SMALL, path)
    told = AnalyserSettings(*MODEL, str(path), None, 500, 8640.0, str(tmp_path))
    _analyser(told, 0.0)

    def fails(*_: object) -> None:
        raise IndexError("nothing to bet on")

    monkeypatch.setattr(Detector, "__init__", fails)
    with pytest.raises(UserError, match=r"absurd\.json cannot be watched.*nothing to bet on"):
        _analyser(told, 0.0)


class TestTheProcess:
    """Over its sockets, as the forwarder meets it."""

    pytestmark = pytest.mark.integration

    def test_it_counts_answers_and_ends_with_its_standard_input(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(5)
        with analyser(tmp_path, profile(features=3), label_horizon_seconds=0.0) as running:
            for number in range(600):
                row = rng.normal(size=3).round(3).tolist()
                running.exchanges.sendall(frame(*exchange([row], [number % 2], request_id=f"r{number}")))
            running.exchanges.sendall(frame(*exchange([[1, 2]], [1])))
            assert running.acknowledged(601) == (600, 1)

            page = running.get("/metrics/text")
            assert 'ml_inference_rows_total{model_name="houses",model_version="3"} 600.0' in page.text
            assert len(re.findall(r'^ml_feature_rows_total{.*feature="f0"', page.text, re.MULTILINE)) > 20
            opened = running.get("/metrics/openmetrics")
            assert "# TYPE ml_inference_rows counter" in opened.text
            assert "# EOF" not in opened.text, "the forwarder adds its own part and ends the page"
            assert _samples(opened.text) == _samples(page.text)

            items = [{"id": f"r{number}", "label": number % 2} for number in range(100)]
            items += [{"id": f"r{number}", "label": 1 - number % 2} for number in range(100, 120)]
            answer = running.http.post("/v1/feedback", content=json.dumps(items))
            assert (answer.status_code, answer.json()) == (
                202,
                {"accepted": 120, "waiting": 0, "duplicate": 0, "unmatched": 0, "rejected": 0},
            )
            refused = running.http.post("/v1/feedback", content=b"[" * 9_000)
            assert refused.status_code == 400
            assert refused.text.count("\n") == 1
            mixed = running.http.post("/v1/feedback", content=b'[{"id": "later", "label": 1}, {"id": "x"}]')
            assert mixed.status_code == 202
            assert mixed.json()["waiting"] == mixed.json()["rejected"] == 1
            assert mixed.json()["reason"] == "item 1: no label"
            useless = running.http.post("/v1/feedback", content=b'[{"id": "x"}, {}]')
            assert (useless.status_code, useless.text) == (400, "item 0: no label\n")
            assert running.http.post("/v1/feedback", content=b"[]").status_code == 202

            state = msgspec.json.decode(running.get("/api/status").content, type=ModelState)
            assert (state.rows, state.windows, state.tap.requests) == (600, 1, 7)
            assert state.accuracy.accuracy == pytest.approx(100 / 120)
            assert (
                'ml_model_accuracy{model_name="houses",model_version="3"} 0.8333' in running.get("/metrics/text").text
            )

            status = running.get("/")
            assert status.headers["content-type"].startswith("text/html")
            assert "default-src 'none'" in status.headers["content-security-policy"]
            assert "houses" in status.text

            running.process.stdin.close()  # type: ignore[union-attr]
            assert running.process.wait(20) == 0

    def test_it_tells_at_once_by_which_name_the_model_is_served_and_what_became_of_each(self, tmp_path: Path) -> None:
        fits = exchange([[1, 2, 3]], [1])
        with analyser(tmp_path, SMALL) as running:
            running.exchanges.sendall(frame(*exchange([[1]], [1]), name="evil") + frame(*fits, name="häuser"))
            assert running.outcomes(2) == (bytes([frames.UNDECODABLE["content"], frames.ANALYSED]), "häuser")
            running.exchanges.sendall(frame(*fits, name="evil") + frame(*fits) + frame(*fits, name="häuser"))
            assert running.outcomes(3) == (bytes([frames.OTHER_MODEL, frames.ANALYSED, frames.ANALYSED]), "")

    def test_promtool_finds_nothing_to_say_about_its_page(self, tmp_path: Path) -> None:
        promtool = shutil.which("promtool")
        assert promtool, "promtool is missing: install Debian's package prometheus"
        with analyser(tmp_path, profile(features=3)) as running:
            for _ in range(12):
                running.exchanges.sendall(frame(*exchange([[0.1, 0.2, 0.3]] * 50, [1] * 50)))
            running.acknowledged(12)
            items = [{"label": 1, "prediction": 1}] * 60
            assert running.http.post("/v1/feedback", content=json.dumps(items)).status_code == 202
            page = running.get("/metrics/text").content
        found = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False)
        assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")

    def test_an_analyser_that_was_killed_leaves_nothing_in_the_next_one_s_way(self, tmp_path: Path) -> None:
        with analyser(tmp_path, None) as running:
            running.process.kill()
            running.process.wait()
        assert (tmp_path / frames.EXCHANGE_SOCKET).exists()
        with analyser(tmp_path, None) as running:
            running.exchanges.sendall(frame(*exchange([[1, 2]], [1])))
            assert running.acknowledged(1) == (1, 0)

    def test_a_profile_that_cannot_be_read_ends_it_with_one_line_and_code_2(self, tmp_path: Path) -> None:
        (tmp_path / "broken.json").write_text("{")
        told = AnalyserSettings(*MODEL, str(tmp_path / "broken.json"), None, 500, 8640.0, str(tmp_path))
        ended = subprocess.run(
            [sys.executable, "-m", "pegel_agent.sidecar.analyser", msgspec.json.encode(told).decode()],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ended.returncode == 2
        assert ended.stderr.count("\n") == 1
        assert "broken.json" in ended.stderr

    @pytest.mark.parametrize("given_profile", [True, False], ids=["profile", "learning"])
    def test_fifty_features_stay_within_its_memory(self, tmp_path: Path, given_profile: bool) -> None:
        rng = np.random.default_rng(6)
        most = AnalyserSettings("", "", None, None, 1, 1.0).memory_bytes
        large = (MAX_BODY_BYTES - 1_000) // (8 * FEATURES)
        hostile: tuple[list[Any], ...] = (
            ["x" * (MAX_BODY_BYTES - 100)], [[1] * 300_000], [[[]]] * 100_000, [{"a": 1}] * 100_000, [""] * 250_000,
        )  # fmt: skip
        with analyser(tmp_path, profile() if given_profile else None) as running:
            sent = 0
            for batch in range(200):
                for number in range(40):
                    row = rng.normal(size=FEATURES).round(3).tolist()
                    running.exchanges.sendall(frame(*exchange([row], [1], request_id=f"{batch:032}-{number}")))
                sent += 40
                if batch % 50 == 0:
                    for path in ("/metrics/text", "/metrics/openmetrics", "/api/status", "/"):
                        assert running.get(path).status_code == 200
            for _ in range(5):
                rows = rng.normal(size=(large, FEATURES)).round(3).tolist()
                running.exchanges.sendall(frame(*exchange(rows, [1] * large)))
                sent += 1
            assert running.acknowledged(sent) == (sent, 0)
            for instances in hostile:
                running.exchanges.sendall(frame(*exchange(instances, [1])))
            assert running.acknowledged(len(hostile))[1] == len(hostile)
            assert running.memory("VmHWM:") < most

    def test_no_body_costs_more_than_a_few_others_of_its_size(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(8)
        usual = [f"[{a!r}, {b!r}, 1]" for a, b in rng.normal(size=(4_000, 2)).tolist()]
        hostile = {
            "the largest numbers": "[1e308, -1e308, 1]",
            "with zeros before the exponent": "[1E+000308, -1e00308, 1]",
            "the smallest numbers": "[1e-320, 4.9406564584124654e-324, 1]",
            "halfway between two numbers": "[1e23, 137641693691903170817e82, 8e23]",
            "the largest beside text": '["a", 1e308, -1.5e307]',
            "the largest as columns have it": "[1e290, -1.25e295, 1e+302]",
            "integers of thousands of digits": f"[{'9' * 4_000}, 1, NaN]",
            "one long fraction": f"[0.{'1234567890' * 1_000}, 1, NaN]",
            "tokens that JSON doesn't have": "[NaN, Infinity, -Infinity]",
            "numbers as text": '["0.123456789", "1e308", "1"]',
            "text where numbers are expected": '["0xdeadbeef", "a", true]',
            "names again and again": '{"f0": 1, "f1": 1, "f0": 1, "f2": 3}',
            "names in another order": '{"f1": 1e305, "f0": 1, "f2": 3}',
        }
        with analyser(tmp_path, SMALL) as running:

            def cost(row: str | list[str]) -> float:
                """Processor seconds for a body of about 150 kB."""
                rows = row if isinstance(row, list) else [row] * min(9_000, 150_000 // len(row))
                rows = rows[: 150_000 // (sum(map(len, rows)) // len(rows))]
                sent = frame(
                    *raw_exchange(f'{{"instances": [{", ".join(rows)}]}}', json.dumps({"predictions": [1] * len(rows)}))
                )
                before = running.processor_seconds()
                for _ in range(8):
                    running.exchanges.sendall(sent)
                running.acknowledged(8)
                return running.processor_seconds() - before

            cost(usual)
            usually = cost(usual)
            costs = {name: cost(row) / usually for name, row in hostile.items()}
        # It was 170 for the largest, 90 for the smallest.
        assert max(costs.values()) < 20, costs

    def test_at_its_memory_limit_it_ends_with_one_line(self, tmp_path: Path) -> None:
        with analyser(tmp_path, None, memory_bytes=1) as running:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                running.exchanges.sendall(frame(bytes(64 << 20), b""))
            assert running.process.wait(60) == OUT_OF_MEMORY
            assert running.process.stderr is not None
            *_, last = running.process.stderr.read().splitlines()
            assert last == "pegel: the analyser met its memory limit and ends"


def _samples(page: str) -> list[str]:
    return [line for line in page.splitlines() if not line.startswith("#")]
