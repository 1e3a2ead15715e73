"""The HTTP side on real sockets: what a client may send, and what it gets."""

import asyncio
import gzip
import os
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvloop
from pegel_exporters.errors import UserError
from pegel_exporters.serving import (
    MAX_BODY_BYTES,
    Address,
    Request,
    Response,
    accepts_gzip,
    authorised,
    listen,
    read_token,
    serve,
    text,
)

pytestmark = pytest.mark.integration

LONG = "long " * 1000


@dataclass
class Answer:
    """One answer as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Client:
    """A connection that sends bytes and reads answers."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    requests: list[Request] = field(default_factory=list)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, *, head: bool = False) -> Answer:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
        length = 0 if head else int(headers.get("content-length", 0))
        return Answer(int(lines[0].split(" ")[1]), headers, await self.reader.readexactly(length))

    async def ask(self, data: bytes) -> Answer:
        await self.send(data)
        return await self.answer(head=data.startswith(b"HEAD"))

    async def is_closed(self) -> bool:
        return await self.reader.read(1) == b""


async def handler(request: Request) -> Response:
    match request.path:
        case "/echo":
            return text(f"{request.method} {len(request.body)}")
        case "/long":
            return text(LONG)
        case "/slow":
            await asyncio.sleep(0.05)
            return text("slow")
        case "/huge":
            return Response(200, b"x" * (4 << 20))
        case "/broken":
            raise RuntimeError("a bug")
        case "/odd":
            return Response(299, b"no such status")
        case _:
            return text("fast")


@asynccontextmanager
async def serving(
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None, answer: Callable[[Request], Awaitable[Response]] = handler
) -> AsyncIterator[Client]:
    with listen(Address("127.0.0.1", 0)) as sock:
        server = await serve(answer, sock, tls=tls[0] if tls else None)
        reader, writer = await asyncio.open_connection(*sock.getsockname(), ssl=tls[1] if tls else None)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()
            server.close()


Scenario = Callable[[Client], Awaitable[None]]


@pytest.fixture(params=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest) -> Callable[[Scenario], None]:
    """Run a client's scenario against a fresh server, on both event loops that Pegel uses."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run(scenario: Scenario) -> None:
        async def main() -> None:
            async with asyncio.timeout(30), serving() as client:
                await scenario(client)

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    return run


Play = Callable[[Scenario], None]


def test_one_connection_answers_one_request_after_another(play: Play) -> None:
    async def scenario(client: Client) -> None:
        for _ in range(3):
            answer = await client.ask(b"POST /echo?x=1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")
            assert (answer.status, answer.body) == (200, b"POST 3\n")
            assert "connection" not in answer.headers

    play(scenario)


def test_a_client_that_asks_for_it_is_closed_after_its_answer(play: Play) -> None:
    async def scenario(client: Client) -> None:
        answer = await client.ask(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert answer.headers["connection"] == "close"
        assert await client.is_closed()

    play(scenario)


def test_an_http_1_0_client_is_closed_after_its_answer(play: Play) -> None:
    async def scenario(client: Client) -> None:
        assert (await client.ask(b"GET / HTTP/1.0\r\n\r\n")).body == b"fast\n"
        assert await client.is_closed()

    play(scenario)


def test_requests_sent_at_once_are_answered_in_order(play: Play) -> None:
    async def scenario(client: Client) -> None:
        await client.send(b"GET /slow HTTP/1.1\r\n\r\nGET /fast HTTP/1.1\r\n\r\nGET /slow HTTP/1.1\r\n\r\n")
        assert [(await client.answer()).body for _ in range(3)] == [b"slow\n", b"fast\n", b"slow\n"]

    play(scenario)


def test_each_request_says_for_itself_whether_the_connection_lives_on(play: Play) -> None:
    async def scenario(client: Client) -> None:
        await client.send(b"GET /slow HTTP/1.1\r\n\r\nGET /fast HTTP/1.1\r\nConnection: close\r\n\r\n")
        first, second = await client.answer(), await client.answer()
        assert "connection" not in first.headers
        assert second.headers["connection"] == "close"
        assert await client.is_closed()

    play(scenario)


def test_too_many_requests_at_once_are_refused_after_the_answers_before(play: Play) -> None:
    async def scenario(client: Client) -> None:
        await client.send(b"GET /slow HTTP/1.1\r\n\r\n" * 1000)
        statuses = [(await client.answer()).status]
        while statuses[-1] == 200:
            statuses.append((await client.answer()).status)
        assert 8 < len(statuses) < 100
        assert statuses[-1] == 429

    play(scenario)


def test_what_is_no_request_gets_400_after_the_answers_before(play: Play) -> None:
    async def scenario(client: Client) -> None:
        await client.send(b"GET /slow HTTP/1.1\r\n\r\nthis is no request\r\n\r\n")
        assert (await client.answer()).body == b"slow\n"
        refusal = await client.answer()
        assert (refusal.status, refusal.headers["connection"]) == (400, "close")
        assert await client.is_closed()

    play(scenario)


@pytest.mark.parametrize(
    "head",
    [
        b"POST /echo HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1),
        b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % (MAX_BODY_BYTES * 2),
    ],
)
def test_a_body_that_is_too_large_gets_413_while_it_is_still_being_sent(play: Play, head: bytes) -> None:
    async def scenario(client: Client) -> None:
        client.writer.write(head)
        client.writer.write(b"x" * (MAX_BODY_BYTES + 1))
        assert (await client.answer()).status == 413
        assert await client.is_closed()

    play(scenario)


def test_a_body_of_the_largest_size_is_taken(play: Play) -> None:
    async def scenario(client: Client) -> None:
        await client.send(b"POST /echo HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % MAX_BODY_BYTES)
        assert (await client.ask(b"x" * MAX_BODY_BYTES)).body == b"POST %d\n" % MAX_BODY_BYTES

    play(scenario)


def test_a_large_body_may_be_dropped_and_its_request_answered_by_another(play: Play) -> None:
    async def without_body(request: Request) -> Response:
        return text(f"{request.headers['x-name']} {len(request.body)}")

    large, small = MAX_BODY_BYTES + 1, MAX_BODY_BYTES

    async def scenario(_: Client) -> None:
        with listen(Address("127.0.0.1", 0)) as sock:
            server = await serve(handler, sock, max_body_bytes=MAX_BODY_BYTES, without_body=without_body)
            client = Client(*await asyncio.open_connection(*sock.getsockname()))
            head = b"POST /echo HTTP/1.1\r\nX-Name: a\r\n"
            assert (await client.ask(head + b"Content-Length: %d\r\n\r\n" % large + bytes(large))).body == b"a 0\n"
            assert (await client.ask(head + b"Content-Length: %d\r\n\r\n" % small + bytes(small))).body == (
                b"POST %d\n" % small
            )
            chunks = (b"%x\r\n" % small + bytes(small) + b"\r\n") * 20 + b"0\r\n\r\n"
            assert (await client.ask(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)).body == b"a 0\n"
            assert (await client.ask(b"POST /echo HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")).body == b"POST 3\n"
            client.writer.close()
            server.close()

    play(scenario)


def test_bodies_that_leave_no_room_for_another_are_let_go_by_those_that_can(play: Play) -> None:
    go_on = asyncio.Event()

    async def hold(_: Request) -> Response:
        await go_on.wait()
        return text("held")

    async def without_body(_: Request) -> Response:
        return text("dropped")

    async def scenario(_: Client) -> None:
        with listen(Address("127.0.0.1", 0)) as sock:
            server = await serve(hold, sock, max_body_bytes=3 << 20, without_body=without_body)
            clients = [Client(*await asyncio.open_connection(*sock.getsockname())) for _ in range(3)]
            for client in clients:
                await client.send(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (3 << 20) + bytes(3 << 20))
            waiting = [asyncio.create_task(client.answer()) for client in clients]
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert {task.result().body for task in done} == {b"dropped\n"}
            go_on.set()
            assert sorted([(await task).body for task in waiting]) == [b"dropped\n", b"held\n", b"held\n"]
            assert (await clients[0].ask(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")).body == b"held\n"
            for client in clients:
                client.writer.close()
            server.close()

    play(scenario)


@pytest.mark.parametrize(
    "endless",
    [
        b"GET / HTTP/1.1\r\nX-Long: " + b"x" * (1 << 20),
        b"GET /" + b"x" * (1 << 20),
        b"GET / HTTP/1.1\r\n" + b"X-Many: 1\r\n" * 10_000,
    ],
)
def test_a_header_without_an_end_is_refused(play: Play, endless: bytes) -> None:
    async def scenario(client: Client) -> None:
        client.writer.write(endless)
        assert (await client.answer()).status == 431
        assert await client.is_closed()

    play(scenario)


def test_a_trailer_without_an_end_is_refused(play: Play) -> None:
    async def scenario(client: Client) -> None:
        client.writer.write(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Long: " + b"x" * (10 << 20))
        assert (await client.answer()).status == 413

    play(scenario)


def test_a_body_in_single_bytes_is_joined(play: Play) -> None:
    async def scenario(client: Client) -> None:
        chunks = b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n"
        answer = await client.ask(b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        assert answer.body == b"POST 50000\n"

    play(scenario)


def test_a_client_that_waits_for_leave_to_send_gets_it(play: Play) -> None:
    async def scenario(client: Client) -> None:
        await client.send(b"POST /echo HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.answer()).status == 100
        assert (await client.ask(b"abc")).body == b"POST 3\n"

    play(scenario)


def test_a_request_that_offers_an_upgrade_is_answered_as_it_is(play: Play) -> None:
    async def scenario(client: Client) -> None:
        answer = await client.ask(b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert (answer.status, answer.body) == (200, b"fast\n")
        assert await client.is_closed()

    play(scenario)


def test_a_client_that_closes_its_side_early_still_gets_its_answer(play: Play) -> None:
    async def scenario(client: Client) -> None:
        await client.send(b"GET /slow HTTP/1.1\r\n\r\n")
        client.writer.write_eof()
        assert (await client.answer()).body == b"slow\n"
        assert await client.is_closed()

    play(scenario)


def test_head_gets_the_headers_of_get_and_no_body(play: Play) -> None:
    async def scenario(client: Client) -> None:
        answer = await client.ask(b"HEAD /long HTTP/1.1\r\n\r\n")
        assert answer.headers["content-length"] == str(len(LONG) + 1)
        assert (await client.ask(b"GET / HTTP/1.1\r\n\r\n")).body == b"fast\n"

    play(scenario)


def test_a_handler_that_fails_gives_500_one_log_line_and_goes_on(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(client: Client) -> None:
        for path in (b"/broken", b"/odd"):
            answer = await client.ask(b"GET " + path + b" HTTP/1.1\r\n\r\n")
            assert (answer.status, answer.body) == (500, b"internal error\n")
        assert (await client.ask(b"GET / HTTP/1.1\r\n\r\n")).body == b"fast\n"

    play(scenario)
    assert [record.getMessage() for record in caplog.records] == ["answering /broken failed", "answering /odd failed"]


def test_a_long_answer_is_compressed_for_those_who_take_it(play: Play) -> None:
    async def scenario(client: Client) -> None:
        plain = await client.ask(b"GET /long HTTP/1.1\r\n\r\n")
        packed = await client.ask(b"GET /long HTTP/1.1\r\nAccept-Encoding: br, gzip\r\n\r\n")
        short = await client.ask(b"GET / HTTP/1.1\r\nAccept-Encoding: gzip\r\n\r\n")
        assert "content-encoding" not in plain.headers
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(packed.body) == plain.body
        assert len(packed.body) < len(plain.body)
        assert "content-encoding" not in short.headers

    play(scenario)


def test_a_client_that_reads_nothing_gets_no_more_work_done() -> None:
    answered = 0

    async def count(request: Request) -> Response:
        nonlocal answered
        answered += 1
        return await handler(request)

    async def main() -> None:
        async with asyncio.timeout(30), serving(answer=count) as client:
            for _ in range(100):
                await client.send(b"GET /huge HTTP/1.1\r\n\r\n")
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.2)
            assert answered < 10

    asyncio.run(main())


def test_a_client_that_breaks_the_connection_ends_its_handler() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def wait(_: Request) -> Response:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return text("late")

    async def main() -> None:
        async with asyncio.timeout(30), serving(answer=wait) as client:
            await client.send(b"GET / HTTP/1.1\r\n\r\n")
            await started.wait()
            no_linger = struct.pack("ii", 1, 0)  # closing sends a reset, not an end
            client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
            client.writer.transport.abort()
            await ended.wait()

    asyncio.run(main())


def test_requests_are_answered_over_tls_and_on_a_unix_socket(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
            "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate,
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(certificate, key)
    theirs = ssl.create_default_context(cafile=certificate)

    async def main() -> None:
        async with asyncio.timeout(30), serving(tls=(ours, theirs)) as client:
            assert (await client.ask(b"GET / HTTP/1.1\r\n\r\n")).body == b"fast\n"
            assert (await client.ask(b"no request\r\n\r\n")).status == 400
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(tmp_path / "socket"))
            async with asyncio.timeout(30), await serve(handler, sock):
                client = Client(*await asyncio.open_unix_connection(tmp_path / "socket"))
                assert (await client.ask(b"GET / HTTP/1.1\r\n\r\n")).body == b"fast\n"
                client.writer.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("header", "passes"),
    [
        ("Bearer s3cret", True),
        ("bearer s3cret", True),
        ("Bearer s3cre", False),
        ("Bearer s3cret2", False),
        ("Basic s3cret", False),
        ("s3cret", False),
        ("Bearer é", False),
        (None, False),
    ],
)
def test_only_the_right_bearer_token_passes(header: str | None, passes: bool) -> None:
    request = Request("GET", "/", {} if header is None else {"authorization": header}, b"")
    assert authorised(request, "s3cret") == passes
    assert authorised(request, None)


def test_a_token_is_read_from_its_file_or_refused_in_one_line(tmp_path: Path) -> None:
    token, empty = tmp_path / "token", tmp_path / "empty"
    token.write_text("s3cret\n")
    empty.write_text("\n")
    assert read_token(str(token)) == "s3cret"
    assert read_token(None) is None
    for path, reason in ((empty, "is empty"), (tmp_path / "none", "cannot read the token")):
        with pytest.raises(UserError, match=reason):
            read_token(str(path))


@pytest.mark.parametrize(
    ("header", "taken"),
    [("gzip", True), ("br, GZIP;q=0.5", True), ("gzip;q=0", False), ("gzip; q=0.0", False), ("br", False), ("", False)],
)
def test_a_quality_of_0_refuses_gzip(header: str, taken: bool) -> None:
    assert accepts_gzip(Request("GET", "/", {"accept-encoding": header}, b"")) == taken


@pytest.mark.parametrize(
    ("written", "address"),
    [(":9465", Address("", 9465)), ("127.0.0.1:0", Address("127.0.0.1", 0)), ("[::1]:80", Address("::1", 80))],
)
def test_an_address_is_read_and_written_back(written: str, address: Address) -> None:
    assert Address.parse(written) == address
    assert str(address) == written


@pytest.mark.parametrize(
    "written", ["9465", "host:", "host:port", ":65536", ":-1", ":²", "http://host:80", "::1:80", "[]:80"]
)
def test_what_is_no_address_is_refused(written: str) -> None:
    with pytest.raises(UserError, match="is not an address"):
        Address.parse(written)


def test_a_port_in_use_is_refused() -> None:
    with listen(Address("127.0.0.1", 0)) as sock, pytest.raises(UserError, match="Address already in use"):
        listen(Address("127.0.0.1", sock.getsockname()[1]))


def test_an_address_without_a_host_listens_on_all_interfaces() -> None:
    with listen(Address("", 0)) as sock:
        socket.create_connection(("127.0.0.1", sock.getsockname()[1])).close()
        if socket.has_dualstack_ipv6() and os.path.exists("/proc/net/if_inet6"):
            assert sock.family == socket.AF_INET6
