"""A real `pegel sidecar --mode sink`, and a client that posts what KServe's payload logger would."""

import contextlib
import gzip
import itertools
import json
import os
import random
import re
import signal
import socket
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pegel_agent.demo.housing import FEATURES, Market, housing
from pegel_agent.reference import profile as profiles
from pegel_agent.reference.columns import learn_feature
from pegel_agent.reference.profile import FORMAT, Feature, Profile
from pegel_agent.sidecar.tap.turns import MAX_COPY_BYTES
from pegel_exporters.catalogue import INFERENCE_ROWS, TAP_OTHER_MODEL_REQUESTS

from tests.agent.sidecar.tap.tap_process import LEFT_BYTES, Tap, connected, labelled, least_growth, received, tap, until

pytestmark = pytest.mark.integration

Event = tuple[dict[str, str], bytes]
_NANOSECONDS = itertools.count()


def event(half: str, identity: str, body: Any, **extensions: str) -> Event:
    """As the logger sends it: both halves have the content type of the request."""
    headers = {
        "Ce-Specversion": "1.0",
        "Ce-Id": identity,
        "Ce-Type": f"org.kubeflow.serving.inference.{half}",
        "Ce-Source": "http://localhost:9081/",
        "Ce-Time": f"2026-01-01T00:00:00.{next(_NANOSECONDS):09}Z",
        "Ce-Inferenceservicename": "houses",
        "Ce-Namespace": "models",
        "Ce-Component": "predictor",
        "Ce-Endpoint": "default",
        "Ce-Metadata": "{}",
        "Content-Type": "application/json",
    }
    return headers | extensions, body if isinstance(body, bytes) else json.dumps(body).encode()


def told(identity: str, asked: Any, answered: Any) -> list[Event]:
    return [event("request", identity, asked), event("response", identity, answered)]


def v1(market: Market, prediction: int) -> tuple[Any, Any]:
    return {"instances": [dict(zip(FEATURES, market.features, strict=True))]}, {"predictions": [prediction]}


def v2(market: Market, prediction: int) -> tuple[Any, Any]:
    def tensor(name: str, value: float, datatype: str) -> dict[str, Any]:
        return {"name": name, "shape": [1, 1], "datatype": datatype, "data": [value]}

    inputs = [tensor(name, value, "FP64") for name, value in zip(FEATURES, market.features, strict=True)]
    answer = {"id": str(uuid.uuid4()), "model_name": "houses", "outputs": [tensor("out", prediction, "INT64")]}
    return {"inputs": inputs}, answer


@contextlib.contextmanager
def sink(*options: str, **times: float) -> Iterator[tuple[Tap, httpx.Client]]:
    """A sink whose analyser is connected, and a client that posts to it."""
    with (
        tap(None, *options, ready=True, **times) as running,  # type: ignore[arg-type]
        httpx.Client(base_url=f"http://127.0.0.1:{running.port}", timeout=10) as logger,
    ):
        yield running, logger


def post(logger: httpx.Client, sent: Event, path: str = "/") -> int:
    answer = logger.post(path, headers=sent[0], content=sent[1])
    assert answer.status_code != 200 or not answer.content, "a broker would take a body for an event"
    return answer.status_code


def settled(running: Tap, **counts: float) -> None:
    until(lambda: running.copies() == {"analysed": 0, "shed": 0, "undecodable": 0} | counts)


PAIR = told("a", {"instances": [[1.0, 2.0]]}, {"predictions": [1]})


MARKETS = housing().replayed[:400]
ORPHANS = 20


@pytest.fixture(scope="module")
def features() -> list[Feature]:
    rows = np.array([market.features for market in housing().reference])
    found = [learn_feature(name, "input", rows[:, place]) for place, name in enumerate(FEATURES)]
    return [feature for feature in found if feature is not None]


@pytest.fixture(scope="module")
def recorded(features: list[Feature], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tap]:
    """Homes sold in Texas, half of them told in V1 and half in V2, in no certain order and some of it twice; and
    requests of which no answer came."""
    path = tmp_path_factory.mktemp("reference") / "profile.json"
    profiles.save(Profile(FORMAT, 1_700_000_000.0, "houses", "1", len(housing().reference), tuple(features)), path)
    events = []
    for number, market in enumerate(MARKETS):
        events += told(f"market-{number}", *(v1, v2)[number % 2](market, int(market.grew)))
    events += random.Random(3).choices(events, k=200)
    events += [event("request", f"failed-{number}", {"instances": [[0, 0, 0]]}) for number in range(ORPHANS)]
    random.Random(4).shuffle(events)
    with sink("--profile", str(path), "--window", "100", "--label-horizon", "0", join=10) as (running, logger):
        assert {post(logger, sent, path=f"/any/{place % 3}?x") for place, sent in enumerate(events)} == {200}
        settled(running, analysed=len(MARKETS), shed=ORPHANS)
        yield running


def test_the_rows_per_bin_are_those_that_were_sent(recorded: Tap, features: list[Feature]) -> None:
    until(lambda: recorded.counts()["ml_inference_rows_total"] == len(MARKETS))
    counts = recorded.counts()
    rows = np.array([market.features for market in MARKETS])
    for place, feature in enumerate(features):
        found = {
            match[1]: value
            for key, value in counts.items()
            if (match := re.match(rf'ml_feature_rows_total\{{bin="(.*)",feature="{feature.name}"', key))
        }
        sent = feature.bins.counts(rows[:, place])  # type: ignore[arg-type]
        assert found == dict(zip(feature.bins.names, sent.tolist(), strict=True))


def test_requests_are_the_joined_exchanges_and_nothing_is_made_up_that_was_not_told(recorded: Tap) -> None:
    counts = recorded.counts()
    requests = {key: value for key, value in counts.items() if key.startswith("ml_inference_requests_total")}
    assert requests == {'ml_inference_requests_total{code="200",protocol="cloudevents"}': float(len(MARKETS))}
    assert recorded.outcomes() == {"ok": len(MARKETS), "error": 0, "client_abort": 0, "timeout": 0, "unfollowed": 0}
    for silent in (
        "ml_inference_duration_seconds_count",
        "ml_inference_time_to_first_byte_seconds_count",
        "ml_inference_requests_in_flight",
        "pegel_tap_connections",
    ):
        assert counts[silent] == 0, silent
    assert set(labelled(counts, "pegel_tap_bytes_total").values()) == {0.0}


def test_labels_are_matched_by_the_events_id(recorded: Tap) -> None:
    # In V2 too, though the server has put an id of its own into the answer.
    items = [{"id": f"market-{number}", "label": int(market.grew)} for number, market in enumerate(MARKETS)]
    status, answer = recorded.ask("/v1/feedback", "POST", json.dumps(items).encode())
    assert (status, json.loads(answer)["accepted"]) == (202, len(items))
    assert recorded.counts()["ml_model_accuracy"] == 1


def test_the_page_and_the_status_know_of_them(recorded: Tap) -> None:
    assert recorded.ask("/")[0] == 200
    state = json.loads(recorded.ask("/api/status")[1])
    assert (state["tap"]["requests"], state["tap"]["upstream"]) == (len(MARKETS), "")


def test_a_sink_is_ready_without_a_model_and_is_not_while_it_ends() -> None:
    with sink() as (running, _):
        assert running.ask("/readyz") == (200, b"ok\n")
        assert "events on 127.0.0.1:" in running.log.read_text()
        assert running.end() == 0


def test_structured_events_are_joined_with_binary_ones() -> None:
    whole = {"specversion": "1.0", "id": "a", "source": "x", "component": "predictor",
             "type": "org.kubeflow.serving.inference.request", "data": {"instances": [[1.0, 2.0]]}}  # fmt: skip
    with sink() as (running, logger):
        assert post(logger, ({"Content-Type": "application/cloudevents+json"}, json.dumps(whole).encode())) == 200
        assert post(logger, PAIR[1]) == 200
        settled(running, analysed=1)


def test_exchanges_of_one_id_are_counted_each() -> None:
    with sink() as (running, logger):
        for number in range(20):
            for sent in told("the client's", {"instances": [[number, 2.0]]}, {"predictions": [1]}):
                assert post(logger, sent) == 200
        settled(running, analysed=20)
        assert running.outcomes()["ok"] == 20
        until(lambda: running.counts()[INFERENCE_ROWS.name] == 20)


@pytest.mark.parametrize("said", [True, False], ids=["with the header", "as the logger copies them"])
def test_compressed_bodies_are_read(said: bool) -> None:
    coding = {"Content-Encoding": "gzip"} if said else {}
    with sink() as (running, logger):
        asked, answered = (gzip.compress(body) for _, body in PAIR)
        assert post(logger, event("request", "a", asked, **coding)) == 200
        assert post(logger, event("response", "a", answered, **coding)) == 200
        for sent in (event("request", "b", asked, **coding), event("response", "b", {"predictions": [1]})):
            assert post(logger, sent) == 200
        bomb = gzip.compress(b'{"instances": [' + b"[1.0, 2.0]," * 500_000 + b"[1.0, 2.0]]}")
        for sent in told("c", bomb, {"predictions": [1]}):
            assert post(logger, sent) == 200
        settled(running, analysed=2, undecodable=1)
        assert running.counts()[INFERENCE_ROWS.name] == 2


@pytest.mark.parametrize("compressed", [False, True])
def test_a_batch_of_events_is_read(compressed: bool) -> None:
    events = [
        {"specversion": "1.0", "id": str(number), "source": "x", "component": "predictor", "data": data,
         "type": f"org.kubeflow.serving.inference.{half}"}
        for number in range(30)
        for half, data in (("request", {"instances": [[number, 2.0]]}), ("response", {"predictions": [1]}))
    ]  # fmt: skip
    random.Random(5).shuffle(events)
    body = json.dumps([*events, {"id": "1", "type": "another"}]).encode()
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    with sink() as (running, logger):
        if compressed:
            assert post(logger, (headers | {"Content-Encoding": "gzip"}, gzip.compress(body))) == 200
        else:
            assert post(logger, (headers, body)) == 200
        settled(running, analysed=30)


SERVICES = ("Ce-Inferenceservicename", "Ce-Namespace", "Ce-Component", "Ce-Endpoint")


@pytest.mark.parametrize(
    ("options", "own", "other"),
    [
        ((), ("houses", "models", "predictor", "default"), ("shadow", "models", "predictor", "default")),
        ((), ("houses", "models", "predictor", "default"), ("houses", "others", "predictor", "default")),
        ((), ("houses", "models", "predictor", "default"), ("houses", "models", "transformer", "default")),
        (("--served-model", "houses"), ("houses", "models", "predictor", ""), ("shadow", "models", "predictor", "")),
        (("--served-model", "houses"), ("houses", "models", "predictor", ""), ("houses", "models", "transformer", "")),
        (("--served-model", "models/houses"), ("houses", "models", "a", ""), ("houses", "others", "a", "")),
        (("--served-model", "houses/predictor"), ("houses", "m", "predictor", ""), ("houses", "m", "transformer", "")),
        (
            ("--served-model", "models/houses/predictor"),
            ("houses", "models", "predictor", ""),
            ("houses", "others", "predictor", ""),
        ),
        (("--served-version", "3"), ("houses", "m", "a", "default"), ("houses", "m", "a", "canary")),
    ],
)
def test_events_of_another_service_are_no_evidence(
    options: tuple[str, ...], own: tuple[str, ...], other: tuple[str, ...]
) -> None:
    with sink("--window", "500", *options) as (running, logger):
        for number in range(20):
            for whose in (own, other):
                attributes = dict(zip(SERVICES, whose, strict=True))
                for half, body in (("request", {"instances": [[1.0, 2.0]]}), ("response", {"predictions": [1]})):
                    # One id for both: a client's own goes with its call through all services.
                    assert post(logger, event(half, str(number), body, **attributes)) == 200
        settled(running, analysed=20)
        until(lambda: labelled(running.counts(), TAP_OTHER_MODEL_REQUESTS.name) == {"200": 20})
        assert running.outcomes()["ok"] == 20
        assert running.counts()[INFERENCE_ROWS.name] == 20


def test_the_models_health_and_metadata_that_the_logger_tells_of_are_no_inference() -> None:
    answer = {"name": "houses", "ready": True}
    with sink() as (running, logger):
        for sent in (*told("c", b"", answer), *reversed(told("b", b"", answer))):
            assert post(logger, sent) == 200
        for sent in PAIR:
            assert post(logger, sent) == 200
        settled(running, analysed=1)
        assert running.outcomes()["ok"] == 1


def test_a_logger_that_tells_only_requests_is_said_so_in_the_log() -> None:
    with sink(join=1) as (running, logger):
        assert post(logger, PAIR[0]) == 200
        settled(running, shed=1)
        until(lambda: "mode: all" in running.log.read_text())


def test_bodies_that_say_no_rows_are_undecodable() -> None:
    bodies = [b"\x00", b"{}", b"[" * 5_000, b'{"instances": []}', b'"datatype"', b"\x1f\x8b\x08"]
    with sink() as (running, logger):
        for number, body in enumerate(bodies):
            for sent in told(str(number), body, {"predictions": [1]}):
                assert post(logger, sent) == 200
        settled(running, undecodable=len(bodies))


def test_a_hostile_client_gets_a_line_and_leaves_neither_memory_nor_series() -> None:
    with sink() as (running, logger):
        before = running.counts().keys()
        for number in range(100):
            assert post(logger, event("request", str(number), os.urandom(1 << 20))) == 200
        for number in range(3_000):
            kind = {"Ce-Component": f"c{number}" * 100, "Ce-Inferenceservicename": f"s{number}"}
            assert post(logger, event("request", f"{number:0256}", b"x", **kind)) == 200
        for refused, sent in (
            (400, ({}, b"{}")),
            (400, event("request", "x" * 257, b"x")),
            (400, event("request", "a", b"x", **{"Ce-Type": "x" * 5_000})),
            (431, event("request", "a", b"x", **{"Ce-Metadata": "x" * 20_000})),
        ):
            with httpx.Client(base_url=logger.base_url) as one:
                answer = one.post("/", headers=sent[0], content=sent[1])
            assert (answer.status_code, answer.text.count("\n")) == (refused, 1)
        assert logger.get("/").status_code == 405
        assert running.counts().keys() == before
        assert running.peak_bytes() < 48 << 20
        for sent in PAIR:
            assert post(logger, sent) == 200
        until(lambda: running.copies()["analysed"] == 1)


def test_events_that_are_too_large_to_be_kept_are_answered_at_once_and_their_exchange_is_counted() -> None:
    large, small = bytes(MAX_COPY_BYTES + 1), {"predictions": [1]}
    whole = {"specversion": "1.0", "id": "structured", "source": "x", "data": "x" * MAX_COPY_BYTES,
             "type": "org.kubeflow.serving.inference.request"}  # fmt: skip
    with sink() as (running, logger):
        for sent in (
            *told("both halves", large, large),
            *told("a large request", large, small),
            *reversed(told("a large answer", small, large)),
            *told("together", bytes(MAX_COPY_BYTES // 2), bytes(MAX_COPY_BYTES // 2 + 1)),
            *told("again", large, large) * 2,
        ):
            assert post(logger, sent) == 200
        assert post(logger, ({"Content-Type": "application/cloudevents+json"}, json.dumps(whole).encode())) == 200
        assert logger.post("/", headers=event("request", "a", b"")[0] | {"Ce-Type": "x"}, content=large).text.count(
            "Ce-Type is neither"
        )
        for sent in told("read", bytes(1_600_000), bytes(1_600_000)):
            assert post(logger, sent) == 200
        until(lambda: running.copies()["undecodable"] == 1)
        for sent in PAIR:
            assert post(logger, sent) == 200
        settled(running, analysed=1, undecodable=1, shed=6)
        assert running.outcomes()["ok"] == 7
        assert running.log.read_text().count("counted and not read: request and answer have more than 4 MiB") == 1


def test_a_large_event_without_a_length_is_answered_on_a_connection_that_lives_on() -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(1 << 20)

    with sink() as (running, logger):
        client = connected(running.port)
        for half in ("request", "response"):
            assert logger.post("/", headers=event(half, "a", b"")[0], content=parts()).status_code == 200
        with client:
            head = _raw(event("request", "b", b""))[: -len("0\r\n\r\n")] + b"%d\r\nExpect: 100-continue\r\n\r\n"
            for _ in range(2):
                client.sendall(head % (MAX_COPY_BYTES + 1))
                assert received(client, 25) == b"HTTP/1.1 100 Continue\r\n\r\n"
                client.sendall(bytes(MAX_COPY_BYTES + 1))
                assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        settled(running, shed=1)


def test_large_events_at_once_are_all_answered_within_bounds_of_memory() -> None:
    def tell(client: str) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{running.port}", timeout=30) as logger:
            for number in range(10):
                for sent in told(f"{client}-{number}", bytes(2 << 20), bytes(2 << 20)):
                    statuses.append(post(logger, sent))

    def tell_all(turn: int) -> None:
        threads = [threading.Thread(target=tell, args=(f"{turn}-{client}",)) for client in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: sum(running.copies().values()) == turn * 80)

    statuses: list[int] = []
    rounds = itertools.count(1)
    with sink() as (running, _):
        growth = least_growth(running.resident_bytes, lambda: tell_all(next(rounds)))
        assert growth < 1 << 20, "each of the four rounds left one of its 320 bodies behind"
        assert statuses == [200] * 5 * 160
        assert running.peak_bytes() < 80 << 20


def _raw(sent: Event) -> bytes:
    headers = "".join(f"{name}: {value}\r\n" for name, value in sent[0].items())
    return f"POST / HTTP/1.1\r\nHost: sink\r\n{headers}Content-Length: {len(sent[1])}\r\n\r\n".encode() + sent[1]


def test_a_logger_that_opens_a_connection_for_each_event_and_leaves_it_open_is_always_answered() -> None:
    with sink() as (running, _), contextlib.ExitStack() as left_open:
        for number in range(300):
            for sent in told(str(number), {"instances": [[1.0]]}, {"predictions": [1]}):
                client = left_open.enter_context(socket.create_connection(("127.0.0.1", running.port), 10))
                client.sendall(_raw(sent))
                assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        settled(running, analysed=300)


def test_twenty_thousand_short_connections_leave_nothing_behind() -> None:
    def tell(count: int) -> None:
        for number in range(count):
            with socket.create_connection(("127.0.0.1", running.port), 10) as client:
                client.sendall(_raw(event("request", str(number), b"")))
                assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")

    with sink() as (running, _):
        assert least_growth(running.resident_bytes, lambda: tell(4_000)) < 4_000 * LEFT_BYTES


class Logger:
    """Tells of one exchange after the other until told to stop, and notes whatever is not answered with 200."""

    def __init__(self, port: int, name: str) -> None:
        self.exchanges = 0
        self.failures: list[str] = []
        self.stopping = threading.Event()
        self._port = port
        self._name = name

    def run(self) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{self._port}", timeout=10) as client:
            while not self.stopping.is_set():
                for sent in told(f"{self._name}-{self.exchanges}", {"instances": [[1.0, 2.0]]}, {"predictions": [1]}):
                    try:
                        status = post(client, sent)
                    except httpx.HTTPError as error:
                        self.failures.append(repr(error))
                        return
                    if status != 200:
                        self.failures.append(str(status))
                self.exchanges += 1


@contextlib.contextmanager
def telling(running: Tap, count: int) -> Iterator[list[Logger]]:
    loggers = [Logger(running.port, str(number)) for number in range(count)]
    threads = [threading.Thread(target=logger.run) for logger in loggers]
    for thread in threads:
        thread.start()
    try:
        yield loggers
    finally:
        for logger in loggers:
            logger.stopping.set()
        for thread in threads:
            thread.join()


def test_killing_the_analyser_again_and_again_leaves_no_event_unanswered_and_no_exchange_uncounted() -> None:
    with sink() as (running, _):
        with telling(running, 4) as loggers:
            for kills in range(1, 4):
                analyser = running.wait_for_analyser()
                seen = running.copies()["analysed"]
                until(lambda seen=seen: running.copies()["analysed"] > seen)  # type: ignore[misc]
                os.kill(analyser, signal.SIGKILL)
                until(lambda kills=kills: running.counts()["pegel_tap_analyser_restarts_total"] == kills)  # type: ignore[misc]
                assert running.ask("/readyz") == (200, b"ok\n")
            running.wait_for_analyser()
        exchanges = sum(logger.exchanges for logger in loggers)
        assert [failure for logger in loggers for failure in logger.failures] == []
        assert running.outcomes()["ok"] == exchanges
        until(lambda: sum(running.copies().values()) == exchanges)
        copies = running.copies()
        assert copies["undecodable"] == 0
        assert min(copies["analysed"], copies["shed"]) > 0


def test_a_stopped_analyser_and_a_full_store_slow_no_event_down() -> None:
    with sink("--window", "500") as (running, logger):
        analyser = running.wait_for_analyser()
        os.kill(analyser, signal.SIGSTOP)
        try:
            with telling(running, 2) as loggers:
                for number in range(20):
                    assert post(logger, event("request", f"orphan-{number}", bytes(1 << 20))) == 200
                until(lambda: running.copies()["shed"] >= 10)
                told_so_far = sum(one.exchanges for one in loggers)
                until(lambda: sum(one.exchanges for one in loggers) > told_so_far + 500)
            assert [failure for one in loggers for failure in one.failures] == []
        finally:
            os.kill(analyser, signal.SIGCONT)


def test_the_forwarder_keeps_to_its_memory_budget_and_has_no_numbers_library() -> None:
    budget = 32 << 20
    with sink() as (running, _):
        assert running.resident_bytes() <= budget
        with telling(running, 4) as loggers:
            until(lambda: sum(logger.exchanges for logger in loggers) > 2_000)
        until(lambda: running.copies()["analysed"] + running.copies()["shed"] > 2_000)
        assert running.resident_bytes() <= budget
        assert "numpy" not in Path(f"/proc/{running.process.pid}/maps").read_text()
