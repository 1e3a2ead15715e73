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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import files
from pathlib import Path
from typing import Any

import pytest
from pegel_exporters.gpu.readings import Node, Reading

from tests.exporters.gpu.kubelet_server import KubeletServer

SOURCE = Path(__file__).parents[2] / "nvml" / "double.c"
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
    (path,) = (file for file in files("nvidia-nvml-dev") or () if file.name == "nvml.h")
    return Path(str(path.locate()))


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
def build_nvml(tmp_path: Path, header: Path) -> Callable[..., Nvml]:
    """Build the double, without the symbols named, as an older driver lacks them."""

    def build(*, without: tuple[str, ...] = ()) -> Nvml:
        hidden = tmp_path / "hidden.map"
        hidden.write_text(f"{{ local: {' '.join(f'{name};' for name in without)} }};" if without else "{ global: *; };")
        library = tmp_path / "libnvidia-ml.so.1"
        built = tmp_path / "built.so"
        subprocess.run(
            [
                need("gcc", "apt-get install gcc"), "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror",
                "-Wmissing-prototypes", f"-I{header.parent}", f"-Wl,--version-script={hidden}",
                str(SOURCE), "-o", str(built),
            ],
            check=True,
        )  # fmt: skip
        built.rename(library)
        return Nvml(tmp_path)

    return build


@pytest.fixture
def nvml(build_nvml: Callable[..., Nvml]) -> Nvml:
    """The double with all of its symbols."""
    return build_nvml()


@pytest.fixture
def lines_of() -> Callable[[Node], list[str]]:
    """A node's readings as the double is told them, in NVML's units."""
    return _lines_of


def _lines_of(node: Node) -> list[str]:
    major, minor = node.cuda_version.split(".")
    lines = [f"driver_version {node.driver_version}", f"cuda_version {int(major) * 1000 + int(minor) * 10}"]
    lines.append(f"count {len(node.gpus)}")
    for gpu in node.gpus:
        if gpu.error:
            lines += [f"{gpu.gpu}.uuid {gpu.uuid}", f"{gpu.gpu}.lost 15"]
            continue
        words = {
            "uuid": gpu.uuid, "name": gpu.name, "minor_number": gpu.minor_number, "pci_bus_id": gpu.pci_bus_id,
            **_words(gpu.raw), "gpm": int(any(key.startswith("gpm_") for key in _all_keys(gpu))),
        }  # fmt: skip
        for number, one in enumerate(gpu.instances):
            of_mig = {
                "uuid": one.uuid, "name": f"{gpu.name} MIG {one.profile}", "gi": one.gpu_instance,
                "ci": one.compute_instance, "slices": one.slices, **_words(one.raw),
            }  # fmt: skip
            words |= {f"mig.{number}.{key}": value for key, value in of_mig.items()}
        for number, process in enumerate(gpu.processes):
            numbers = (process.memory_bytes, process.sm_percent, process.gpu_instance)
            told = " ".join("-1" if value is None else f"{value:.0f}" for value in numbers)
            words[f"process.{number}"] = f"{process.pid} {process.kind} {told}"
        lines += [f"{gpu.gpu}.{key} {value}" for key, value in words.items()]
    return lines


def _all_keys(gpu: Reading) -> set[str]:
    return set(gpu.raw).union(*(one.raw for one in gpu.instances))


def _words(raw: Mapping[str, float]) -> dict[str, object]:
    """Values under the double's keys, which follow from others where a driver's do."""
    told: dict[str, object] = {}
    for key, value in raw.items():
        if key in ("nvlink_transmit", "nvlink_receive"):
            told[f"field_{138 if key == 'nvlink_transmit' else 139}"] = f"{value / 1024:.0f}"
        elif key not in ("memory_free", "processes:compute", "processes:graphics"):
            told[key] = f"{value:g}" if key.startswith("gpm_") else f"{value:.0f}"
    return told


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
