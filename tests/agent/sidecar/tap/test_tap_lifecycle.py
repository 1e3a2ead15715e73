"""How a real `pegel sidecar` ends, what it survives, what its admin port says meanwhile, and what it weighs."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from pegel_agent.reference.profile import load

from tests.agent.sidecar.tap.tap_process import (
    ANSWER,
    ASK,
    LAST_ANSWER,
    LEFT_BYTES,
    Clients,
    Tap,
    connected,
    free_ports,
    gone,
    least_growth,
    model,
    predict,
    read_message,
    received,
    tap,
    until,
)

pytestmark = pytest.mark.integration


def test_both_processes_log_in_the_format_that_was_asked_for() -> None:
    with tap(1, "--log-format", "json", ready=True) as running:
        until(lambda: "learning the reference" in running.log.read_text())
        lines = [json.loads(line) for line in running.log.read_text().splitlines()]
    assert {"watching", "learning"} <= {line["message"].split()[0] for line in lines}
    assert {line["level"] for line in lines} == {"info"}


def _nothing_left(running: Tap, analyser: int) -> None:
    assert list(running.temporary.iterdir()) == []
    until(lambda: gone(analyser))


def test_sigterm_lets_an_exchange_end_closes_idle_connections_refuses_new_ones_and_leaves_nothing() -> None:
    finish = threading.Event()

    async def thinks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        await asyncio.to_thread(finish.wait)
        writer.write(ANSWER)
        await reader.read()

    with model(thinks) as port, tap(port, ready=True) as running:
        analyser = running.wait_for_analyser()
        with connected(running.port) as idle, connected(running.port) as busy:
            busy.sendall(ASK)
            until(lambda: running.counts()["ml_inference_requests_in_flight"] == 1)
            running.process.send_signal(signal.SIGTERM)
            assert idle.recv(1) == b""
            with pytest.raises(ConnectionRefusedError):
                connected(running.port)
            assert running.ask("/healthz") == (200, b"ok\n")
            assert running.ask("/readyz") == (503, b"shutting down\n")
            finish.set()
            assert received(busy, len(LAST_ANSWER) + 1) == LAST_ANSWER
        assert running.process.wait(10) == 0
        _nothing_left(running, analyser)


def test_a_drain_ends_in_time_and_what_it_cuts_off_does_not_look_complete() -> None:
    async def never_ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf of ")
        await reader.read()

    with model(never_ends) as port, tap(port, drain=0.5) as running, connected(running.port) as client:
        client.sendall(ASK)
        assert client.recv(1 << 16).endswith(b"half of ")
        running.process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert running.process.wait(10) == 0


def test_a_connection_that_the_model_has_closed_does_not_hold_up_the_drain() -> None:
    async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        writer.write(ANSWER)

    with model(closes) as port, tap(port, drain=60) as running, connected(running.port) as client:
        client.sendall(ASK)
        assert received(client, len(ANSWER) + 1) == ANSWER
        assert running.end(seconds=10) == 0


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]])
def test_sigint_or_a_second_sigterm_ends_at_once(signals: list[signal.Signals]) -> None:
    async def never_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        await asyncio.sleep(60)

    with model(never_answers) as port, tap(port, ready=True) as running, connected(running.port) as client:
        analyser = running.wait_for_analyser()
        client.sendall(ASK)
        until(lambda: running.counts()["ml_inference_requests_in_flight"] == 1)
        for number in signals:
            running.process.send_signal(number)
            time.sleep(0.1)  # two of a kind that are pending together are one
        assert running.process.wait(10) == 0
        _nothing_left(running, analyser)


def test_the_analyser_ends_when_the_forwarder_is_killed() -> None:
    with model(predict) as port, tap(port, ready=True) as running:
        analyser = running.wait_for_analyser()
        running.process.kill()
        running.process.wait()
        until(lambda: gone(analyser))


def test_killing_the_analyser_again_and_again_costs_no_client_anything_and_no_exchange_its_count() -> None:
    clients = Clients(0)
    with model(predict) as port, tap(port, ready=True) as running:
        clients.port = running.port
        with clients.asking(4, pause=0.001):
            for kills in range(1, 4):
                analyser = running.wait_for_analyser()
                seen = running.copies()["analysed"]
                until(lambda seen=seen: running.copies()["analysed"] > seen)  # type: ignore[misc]
                os.kill(analyser, signal.SIGKILL)
                until(lambda kills=kills: running.counts()["pegel_tap_analyser_restarts_total"] == kills)  # type: ignore[misc]
                assert running.ask("/healthz") == (200, b"ok\n")
                assert running.ask("/")[0] in {200, 503}
            running.wait_for_analyser()
            shed = running.copies()["shed"]
        assert clients.failures == []
        assert running.outcomes() == {
            "ok": clients.answered,
            "error": 0,
            "client_abort": 0,
            "timeout": 0,
            "unfollowed": 0,
        }
        until(lambda: sum(running.copies().values()) == clients.answered)
        copies = running.copies()
        assert copies["undecodable"] == 0
        assert copies["analysed"] > 0
        assert shed > 0


def test_a_stopped_analyser_sheds_copies_only_and_is_replaced() -> None:
    clients = Clients(0)
    with model(predict) as port, tap(port, silence=5, ready=True) as running:
        clients.port = running.port
        analyser = running.wait_for_analyser()
        with clients.asking(8):
            os.kill(analyser, signal.SIGSTOP)
            until(lambda: running.copies()["shed"] > 0)
            answered = clients.answered
            until(lambda: clients.answered > answered + 1000)
            assert running.peak_bytes() < 48 << 20
            until(lambda: running.counts()["pegel_tap_analyser_restarts_total"] == 1)
            assert running.wait_for_analyser() != analyser
        assert clients.failures == []
        assert running.outcomes()["ok"] == clients.answered
        until(lambda: sum(running.copies().values()) == clients.answered)
        assert gone(analyser)


def test_the_admin_port_says_what_is_wrong() -> None:
    with model(predict) as port, tap(port, ready=True) as running:
        assert running.ask("/readyz") == (200, b"ok\n")
        assert running.ask("/nothing")[0] == 404
        assert running.ask("/", "DELETE")[0] == 405
        assert running.ask("/metrics", "POST", b"x")[0] == 405
        assert running.ask("/healthz", "PUT", b"x")[0] == 405
        assert running.ask("/v1/feedback")[0] == 405
        assert running.ask("/", "HEAD")[0] == 200
        assert running.ask("/metrics", Accept="application/openmetrics-text")[1].endswith(b"# EOF\n")


def test_feedback_needs_the_token_that_was_configured(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    item = b'[{"id": "a", "label": 1, "prediction": 1}]'
    with model(predict) as port, tap(port, "--feedback-token", str(tmp_path / "token"), ready=True) as running:
        assert running.ask("/v1/feedback", "POST", item)[0] == 401
        assert running.ask("/v1/feedback", "POST", item, Authorization="Bearer other")[0] == 401
        assert running.ask("/v1/feedback", "POST", item, Authorization="Bearer secret")[0] == 202
        assert running.ask("/metrics")[0] == 200


def test_without_a_model_the_tap_is_healthy_and_not_ready() -> None:
    (nobody,) = free_ports(1)
    with tap(nobody) as running:
        assert running.ask("/healthz")[0] == 200
        status, reason = running.ask("/readyz")
        assert status == 503
        assert str(nobody).encode() in reason


def test_a_model_that_does_not_listen_is_on_the_page_in_the_status_and_in_the_log() -> None:
    (nobody,) = free_ports(1)
    with tap(nobody, ready=True) as running:
        with connected(running.port) as client, contextlib.suppress(ConnectionResetError):
            client.sendall(ASK)
            client.recv(1)
        until(lambda: json.loads(running.ask("/api/status")[1])["tap"]["refused"] == 1)
        assert f"The model does not listen on 127.0.0.1:{nobody}".encode() in running.ask("/")[1]
        until(lambda: "the model does not accept connections" in running.log.read_text())


def test_while_the_analyser_is_down_health_and_metrics_answer_and_the_rest_is_503() -> None:
    with model(predict) as port, tap(port, ready=True) as running:
        os.kill(running.wait_for_analyser(), signal.SIGKILL)
        until(lambda: running.counts()["pegel_tap_analyser_up"] == 0)
        assert running.ask("/api/status")[0] == 503
        assert running.ask("/v1/feedback", "POST", b"[]")[0] == 503
        assert running.ask("/healthz")[0] == 200
        assert "ml_inference_duration_seconds_count" in running.counts()


def _many_short_connections(port: int, count: int) -> None:
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(ASK)
            assert received(client, len(ANSWER)) == ANSWER


def test_twenty_thousand_short_connections_leave_nothing_behind() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    with model(predict) as port, tap(port, ready=True) as running:
        growth = least_growth(running.resident_bytes, lambda: _many_short_connections(running.port, 4_000))
        assert growth < 4_000 * LEFT_BYTES
        assert running.counts()["pegel_tap_connections"] == 0
        assert running.outcomes()["ok"] == 20_000


def test_four_thousand_refused_connections_leave_nothing_behind() -> None:
    (nobody,) = free_ports(1)

    def refused() -> None:
        with contextlib.ExitStack() as clients:
            for _ in range(1000):
                with contextlib.suppress(
                    ConnectionResetError
                ):  # refused before the client has noticed that it is connected
                    clients.enter_context(connected(running.port))
            until(lambda: running.counts()["pegel_tap_connections"] == 0)

    with tap(nobody) as running:
        assert least_growth(running.resident_bytes, refused, rounds=3) < 1_000 * LEFT_BYTES
        until(lambda: running.outcomes()["error"] == 4000)


def test_the_forwarder_keeps_to_its_memory_budget_when_idle_and_after_load() -> None:
    budget = 32 << 20
    with model(predict) as port, tap(port, ready=True) as running:
        assert running.resident_bytes() <= budget
        clients = Clients(running.port)
        with clients.asking(16):
            until(lambda: clients.answered > 5000)
        # What waited for the analyser is gone when it has caught up.
        until(lambda: sum(running.copies().values()) == clients.answered)
        assert running.resident_bytes() <= budget


def test_two_hundred_columns_are_learned_and_watched_within_the_analysers_memory() -> None:
    rng = np.random.default_rng(1)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_message(reader):
            body = json.dumps({"predictions": [0.5] * 125}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with model(answer) as port, tap(port, "--window", "125") as running:
        with connected(running.port) as client:
            for _ in range(800):
                if running.counts().get("ml_reference_ready"):
                    break
                body = json.dumps({"instances": rng.normal(size=(125, 200)).round(3).tolist()}).encode()
                client.sendall(
                    b"POST /v1/models/m:predict HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n" % len(body) + body
                )
                while not received(client, 1).endswith(b"}"):
                    pass
        until(lambda: running.counts().get("ml_reference_ready"))
        assert running.counts()["pegel_tap_analyser_restarts_total"] == 0


def test_what_was_learned_can_be_kept_as_a_profile_by_who_has_the_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    secret = {"Authorization": "Bearer secret"}
    rng = np.random.default_rng(1)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_message(reader):
            body = json.dumps({"predictions": [0.5] * 125}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with model(answer) as port, tap(port, "--feedback-token", str(tmp_path / "token"), "--window", "125") as running:
        until(lambda: running.ask("/v1/profile", **secret)[0] == 404)
        assert running.ask("/v1/profile")[0] == 401
        with connected(running.port) as client:
            # What a busy machine sheds is not learned from, so more may have to be sent.
            for number in range(800):
                if number > 80 and number % 10 == 0 and running.ask("/v1/profile", **secret)[0] == 200:
                    break
                rows = [{"age": age, "plan": "basic" if age < 0 else "plus"} for age in rng.normal(size=125).tolist()]
                body = json.dumps({"instances": rows}).encode()
                client.sendall(
                    b"POST /v1/models/m:predict HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n" % len(body) + body
                )
                while not received(client, 1).endswith(b"}"):
                    pass
        until(lambda: running.ask("/v1/profile", **secret)[0] == 200)
        kept = tmp_path / "profile.json"
        kept.write_bytes(running.ask("/v1/profile", **secret)[1])
    profile = load(kept)
    assert {feature.name for feature in profile.features} >= {"age", "plan"}
    assert profile.rows >= 10_000
    with tap(1, "--profile", str(kept), ready=True) as again:
        assert profile.hash.encode() in again.ask("/metrics")[1]
        assert again.ask("/v1/profile")[0] == 403
