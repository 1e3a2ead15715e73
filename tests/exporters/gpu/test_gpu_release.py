"""The driver let go for its upgrade, and taken again: the command and the C double."""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

GPU = "GPU-11111111-2222-3333-4444-555555555555"
IDS = f'gpu="0",uuid="{GPU}"'
LINES = ("cuda_version 12020", "count 1", f"0.uuid {GPU}", "0.name Tesla T4", "0.power 30000")


def holders(library: Path) -> list[int]:
    """The processes that have the driver's library loaded."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(library) in (process / "maps").read_text():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_a_released_driver_is_held_by_nobody_and_the_upgraded_one_is_read_when_taken_again(
    nvml: Any, run_exporter: Callable[..., Any]
) -> None:
    nvml.tell("driver_version 535.183.06", *LINES)
    library = nvml.folder / "libnvidia-ml.so.1"
    command = run_exporter(environment=nvml.environment)
    command.sees(f"nvidia_gpu_up{{{IDS}}} 1.0", "nvidia_gpu_driver_released 0.0")
    assert holders(library) == command.workers()
    os.kill(command.process.pid, signal.SIGUSR1)
    command.sees(f"nvidia_gpu_up{{{IDS}}} 0.0", "nvidia_gpu_driver_released 1.0")
    command.wait(lambda: not holders(library))
    assert "SIGUSR2 takes it again" in command.log
    assert "it was released" in command.get("/")[1].decode()
    nvml.tell("driver_version 550.90.07", *LINES)
    os.kill(command.process.pid, signal.SIGUSR2)
    command.sees(f"nvidia_gpu_up{{{IDS}}} 1.0", "nvidia_gpu_driver_released 0.0")
    assert 'driver_version="550.90.07"' in command.metrics()


def test_whoever_releases_and_takes_it_at_once_has_taken_it(nvml: Any, run_exporter: Callable[..., Any]) -> None:
    nvml.tell("driver_version 535.183.06", *LINES)
    command = run_exporter(environment=nvml.environment)
    command.sees(f"nvidia_gpu_up{{{IDS}}} 1.0")
    for _ in range(5):
        # The kernel may deliver the second of two signals first where both wait.
        os.kill(command.process.pid, signal.SIGUSR1)
        time.sleep(0.02)
        os.kill(command.process.pid, signal.SIGUSR2)
        time.sleep(0.3)
    command.sees(f"nvidia_gpu_up{{{IDS}}} 1.0", "nvidia_gpu_driver_released 0.0")


def test_a_simulated_driver_that_was_released_while_it_answered_does_not_answer(
    run_exporter: Callable[..., Any],
) -> None:
    command = run_exporter("--simulate", "v100", "--interval", "100ms")
    for _ in range(5):
        os.kill(command.process.pid, signal.SIGUSR1)
        command.wait(lambda: "nvidia_gpu_driver_released 1.0" in command.metrics())
        time.sleep(0.4)
        assert set(re.findall(r"^nvidia_gpu_up\{.*\} (\S+)$", command.metrics(), re.MULTILINE)) == {"0.0"}
        os.kill(command.process.pid, signal.SIGUSR2)
        command.wait(lambda: "nvidia_gpu_driver_released 0.0" in command.metrics())


def test_a_call_that_hangs_does_not_hold_up_the_release(nvml: Any, run_exporter: Callable[..., Any]) -> None:
    nvml.tell("driver_version 535.183.06", *LINES)
    command = run_exporter(environment=nvml.environment)
    nvml.tell("driver_version 535.183.06", *LINES, "hang nvmlDeviceGetPowerUsage")
    os.kill(command.process.pid, signal.SIGUSR1)
    command.wait(lambda: not holders(nvml.folder / "libnvidia-ml.so.1"))
    command.sees("nvidia_gpu_driver_released 1.0")
