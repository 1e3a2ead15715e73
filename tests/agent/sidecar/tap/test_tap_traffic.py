"""What clients and models see of a real `pegel sidecar` between them: nothing."""

import asyncio
import gzip
import hashlib
import random
import resource
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from tests.agent.sidecar.tap.tap_process import (
    ANSWER,
    ASK,
    Tap,
    connected,
    free_ports,
    labelled,
    model,
    predict,
    read_message,
    received,
    tap,
    until,
)  # fmt: skip

pytestmark = pytest.mark.integration

SIZE = 16 << 20


@pytest.fixture(scope="module")
def answering() -> Iterator[Tap]:
    with model(predict) as port, tap(port, ready=True) as running:
        yield running


def _settled(running: Tap, **counts: float) -> None:
    until(lambda: counts.items() <= running.copies().items())


def test_a_request_and_its_answer_pass_byte_for_byte_and_are_analysed(answering: Tap) -> None:
    before = answering.outcomes()["ok"], answering.copies()["analysed"]
    with connected(answering.port) as client:
        for _ in range(3):
            client.sendall(ASK)
            assert received(client, len(ANSWER)) == ANSWER
    assert answering.outcomes()["ok"] == before[0] + 3
    _settled(answering, analysed=before[1] + 3)


def test_pipelined_requests_are_answered_and_counted(answering: Tap) -> None:
    before = answering.outcomes()["ok"]
    with connected(answering.port) as client:
        client.sendall(ASK * 20)
        assert received(client, 20 * len(ANSWER)) == ANSWER * 20
    assert answering.outcomes()["ok"] == before + 20


def test_a_client_that_has_finished_sending_still_gets_its_answer(answering: Tap) -> None:
    with connected(answering.port) as client:
        client.sendall(ASK)
        client.shutdown(socket.SHUT_WR)
        assert received(client, 1 << 20) == ANSWER


def test_arbitrary_bytes_pass_exactly_in_both_directions() -> None:
    there, back = random.Random(1).randbytes(SIZE), random.Random(2).randbytes(SIZE)
    got = hashlib.sha256()

    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"I speak first\n")
        left = SIZE

        async def take() -> None:
            nonlocal left
            while left and (data := await reader.read(1 << 16)):
                left -= len(data)
                got.update(data)

        async def give() -> None:
            writer.write(back)
            await writer.drain()

        await asyncio.gather(take(), give())

    with model(stranger) as port, tap(port) as running, connected(running.port) as client:
        sender = threading.Thread(target=client.sendall, args=(there,))
        sender.start()
        answer = received(client, SIZE + 100)
        sender.join()
        assert answer == b"I speak first\n" + back
        assert got.digest() == hashlib.sha256(there).digest()
        assert sum(labelled(running.counts(), "pegel_tap_unfollowed_connections_total").values()) == 1


def test_a_model_that_has_finished_sending_still_hears_the_client() -> None:
    heard: list[bytes] = []

    async def finishes_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(ASK))
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall")
        writer.write_eof()
        heard.append(await reader.read())

    with model(finishes_first) as port, tap(port) as running, connected(running.port) as client:
        client.sendall(ASK)
        assert received(client, 1 << 16).endswith(b"all")
        client.sendall(b"one more thing")
        client.shutdown(socket.SHUT_WR)
        until(lambda: heard == [b"one more thing"])
        until(lambda: running.counts()["pegel_tap_connections"] == 0)
        assert running.outcomes()["ok"] == 1


def test_a_slow_client_pauses_the_model_and_costs_no_memory() -> None:
    sent = 0

    async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_message(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (8 * SIZE))
        for _ in range(8 * SIZE >> 16):
            writer.write(bytes(1 << 16))
            await writer.drain()
            sent += 1 << 16

    with model(floods) as port, tap(port) as running, connected(running.port) as client:
        before = running.resident_bytes()
        client.sendall(ASK)
        seen = -1
        while seen != sent:  # until it stands still
            seen = sent
            threading.Event().wait(0.3)
        assert sent < 3 * SIZE  # socket buffers
        assert running.resident_bytes() - before < 12 << 20  # a copy, given up at 4 MiB, among it
        assert len(received(client, 9 * SIZE)) > 8 * SIZE
        assert running.outcomes()["ok"] == 1


def test_a_slow_model_pauses_the_client_and_costs_no_memory() -> None:
    release = threading.Event()

    async def sleeps(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.to_thread(release.wait)
        while await reader.read(1 << 18):
            pass

    with model(sleeps) as port, tap(port) as running, connected(running.port) as client:
        before = running.resident_bytes()
        client.settimeout(1)
        with pytest.raises(TimeoutError):
            client.sendall(bytes(8 * SIZE))
        assert running.resident_bytes() - before < 12 << 20
        release.set()


def test_what_a_client_sends_while_the_model_is_being_reached_is_bounded() -> None:
    (nobody,) = free_ports(1)
    with tap(nobody) as running, connected(running.port) as client:
        with pytest.raises(OSError, match=r"reset|Broken|timed out"):
            client.sendall(bytes(16 * SIZE))
        assert running.peak_bytes() < 48 << 20


def test_a_model_that_refuses_gets_the_client_a_reset_and_an_outcome() -> None:
    (nobody,) = free_ports(1)
    with tap(nobody) as running, connected(running.port) as client:
        client.settimeout(1)
        client.sendall(ASK)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert running.outcomes()["error"] == 1
        assert running.counts()["pegel_tap_connections"] == 0


def test_a_model_that_starts_listening_within_the_tries_is_reached() -> None:
    (port,) = free_ports(1)
    with tap(port) as running, connected(running.port) as client:
        client.sendall(ASK)
        with socket.create_server(("127.0.0.1", port)) as late:
            late.settimeout(5)
            accepted, _ = late.accept()
            with accepted:
                accepted.settimeout(5)
                assert received(accepted, len(ASK)) == ASK


def test_a_reset_by_the_model_reaches_the_client_as_a_reset() -> None:
    async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf of ")
        await writer.drain()
        await asyncio.sleep(0.2)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    with model(resets) as port, tap(port) as running, connected(running.port) as client:
        client.sendall(ASK)
        assert client.recv(1 << 16).endswith(b"half of ")
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_model_that_accepts_and_resets_at_once_leaves_no_client_hanging() -> None:
    async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    with model(resets) as port, tap(port) as running:
        for _ in range(100):
            with pytest.raises(ConnectionError):
                _told(running.port)
        until(lambda: running.counts()["pegel_tap_connections"] == 0)


def _told(port: int) -> bytes:
    with connected(port) as client:
        client.sendall(ASK)
        return client.recv(1)


def test_a_client_that_resets_reaches_the_model_as_a_reset_and_is_an_abort() -> None:
    seen: list[str] = []

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        try:
            await reader.read(1)
        except ConnectionResetError:
            seen.append("reset")

    with model(waits) as port, tap(port) as running:
        client = connected(running.port)
        client.sendall(ASK)
        until(lambda: running.counts().get("ml_inference_requests_in_flight") == 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        until(lambda: seen == ["reset"])
        assert running.outcomes() == {"ok": 0, "error": 0, "client_abort": 1, "timeout": 0, "unfollowed": 0}
        assert running.counts()["ml_inference_requests_in_flight"] == 0


def test_a_client_that_gives_up_waiting_is_an_abort_though_the_model_hangs_up() -> None:
    async def hangs_up_when_left(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        await reader.read(1)

    with model(hangs_up_when_left) as port, tap(port) as running:
        with connected(running.port) as client:
            client.sendall(ASK)
            until(lambda: running.counts().get("ml_inference_requests_in_flight") == 1)
        until(lambda: running.outcomes()["client_abort"] == 1)
        assert running.outcomes()["error"] == 0


def test_server_sent_events_pass_one_by_one() -> None:
    more = threading.Event()

    async def streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(5):
            writer.write(b"7\r\ndata: x\r\n")
            await asyncio.to_thread(more.wait)
            more.clear()
        writer.write(b"0\r\n\r\n")
        await reader.read()

    with model(streams) as port, tap(port) as running, connected(running.port) as client:
        client.sendall(ASK)
        got = b""
        for number in range(1, 6):
            while got.count(b"data: x") < number:  # the model sends no more before this one has come
                got += client.recv(1 << 16)
            more.set()
        while not got.endswith(b"0\r\n\r\n"):
            got += client.recv(1 << 16)
        assert running.outcomes()["ok"] == 1
        assert running.counts()["ml_inference_duration_seconds_count"] == 1


def test_a_client_that_waits_for_100_continue_gets_it() -> None:
    head, body = ASK.partition(b"\r\n\r\n")[0] + b"\r\nExpect: 100-continue\r\n\r\n", ASK.partition(b"\r\n\r\n")[2]
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"

    async def expects(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(interim)
        await reader.readexactly(len(body))
        writer.write(ANSWER)
        await reader.read()

    with model(expects) as port, tap(port, ready=True) as running, connected(running.port) as client:
        client.sendall(head)
        assert received(client, len(interim)) == interim
        client.sendall(body)
        assert received(client, len(ANSWER)) == ANSWER
        assert running.outcomes()["ok"] == 1
        _settled(running, analysed=1)


@pytest.mark.parametrize(
    ("reason", "ask", "grant"),
    [
        ("upgrade", b"GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
         b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
        ("tunnel", b"CONNECT m:443 HTTP/1.1\r\nHost: m:443\r\n\r\n", b"HTTP/1.1 200 Connection established\r\n\r\n"),
        ("tls", bytes.fromhex("16030100f8010000f40303"), bytes.fromhex("160303007a0200007603")),
        ("http2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"),
         bytes.fromhex("000000040000000000")),
    ],
    ids=["websocket", "connect", "tls", "http2"],
)  # fmt: skip
def test_what_is_no_http_1_or_stops_being_it_is_forwarded_and_reported_once(
    reason: str, ask: bytes, grant: bytes
) -> None:
    async def tunnels(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(len(ask)) == ask
        writer.write(grant)
        while data := await reader.read(1 << 16):
            writer.write(data[::-1])

    with model(tunnels) as port, tap(port, ready=True) as running, connected(running.port) as client:
        client.sendall(ask)
        assert received(client, len(grant)) == grant
        for _ in range(3):
            client.sendall(b"\x00\x01\xffPOST / HTTP/1.1\r\n")
            assert received(client, 20) == b"\x00\x01\xffPOST / HTTP/1.1\r\n"[::-1]
        unfollowed = labelled(running.counts(), "pegel_tap_unfollowed_connections_total")
        assert {why: count for why, count in unfollowed.items() if count} == {reason: 1}
        assert b"No traffic yet" not in running.ask("/")[1]
        until(lambda: running.counts()["pegel_tap_unwatched_seconds_total"] > 0)
        assert sum(running.outcomes().values()) == 0


def test_chunked_and_compressed_bodies_are_decoded_and_a_bomb_is_not() -> None:
    body = gzip.compress(b'{"predictions": [1]}')
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:])) + b"0\r\n\r\n"
    bomb = gzip.compress(b'{"predictions": [' + b"1," * (16 << 20) + b"1]}")
    answers = [
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb,
    ]

    async def compresses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await read_message(reader)
            writer.write(answer)

    with model(compresses) as port, tap(port, ready=True) as running, connected(running.port) as client:
        for answer in answers:
            client.sendall(ASK)
            assert received(client, len(answer)) == answer
        _settled(running, analysed=1, undecodable=1, shed=0)
        assert running.counts()["pegel_tap_analyser_restarts_total"] == 0


def test_a_body_of_100_mb_is_counted_and_not_decoded() -> None:
    size = 100_000_000

    async def swallows(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        left = size
        while left:
            left -= len(await reader.read(min(left, 1 << 18)))
        writer.write(ANSWER)
        await reader.read()

    with model(swallows) as port, tap(port, ready=True) as running, connected(running.port) as client:
        client.sendall(b"POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(100):
            client.sendall(bytes(size // 100))
        assert received(client, len(ANSWER)) == ANSWER
        counts = running.counts()
        assert counts['pegel_tap_bytes_total{direction="to_model"}'] > size
        assert running.outcomes()["ok"] == 1
        assert running.copies() == {"analysed": 0, "shed": 1, "undecodable": 0}
        assert running.peak_bytes() < 64 << 20


def test_a_thousand_idle_connections_are_kept_and_still_answered(answering: Tap) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    clients = [connected(answering.port) for _ in range(1000)]
    try:
        until(lambda: answering.counts()["pegel_tap_connections"] == 1000)
        assert answering.resident_bytes() < 48 << 20
        for client in clients[::50]:
            client.sendall(ASK)
            assert received(client, len(ANSWER)) == ANSWER
    finally:
        for client in clients:
            client.close()
    until(lambda: answering.counts()["pegel_tap_connections"] == 0)


@pytest.mark.parametrize(
    ("path", "reason"),
    [(b"/invocations", "mlflow"), (b"/v1/chat/completions?x=secret", "openai"), (b"/secret/path", "path")],
)
def test_a_post_that_is_not_read_is_counted_by_what_it_looks_like(path: bytes, reason: str) -> None:
    with model(predict) as port, tap(port, ready=True) as running, connected(running.port) as client:
        for _ in range(2):
            client.sendall(ASK.replace(b"/v1/models/m:predict", path))
            assert received(client, len(ANSWER)) == ANSWER
        undecodable = labelled(running.counts(), "pegel_tap_undecodable_total")
        assert {why: count for why, count in undecodable.items() if count} == {reason: 2}
        assert running.copies()["undecodable"] == 2
        page = running.ask("/")[1]
        assert b"2 POSTs to paths" in page
        assert b"secret" not in page + running.log.read_bytes()
