"""Real model servers for integration tests, each in a Python environment of its own outside the repository."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
_START_SECONDS = 120
SKLEARN = "mlserver_sklearn.SKLearnModel"


def mlserver_environment() -> Path:
    """MLServer's environment. Where it is missing CI builds it, and anyone else's test is skipped."""
    install = FOLDER / "install-mlserver"
    settings = os.environ | {"PYTHON": sys.executable}
    where = subprocess.run([install, "--where"], env=settings, stdout=subprocess.PIPE, text=True, check=False)
    if where.returncode != 0:
        if os.environ.get("CI") != "true":
            pytest.skip("MLServer is missing: run tests/modelservers/install-mlserver")
        where = subprocess.run([install], env=settings, stdout=subprocess.PIPE, text=True, check=True)
    return Path(where.stdout.strip())


def train_wine(folder: Path) -> Path:
    """A classifier of 13 numbers into 3 classes, trained by the scikit-learn that will load it."""
    model = folder / "model.joblib"
    subprocess.run([mlserver_environment() / "bin" / "python", FOLDER / "train_wine.py", model], check=True)
    return model


@contextlib.contextmanager
def mlserver(model_path: Path, name: str, *, implementation: str = SKLEARN) -> Iterator[int]:
    """MLServer with one model, ready; yields the HTTP port on 127.0.0.1.

    It is scikit-learn's from a joblib file, or of an `implementation` in the modules of this folder.
    """
    program = mlserver_environment() / "bin" / "mlserver"
    http_port, grpc_port = _free_ports(2)
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "host": "127.0.0.1",
            "http_port": http_port,
            "grpc_port": grpc_port,
            "parallel_workers": 0,
            "metrics_endpoint": None,
            "debug": False,
        }
        model = {
            "name": name,
            "implementation": implementation,
            "parameters": {"uri": str(model_path.resolve()), "version": "v1"},
        }
        Path(folder, "settings.json").write_text(json.dumps(settings))
        Path(folder, "model-settings.json").write_text(json.dumps(model))
        log = Path(folder, "log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [program, "start", folder],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": str(FOLDER)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                _wait_until_ready(process, f"http://127.0.0.1:{http_port}/v2/models/{name}/ready", log)
                yield http_port
            finally:
                process.terminate()
                try:
                    process.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.1)
    state = "ended" if process.poll() is not None else "is not ready"
    pytest.fail(f"MLServer {state}:\n{log.read_text(errors='replace')[-2000:]}")
