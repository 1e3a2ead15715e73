"""The demo's processes: started on free ports, ended with the demo, whatever ends it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from pegel_exporters.errors import UserError

_START_SECONDS = 30.0
_END_SECONDS = 5.0


@dataclass(slots=True)
class Stage:
    """A temporary folder and the processes that run in it; their output goes to one log each."""

    folder: Path
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a process in a session of its own, so that Ctrl-C reaches only the demo."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip

    def wait_for(self, name: str, url: str) -> None:
        """Wait until a process answers. Raises UserError with the last line of its log when it ends instead."""
        give_up = time.monotonic() + _START_SECONDS
        while time.monotonic() < give_up:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(url, timeout=2.0).status_code == 200:
                    return
            if self._running[name].poll() is not None:
                break
            time.sleep(0.05)
        lines = (self.folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
        raise UserError(f"the {name} did not start: {lines[-1] if lines else 'it said nothing'}")

    def end(self) -> None:
        """End all processes, the last started first."""
        for process in reversed(self._running.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        give_up = time.monotonic() + _END_SECONDS
        for process in reversed(self._running.values()):
            try:
                process.wait(max(0.0, give_up - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """A stage that is empty again at the end."""
    found = Stage(folder)
    try:
        yield found
    finally:
        # A second Ctrl-C must not leave half of it running.
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            found.end()
        finally:
            signal.signal(signal.SIGINT, previous)


def free_port() -> int:
    """A TCP port on loopback that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def port_or_free(preferred: int) -> int:
    """The preferred port, so that the address is easy to remember, or any other if it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            return free_port()
    return preferred


def pegel(*arguments: str) -> list[str]:
    """The command line of a Pegel of the same version as this one."""
    return [sys.executable, "-m", "pegel_agent.cli.main", *arguments]
