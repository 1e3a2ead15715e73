"""How a real `pegel sidecar` ends under load, and what its end costs those who are connected: nothing."""

import asyncio
import contextlib
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx
import pytest
from pegel_agent.sidecar.tap.http2 import PREFACE

from tests.agent.sidecar.tap.tap_process import (
    ANSWER,
    ASK,
    BODY,
    LAST_ANSWER,
    Tap,
    connected,
    looping,
    model,
    predict,
    read_message,
    received,
    tap,
    until,
)

pytestmark = pytest.mark.integration

CLOSE = re.compile(rb"\r\nconnection: close\r\n", re.IGNORECASE)


def test_while_it_leaves_new_connections_are_served_each_answer_is_the_last_and_probes_say_so() -> None:
    with model(predict) as port, tap(port, lame_duck=2) as running:
        with connected(running.port) as before:
            before.sendall(ASK)
            assert received(before, len(ANSWER)) == ANSWER
            running.process.send_signal(signal.SIGTERM)
            until(lambda: running.ask("/readyz") == (503, b"shutting down\n"))
            assert running.ask("/healthz")[0] == 200
            with connected(running.port) as after:
                for client in (before, after):
                    client.sendall(ASK)
                    assert received(client, len(LAST_ANSWER) + 1) == LAST_ANSWER
            assert running.outcomes()["ok"] == 3
        assert running.process.wait(10) == 0


def test_an_idle_connection_is_left_alone_until_the_lame_duck_time_is_over() -> None:
    with model(predict) as port, tap(port, lame_duck=1.5) as running, connected(running.port) as idle:
        running.process.send_signal(signal.SIGTERM)
        idle.settimeout(0.7)
        with pytest.raises(TimeoutError):
            idle.recv(1)
        idle.settimeout(10)
        assert idle.recv(1) == b""
        assert running.process.wait(10) == 0


def test_a_file_of_a_pre_stop_hook_begins_the_end_which_waits_for_sigterm(tmp_path: Path) -> None:
    file = tmp_path / "leaving"
    file.touch()  # of a container that ran here before
    with model(predict) as port, tap(port, "--leave-file", str(file)) as running:
        assert not file.exists()
        assert running.ask("/readyz")[0] == 200
        file.touch()
        until(lambda: running.ask("/readyz") == (503, b"shutting down\n"))
        time.sleep(0.5)  # more than its lame duck time
        with connected(running.port) as client:
            client.sendall(ASK)
            assert received(client, len(LAST_ANSWER) + 1) == LAST_ANSWER
        assert running.end(seconds=10) == 0


@pytest.mark.parametrize(
    "sent",
    [PREFACE, PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00", b"\x16\x03\x01\x00", b"not HTTP at all\r\n\r\n", b""],
    ids=["HTTP/2", "HTTP/2 and settings", "TLS", "something else", "nothing"],
)
@pytest.mark.parametrize("answers", [False, True])
def test_an_idle_connection_that_is_not_followed_does_not_cost_the_whole_time(sent: bytes, answers: bool) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            if answers:
                writer.write(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")

    drain = 6.0
    with model(handler) as port, tap(port, drain=drain) as running, connected(running.port) as client:
        client.sendall(sent)
        if answers and sent:
            client.recv(1)
        time.sleep(0.2)
        began = time.monotonic()
        assert running.end(seconds=30) == 0
        assert time.monotonic() - began < drain


def test_grpc_calls_end_while_it_leaves_and_an_idle_channel_costs_no_time() -> None:
    finish = threading.Event()

    class Waits(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            def answer(request: bytes, _: grpc.ServicerContext) -> bytes:
                if request == b"slow":
                    finish.wait()
                return request[::-1]

            return grpc.unary_unary_rpc_method_handler(answer)

    alone = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own for each
    server = grpc.server(ThreadPoolExecutor(4), handlers=[Waits()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with tap(port, drain=60, lame_duck=0.5) as running:
            idle, busy = (grpc.insecure_channel(f"127.0.0.1:{running.port}", alone) for _ in range(2))
            for channel in (idle, busy):
                assert channel.unary_unary("/m/Call")(b"abc", wait_for_ready=True) == b"cba"
            slow = busy.unary_unary("/m/Call").future(b"slow")
            until(lambda: running.counts()["pegel_tap_connections"] == 2)
            time.sleep(0.3)
            running.process.send_signal(signal.SIGTERM)
            until(lambda: running.counts()["pegel_tap_connections"] == 1)
            threading.Timer(2, finish.set).start()  # long after a quiet connection would have been closed
            assert slow.result(10) == b"wols"
            assert running.process.wait(20) == 0
            idle.close()
            busy.close()
    finally:
        finish.set()
        server.stop(None)


@dataclass
class Service:
    """The sidecars that are ready, as a cluster's clients know it: some time after it became so."""

    delay: float
    known: dict[int, bool] = field(default_factory=dict)

    @contextlib.contextmanager
    def knowing(self, taps: list[Tap]) -> Iterator["Service"]:
        self.known = {each.port: True for each in taps}
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(0.1):
                for each in taps:
                    try:
                        ready = each.ask("/readyz")[0] == 200
                    except OSError:
                        ready = False
                    if not ready:
                        threading.Timer(self.delay, self.known.__setitem__, (each.port, False)).start()

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield self
        finally:
            ended.set()
            thread.join()

    def pick(self, number: int) -> int:
        ready = [port for port, good in self.known.items() if good]
        return ready[number % len(ready)]


@dataclass
class Load:
    """Clients of three kinds that ask until they are told to stop."""

    service: Service
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    stopping: bool = False

    async def short(self, number: int) -> None:
        while not self.stopping:
            number += 1
            await self._raw(self.service.pick(number), 1)

    async def kept(self, number: int) -> None:
        while not self.stopping:
            number += 1
            await self._raw(self.service.pick(number), 1_000_000)

    async def _raw(self, port: int, most: int) -> None:
        """So many requests on a connection at most; a client that heeds `Connection: close`."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(most):
                writer.write(ASK)
                answer = await read_message(reader)
                self.answered += 1
                if answer not in {ANSWER, LAST_ANSWER}:
                    self.failures.append(repr(answer))
                if CLOSE.search(answer) or self.stopping:
                    break
                await asyncio.sleep(0.002)
            writer.close()
        except (OSError, asyncio.IncompleteReadError) as error:
            self.failures.append(f"raw: {error!r}")

    async def pooled(self, number: int) -> None:
        async with httpx.AsyncClient() as client:
            while not self.stopping:
                number += 1
                url = f"http://127.0.0.1:{self.service.pick(number)}/v1/models/m:predict"
                try:
                    answer = await client.post(url, content=BODY)
                    self.answered += 1
                    if answer.status_code != 200:
                        self.failures.append(repr(answer))
                except httpx.HTTPError as error:
                    self.failures.append(f"httpx: {error!r}")
                await asyncio.sleep(0.01)

    @contextlib.contextmanager
    def running(self) -> Iterator["Load"]:
        kinds = [self.short, self.kept, self.kept, self.pooled, self.pooled, self.pooled]
        with looping() as loop:
            tasks = [asyncio.run_coroutine_threadsafe(kind(number), loop) for number, kind in enumerate(kinds)]
            try:
                yield self
            finally:
                self.stopping = True
                for task in tasks:
                    task.result(10)


def test_one_after_another_is_ended_under_load_and_no_request_is_lost_or_counted_wrong() -> None:
    drain = 20.0
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(model(predict))
        taps = [stack.enter_context(tap(port, lame_duck=3, drain=drain, quiet=0.5)) for _ in range(3)]
        service = Service(delay=1.0)
        with service.knowing(taps), contextlib.closing(connected(taps[0].port)) as channel:
            channel.sendall(PREFACE)
            load = Load(service)
            with load.running():
                counted = 0.0
                for leaving in taps[:2]:
                    time.sleep(1.0)
                    leaving.process.send_signal(signal.SIGTERM)
                    began = time.monotonic()
                    while leaving.process.poll() is None:  # what it counted at the last
                        with contextlib.suppress(OSError, KeyError):
                            outcomes = leaving.outcomes()
                        time.sleep(0.02)
                    assert leaving.process.returncode == 0
                    assert time.monotonic() - began < drain
                    counted += sum(outcomes.values())
                    assert outcomes["ok"] == sum(outcomes.values())
                time.sleep(0.5)
            print(f"{load.answered} requests answered, {len(load.failures)} failed")
            assert load.failures == []
            assert load.answered > 1000
            until(lambda: counted + taps[2].outcomes()["ok"] == load.answered)


def test_heads_in_doubt_pipelines_and_other_protocols_pass_unchanged_while_it_leaves() -> None:
    odd = [
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nContent-Length: 2\r\n\r\nok",
        b"nothing that HTTP knows\r\n\r\n",
        ANSWER + ANSWER,
    ]

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_message(reader)
        writer.write(odd[int(request.split(b"?")[1].split(b" ")[0])])
        await reader.read()

    with model(answers) as port, tap(port, lame_duck=2) as running:
        running.process.send_signal(signal.SIGTERM)
        until(lambda: running.ask("/readyz")[0] == 503)
        for number, answer in enumerate(odd):
            ask = b"GET /v1/models/m?%d HTTP/1.1\r\nHost: m\r\n\r\n" % number
            with connected(running.port) as client:
                client.sendall(ask + (ask if answer == ANSWER + ANSWER else b""))
                client.shutdown(socket.SHUT_WR)
                assert received(client, len(answer) + 1) == answer


def test_a_sink_takes_events_while_it_leaves_and_ends_each_connection_with_its_answer() -> None:
    body = b'{"instances": [[1.0]]}'
    event = (
        b"POST / HTTP/1.1\r\nCe-Id: 1\r\nCe-Type: org.kubeflow.serving.inference.request\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    with tap(None, lame_duck=2) as running, connected(running.port) as before:
        before.sendall(event)
        assert not CLOSE.search(before.recv(1 << 16))
        running.process.send_signal(signal.SIGTERM)
        until(lambda: running.ask("/readyz")[0] == 503)
        with connected(running.port) as after:
            for client in (before, after):
                client.sendall(event)
                answer = received(client, 1 << 16)  # up to the end of the stream
                assert answer.startswith(b"HTTP/1.1 200 ")
                assert CLOSE.search(answer)
        assert running.process.wait(10) == 0
