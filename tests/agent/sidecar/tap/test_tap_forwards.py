"""A real `pegel sidecar` with more than one port, one of them in front of a gRPC server."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from tests.agent.sidecar.tap.tap_process import (
    ANSWER,
    ASK,
    LAST_ANSWER,
    Clients,
    connected,
    free_ports,
    model,
    predict,
    read_message,
    received,
    tap,
    until,
)

pytestmark = pytest.mark.integration

PARTS = 500


class _Backwards(grpc.GenericRpcHandler):
    """Bytes in, the same bytes backwards out: once, or in parts, or for each part that comes."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return {
            "/model/Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "/model/Stream": grpc.unary_stream_rpc_method_handler(self.stream),
            "/model/Both": grpc.stream_stream_rpc_method_handler(self.both),
            "/model/Fails": grpc.unary_unary_rpc_method_handler(self.fails),
        }.get(handler_call_details.method)

    @staticmethod
    def unary(asked: bytes, context: grpc.ServicerContext) -> bytes:
        context.send_initial_metadata([("seen", dict(context.invocation_metadata()).get("sent", ""))])
        return asked[::-1]

    @staticmethod
    def stream(asked: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
        for number in range(PARTS):
            yield asked[::-1] + str(number).encode()

    @staticmethod
    def both(asked: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        for part in asked:
            yield part[::-1]

    @staticmethod
    def fails(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, "no such model")


@pytest.fixture(scope="module")
def grpc_port() -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", 16 << 20)])
    server.add_generic_rpc_handlers((_Backwards(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


def _everything(port: int) -> list[object]:
    """What a client hears of the server behind a port."""
    large = os.urandom(1 << 20) * 3
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.max_receive_message_length", 16 << 20)]) as channel:
        answer, call = channel.unary_unary("/model/Unary").with_call(b"abc", timeout=20, metadata=[("sent", "x")])
        heard: list[object] = [answer, dict(call.initial_metadata())["seen"]]
        heard.append(channel.unary_unary("/model/Unary")(large, timeout=20) == large[::-1])
        heard.append(list(channel.unary_stream("/model/Stream")(b"abc", timeout=20)))
        parts = (str(number).encode() for number in range(PARTS))
        heard.append(list(channel.stream_stream("/model/Both")(parts, timeout=20)))
        for method in ("/model/Fails", "/model/Nothing"):
            with pytest.raises(grpc.RpcError) as failure:
                channel.unary_unary(method)(b"", timeout=20)
            heard.append((failure.value.code(), failure.value.details()))  # type: ignore[attr-defined]
    return heard


def test_a_grpc_client_hears_through_a_forwarded_port_what_it_hears_without(grpc_port: int) -> None:
    (also,) = free_ports(1)
    clients = Clients(0)
    with (
        model(predict) as port,
        tap(port, "--forward", f"127.0.0.1:{also}=127.0.0.1:{grpc_port}", ready=True) as running,
    ):
        clients.port = running.port
        with clients.asking(4, pause=0.001):
            assert _everything(also) == _everything(grpc_port)
            until(lambda: clients.answered > 200)
        assert clients.failures == []
        assert running.outcomes() == {
            "ok": clients.answered,
            "error": 0,
            "client_abort": 0,
            "timeout": 0,
            "unfollowed": 0,
        }
        # Each gRPC connection is reported once; all that could be read was.
        until(lambda: running.copies() == {"analysed": clients.answered, "shed": 0, "undecodable": 0})
        until(lambda: running.counts()["pegel_tap_connections"] == 0)
        assert running.counts()['pegel_tap_bytes_total{direction="to_model"}'] > 3 << 20


def test_http_on_any_port_is_one_sum_and_the_first_says_whether_the_model_is_ready() -> None:
    first, second, nobody = free_ports(3)
    with (
        model(predict) as port,
        model(predict) as other,
        tap(
            port, "--forward", f"127.0.0.1:{first}=127.0.0.1:{other}", "--forward", f"127.0.0.1:{second}=:{nobody}",
            ready=True,
        ) as running,
    ):  # fmt: skip
        for each in (running.port, first):
            with connected(each) as client:
                client.sendall(ASK)
                assert received(client, len(ANSWER)) == ANSWER
        until(lambda: running.copies()["analysed"] == 2)
        assert running.counts()['pegel_tap_bytes_total{direction="to_client"}'] == 2 * len(ANSWER)
        assert running.ask("/readyz") == (200, b"ok\n")
        with connected(second) as client, pytest.raises(ConnectionResetError):
            client.recv(1)
        assert running.outcomes()["error"] == 1
        assert f"127.0.0.1:{port} or 127.0.0.1:{other} or 127.0.0.1:{nobody}".encode() in running.ask("/")[1]


def test_sigterm_drains_all_ports() -> None:
    (also,) = free_ports(1)
    finish = threading.Event()

    async def thinks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        await asyncio.to_thread(finish.wait)
        writer.write(ANSWER)
        await reader.read()

    with model(thinks) as port, tap(port, "--forward", f"127.0.0.1:{also}=127.0.0.1:{port}", ready=True) as running:
        with connected(running.port) as one, connected(also) as other, connected(also) as idle:
            for client in (one, other):
                client.sendall(ASK)
            until(lambda: running.counts()["ml_inference_requests_in_flight"] == 2)
            running.process.send_signal(signal.SIGTERM)
            assert idle.recv(1) == b""
            for each in (running.port, also):
                with pytest.raises(ConnectionRefusedError):
                    connected(each)
            finish.set()
            for client in (one, other):
                assert received(client, len(LAST_ANSWER) + 1) == LAST_ANSWER
        assert running.process.wait(10) == 0


def _listen_on(ports: list[int]) -> bool:
    for port in ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return False
    return True


@pytest.mark.parametrize("separator", [",", " ", ", "])
def test_the_environment_names_several_ports(separator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = free_ports(2)
    with model(predict) as port:
        named = separator.join(f"127.0.0.1:{each}=127.0.0.1:{port}" for each in ports)
        monkeypatch.setenv("PEGEL_SIDECAR_FORWARD", named)
        with tap(port):
            assert _listen_on(ports)


def test_a_file_lists_several_ports(tmp_path: Path) -> None:
    ports = free_ports(2)
    path = tmp_path / "pegel.yaml"
    with model(predict) as port:
        path.write_text("forward:\n" + "".join(f"- 127.0.0.1:{each}=127.0.0.1:{port}\n" for each in ports))
        with tap(port, "--config", str(path)):
            assert _listen_on(ports)
