"""The real `pegel sidecar` process, and small servers to put behind it."""

import asyncio
import contextlib
import ctypes
import http.client
import itertools
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pegel_agent.sidecar.tap.peers import PATIENCE, Patience
from pegel_exporters.keepalive import KEEPALIVE, Keepalive
from pegel_exporters.serving import LIMITS, Limits

_SO_ATTACH_FILTER = 26
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

BODY = b'{"instances": [[1.0, 2.0]]}'
ANSWER_BODY = b'{"predictions": [1]}'
ASK = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
LEFT_BYTES = 100
"""Less than anything that a connection or an exchange could leave behind: a bare transport has more."""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(ANSWER_BODY), ANSWER_BODY)
LAST_ANSWER = ANSWER.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")
"""As the tap passes it on while it is leaving."""

# The command has no option for the times that a test must not wait for.
_WITH_SHORT_TIMES = """
import resource, sys
from dataclasses import replace
from pegel_exporters.keepalive import Keepalive
from pegel_exporters.serving import Limits
import pegel_agent.sidecar.tap.forwarder as forwarder
from pegel_agent.sidecar.tap.peers import Patience
if {descriptors}:
    resource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors}, {descriptors}))
def with_times(settings):
    ending = replace(settings.ending, lame_duck_seconds={lame_duck}, drain_seconds={drain}, quiet_seconds={quiet})
    return replace(
        settings, silence_seconds={silence}, join_seconds={join}, ending=ending, keepalive={keepalive!r},
        patience={patience!r}, limits={limits!r},
    )
run = forwarder.run
forwarder.run = lambda settings: run(with_times(settings))
from pegel_agent.cli.main import main
main()
"""


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]


@dataclass
class Tap:
    """A running `pegel sidecar`."""

    process: subprocess.Popen[bytes]
    port: int
    admin: int
    temporary: Path
    """What it has for /tmp."""
    log: Path

    def ask(self, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def counts(self) -> dict[str, float]:
        """Samples of /metrics by name and labels, without the labels of the model."""
        page = self.ask("/metrics")[1].decode()
        page = re.sub(r'model_(?:name|version)="[^"]*",?', "", page).replace(",}", "}").replace("{}", "")
        return {key: float(value) for key, value in re.findall(r"^([a-z]\S*(?:\{.*\})?) (\S+)$", page, re.MULTILINE)}

    def outcomes(self) -> dict[str, float]:
        return labelled(self.counts(), "ml_inference_outcomes_total")

    def copies(self) -> dict[str, float]:
        return labelled(self.counts(), "pegel_tap_exchanges_total")

    def resident_bytes(self) -> int:
        return _status(self.process.pid, "VmRSS")

    def peak_bytes(self) -> int:
        return _status(self.process.pid, "VmHWM")

    def analyser(self) -> int | None:
        """Its process id."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0]) if children else None

    def wait_for_analyser(self) -> int:
        """Until it is connected; its process id."""
        until(lambda: self.counts()["pegel_tap_analyser_up"] == 1)
        analyser = self.analyser()
        assert analyser is not None
        return analyser

    def end(self, *, seconds: float = 15) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


def labelled(counts: dict[str, float], name: str) -> dict[str, float]:
    """A family of one label, by its values."""
    return {match[1]: value for key, value in counts.items() if (match := re.fullmatch(name + r'\{\w+="(.*)"\}', key))}


def _status(process: int, field_name: str) -> int:
    text = Path(f"/proc/{process}/status").read_text()
    found = re.search(rf"{field_name}:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) << 10


def until(true: Callable[[], bool], *, seconds: float = 30) -> None:
    """Wait for what must come, and fail when it does not."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            pytest.fail("what was waited for did not come")
        time.sleep(0.02)


def least_growth(size: Callable[[], int], work: Callable[[], object], *, rounds: int = 4) -> int:
    """By how many bytes `size` grew in that round of `work` in which it grew least, the first apart.

    What leaks grows in every round. What an allocator or the kernel keeps for later, once, in one round or two.
    """
    sizes = []
    for _ in range(rounds + 1):
        work()
        sizes.append(size())
    return min(after - before for before, after in itertools.pairwise(sizes))


def gone(process: int) -> bool:
    """Whether there is no such process, or only what its parent has not asked after yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@contextlib.contextmanager
def tap(
    upstream: int | None,
    *options: str,
    silence: float = 30,
    lame_duck: float = 0.2,
    drain: float = 25,
    quiet: float = 0.1,
    join: float = 300,
    keepalive: Keepalive = KEEPALIVE,
    patience: Patience = PATIENCE,
    limits: Limits = LIMITS,
    descriptors: int = 0,
    ready: bool = False,
) -> Iterator[Tap]:
    """`pegel sidecar` in front of a port, or as a sink; its analyser is waited for when it must be `ready`."""
    port, admin = free_ports(2)
    mode = ("--mode", "sink") if upstream is None else ("--upstream", f"127.0.0.1:{upstream}")
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder, "tmp")
        temporary.mkdir()
        log = Path(folder, "log")
        times = _WITH_SHORT_TIMES.format(
            silence=silence, lame_duck=lame_duck, drain=drain, quiet=quiet, join=join, keepalive=keepalive,
            patience=patience, limits=limits, descriptors=descriptors,
        )  # fmt: skip
        program = [sys.executable, "-c", times]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*program, "sidecar", "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}",
                 *mode, *options],
                env={**os.environ, "TMPDIR": str(temporary)}, stdout=output, stderr=output,
            )  # fmt: skip
        running = Tap(process, port, admin, temporary, log)
        try:
            until(lambda: process.poll() is not None or _listens(admin))
            assert process.poll() is None, log.read_text()
            if ready:
                running.wait_for_analyser()
            yield running
            assert "Traceback" not in log.read_text(), log.read_text()
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def looping() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own, so that a test can wait for what happens in it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@contextlib.contextmanager
def model(handler: Handler) -> Iterator[int]:
    """A server on a free port of 127.0.0.1; yields the port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await handler(reader, writer)
        writer.close()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(handle, "127.0.0.1", 0, limit=1 << 20, backlog=1024)

    with looping() as loop:
        server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
        yield server.sockets[0].getsockname()[1]
        loop.call_soon_threadsafe(server.close)


async def read_message(reader: asyncio.StreamReader) -> bytes:
    """One message with a Content-Length, or without a body; raises IncompleteReadError at the end of the stream."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    return head + (await reader.readexactly(int(length[1])) if length else b"")


async def predict(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A model that answers every request alike."""
    while True:
        await read_message(reader)
        writer.write(ANSWER)
        await writer.drain()


@dataclass
class Clients:
    """Connections that ask one request after another until told to stop."""

    port: int
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    stopping: bool = False

    @contextlib.contextmanager
    def asking(self, connections: int = 4, *, pause: float = 0.0) -> Iterator["Clients"]:
        """All of them, each resting `pause` seconds between requests."""
        with looping() as loop:
            tasks = [asyncio.run_coroutine_threadsafe(self._client(pause), loop) for _ in range(connections)]
            try:
                yield self
            finally:
                self.stopping = True
                for task in tasks:
                    task.result(10)

    async def _client(self, pause: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            while not self.stopping:
                writer.write(ASK)
                answer = await read_message(reader)
                if answer != ANSWER:
                    self.failures.append(repr(answer))
                self.answered += 1
                await asyncio.sleep(pause)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.failures.append(repr(error))
        finally:
            writer.close()


def received(client: socket.socket, size: int) -> bytes:
    """Exactly so many bytes; fewer only at the end of the stream."""
    parts = bytearray()
    while len(parts) < size and (data := client.recv(min(size - len(parts), 1 << 18))):
        parts += data
    return bytes(parts)


def vanish(sock: "socket.socket | asyncio.trsock.TransportSocket") -> None:
    """From now on this end of a connection takes no packet, and so sends none: to its peer it is a machine that has
    lost its power. (A socket filter of the kernel's, which needs no privileges, drops what comes.)"""
    nothing = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0), 8)  # BPF_RET of 0 bytes
    program = struct.pack("HL", 1, ctypes.addressof(nothing))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def reset_on_close(sock: socket.socket) -> None:
    """Closing this socket sends a reset, not an end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def connected(port: int) -> socket.socket:
    """A client, which gives up after ten seconds."""
    return socket.create_connection(("127.0.0.1", port), 10)
