"""Clients and models that are gone without a word, and file descriptors that are used up, on the real sidecar."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from pegel_agent.sidecar.tap.descriptors import shared_out
from pegel_agent.sidecar.tap.peers import Patience
from pegel_exporters.keepalive import Keepalive

from tests.agent.sidecar.tap.tap_process import (
    ANSWER,
    ASK,
    Handler,
    Tap,
    connected,
    model,
    predict,
    read_message,
    received,
    reset_on_close,
    tap,
    until,
    vanish,
)

pytestmark = pytest.mark.integration

QUICK = Keepalive(idle_seconds=1, interval_seconds=1, probes=2)
IMPATIENT = Patience(seconds=1.0, closed_window_seconds=60.0)
LARGE = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: m\r\nContent-Length: 100000000\r\n\r\n"


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A model that reads and never answers."""
    while await reader.read(1 << 16):
        pass
    await asyncio.sleep(60)


async def deafness(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A model that reads nothing."""
    await asyncio.sleep(60)


async def chatter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A model whose answer never ends."""
    await read_message(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
    while True:
        writer.write(bytes(1 << 16))
        await writer.drain()


async def vanishing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A model that is gone as soon as it has been asked."""
    await reader.read(1)
    vanish(writer.get_extra_info("socket"))
    await asyncio.sleep(60)


@contextlib.contextmanager
def quick(handler: Handler) -> Iterator[Tap]:
    with model(handler) as port, tap(port, keepalive=QUICK, patience=IMPATIENT) as running:
        yield running


def in_flight(running: Tap) -> float:
    return running.counts()["ml_inference_requests_in_flight"]


def nothing_stays(running: Tap) -> None:
    until(lambda: running.counts()["pegel_tap_connections"] == 0)
    assert in_flight(running) == 0


def test_an_idle_client_that_vanishes_is_noticed() -> None:
    with quick(predict) as running, connected(running.port) as client:
        client.sendall(ASK)
        assert received(client, len(ANSWER)) == ANSWER
        vanish(client)
        nothing_stays(running)


@pytest.mark.parametrize("finished", [False, True], ids=["open", "after its last byte"])
def test_a_client_that_vanishes_while_it_waits_is_noticed_and_counted_as_its_abort(finished: bool) -> None:
    with quick(silence) as running, connected(running.port) as client:
        client.sendall(ASK)
        until(lambda: in_flight(running) == 1)
        if finished:
            client.shutdown(socket.SHUT_WR)
        vanish(client)
        nothing_stays(running)
        assert running.outcomes()["client_abort"] == 1


def test_a_client_that_vanishes_in_the_middle_of_its_answer_is_noticed() -> None:
    with quick(chatter) as running, connected(running.port) as client:
        client.sendall(ASK)
        client.recv(1)
        vanish(client)
        nothing_stays(running)
        assert running.outcomes()["client_abort"] == 1


def test_a_client_that_resets_after_its_last_byte_leaves_nothing_behind() -> None:
    with model(silence) as port, tap(port) as running:
        with connected(running.port) as client:
            client.sendall(ASK)
            client.shutdown(socket.SHUT_WR)
            until(lambda: in_flight(running) == 1)
            assert running.counts()["pegel_tap_connections"] == 1
            reset_on_close(client)
        nothing_stays(running)
        assert running.outcomes()["client_abort"] == 1


def test_a_client_that_resets_while_the_model_takes_nothing_leaves_nothing_behind() -> None:
    with model(deafness) as port, tap(port) as running:
        with connected(running.port) as client:
            client.sendall(LARGE)
            client.settimeout(1)
            with pytest.raises(TimeoutError):
                client.sendall(bytes(100_000_000))
            assert in_flight(running) == 1
            reset_on_close(client)
        nothing_stays(running)
        assert running.outcomes()["client_abort"] == 1


def test_a_client_that_has_sent_its_last_byte_is_waited_for_and_gets_its_answer() -> None:
    answer = threading.Event()

    async def thinks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        await asyncio.to_thread(answer.wait)
        writer.write(ANSWER)

    with quick(thinks) as running, connected(running.port) as client:
        client.sendall(ASK)
        client.shutdown(socket.SHUT_WR)
        threading.Timer(5, answer.set).start()  # longer than a peer that is gone would stay
        assert received(client, len(ANSWER) + 1) == ANSWER
        nothing_stays(running)
        assert running.outcomes()["ok"] == 1


def test_a_model_that_vanishes_with_a_request_is_noticed_and_its_client_is_reset() -> None:
    with quick(vanishing) as running, connected(running.port) as client:
        client.sendall(ASK)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        nothing_stays(running)
        assert running.outcomes()["error"] == 1


def test_a_model_that_vanishes_in_the_middle_of_a_request_is_noticed_and_its_client_is_reset() -> None:
    with quick(vanishing) as running, connected(running.port) as client:
        client.sendall(LARGE)
        until(lambda: in_flight(running) == 1)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            client.sendall(bytes(100_000_000))
        nothing_stays(running)
        assert running.outcomes()["error"] == 1


def test_a_client_that_takes_nothing_for_long_but_lives_gets_its_answer_whole() -> None:
    size = 50_000_000

    async def large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
        await writer.drain()
        await reader.read()

    with quick(large) as running, connected(running.port) as client:
        client.sendall(ASK)
        head = received(client, len(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n"))
        assert head.endswith(b"\r\n\r\n")
        threading.Event().wait(6)
        assert len(received(client, size)) == size
        assert running.outcomes()["ok"] == 1


def test_a_model_that_takes_nothing_for_long_but_lives_gets_its_request_whole() -> None:
    body = bytes(50_000_000)

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(6)
        await read_message(reader)
        writer.write(ANSWER)

    with quick(late) as running, connected(running.port) as client:
        client.settimeout(30)
        client.sendall(b"POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert received(client, len(ANSWER)) == ANSWER
        assert running.outcomes()["ok"] == 1


def test_when_clients_use_up_the_file_descriptors_that_is_what_is_said_and_probes_answer() -> None:
    descriptors = 160
    with model(predict) as port, tap(port, descriptors=descriptors) as running:
        clients = []
        for _ in range(descriptors):
            with contextlib.suppress(ConnectionResetError):  # reset so soon that even connecting fails
                clients.append(connected(running.port))
        until(lambda: "file descriptors are used up" in running.log.read_text())
        for _ in range(5):
            assert running.ask("/healthz")[0] == 200
            assert running.ask("/readyz") == (200, b"ok\n")
        counts = running.counts()
        open_now = counts["pegel_tap_connections"]
        assert 0 < open_now <= shared_out(descriptors).clients
        assert running.outcomes()["error"] == descriptors - open_now
        served = 0
        for client in clients:
            with client, contextlib.suppress(ConnectionError):
                client.sendall(ASK)
                served += received(client, len(ANSWER)) == ANSWER
        assert served == open_now
        until(lambda: running.counts()["pegel_tap_connections"] == 0)
        with connected(running.port) as client:
            client.sendall(ASK)
            assert received(client, len(ANSWER)) == ANSWER
        assert "does not accept connections" not in running.log.read_text()


@pytest.mark.parametrize("descriptors", [50, 100, 1_000, 20_000, 1_000_000])
def test_descriptors_are_shared_out_with_some_for_the_admin_port(descriptors: int) -> None:
    shares = shared_out(descriptors)
    assert shares.admin >= 8
    assert shares.clients >= 1
    assert shares.admin + 2 * shares.clients <= max(descriptors, 10)
