"""`pegel gpu-exporter` as a process, reading the C double of NVML through the unmodified pynvml."""

import gzip
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pegel_exporters.gpu import simulated

pytestmark = pytest.mark.integration

GPU = "GPU-11111111-2222-3333-4444-555555555555"
OTHER = "GPU-66666666-7777-8888-9999-000000000000"
IDS = f'gpu="0",uuid="{GPU}"'
OTHER_IDS = f'gpu="1",uuid="{OTHER}"'

ONE_GPU = (
    "driver_version 535.183.06",
    "cuda_version 12020",
    "count 1",
    f"0.uuid {GPU}",
    "0.name NVIDIA <A100> \"40GB\"",
    "0.minor_number 3",
    "0.pci_bus_id 00000000:07:00.0",
    "0.utilization 43",
    "0.memory_utilization 17",
    "0.memory_used 1073741824",
    "0.memory_total 42949672960",
    "0.power 61250",
    "0.power_limit 400000",
    "0.energy 123456789",
    "0.temperature 41",
    "0.field_82 52",
    "0.clock:graphics 1410",
    "0.clock:sm 1410",
    "0.clock:memory 1215",
    "0.clock:video 1275",
)  # fmt: skip
TWO_GPUS = (*(line for line in ONE_GPU if line != "count 1"), "count 2", f"1.uuid {OTHER}", "1.power 9000")


def test_every_value_of_the_driver_is_on_the_page_in_base_units(nvml: Any, run_exporter: Callable[..., Any]) -> None:
    nvml.tell(*ONE_GPU)
    page = run_exporter(environment=nvml.environment).sees(
        f"nvidia_gpu_up{{{IDS}}} 1.0",
        "nvidia_gpu_devices 1.0",
        f"nvidia_gpu_utilization_ratio{{{IDS}}} 0.43",
        f"nvidia_gpu_memory_utilization_ratio{{{IDS}}} 0.17",
        f"nvidia_gpu_memory_used_bytes{{{IDS}}} 1.073741824e+09",
        f"nvidia_gpu_memory_total_bytes{{{IDS}}} 4.294967296e+10",
        f"nvidia_gpu_power_watts{{{IDS}}} 61.25",
        f"nvidia_gpu_power_limit_watts{{{IDS}}} 400.0",
        f"nvidia_gpu_energy_joules_total{{{IDS}}} 123456.789",
        f'nvidia_gpu_temperature_celsius{{gpu="0",sensor="gpu",uuid="{GPU}"}} 41.0',
        f'nvidia_gpu_temperature_celsius{{gpu="0",sensor="memory",uuid="{GPU}"}} 52.0',
        f'nvidia_gpu_clock_hertz{{clock="graphics",gpu="0",uuid="{GPU}"}} 1.41e+09',
        f'nvidia_gpu_clock_hertz{{clock="memory",gpu="0",uuid="{GPU}"}} 1.215e+09',
        f'nvidia_gpu_clock_hertz{{clock="video",gpu="0",uuid="{GPU}"}} 1.275e+09',
        f'nvidia_gpu_duty_cycle{{minor_number="3",name="NVIDIA <A100> \\"40GB\\"",uuid="{GPU}"}} 43.0',
        'nvidia_gpu_info{cuda_version="12.2",driver_version="535.183.06",gpu="0",minor_number="3",'
        f'name="NVIDIA <A100> \\"40GB\\"",pci_bus_id="00000000:07:00.0",simulated="false",uuid="{GPU}"}} 1.0',
    )
    assert re.search(rf"nvidia_gpu_reading_age_seconds{{{IDS}}} \d", page)


def test_the_page_is_clean_for_promtool_in_both_sets(
    nvml: Any, run_exporter: Callable[..., Any], promtool: str
) -> None:
    nvml.tell(*TWO_GPUS)
    assert_clean(promtool, run_exporter(environment=nvml.environment).sees(f"nvidia_gpu_up{{{OTHER_IDS}}} 1.0"))


def test_what_an_older_driver_does_not_know_gives_no_series(
    build_nvml: Callable[..., Any], run_exporter: Callable[..., Any]
) -> None:
    nvml = build_nvml(
        without=("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetTemperatureV", "nvmlDeviceGetMemoryInfo_v2")
    )
    nvml.tell(*ONE_GPU)
    page = run_exporter(environment=nvml.environment).sees(
        f'nvidia_gpu_temperature_celsius{{gpu="0",sensor="gpu",uuid="{GPU}"}} 41.0',
        f"nvidia_gpu_memory_used_bytes{{{IDS}}} 1.073741824e+09",
    )
    assert "energy" not in page


def test_what_a_gpu_does_not_support_gives_no_series(nvml: Any, run_exporter: Callable[..., Any]) -> None:
    nvml.tell(*(line for line in ONE_GPU if "utilization" not in line and "field_82" not in line))
    page = run_exporter(environment=nvml.environment).sees(f"nvidia_gpu_power_watts{{{IDS}}} 61.25")
    assert not re.search(r"utilization|duty_cycle|sensor=.memory|NaN", page)


def test_impossible_values_give_no_series(nvml: Any, run_exporter: Callable[..., Any]) -> None:
    kept = [line for line in ONE_GPU if not line.startswith(("0.utilization", "0.temperature"))]
    nvml.tell(*kept, "0.utilization 808334905", "0.temperature 644245923")
    page = run_exporter(environment=nvml.environment).sees(f"nvidia_gpu_power_watts{{{IDS}}} 61.25")
    assert not re.search(r"nvidia_gpu_utilization_ratio|duty_cycle|sensor=.gpu", page)


def test_a_call_that_hangs_stops_neither_the_page_nor_the_next_worker(
    nvml: Any, run_exporter: Callable[..., Any]
) -> None:
    nvml.tell(*ONE_GPU)
    command = run_exporter(environment=nvml.environment)
    command.sees(f"nvidia_gpu_up{{{IDS}}} 1.0")
    first = command.workers()
    nvml.tell(*ONE_GPU, "hang nvmlDeviceGetPowerUsage")
    page = command.sees(f"nvidia_gpu_up{{{IDS}}} 0.0")
    age = re.search(rf"nvidia_gpu_reading_age_seconds{{{IDS}}} (\S+)", page)
    assert age
    assert float(age[1]) > 1
    assert f"nvidia_gpu_power_watts{{{IDS}}} 61.25" in page
    nvml.tell(*ONE_GPU)
    command.sees(f"nvidia_gpu_up{{{IDS}}} 1.0")
    assert len(first) == len(command.workers()) == 1
    assert first != command.workers()
    assert command.log.count("did not answer within") == 1


def test_a_worker_that_hangs_ends_with_the_exporter(nvml: Any, run_exporter: Callable[..., Any]) -> None:
    nvml.tell(*ONE_GPU)
    command = run_exporter(environment=nvml.environment)
    command.sees(f"nvidia_gpu_up{{{IDS}}} 1.0")
    nvml.tell(*ONE_GPU, "hang nvmlDeviceGetPowerUsage")
    command.sees(f"nvidia_gpu_up{{{IDS}}} 0.0")
    workers = command.workers()
    assert command.end() == 0
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_a_worker_that_is_killed_is_replaced(nvml: Any, run_exporter: Callable[..., Any]) -> None:
    nvml.tell(*ONE_GPU)
    command = run_exporter(environment=nvml.environment)
    command.sees(f"nvidia_gpu_up{{{IDS}}} 1.0")
    (worker,) = command.workers()
    os.kill(worker, signal.SIGKILL)
    command.wait(lambda: "ended with status -9" in command.log)
    command.sees(f"nvidia_gpu_up{{{IDS}}} 1.0")
    assert worker not in command.workers()


def test_a_lost_gpu_stays_on_the_page_at_up_0_beside_the_others(nvml: Any, run_exporter: Callable[..., Any]) -> None:
    nvml.tell(*TWO_GPUS)
    command = run_exporter(environment=nvml.environment)
    command.sees(f"nvidia_gpu_up{{{OTHER_IDS}}} 1.0")
    nvml.tell(*TWO_GPUS, "1.lost 15")
    command.sees(f"nvidia_gpu_up{{{OTHER_IDS}}} 0.0", f"nvidia_gpu_up{{{IDS}}} 1.0", "nvidia_gpu_devices 2.0")
    assert "GPU is lost" in command.get("/")[1].decode()
    nvml.tell(*TWO_GPUS)
    command.sees(f"nvidia_gpu_up{{{OTHER_IDS}}} 1.0")
    assert command.log.count(f"GPU 1 {OTHER}: GPU is lost") == 1
    assert command.log.count(f"GPU 1 {OTHER}: answers again") == 1


def test_without_a_driver_there_is_one_0_and_one_line_until_a_driver_appears(
    tmp_path: Path, build_nvml: Callable[..., Any], run_exporter: Callable[..., Any]
) -> None:
    (tmp_path / "libnvidia-ml.so.1").touch()  # a file that is no library, found before any real one
    environment = {"LD_LIBRARY_PATH": str(tmp_path), "PEGEL_NVML_DOUBLE": str(tmp_path / "scenario")}
    command = run_exporter(environment=environment)
    page = command.sees('nvidia_gpu_up{gpu="",uuid=""} 0.0')
    assert [line for line in page.splitlines() if line.startswith("nvidia")] == [
        'nvidia_gpu_up{gpu="",uuid=""} 0.0',
        "nvidia_gpu_driver_released 0.0",
    ]
    first = command.wait(command.workers)
    command.wait(lambda: command.workers() not in ([], first))  # it has tried again
    build_nvml().tell(*ONE_GPU)
    page = command.sees(f"nvidia_gpu_up{{{IDS}}} 1.0")
    assert 'gpu=""' not in page
    assert command.log.count("no GPU readings: NVML Shared Library Not Found; trying again") == 1
    assert len(command.log.splitlines()) == 3  # serving, no readings, reading


def test_a_driver_that_is_not_loaded_is_said_in_its_own_words(nvml: Any, run_exporter: Callable[..., Any]) -> None:
    nvml.tell("init_error 9")
    command = run_exporter(environment=nvml.environment)
    command.sees('nvidia_gpu_up{gpu="",uuid=""} 0.0')
    assert "no GPU readings: Driver Not Loaded; trying again" in command.log
    assert "Driver Not Loaded" in command.get("/")[1].decode()


def test_simulated_gpus_are_marked_and_served_in_every_form(run_exporter: Callable[..., Any], promtool: str) -> None:
    command = run_exporter("--simulate", "dgx-a100")
    page = command.sees("nvidia_gpu_devices 8.0")
    assert page.count('simulated="true"') == 8
    assert_clean(promtool, page)
    opened = command.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")[1]
    assert opened.endswith(b"# EOF\n")
    packed = command.get("/metrics", **{"Accept-Encoding": "gzip"})[1]
    assert b"nvidia_gpu_devices 8.0" in gzip.decompress(packed)
    assert command.get("/healthz") == (200, b"ok\n")
    assert command.get("/readyz") == (200, b"ready\n")
    assert command.get("/other")[0] == 404
    assert b"Simulated GPUs: 8 of 8 answer" in command.get("/")[1]


def test_only_the_sets_asked_for_are_served(run_exporter: Callable[..., Any]) -> None:
    legacy = run_exporter("--simulate", "v100", "--metrics", "legacy").metrics()
    native = run_exporter("--simulate", "v100", "--metrics", "native").metrics()
    assert set(re.findall(r"^nvidia\w+", legacy, re.M)) == {"nvidia_gpu_duty_cycle"}
    assert "nvidia_gpu_duty_cycle" not in native
    assert "nvidia_gpu_utilization_ratio" in native


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_0_and_leaves_no_process(
    number: signal.Signals, nvml: Any, run_exporter: Callable[..., Any]
) -> None:
    nvml.tell(*ONE_GPU)
    command = run_exporter(environment=nvml.environment)
    command.sees(f"nvidia_gpu_up{{{IDS}}} 1.0")
    (worker,) = command.workers()
    lines = len(command.log.splitlines())
    assert command.end(number) == 0
    assert not Path(f"/proc/{worker}").exists()
    assert len(command.log.splitlines()) == lines


def test_a_worker_whose_exporter_was_killed_ends_even_while_it_hangs(
    nvml: Any, run_exporter: Callable[..., Any]
) -> None:
    nvml.tell(*ONE_GPU, "hang nvmlInitWithFlags")
    command = run_exporter(environment=nvml.environment, ready=False)
    (worker,) = command.wait(command.workers)
    command.process.kill()
    command.process.wait()
    command.wait(lambda: not Path(f"/proc/{worker}").exists())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            ["--simulate", "dgx-b300"],
            "no built-in scenario (a100-mig, broken, dgx-a100, h100-mig, t4-time-sliced, v100) and no",
        ),
        (["--metrics", "native,dcgn"], "--metrics: 'dcgn' is not known; known: native, legacy, dcgm"),
        (["--interval", "5"], "--interval '5': write a duration"),
        (["--interval", "1ms"], "--interval '1ms': write a duration"),
        (["--listen", "9465"], "'9465' is not an address"),
    ],
)
def test_bad_options_are_refused_in_one_line(options: list[str], reason: str) -> None:
    refused(options, reason)


def test_a_port_in_use_is_refused_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused(["--listen", f"127.0.0.1:{taken.getsockname()[1]}"], "Address already in use")


def assert_clean(promtool: str, page: str) -> None:
    checked = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def output_of(*arguments: str) -> str:
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout


def refused(options: list[str], reason: str) -> None:
    result = subprocess.run(
        [str(Path(sys.executable).with_name("pegel")), "gpu-exporter", *options],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_exporter_imports_nothing_heavy() -> None:
    code = (
        "import sys, pegel_exporters.gpu.exporter\n"
        "print(sorted({'numpy', 'scipy', 'jinja2', 'pynvml', 'h2'} & set(sys.modules)))"
    )
    assert output_of(sys.executable, "-c", code) == "[]\n"


def test_every_symbol_of_the_double_is_declared_in_nvidias_header(nvml: Any, header: Path) -> None:
    listed = output_of("nm", "-D", "--defined-only", str(nvml.folder / "libnvidia-ml.so.1"))
    exported = {line.split()[-1] for line in listed.splitlines()}
    declared = set(re.findall(r"DECLDIR\s+(nvml\w+)\s*\(", header.read_text()))
    assert len(exported) > 15
    assert exported <= declared


def test_the_built_in_names_in_the_help_are_all_there_are() -> None:
    shown = output_of(str(Path(sys.executable).with_name("pegel")), "gpu-exporter", "--help")
    assert all(name in shown for name in simulated.built_in())
    assert "pegel gpu-exporter --simulate dgx-a100" in shown
