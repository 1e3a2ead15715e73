"""What stands between client and model, each as a process of its own: nothing, nginx, Pegel."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from measuring.processes import children, free_port, pinned, wait_for_port

_FORWARDER = Path(__file__).parent.parent / "contenders" / "forwarder.py"
_EXCHANGES = "pegel_tap_exchanges_total"
_START_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it listens, and the processes that do its work, the one in the traffic path first."""

    name: str
    port: int
    pids: tuple[int, ...]
    admin: int = 0

    def outcomes(self) -> dict[str, int]:
        """What became of the exchanges."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=5) as page:
            lines = page.read().decode().splitlines()
        found = (line.rpartition('outcome="')[2].split('"} ') for line in lines if line.startswith(f"{_EXCHANGES}{{"))
        return {outcome: int(float(count)) for outcome, count in found}


@contextlib.contextmanager
def model(folder: Path, answers: dict[str, str], cores: set[int]) -> Iterator[Server]:
    """nginx as a model: a fixed JSON answer for each path."""
    locations = " ".join(f"location = {path} {{ return 200 '{answer}'; }}" for path, answer in answers.items())
    with _nginx(folder, "model", f"default_type application/json; server {{ LISTEN {locations} }}", cores) as server:
        yield server


@contextlib.contextmanager
def nginx_proxy(folder: Path, upstream: int, cores: set[int]) -> Iterator[Server]:
    """nginx as a reverse proxy that keeps its connections to the model."""
    http = (
        f"upstream model {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 100000000; }}"
        " server { LISTEN location / { proxy_pass http://model; proxy_http_version 1.1;"
        ' proxy_set_header Connection ""; } }'
    )
    with _nginx(folder, "nginx", http, cores) as server:
        yield server


@contextlib.contextmanager
def forwarder(folder: Path, upstream: int, cores: set[int]) -> Iterator[Server]:
    """Pegel's forwarder alone."""
    port, admin = free_port(), free_port()
    command = [sys.executable, str(_FORWARDER), *(f"127.0.0.1:{p}" for p in (port, upstream, admin))]
    with _process(command, folder / "forwarder.log", cores) as process:
        wait_for_port(port)
        yield Server("forwarder", port, (process.pid,), admin)


@contextlib.contextmanager
def sidecar(
    folder: Path, upstream: int, cores: set[int], *, profile: Path, window: str, served: str
) -> Iterator[Server]:
    """All of `pegel sidecar`, once its analyser is up; the model is served by these names."""
    port, admin = free_port(), free_port()
    command = [
        str(Path(sys.executable).with_name("pegel")), "sidecar", "--listen", f"127.0.0.1:{port}",
        "--upstream", f"127.0.0.1:{upstream}", "--admin", f"127.0.0.1:{admin}",
        "--profile", str(profile), "--window", window, "--lame-duck", "0", "--served-model", served,
    ]  # fmt: skip
    with _process(command, folder / "sidecar.log", cores) as process:
        wait_for_port(admin)
        give_up = time.monotonic() + _START_SECONDS
        while not _analyser_up(admin):
            if process.poll() is not None or time.monotonic() > give_up:
                raise click.ClickException(f"pegel sidecar did not start: {_last_line(folder / 'sidecar.log')}")
            time.sleep(0.1)
        yield Server("sidecar", port, (process.pid, *children(process.pid)), admin)


def _analyser_up(admin: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=5) as page:
        return re.search(rb"^pegel_tap_analyser_up\S* 1", page.read(), re.MULTILINE) is not None


@contextlib.contextmanager
def _nginx(folder: Path, name: str, http: str, cores: set[int]) -> Iterator[Server]:
    port = free_port()
    path, errors = folder / f"{name}.conf", folder / f"{name}.log"
    path.write_text(
        f"daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log {errors};\n"
        "events { worker_connections 1024; }\n"
        "http { access_log off; keepalive_requests 100000000;\n"
        + http.replace("LISTEN", f"listen 127.0.0.1:{port} backlog=1024;")
        + " }\n"
    )
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise click.ClickException("nginx is missing: run benchmarks/install-tools")
    with _process([program, "-e", str(errors), "-c", str(path)], errors, cores) as process:
        wait_for_port(port)
        yield Server(name, port, (*children(process.pid), process.pid))


@contextlib.contextmanager
def _process(command: Sequence[str], log: Path, cores: set[int]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen(pinned(command, cores), stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _last_line(log: Path) -> str:
    return (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
