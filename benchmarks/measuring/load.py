"""Requests: by wrk, flat out or paced; and by a client here, at a fixed rate and with every latency."""

import asyncio
import re
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import click
import uvloop

from measuring.processes import pinned

CONNECTIONS = 16
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


def wrk_script(path: Path, target: str, bodies: Sequence[str], *, pause_ms: int) -> Path:
    """Write a script for wrk: POST these bodies in turn, each connection after a pause of up to twice `pause_ms`."""
    listed = ",\n".join(f"[==[{body}]==]" for body in bodies)
    delay = f"function delay() return math.random(0, {2 * pause_ms}) end\n" if pause_ms else ""
    path.write_text(
        f"local bodies = {{\n{listed}}}\nlocal made, at = {{}}, 0\n"
        'function init() for i, body in ipairs(bodies) do made[i] = wrk.format("POST", "'
        + target
        + '", {["Content-Type"] = "application/json"}, body) end end\n'
        "function request() at = at % #made + 1 return made[at] end\n" + delay
    )
    return path


def wrk(script: Path, port: int, *, seconds: int, cores: set[int]) -> int:
    """Load a server with 16 connections; the number of answers. Raises ClickException unless all were good."""
    program = shutil.which("wrk")
    if program is None:
        raise click.ClickException("wrk is missing: run benchmarks/install-tools")
    said = subprocess.run(
        pinned(
            (program, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{port}"), cores
        ),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    ).stdout  # fmt: skip
    answers = re.search(r"(\d+) requests in", said)
    bad = re.search(r"(Non-2xx.*|Socket errors.*)", said)
    if answers is None or bad is not None or answers[1] == "0":
        raise click.ClickException(f"wrk on port {port}: {bad[0].strip() if bad else said.strip() or 'said nothing'}")
    return int(answers[1])


def latencies(port: int, requests: Sequence[bytes], *, rate: float, seconds: float) -> list[float]:
    """Seconds that each answer took, at `rate` requests a second whether or not earlier ones are answered.

    A request that finds all 16 connections busy waits for one, and that counts.
    """
    return uvloop.run(_latencies(port, requests, rate, seconds))


async def _latencies(port: int, requests: Sequence[bytes], rate: float, seconds: float) -> list[float]:
    loop = asyncio.get_running_loop()
    pool = _Pool()
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: _Connection(pool), "127.0.0.1", port)
    began = loop.time()
    for number in range(int(rate * seconds)):
        wait = began + number / rate - loop.time()
        if wait > 0:
            await asyncio.sleep(wait)
        pool.send(requests[number % len(requests)])
    give_up = loop.time() + 5
    while pool.unanswered:
        if loop.time() > give_up:
            raise click.ClickException(f"{pool.unanswered} requests to port {port} were never answered")
        await asyncio.sleep(0.01)
    pool.close()
    return pool.took


class _Pool:
    """Connections that are free, and requests that wait for one."""

    def __init__(self) -> None:
        self.free: deque[_Connection] = deque()
        self.all: list[_Connection] = []
        self.waiting: deque[tuple[bytes, float]] = deque()
        self.took: list[float] = []
        self.unanswered = 0

    def send(self, request: bytes) -> None:
        self.unanswered += 1
        self.waiting.append((request, time.perf_counter()))
        self.go_on()

    def go_on(self) -> None:
        while self.waiting and self.free:
            self.free.popleft().send(*self.waiting.popleft())

    def close(self) -> None:
        for connection in self.all:
            connection.transport.close()


class _Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    transport: asyncio.Transport

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self._answer = b""
        self._asked = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._pool.all.append(self)
        self._pool.free.append(self)

    def send(self, request: bytes, asked: float) -> None:
        self._asked = asked
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or length is None or len(body) < int(length[1]):
            return
        if not head.startswith(b"HTTP/1.1 200"):
            raise click.ClickException(f"answered {head.splitlines()[0]!r}")
        self._answer = b""
        pool = self._pool
        pool.took.append(now - self._asked)
        pool.unanswered -= 1
        pool.free.append(self)
        pool.go_on()
