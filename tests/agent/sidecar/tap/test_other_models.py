"""Only a model's own traffic is its evidence: a real `pegel sidecar` before a server of several models."""

import html
import json
import os
import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest
from pegel_agent.reference import profile as profiles
from pegel_agent.reference.columns import learn_feature
from pegel_agent.reference.profile import FORMAT, Profile
from pegel_agent.sidecar.status import words
from pegel_exporters.catalogue import (
    DATA_DRIFT_DETECTED,
    DRIFT_EVIDENCE,
    DRIFT_EVIDENCE_LIMIT,
    INFERENCE_DURATION,
    INFERENCE_IN_FLIGHT,
    INFERENCE_OUTCOMES,
    INFERENCE_REQUESTS,
    INFERENCE_ROWS,
    TAP_EXCHANGES,
    TAP_OTHER_MODEL_REQUESTS,
)
from prometheus_client.parser import text_string_to_metric_families

from tests.agent.sidecar.tap.tap_process import Tap, model, read_message, tap, until

pytestmark = pytest.mark.integration

FEATURES = ("area", "age", "rooms")
HOUSES = "/v1/models/houses:predict"
SHADOW = "/v1/models/shadow:predict"


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = np.random.default_rng(1).normal(size=(10_000, len(FEATURES)))
    features = [learn_feature(name, "input", rows[:, place]) for place, name in enumerate(FEATURES)]
    path = str(tmp_path_factory.mktemp("reference") / "profile.json")
    profiles.save(Profile(FORMAT, 1.7e9, "houses", "1", 10_000, tuple(one for one in features if one)), path)
    return path


@dataclass
class Server:
    """Predicts for the models that it has, whatever the version, and answers 404 for others."""

    models: frozenset[str]
    asked: list[str] = field(default_factory=list)

    async def answer(self, reader: Any, writer: Any) -> None:
        while True:
            message = await read_message(reader)
            target = message.split(b" ", 2)[1].decode()
            self.asked.append(target)
            named = re.match(r"/v[12]/models/([^/:]+)", target)
            status, body = "404 Not Found", {"error": "no such model"}
            if named and named[1] in self.models:
                sent = json.loads(message.partition(b"\r\n\r\n")[2])
                rows = len(sent["instances"]) if "instances" in sent else sent["inputs"][0]["shape"][0]
                output = {"name": "y", "shape": [rows], "datatype": "INT64", "data": [1] * rows}
                status, body = "200 OK", {"predictions": [1] * rows, "outputs": [output]}
            text = json.dumps(body).encode()
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(text), text))
            await writer.drain()


@pytest.fixture
def server() -> Iterator[tuple[Server, int]]:
    serving = Server(frozenset({"houses", "shadow", "houses2", "ho%75ses"}))
    with model(serving.answer) as port:
        yield serving, port


def rows_of(rng: np.random.Generator, *, shift: float = 0.0, rows: int = 5) -> dict[str, Any]:
    return {"instances": [dict(zip(FEATURES, row, strict=True)) for row in rng.normal(shift, 1, (rows, 3)).tolist()]}


ROWS = rows_of(np.random.default_rng(2))


def ask(running: Tap, targets: Sequence[str], body: Any = ROWS) -> list[int]:
    with httpx.Client(base_url=f"http://127.0.0.1:{running.port}", timeout=10) as client:
        return [client.post(target, json=body).status_code for target in targets]


@dataclass(frozen=True)
class Page:
    """What /metrics says of one moment."""

    samples: dict[str, list[Any]]

    @classmethod
    def of(cls, running: Tap) -> "Page":
        page = running.ask("/metrics")[1].decode()
        samples: dict[str, list[Any]] = {}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append(sample)
        return cls(samples)

    def value(self, name: str) -> float:
        (sample,) = self.samples[name]
        value: float = sample.value
        return value

    def by(self, name: str, label: str) -> dict[str, float]:
        """A metric's values above 0 by one of its labels."""
        found: dict[str, float] = {}
        for sample in self.samples.get(name, []):
            if sample.value:
                found[sample.labels[label]] = found.get(sample.labels[label], 0) + sample.value
        return found

    @property
    def series(self) -> set[tuple[str, ...]]:
        return {(sample.name, *sample.labels.values()) for each in self.samples.values() for sample in each}

    @property
    def own(self) -> dict[str, float]:
        return self.by(INFERENCE_REQUESTS.name, "code")

    @property
    def others(self) -> dict[str, float]:
        return self.by(TAP_OTHER_MODEL_REQUESTS.name, "code")

    @property
    def copies(self) -> dict[str, float]:
        return self.by(TAP_EXCHANGES.name, "outcome")


def settled(running: Tap, *, own: dict[str, float], others: dict[str, float]) -> Page:
    """Wait until the page says so; the page then."""

    def counted() -> bool:
        page = Page.of(running)
        return (page.own, page.others, sum(page.copies.values())) == (own, others, sum(own.values()))

    until(counted)
    return Page.of(running)


@pytest.mark.parametrize("options", [(), ("--served-model", "houses")], ids=["found", "given"])
def test_a_second_model_on_the_port_is_no_evidence_of_the_first(
    options: tuple[str, ...], server: tuple[Server, int], profile: str
) -> None:
    rng = np.random.default_rng(3)
    with tap(server[1], "--profile", profile, "--window", "100", *options, ready=True) as running:
        with httpx.Client(base_url=f"http://127.0.0.1:{running.port}", timeout=10) as client:
            for _ in range(200):
                assert client.post(HOUSES, json=rows_of(rng)).status_code == 200
                assert client.post(SHADOW, json=rows_of(rng, shift=2.0)).status_code == 200
        page = settled(running, own={"200": 200}, others={"200": 200})
        until(lambda: Page.of(running).value(INFERENCE_ROWS.name) == 1_000)
        page = Page.of(running)
    assert page.copies == {"analysed": 200}
    assert page.by(INFERENCE_OUTCOMES.name, "outcome") == {"ok": 200}
    assert page.value(f"{INFERENCE_DURATION.name}_count") == 200
    assert page.value(INFERENCE_IN_FLIGHT.name) == 0
    assert page.value(DATA_DRIFT_DETECTED.name) == 0
    assert page.value(DRIFT_EVIDENCE.name) < page.value(DRIFT_EVIDENCE_LIMIT.name)


def test_the_first_name_whose_columns_fit_is_found_logged_and_shown(server: tuple[Server, int], profile: str) -> None:
    with tap(server[1], "--profile", profile, ready=True) as running:
        # Another model's columns don't fit, a model that the server hasn't gets no success.
        assert ask(running, [SHADOW] * 3, {"instances": [{"x": 1.0}]}) == [200] * 3
        assert ask(running, ["/v1/models/evil:predict"] * 2) == [404] * 2
        # Until one is found all count as the model's.
        settled(running, own={"200": 3, "404": 2}, others={})
        assert ask(running, [HOUSES] * 4) == [200] * 4
        settled(running, own={"200": 4}, others={"200": 3, "404": 2})
        assert ask(running, [SHADOW, "/v1/models/evil:predict", HOUSES]) == [200, 404, 200]
        page = settled(running, own={"200": 5}, others={"200": 4, "404": 3})
        assert page.copies == {"analysed": 5}
        state = json.loads(running.ask("/api/status")[1])["tap"]
        assert (state["served"], state["served_found"], state["other_model_requests"]) == (["houses"], True, 7)
        shown = running.ask("/")[1].decode()
        assert "7 requests for other models pass by unread: name them with --served-model" in shown
        assert "houses (found)" in shown
        assert "the model is served as houses: the first name whose columns fit" in running.log.read_text()
        assert "evil" not in running.log.read_text() + shown


def test_traffic_that_comes_before_the_analyser_is_up_is_parted_as_well(
    server: tuple[Server, int], profile: str
) -> None:
    with tap(server[1], "--profile", profile) as running:
        assert ask(running, [SHADOW, HOUSES] * 20 + [SHADOW] * 5) == [200] * 45
        running.wait_for_analyser()
        assert ask(running, [HOUSES]) == [200]
        page = settled(running, own={"200": 21}, others={"200": 25})
        assert page.copies["analysed"] >= 1
        assert page.by(INFERENCE_OUTCOMES.name, "outcome") == {"ok": 21}


def test_a_name_that_is_found_outlives_the_analyser(server: tuple[Server, int], profile: str) -> None:
    with tap(server[1], "--profile", profile, ready=True) as running:
        ask(running, [HOUSES])
        until(lambda: Page.of(running).copies == {"analysed": 1})
        os.kill(running.wait_for_analyser(), signal.SIGKILL)
        until(lambda: running.counts()["pegel_tap_analyser_restarts_total"] == 1)
        running.wait_for_analyser()
        ask(running, [SHADOW, SHADOW, HOUSES])
        page = settled(running, own={"200": 2}, others={"200": 2})
        assert page.value(INFERENCE_ROWS.name) == 5


@pytest.mark.parametrize(
    ("options", "own", "others"),
    [
        (("--served-model", "houses,houses2"), [HOUSES, "/v2/models/houses2/infer"], [SHADOW]),
        (
            ("--served-model", "houses", "--served-version", "3"),
            [HOUSES, "/v1/models/houses/versions/3:predict", "/v2/models/houses/versions/3/infer"],
            ["/v1/models/houses/versions/4:predict", "/v1/models/houses/labels/canary:predict", SHADOW],
        ),
        (
            ("--served-version", "3,stable"),
            [HOUSES, "/v1/models/houses/labels/stable:predict"],
            ["/v2/models/houses/versions/4/infer", "/v1/models/shadow/versions/3:predict"],
        ),
        (
            ("--served-model", "houses"),
            [HOUSES, "/v1/models/houses/versions/9:predict", "/v1/models/ho%75ses:predict"],
            ["/v1/models/Houses:predict", "/v1/models/houses.:predict", "/v1/models/houses%20:predict"],
        ),
    ],
    ids=["aliases", "a version", "versions alone", "spelling"],
)
def test_names_and_versions_are_compared_as_they_are_given(
    options: tuple[str, ...], own: list[str], others: list[str], server: tuple[Server, int], profile: str
) -> None:
    tensor = [{"name": name, "shape": [1], "datatype": "FP64", "data": [0.5]} for name in FEATURES]
    body = {"instances": [[0.5, 0.5, 0.5]], "inputs": tensor}
    with tap(server[1], "--profile", profile, *options, ready=True) as running:
        statuses = ask(running, [*own, *others], body)
        counted = {str(code): float(statuses[len(own) :].count(code)) for code in set(statuses[len(own) :])}
        page = settled(running, own={"200": len(own)}, others=counted)
        assert page.value(INFERENCE_ROWS.name) == len(own)
    assert server[0].asked == [*own, *others]


def test_without_a_profile_the_first_name_with_rows_is_learned_and_no_other(server: tuple[Server, int]) -> None:
    with tap(server[1], "--window", "5", ready=True) as running:
        ask(running, ["/v1/models/evil:predict"])
        ask(running, [HOUSES, SHADOW, HOUSES])
        page = settled(running, own={"200": 2}, others={"404": 1, "200": 1})
        assert page.value(INFERENCE_ROWS.name) == 10


def test_paths_that_name_no_model_count_as_before(server: tuple[Server, int], profile: str) -> None:
    with tap(server[1], "--profile", profile, ready=True) as running:
        ask(running, [HOUSES, "/invocations", "/v2/repository/index", "/v1/models", "/predict"])
        until(lambda: Page.of(running).others == {} and Page.of(running).own == {"200": 1, "404": 4})


def test_other_verbs_of_other_models_are_theirs_too(server: tuple[Server, int], profile: str) -> None:
    theirs = [
        "/v1/models/evil:explain",
        "/v2/models/evil/generate",
        "/prefix/v1/models/evil:predict",
        "/v1/models/evil",
    ]
    with tap(server[1], "--profile", profile, "--served-model", "houses", ready=True) as running:
        ask(running, [HOUSES, *theirs])
        settled(running, own={"200": 1}, others={"404": len(theirs)})


def test_no_name_makes_a_series_is_kept_or_shown(server: tuple[Server, int], profile: str) -> None:
    secret = "5ecret"
    names = [f"{secret}{number}" for number in range(200)]
    names += [secret * 200, f"{secret}%00", f"%ff{secret}", f"%3Cb%3E{secret}", f"{secret}%0A", "%20", "%E2%80%AE"]
    with tap(server[1], "--profile", profile, ready=True) as running:
        before = Page.of(running).series
        assert set(ask(running, [f"/v1/models/{name}:predict" for name in names])) == {404}
        ask(running, [HOUSES])
        until(lambda: Page.of(running).others == {"404": len(names)})
        new = {name for name, *_ in Page.of(running).series - before}
        assert new <= {INFERENCE_REQUESTS.name, TAP_OTHER_MODEL_REQUESTS.name}
        pages = [running.ask(path)[1].decode() for path in ("/", "/api/status", "/metrics")]
        assert not any(secret in text for text in (*pages, running.log.read_text()))


@pytest.mark.parametrize("name", ["häuser", "a b", "<b>", "a/b", "模型", "x" * 255])
def test_a_server_s_own_unusual_name_is_found_and_shown(name: str, profile: str) -> None:
    async def answer(reader: Any, writer: Any) -> None:
        while True:
            await read_message(reader)
            body = json.dumps({"predictions": [1] * 5}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()

    escaped = "".join(f"%{byte:02X}" for byte in name.encode())
    with model(answer) as port, tap(port, "--profile", profile, ready=True) as running:
        ask(running, [f"/v1/models/{escaped}:predict"])
        until(lambda: json.loads(running.ask("/api/status")[1])["tap"]["served"] == [name])
        assert f"<bdi>{html.escape(words.short(name, 40))} (found)</bdi>" in running.ask("/")[1].decode()
        ask(running, [HOUSES])
        settled(running, own={"200": 1}, others={"200": 1})


def test_a_name_that_can_t_be_shown_is_another_model_s_unless_it_is_given(profile: str) -> None:
    async def answer(reader: Any, writer: Any) -> None:
        while True:
            await read_message(reader)
            body = json.dumps({"predictions": [1] * 5}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()

    long = "/v1/models/" + "x" * 256 + ":predict"
    with model(answer) as port:
        with tap(port, "--profile", profile, ready=True) as running:
            ask(running, [long, "/v1/models/a%0Ab:predict"])
            settled(running, own={}, others={"200": 2})
            assert "No request for this model yet" in running.ask("/")[1].decode()
        with tap(port, "--profile", profile, "--served-model", "x" * 256, ready=True) as running:
            ask(running, [long])
            settled(running, own={"200": 1}, others={})


def test_the_server_s_odd_statuses_are_one_series(profile: str) -> None:
    codes = [200, 299, 599, 600, 799, 999]
    sent = iter(codes * 2)

    async def reply(reader: Any, writer: Any) -> None:
        while True:
            await read_message(reader)
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % next(sent))
            await writer.drain()

    with model(reply) as port, tap(port, "--profile", profile, "--served-model", "houses", ready=True) as running:
        assert ask(running, [SHADOW] * 6 + [HOUSES] * 6) == codes * 2
        folded = {"200": 1, "299": 1, "599": 1, "other": 3}
        until(lambda: (Page.of(running).own, Page.of(running).others) == (folded, folded))
