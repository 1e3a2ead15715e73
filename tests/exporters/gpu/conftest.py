"""The C double of NVML, built where a test needs it, and the real command as a process."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pegel_exporters.gpu.readings import Node

from tests.exporters.gpu.kubelet_server import KubeletServer
from tests.nvml import double
from tests.nvml.double import lines_of_node

WAIT_SECONDS = 30.0


def need(tool: str, how: str) -> str:
    """The tool's path. A missing one is a skip here and a failure in CI."""
    path = shutil.which(tool)
    if path is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{tool} is missing: {how}")
    return path


@pytest.fixture(scope="session")
def promtool() -> str:
    """The real promtool."""
    return need("promtool", "make tools")


@pytest.fixture(scope="session")
def header() -> Path:
    """NVIDIA's own nvml.h."""
    return double.header()


@dataclass
class Nvml:
    """A folder with the double as libnvidia-ml.so.1, and the file that tells it what to say."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(self.folder), "PEGEL_NVML_DOUBLE": str(self.folder / "scenario")}

    def tell(self, *lines: str) -> None:
        new = self.folder / "scenario.new"
        new.write_text("".join(f"{line}\n" for line in lines))
        new.rename(self.folder / "scenario")


@pytest.fixture
def build_nvml(tmp_path: Path) -> Callable[..., Nvml]:
    """Build the double, without the symbols named, as an older driver lacks them."""

    def build(*, without: tuple[str, ...] = ()) -> Nvml:
        double.build(tmp_path, gcc=need("gcc", "apt-get install gcc"), without=without)
        return Nvml(tmp_path)

    return build


@pytest.fixture
def nvml(build_nvml: Callable[..., Nvml]) -> Nvml:
    """The double with all of its symbols."""
    return build_nvml()


@pytest.fixture
def lines_of() -> Callable[[Node], list[str]]:
    """A node's readings as the double is told them, in NVML's units."""
    return lines_of_node


class Command:
    """A running `pegel gpu-exporter` on a free port, ready unless its driver is about to hang."""

    def __init__(self, log: Path, *options: str, environment: dict[str, str], ready: bool) -> None:
        self._log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [
                    str(Path(sys.executable).with_name("pegel")), "gpu-exporter",
                    "--listen", "127.0.0.1:0", "--interval", "200ms", *options,
                ],
                stderr=file,
                env={**os.environ, **environment},
            )  # fmt: skip
        self.url = until(lambda: re.search(r"http://[\d.:]+", self.log))[0]
        if ready:
            until(lambda: self.get("/readyz")[0] == 200)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        request = urllib.request.Request(self.url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def metrics(self) -> str:
        return self.get("/metrics")[1].decode()

    def sees(self, *lines: str) -> str:
        """The page, once it holds all of the lines."""
        page = ""

        def complete() -> bool:
            nonlocal page
            page = self.metrics()
            return set(lines) <= set(page.splitlines())

        with contextlib.suppress(TimeoutError):
            until(complete)
        assert not set(lines) - set(page.splitlines()), page
        return page

    @staticmethod
    def wait(what: Callable[[], Any]) -> Any:
        """The first true answer of a function that is asked again and again."""
        return until(what)

    def workers(self) -> list[int]:
        """The ids of its child processes."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """The exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(WAIT_SECONDS)


def until(what: Callable[[], Any]) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        if answer := what():
            return answer
        time.sleep(0.05)
    raise TimeoutError(f"nothing true within {WAIT_SECONDS:g} seconds")


@pytest.fixture
def run_exporter(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Start the real command; it is ended with the test."""
    started: list[Command] = []

    def start(*options: str, environment: dict[str, str] | None = None, ready: bool = True) -> Command:
        log = tmp_path / f"log-{len(started)}"
        started.append(Command(log, *options, environment=environment or {}, ready=ready))
        return started[-1]

    yield start
    for command in started:
        if command.process.poll() is None:
            command.process.kill()
            command.process.wait()


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[KubeletServer]:
    """A kubelet that is running; it is ended with the test."""
    server = KubeletServer(tmp_path / "kubelet.sock")
    server.start()
    yield server
    server.stop()
