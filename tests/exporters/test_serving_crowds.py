"""What clients that are silent, slow or many can do to a port of Pegel's: nothing to those that come after them."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest
import uvloop
from pegel_exporters.serving import PEERS, Address, Limits, Request, Response, listen, serve, text

pytestmark = pytest.mark.integration

FEW = Limits(connections=8, at_once=64)
SHORT = Limits(head_seconds=0.4, body_seconds=0.4, answer_seconds=0.4, idle_seconds=0.4)
HUGE = b"x" * (32 << 20)
GET = b"GET / HTTP/1.1\r\n\r\n"

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def handler(request: Request) -> Response:
    match request.path:
        case "/huge":
            return Response(200, HUGE)
        case "/never":
            await asyncio.sleep(60)
        case _:
            pass
    return text("ok")


@dataclass
class Port:
    """A port of ours, and how often a connection to it gave way."""

    address: tuple[str, int]
    gave_way: int = 0

    async def connect(self, source: str = "127.0.0.1") -> Stream:
        return await asyncio.open_connection(*self.address, local_addr=(source, 0))

    async def ask(self, source: str = "127.0.0.1") -> bytes:
        """What a probe gets, which waits for three seconds as Pegel's do."""
        async with asyncio.timeout(3):
            reader, writer = await self.connect(source)
            writer.write(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
            return answer


@asynccontextmanager
async def serving(limits: Limits, answer: Callable[[Request], Awaitable[Response]] = handler) -> AsyncIterator[Port]:
    with listen(Address("127.0.0.1", 0)) as sock:
        port = Port(sock.getsockname())

        def count() -> None:
            port.gave_way += 1

        server = await serve(answer, sock, limits=limits, name="the port", gave_way=count)
        try:
            yield port
        finally:
            server.close()


Scenario = Callable[[], Awaitable[None]]
Play = Callable[[Scenario], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest) -> Play:
    """Run a scenario on each of the event loops that Pegel uses."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run(scenario: Scenario) -> None:
        async def main() -> None:
            async with asyncio.timeout(60):
                await scenario()

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    return run


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    """What still comes, up to the end."""
    parts = b""
    with contextlib.suppress(ConnectionResetError):
        while data := await reader.read(1 << 16):
            parts += data
    return parts


async def dripping(writer: asyncio.StreamWriter, byte: bytes) -> None:
    """One byte after another, for ever: each well within every limit."""
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(byte)
            await writer.drain()
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("sent", "byte"),
    [
        (b"", b"\n"),
        (b"", b"G"),
        (b"GET / HTTP/1.1\r\n", b"a"),
        (b"GET / HTTP/1.1\r\nName: ", b"a"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n", b"a"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n", b"a"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: ", b"a"),
        (GET, b"\n"),
        (GET, b"G"),
        (GET + b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n", b"a"),
        (b"GET /huge HTTP/1.0\r\n\r\n", b""),
        (b"GET /huge HTTP/1.1\r\n\r\n" + GET, b""),
    ],
)
def test_a_client_that_is_slow_for_ever_is_closed_in_a_bounded_time(play: Play, sent: bytes, byte: bytes) -> None:
    async def scenario() -> None:
        async with serving(SHORT) as port:
            reader, writer = await port.connect()
            writer.write(sent)
            drip = asyncio.create_task(dripping(writer, byte)) if byte else None
            if byte:
                await until_closed(reader)
            else:  # a client that takes a little of the answer now and then
                with contextlib.suppress(ConnectionResetError):
                    while await reader.read(1 << 12):
                        await asyncio.sleep(0.05)
                        reader._buffer.clear()  # type: ignore[attr-defined]
            if drip:
                drip.cancel()
            writer.close()

    play(scenario)


def test_a_silent_client_is_closed_and_one_that_breaks_off_is_told_why(play: Play) -> None:
    async def scenario() -> None:
        async with serving(SHORT) as port:
            silent, slow, late = [await port.connect() for _ in range(3)]
            slow[1].write(b"GET / HTT")
            late[1].write(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc")
            assert await until_closed(silent[0]) == b""
            assert (await until_closed(slow[0])).startswith(b"HTTP/1.1 408 ")
            assert (await until_closed(late[0])).startswith(b"HTTP/1.1 408 ")
            for _, writer in (silent, slow, late):
                writer.close()

    play(scenario)


def test_a_handler_may_take_longer_than_any_client(play: Play) -> None:
    async def slow(_: Request) -> Response:
        await asyncio.sleep(1)
        return text("done")

    async def scenario() -> None:
        async with serving(SHORT, slow) as port:
            assert (await port.ask()).endswith(b"done\n")

    play(scenario)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nName: ",
        b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\nabc",
        b"GET /huge HTTP/1.1\r\n\r\n",
        b"GET /never HTTP/1.1\r\n\r\n",
    ],
    ids=["silent", "head", "body", "answer", "handler"],
)
def test_whoever_holds_all_connections_keeps_nobody_out(play: Play, sent: bytes) -> None:
    async def scenario() -> None:
        async with serving(FEW) as port:
            held = []
            for number in range(FEW.at_once + 20):
                stream = await port.connect(f"127.0.0.{2 + number % 5}")
                stream[1].write(sent)
                held.append(stream)
            for _ in range(5):
                assert (await port.ask()).endswith(b"ok\n")
                await asyncio.sleep(0.15)
            # What is at work gives way only where there is no other choice.
            assert port.gave_way >= 20 + (0 if b"never" in sent else FEW.at_once - FEW.connections)
            for _, writer in held:
                writer.transport.abort()

    play(scenario)


def test_the_oldest_idle_connection_gives_way_and_one_that_is_at_work_does_not(play: Play) -> None:
    async def scenario() -> None:
        async with serving(FEW) as port:
            working = await port.connect()
            working[1].write(b"GET /never HTTP/1.1\r\n\r\n")
            idle = [await port.connect() for _ in range(FEW.connections - 1)]
            await asyncio.sleep(0.2)
            assert port.gave_way == 0
            newer = await port.connect()
            assert await until_closed(idle[0][0]) == b""
            assert port.gave_way == 1
            for reader, writer in (working, newer, *idle[1:]):
                assert not reader.at_eof()
                writer.transport.abort()

    play(scenario)


def test_that_connections_gave_way_is_logged_once_with_their_number(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with serving(FEW) as port:
            held = [await port.connect() for _ in range(30)]
            await asyncio.sleep(1)
            for _, writer in held:
                writer.transport.abort()

    with caplog.at_level(logging.WARNING, "pegel"):
        play(scenario)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "pegel"]
    assert "the port" in line
    assert "22 that had been idle longest" in line


def test_a_probe_gets_through_a_flood_of_connections_from_many_addresses(play: Play) -> None:
    async def scenario() -> None:
        async with serving(replace(FEW, at_once=256)) as port:
            flooding = True

            async def flood(source: str) -> None:
                loop = asyncio.get_running_loop()
                sockets = []
                while flooding:
                    sock = socket.socket()
                    sock.setblocking(False)
                    sock.bind((source, 0))
                    with contextlib.suppress(OSError):
                        await loop.sock_connect(sock, port.address)
                    sockets.append(sock)
                    if len(sockets) > 50:
                        sockets.pop(0).close()
                for sock in sockets:
                    sock.close()

            tasks = [asyncio.create_task(flood(f"127.0.0.{2 + number}")) for number in range(4)]
            deadline = time.monotonic() + 3
            answers = 0
            while time.monotonic() < deadline:
                assert (await port.ask()).endswith(b"ok\n")
                answers += 1
                await asyncio.sleep(0.02)
            flooding = False
            await asyncio.gather(*tasks)
            assert answers > 3
            assert port.gave_way > 0

    play(scenario)


def test_a_server_that_leaves_ends_each_connection_with_its_answer(play: Play) -> None:
    async def scenario() -> None:
        with listen(Address("127.0.0.1", 0)) as sock:
            server = await serve(handler, sock, leaving=lambda: True)
            reader, writer = await asyncio.open_connection(*sock.getsockname())
            writer.write(GET)
            assert b"\r\nConnection: close\r\n" in await until_closed(reader)
            writer.close()
            server.close()

    play(scenario)


def test_the_kernel_asks_after_clients_that_say_nothing() -> None:
    with listen(Address("127.0.0.1", 0)) as sock, socket.create_connection(sock.getsockname()):
        accepted, _ = sock.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == PEERS.idle_seconds
            user_timeout = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            assert user_timeout == PEERS.user_timeout_seconds * 1000


@pytest.mark.parametrize("descriptors", [1, 2, 10, 100, 10_000])
def test_a_port_has_no_more_connections_than_descriptors(descriptors: int) -> None:
    limits = Limits().within(descriptors)
    assert 1 <= limits.connections < limits.at_once <= max(2, descriptors)
    assert limits.at_once <= Limits().at_once
