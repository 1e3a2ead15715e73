"""The kubelet on its socket: gRPC's own server asked by ours, and everything that can be wrong with one."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pegel_exporters.errors import UserError
from pegel_exporters.gpu import kubelet as kubelet_module
from pegel_exporters.gpu import simulated
from pegel_exporters.gpu.kubelet import Kubelet
from pegel_exporters.gpu.podresources import Holding, KubeletUnavailableError

from tests.exporters.gpu.kubelet_server import KubeletServer, pod, response

pytestmark = pytest.mark.integration

T4 = [gpu.uuid for gpu in simulated.source("t4-time-sliced")(1_790_000_000.0).gpus]
ONE_POD = [pod("checkout-7d9", {"nvidia.com/gpu": [T4[0]]})]
HELD = f'nvidia_gpu_pod_allocated{{attribution="exclusive",container="model",mig_profile="",mig_uuid="",namespace="shop",pod="checkout-7d9",team="",uuid="{T4[0]}"}} 1.0'  # noqa: E501
UP, DOWN = "nvidia_gpu_pod_resources_up 1.0", "nvidia_gpu_pod_resources_up 0.0"


def ask(path: Path, *, deadline: float = 20.0) -> tuple[Holding, ...]:
    return asyncio.run(Kubelet(str(path), deadline=deadline).holdings())


def refusal(path: Path, *, deadline: float = 20.0) -> str:
    with pytest.raises(KubeletUnavailableError) as refused:
        ask(path, deadline=deadline)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def aborting(code: grpc.StatusCode, said: str) -> Callable[[grpc.ServicerContext], NoReturn]:
    return lambda context: context.abort(code, said)


@contextmanager
def hanging(kubelet: KubeletServer) -> Iterator[None]:
    """A kubelet that takes every question and answers none."""
    over = threading.Event()
    kubelet.behaviour = lambda _: response(()) if over.wait() else b""
    try:
        yield
    finally:
        over.set()
        kubelet.behaviour = None


@contextmanager
def listener(path: Path, answer: bytes) -> Iterator[None]:
    """Something on the socket that writes the answer to whatever it is sent, and then hangs up."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = sock.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            sock.shutdown(socket.SHUT_RDWR)
            thread.join()
            path.unlink()


def test_what_a_real_grpc_server_lists_is_read(kubelet: KubeletServer) -> None:
    kubelet.pods = [
        pod("a", {"nvidia.com/gpu": [T4[0], T4[1]], "rdma/hca": ["mlx5_0"]}),
        pod("b", {"nvidia.com/mig-1g.10gb": ["MIG-1"]}, namespace="lab", container="train"),
        pod("none", {}),
    ]
    assert ask(kubelet.path) == (
        Holding("shop", "a", "model", "nvidia.com/gpu", (T4[0], T4[1])),
        Holding("lab", "b", "train", "nvidia.com/mig-1g.10gb", ("MIG-1",)),
    )


def test_an_empty_node_and_a_full_one_are_read(kubelet: KubeletServer) -> None:
    assert ask(kubelet.path) == ()
    kubelet.pods = [pod(f"pod-{number}", {"nvidia.com/gpu": [f"{T4[0]}::{number}"]}) for number in range(4096)]
    assert 256 << 10 < len(response(kubelet.pods)) < 4 << 20
    assert len(ask(kubelet.path)) == 4096


def test_an_answer_above_the_limit_is_refused(kubelet: KubeletServer) -> None:
    kubelet.behaviour = lambda _: bytes(5 << 20)
    assert refusal(kubelet.path) == "the kubelet's answer is larger than 4 MiB"


def test_an_answer_with_more_devices_than_a_node_has_is_refused_whoever_holds_them(kubelet: KubeletServer) -> None:
    words = "the kubelet's answer cannot be read: it tells of more than 4096 devices"
    kubelet.pods = [pod(f"pod-{number}", {"nvidia.com/gpu": [f"x{number}"]}) for number in range(4097)]
    assert refusal(kubelet.path) == words
    kubelet.pods = [pod("a", {"nvidia.com/gpu": [f"x{number}" for number in range(90_000)]})]
    assert refusal(kubelet.path) == words
    kubelet.pods = [pod("a", {"example.com/gpu": [f"x{number}" for number in range(90_000)]}), *ONE_POD]
    assert len(ask(kubelet.path)) == 1


def test_reading_an_answer_does_not_hold_up_the_page_and_ends_at_the_deadline(
    kubelet: KubeletServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    monkeypatch.setattr(kubelet_module, "read_list", lambda *_, **__: over.wait() and [])

    async def main() -> None:
        try:
            with pytest.raises(KubeletUnavailableError, match="did not answer within"):
                await Kubelet(str(kubelet.path), deadline=0.5).holdings()
        finally:
            over.set()

    asyncio.run(main())


def test_an_answer_that_is_none_is_refused(kubelet: KubeletServer) -> None:
    kubelet.behaviour = lambda _: b"\x0a\x05abc"
    assert refusal(kubelet.path) == "the kubelet's answer cannot be read: it ends within a field"


@pytest.mark.parametrize(
    ("code", "said", "reason"),
    [
        ("RESOURCE_EXHAUSTED", "rejected by rate limit", "the kubelet's rate limit is reached: rejected by rate limit"),
        ("UNIMPLEMENTED", "", "this kubelet does not have PodResources v1"),
        ("UNAVAILABLE", "50 % of\nit is älter", "the kubelet's gRPC status is 14: 50 % of it is älter"),
        ("INTERNAL", "x" * 900, "the kubelet's gRPC status is 13: " + "x" * 200),
    ],
)
def test_a_refusal_is_told_in_words(kubelet: KubeletServer, code: str, said: str, reason: str) -> None:
    kubelet.behaviour = aborting(grpc.StatusCode[code], said)
    assert refusal(kubelet.path) == reason


def test_a_kubelet_without_the_service_is_told_from_one_that_is_not_there(tmp_path: Path) -> None:
    old = KubeletServer(tmp_path / "kubelet.sock")
    assert refusal(old.path) == f"{old.path} does not exist"
    old.start(service="v1alpha1.PodResourcesLister")
    try:
        assert refusal(old.path).startswith("this kubelet does not have PodResources v1")
    finally:
        old.stop()


def test_a_kubelet_that_hangs_is_left_at_the_deadline(kubelet: KubeletServer) -> None:
    with hanging(kubelet):
        assert refusal(kubelet.path, deadline=0.3) == "the kubelet did not answer within 0.3 seconds"
    assert ask(kubelet.path) == ()


def test_a_socket_that_nobody_accepts_on_is_left_at_the_deadline(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "kubelet.sock"))
        sock.listen()
        assert "did not answer within" in refusal(tmp_path / "kubelet.sock", deadline=0.3)


def test_a_kubelet_that_ends_while_it_is_asked_is_told(kubelet: KubeletServer) -> None:
    asked = threading.Event()

    def end(context: grpc.ServicerContext) -> bytes:
        over = threading.Event()
        context.add_callback(over.set)
        asked.set()
        over.wait()
        return b""

    kubelet.behaviour = end
    ending = threading.Thread(target=lambda: asked.wait() and kubelet.stop())
    ending.start()
    reason = refusal(kubelet.path)
    ending.join()
    assert reason.startswith(("the kubelet broke off before it had answered", "the kubelet's gRPC status is"))


def test_a_socket_that_is_made_anew_is_found(kubelet: KubeletServer) -> None:
    async def twice() -> tuple[tuple[Holding, ...], ...]:
        client = Kubelet(str(kubelet.path))
        first = await client.holdings()
        await asyncio.to_thread(kubelet.stop)
        with pytest.raises(KubeletUnavailableError, match="does not exist"):
            await client.holdings()
        kubelet.pods = ONE_POD
        await asyncio.to_thread(kubelet.start)
        return first, await client.holdings()

    before, after = asyncio.run(twice())
    assert (len(before), len(after)) == (0, 1)


def test_a_file_that_is_no_socket_and_one_that_nobody_holds_open_are_told(tmp_path: Path) -> None:
    path = tmp_path / "kubelet.sock"
    path.touch()
    assert refusal(path) == f"nobody listens on {path}"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    assert refusal(path) == f"nobody listens on {path}"
    assert str(tmp_path) in refusal(tmp_path)
    assert str(path / "x") in refusal(path / "x")


def test_a_socket_that_only_root_may_open_says_so(kubelet: KubeletServer) -> None:
    kubelet.path.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65_534)
    try:
        assert refusal(kubelet.path) == f"{kubelet.path} may not be opened; UID 0 may"
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", b"\x16\x03\x01\x00\x02\x01\x00", bytes(100)],
)
def test_what_listens_and_is_no_kubelet_is_told(tmp_path: Path, answer: bytes) -> None:
    with listener(tmp_path / "kubelet.sock", answer):
        assert refusal(tmp_path / "kubelet.sock").startswith("the kubelet broke off before it had answered")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 255), st.integers(0, 3), st.binary(max_size=30))))
def test_whatever_is_answered_is_a_refusal_and_no_crash(tmp_path: Path, frames: list[Any]) -> None:
    settings_frame = b"\0\0\0\4\0\0\0\0\0"
    noise = b"".join(
        len(body).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + body for kind, flags, stream, body in frames
    )
    with listener(tmp_path / "kubelet.sock", settings_frame + noise):
        refusal(tmp_path / "kubelet.sock")


@pytest.mark.parametrize("path", ["", "/" + "x" * 107, "a\0b"])
def test_a_path_that_no_socket_can_have_is_refused(path: str) -> None:
    with pytest.raises(UserError, match="the path of a socket has 1 to 107 bytes"):
        Kubelet(path)


def test_a_path_that_is_too_long_is_refused_in_one_line() -> None:
    result = subprocess.run(
        [
            str(Path(sys.executable).with_name("pegel")), "gpu-exporter", "--simulate", "v100",
            "--listen", "127.0.0.1:0", "--pod-resources", "/" + "x" * 200,
        ],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert "the path of a socket has 1 to 107 bytes" in result.stderr
    assert result.stderr.count("\n") == 1


def simulated_with(run_exporter: Callable[..., Any], kubelet: KubeletServer) -> Any:
    return run_exporter("--simulate", "t4-time-sliced", "--pod-resources", str(kubelet.path))


def test_the_exporter_publishes_who_holds_what_in_a_page_that_is_clean(
    kubelet: KubeletServer, run_exporter: Callable[..., Any], promtool: str
) -> None:
    mig = "MIG-12345678-7777-8888-9999-000000000000"
    kubelet.pods = [
        *ONE_POD,
        pod("a", {"nvidia.com/gpu.shared": [f"{T4[1]}::0"]}),
        pod("b", {"nvidia.com/gpu.shared": [f"{T4[1]}::3"]}),
        pod("c", {"nvidia.com/mig-1g.10gb": [mig], "nvidia.com/gpu": ["nvidia2/vgpu1", "odd"]}),
    ]
    command = simulated_with(run_exporter, kubelet)
    labels = 'container="model",mig_profile="",mig_uuid="{}",namespace="shop",pod="{}",team="",uuid="{}"'
    page = command.sees(
        UP,
        HELD,
        f'nvidia_gpu_pod_allocated{{attribution="equal_share",{labels.format("", "a", T4[1])}}} 1.0',
        f'nvidia_gpu_pod_allocated{{attribution="equal_share",{labels.format("", "b", T4[1])}}} 1.0',
        f'nvidia_gpu_pod_allocated{{attribution="equal_share",{labels.format("", "c", T4[2])}}} 1.0',
        f'nvidia_gpu_pod_allocated{{attribution="mig",{labels.format(mig, "c", "")}}} 1.0',
        "nvidia_gpu_pod_resources_unknown_devices 1.0",
        f'nvidia_gpu_up{{gpu="0",uuid="{T4[0]}"}} 1.0',
    )
    assert page.count("nvidia_gpu_pod_allocated{") == 5
    checked = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    opened = command.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")[1].decode()
    assert HELD in opened
    assert "shop/checkout-7d9 <small>model, alone</small>" in command.get("/")[1].decode()
    assert command.log.count("1 device id(s) of the kubelet fit no GPU of this node: odd") == 1


def test_a_kubelet_that_goes_and_comes_back_costs_a_line_each_and_no_series(
    kubelet: KubeletServer, run_exporter: Callable[..., Any]
) -> None:
    kubelet.pods = ONE_POD
    command = simulated_with(run_exporter, kubelet)
    command.sees(UP, HELD)
    kubelet.stop()
    command.sees(DOWN, HELD)
    assert f"does not tell who holds the GPUs: {kubelet.path} does not exist." in command.get("/")[1].decode()
    kubelet.pods = [pod("other", {"nvidia.com/gpu": [T4[3]]})]
    kubelet.start()
    assert HELD not in command.sees(UP)
    assert command.log.count("does not exist; trying again") == 1
    assert command.log.count("the kubelet tells who holds the GPUs") == 2


@pytest.mark.parametrize("wrong", ["absent", "hanging", "refusing", "garbage"])
def test_the_rest_of_the_page_is_served_whatever_the_kubelet_does(
    wrong: str, kubelet: KubeletServer, run_exporter: Callable[..., Any]
) -> None:
    def serve() -> None:
        command = simulated_with(run_exporter, kubelet)
        page = command.sees(DOWN, "nvidia_gpu_devices 4.0", f'nvidia_gpu_up{{gpu="0",uuid="{T4[0]}"}} 1.0')
        assert "nvidia_gpu_pod_allocated" not in page
        command.wait(lambda: command.log.count("; trying again") == 1)
        assert command.get("/readyz") == (200, b"ready\n")
        energy = set()
        command.wait(lambda: energy.add(energy_of(command.metrics())) or len(energy) > 2)  # still read and rendered

    if wrong == "absent":
        kubelet.stop()
    elif wrong == "refusing":
        kubelet.behaviour = aborting(grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit")
    elif wrong == "garbage":
        kubelet.behaviour = lambda _: b"\xff" * 1000
    if wrong == "hanging":
        with hanging(kubelet):
            serve()
    else:
        serve()


def energy_of(page: str) -> str:
    return next(line for line in page.splitlines() if line.startswith("nvidia_gpu_energy_joules_total"))


def test_gkes_ids_are_given_to_the_gpu_whose_file_they_name(
    kubelet: KubeletServer, nvml: Any, run_exporter: Callable[..., Any]
) -> None:
    nvml.tell("driver_version 1", "cuda_version 12020", "count 1", f"0.uuid {T4[0]}", "0.minor_number 5")
    kubelet.pods = [pod("a", {"nvidia.com/gpu": ["nvidia5/vgpu1"]}), pod("b", {"nvidia.com/gpu": ["nvidia0"]})]
    command = run_exporter("--pod-resources", str(kubelet.path), environment=nvml.environment)
    command.sees(
        'nvidia_gpu_pod_allocated{attribution="equal_share",container="model",mig_profile="",mig_uuid="",namespace="shop",pod="a",'
        f'team="",uuid="{T4[0]}"}} 1.0',
        "nvidia_gpu_pod_resources_unknown_devices 1.0",
    )


def test_without_a_driver_it_is_still_told_who_holds_what(
    kubelet: KubeletServer, nvml: Any, run_exporter: Callable[..., Any]
) -> None:
    nvml.tell("init_error 9")
    kubelet.pods = ONE_POD
    run_exporter("--pod-resources", str(kubelet.path), environment=nvml.environment).sees(
        UP, HELD, 'nvidia_gpu_up{gpu="",uuid=""} 0.0'
    )
