"""What `helm test` runs in the cluster, run here against the real exporter."""

import http.server
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.helm.rendering import CHART, of_kind, template

SCRIPT = CHART / "files" / "helm_test.py"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def asked(host: str, port: int) -> tuple[int, str]:
    """The script's exit code and words."""
    command = [sys.executable, SCRIPT, host, str(port)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert not answer.stderr
    return answer.returncode, answer.stdout.strip()


@contextmanager
def exporter(*options: str) -> Iterator[int]:
    """`pegel gpu-exporter` once it is ready; gives its port."""
    port = free_port()
    command = [sys.executable, "-m", "pegel_agent.cli.main", "gpu-exporter", "--listen", f"127.0.0.1:{port}", *options]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 30
        while "does not answer" in asked("127.0.0.1", port)[1] and time.monotonic() < until:
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.integration
def test_an_exporter_that_publishes_its_gpus_passes():
    with exporter("--simulate", "h100-mig") as port:
        assert asked("127.0.0.1", port) == (0, "127.0.0.1: publishes its GPUs")


@pytest.mark.integration
def test_an_exporter_without_a_driver_fails_and_says_what_to_look_at():
    with exporter() as port:
        code, said = asked("127.0.0.1", port)
    assert code == 1
    assert "finds no driver" in said
    assert "gpu.runtimeClassName" in said


def test_a_closed_port_fails_with_its_address():
    code, said = asked("127.0.0.1", free_port())
    assert code == 1
    assert said.startswith("127.0.0.1: does not answer: ")


def test_a_service_without_a_ready_pod_fails_and_says_why_that_may_be():
    code, said = asked("pegel-gpu-exporter.invalid", 9465)
    assert code == 1
    assert "no exporter is ready" in said
    assert "gpu.nodeLabels" in said


@pytest.mark.parametrize("page", [b"", b"\xff\xfe", b"node_up 1\n"])
def test_another_server_on_the_port_fails(page):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        code, said = asked("127.0.0.1", server.server_address[1])
        server.shutdown()
    assert code == 1
    assert "is it Pegel's GPU exporter?" in said


@pytest.mark.integration
def test_the_pod_runs_this_script_against_the_service():
    text = template("--set", "gpu.port=19465")
    (pod,), (service,) = of_kind(text, "Pod"), of_kind(text, "Service")
    python, option, script, host, port = pod["spec"]["containers"][0]["command"]
    assert (python, option) == ("python3", "-c")
    assert script == SCRIPT.read_text()
    assert (host, port) == (service["metadata"]["name"], "19465")
    assert pod["metadata"]["annotations"] == {
        "helm.sh/hook": "test",
        "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
    }
