"""A flood of connections, slow senders, slow readers and vanished peers, for a while, as load runs through the sidecar:
no probe fails, no client's request fails, no count is wrong. PEGEL_ATTACK_SECONDS says for how long.
"""

import asyncio
import contextlib
import http.client
import multiprocessing
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event

import pytest
from pegel_exporters.keepalive import Keepalive

from tests.agent.sidecar.tap.tap_process import (
    ASK,
    Clients,
    Tap,
    labelled,
    model,
    predict,
    reset_on_close,
    tap,
    until,
    vanish,
)

pytestmark = pytest.mark.integration

SECONDS = float(os.environ.get("PEGEL_ATTACK_SECONDS", "12"))
PATIENCE_SECONDS = {"/healthz": 3.0, "/readyz": 3.0, "/metrics": 10.0}
"""How long a kubelet waits, as `pegel inject` writes it, and a Prometheus by default."""
HELD = 400
"""Connections that an attacker holds, more than there may be."""

Attack = Callable[[int, Event], None]


def _from_somewhere(port: int) -> socket.socket:
    sock = socket.socket()
    sock.bind((f"127.0.0.{random.randint(2, 30)}", 0))
    sock.settimeout(3)
    sock.connect(("127.0.0.1", port))
    return sock


def silent(port: int, over: Event) -> None:
    """Opens connections as fast as it can, says nothing, and closes none of the latest."""
    held: list[socket.socket] = []
    while not over.is_set():
        with contextlib.suppress(OSError):
            held.append(_from_somewhere(port))
        if len(held) > HELD:
            held.pop(0).close()


def slow(port: int, over: Event) -> None:
    """Sends heads and bodies a byte at a time, and takes answers so."""
    starts = [b"GET /metrics HTTP/1.1\r\nX: ", b"POST /v1/feedback HTTP/1.1\r\nContent-Length: 9999\r\n\r\n", b"GET "]
    held: list[socket.socket] = []
    while not over.is_set():
        for _ in range(20):
            with contextlib.suppress(OSError):
                sock = _from_somewhere(port)
                held.append(sock)
                sock.send(random.choice(starts))
        for sock in held:
            with contextlib.suppress(OSError):
                sock.send(b"a")
        while len(held) > HELD:
            held.pop(0).close()
        time.sleep(0.05)


def greedy(port: int, over: Event) -> None:
    """Asks for pages again and again on connections that it keeps, and reads none of them."""
    held: list[socket.socket] = []
    while not over.is_set():
        for path in ("/metrics", "/", "/api/status", "/healthz", "/readyz"):
            with contextlib.suppress(OSError):
                sock = _from_somewhere(port)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                held.append(sock)
                sock.send(f"GET {path} HTTP/1.1\r\nHost: m\r\n\r\n".encode() * 4)
        while len(held) > HELD:
            held.pop(0).close()
        time.sleep(0.1)


def vanishing(port: int, over: Event) -> None:
    """Goes without a word."""
    held: list[socket.socket] = []
    while not over.is_set():
        with contextlib.suppress(OSError):
            sock = _from_somewhere(port)
            sock.send(b"GET /metrics HTTP/1.1\r\n\r\n")
            vanish(sock)
            held.append(sock)
        if len(held) > HELD:
            held.pop(0).close()
        time.sleep(0.02)


@contextlib.contextmanager
def attacked(port: int, *attacks: Attack) -> Iterator[None]:
    """By processes of their own, as the load would otherwise share its processor with them."""
    context = multiprocessing.get_context("spawn")
    over = context.Event()
    attackers = [context.Process(target=attack, args=(port, over)) for attack in attacks]
    for attacker in attackers:
        attacker.start()
    try:
        yield
    finally:
        over.set()
        for attacker in attackers:
            attacker.join(20)
            if attacker.is_alive():
                attacker.kill()


@dataclass
class Probes:
    """What a kubelet and a Prometheus ask, and how long each answer took."""

    running: Tap
    took: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def asking(self) -> Iterator["Probes"]:
        over = threading.Event()
        threads = [threading.Thread(target=self._ask, args=(path, over)) for path in PATIENCE_SECONDS]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def _ask(self, path: str, over: threading.Event) -> None:
        while not over.wait(0.2):
            began = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", self.running.admin, timeout=PATIENCE_SECONDS[path])
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200 or (path == "/metrics" and b"ml_inference_outcomes_total" not in body):
                    self.failures.append(f"{path}: {answer.status}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{path}: {error!r} after {time.monotonic() - began:.2f} s")
            finally:
                connection.close()
            self.took.setdefault(path, []).append(time.monotonic() - began)


async def predict_or_think(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers at once who asks for a prediction; others for as long as they like."""
    head = await reader.readuntil(b"\r\n")
    if b"slow" in head:
        await asyncio.sleep(3600)
    await reader.readuntil(b"\r\n\r\n")
    body = ASK.partition(b"\r\n\r\n")[2]
    await reader.readexactly(len(body))
    writer.write(_ANSWER)
    await predict(reader, writer)


_ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"predictions": [1]}'


def test_an_attack_on_the_admin_port_costs_no_probe_and_no_client_anything() -> None:
    quick = Keepalive(idle_seconds=1, interval_seconds=1, probes=2)
    gone = []
    with model(predict_or_think) as port, tap(port, ready=True, keepalive=quick) as running:
        clients = Clients(running.port)
        probes = Probes(running)
        with (
            attacked(running.admin, silent, slow, greedy, vanishing),
            clients.asking(4, pause=0.005),
            probes.asking(),
        ):
            deadline = time.monotonic() + SECONDS
            while time.monotonic() < deadline:  # meanwhile clients of the model vanish or break off as they wait
                for end in (vanish, reset_on_close):
                    sock = socket.create_connection(("127.0.0.1", running.port), 10)
                    sock.sendall(ASK.replace(b":predict", b":predict?slow"))
                    end(sock)
                    if end is reset_on_close:
                        time.sleep(0.2)
                        sock.shutdown(socket.SHUT_WR)
                        time.sleep(0.2)
                        sock.close()
                        sock = None  # type: ignore[assignment]
                    gone.append(sock)
        assert clients.failures == []
        assert probes.failures == []
        assert clients.answered > 20 * SECONDS
        until(lambda: running.counts()["ml_inference_requests_in_flight"] == 0)
        until(lambda: running.counts()["pegel_tap_connections"] == 0)
        outcomes = running.outcomes()
        assert outcomes.pop("ok") == clients.answered
        assert outcomes.pop("client_abort") == len(gone)
        assert not any(outcomes.values())
        until(lambda: sum(running.copies().values()) == clients.answered)
        counts = running.counts()
        assert counts["pegel_tap_admin_connections_refused_total"] > 0
        assert counts["pegel_tap_analyser_restarts_total"] == 0
        assert "the admin port" in running.log.read_text()
        assert running.log.read_text().count("gave way") <= 2 + SECONDS / 60
        for path, took in probes.took.items():
            took.sort()
            print(f"{path}: {len(took)} answers, median {took[len(took) // 2]:.3f} s, slowest {took[-1]:.3f} s")
        gave_way = counts["pegel_tap_admin_connections_refused_total"]
        print(f"{clients.answered} answers of the model, {gave_way:.0f} gave way, {len(gone)} clients gone")


@pytest.mark.parametrize("attack", [silent, slow], ids=["silent", "slow"])
def test_an_attack_on_a_sinks_port_leaves_its_probes_and_events_alone(attack: Attack) -> None:
    def event(half: str, number: int) -> bytes:
        body = b'{"instances": [[1.0]]}' if half == "request" else b'{"predictions": [1]}'
        return (
            f"POST / HTTP/1.1\r\nCe-Id: {number}\r\nCe-Type: org.kubeflow.serving.inference.{half}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        ).encode() + body

    with tap(None, ready=True) as running:
        probes = Probes(running)
        sent = 0
        with attacked(running.port, attack), probes.asking():
            deadline = time.monotonic() + SECONDS / 4
            while time.monotonic() < deadline:
                for half in ("request", "response"):
                    with socket.create_connection(("127.0.0.1", running.port), 10) as client:
                        client.sendall(event(half, sent))
                        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
                sent += 1
        assert probes.failures == []
        assert sent > 0
        assert sum(labelled(running.counts(), "ml_inference_outcomes_total").values()) == sent
