"""The whole way to money: a driver's processes, control groups of the kernel, a kubelet, prices, and what pods cost."""

import contextlib
import os
import re
import secrets
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.exporters.gpu.kubelet_server import KubeletServer, pod

pytestmark = pytest.mark.integration

T4 = "GPU-3bddc3a7-b210-577b-bcbf-7a4d0ebb5283"
OTHER = "GPU-8ceaf1c4-5be3-5d8b-9a5f-9d3f7e5b8d6a"
LOGS = Path("/var/log/pods")
NAMESPACE = f"pegel-test-{secrets.token_hex(4)}"


@dataclass
class Running:
    """A process that the kernel has in a pod's control group, as containerd puts it there."""

    pod: str
    pid: int


def hierarchy() -> Path:
    """A mounted hierarchy of control groups, version 2 where there is one. Making groups needs root."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    of_kind = {mount[2]: Path(mount[1]) for mount in mounts if mount[2] in ("cgroup", "cgroup2")}
    found = of_kind.get("cgroup2") or of_kind.get("cgroup")
    if found is None or not os.access(found, os.W_OK):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("control groups can't be made: be root")
    return found


@contextlib.contextmanager
def running(name: str, top: Path) -> Iterator[Running]:
    """A pod's process, its control group and its folder of logs; all are gone afterwards."""
    uid = str(uuid.uuid4())
    container = f"cri-containerd-{secrets.token_hex(32)}.scope"
    group = top / f"kubepods-burstable-pod{uid.replace('-', '_')}.slice" / container
    group.mkdir(parents=True)
    logs = LOGS / f"{NAMESPACE}_{name}_{uid}"
    logs.mkdir(parents=True)
    process = subprocess.Popen(["sleep", "600"])
    try:
        (group / "cgroup.procs").write_text(str(process.pid))
        yield Running(name, process.pid)
    finally:
        process.kill()
        process.wait()
        for folder in (group, group.parent):
            folder.rmdir()
        shutil.rmtree(logs)


@pytest.fixture
def four() -> Iterator[list[Running]]:
    """Four pods' processes."""
    root = hierarchy()
    top = root / f"kubepods-{secrets.token_hex(4)}.slice" / "kubepods-burstable.slice"
    had_logs = LOGS.exists()
    with contextlib.ExitStack() as ending:
        top.mkdir(parents=True)
        ending.callback(lambda: (top.rmdir(), top.parent.rmdir(), had_logs or LOGS.rmdir()))
        yield [ending.enter_context(running(f"p{number}", top)) for number in range(4)]


def counters(page: str, name: str) -> dict[tuple[str, str], float]:
    """A counter by pod and attribution."""
    found: dict[tuple[str, str], float] = {}
    for labels, value in re.findall(rf"^{name}\{{(.*)\}} (\S+)$", page, re.MULTILINE):
        told = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        key = told["pod"], told["attribution"]
        found[key] = found.get(key, 0.0) + float(value)
    return found


def test_four_pods_on_one_gpu_pay_for_what_their_processes_use_and_nobody_for_the_other_gpu(
    four: list[Running], nvml: Any, kubelet: KubeletServer, run_exporter: Callable[..., Any], tmp_path: Path
) -> None:
    used = (40, 20, 0, 20)
    processes = [
        f"0.process.{number} {one.pid} compute {1 << 30} {percent} -1"
        for number, (one, percent) in enumerate(zip(four, used, strict=True))
    ]
    nvml.tell(
        "driver_version 550.1", "cuda_version 12040", "count 2", f"0.uuid {T4}", "0.name Tesla T4",
        f"1.uuid {OTHER}", "1.name Tesla T4", "0.utilization 80", "0.memory_utilization 10", "1.utilization 0",
        "1.memory_utilization 0", *processes,
    )  # fmt: skip
    kubelet.pods = [
        pod(one.pod, {"nvidia.com/gpu": [f"{T4}::{number}"]}, namespace=NAMESPACE) for number, one in enumerate(four)
    ]
    (tmp_path / "prices.yaml").write_text("currency: EUR\ngpus: {T4: 3600}\n")
    command = run_exporter(
        "--pod-resources", str(kubelet.path), "--prices", str(tmp_path / "prices.yaml"), environment=nvml.environment
    )

    def had() -> dict[tuple[str, str], float]:
        return counters(command.metrics(), "nvidia_gpu_pod_seconds_total")

    # The driver measures processes between two readings, so that the first time is divided evenly.
    command.wait(lambda: had().get(("p0", "process"), 0) > 0.1)
    first = command.metrics()
    command.wait(lambda: had()["p0", "process"] > counters(first, "nvidia_gpu_pod_seconds_total")["p0", "process"] + 2)
    last = command.metrics()

    def since(name: str) -> dict[tuple[str, str], float]:
        before, after = counters(first, name), counters(last, name)
        return {key: value - before.get(key, 0.0) for key, value in after.items()}

    seconds, euros = since("nvidia_gpu_pod_seconds_total"), since("nvidia_gpu_pod_cost_total")
    of_gpu = sum(seconds[one.pod, "process"] for one in four)
    shares = [seconds[one.pod, "process"] / of_gpu for one in four]
    assert shares == [pytest.approx(percent / sum(used), abs=0.01) for percent in used]
    assert seconds["", "unallocated"] == pytest.approx(of_gpu, rel=0.01), "the other GPU was nobody's as long"
    assert sum(euros.values()) == pytest.approx(2 * of_gpu, rel=0.01), "a euro a second for each of the two GPUs"
    assert [euros[one.pod, "process"] for one in four] == pytest.approx([seconds[one.pod, "process"] for one in four])
    memory = counters(last, "nvidia_gpu_pod_memory_used_bytes")
    assert [memory[one.pod, "process"] for one in four] == [1 << 30] * 4
    page = command.get("/")[1].decode()
    assert f"{NAMESPACE}/p0 <small>model, 50 % of its use</small>" in page
    assert f"{NAMESPACE}/p2 <small>model, 0 % of its use</small>" in page

    # A pod that ends leaves its part to those that go on.
    kubelet.pods = kubelet.pods[:2]
    nvml.tell(
        "driver_version 550.1", "cuda_version 12040", "count 2", f"0.uuid {T4}", "0.name Tesla T4",
        f"1.uuid {OTHER}", "1.name Tesla T4", "0.utilization 60", "0.memory_utilization 10", "1.utilization 0",
        "1.memory_utilization 0", *processes[:2],
    )  # fmt: skip
    command.wait(lambda: f"{NAMESPACE}/p0 <small>model, 67 % of its use</small>" in command.get("/")[1].decode())
