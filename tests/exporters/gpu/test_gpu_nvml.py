"""Everything that NVML tells, through the unmodified pynvml and the C double: pages by hand, and two honesty checks."""

import ctypes
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml
import pytest

from tests.exporters.gpu.conftest import need, until

pytestmark = pytest.mark.integration

GPU = "GPU-11111111-2222-3333-4444-555555555555"
IDS = f'gpu="0",uuid="{GPU}"'
A100 = (
    "driver_version 535.183.06", "cuda_version 12020", "count 1",
    f"0.uuid {GPU}", "0.name NVIDIA A100-SXM4-40GB", "0.minor_number 0", "0.pci_bus_id 00000000:07:00.0",
    "0.utilization 43", "0.memory_utilization 17", "0.encoder_utilization 5", "0.decoder_utilization 6",
    "0.memory_total 42949672960", "0.memory_used 1073741824", "0.memory_reserved 629145600",
    "0.bar1_total 68719476736", "0.bar1_used 2097152",
    "0.power 61250", "0.power_limit 400000", "0.field_187 100000", "0.field_188 400000", "0.field_189 400000",
    "0.energy 123456789", "0.temperature 41", "0.field_82 52", "0.margin 44",
    "0.threshold:shutdown 92", "0.threshold:slowdown 89", "0.threshold:memory_max 95", "0.threshold:gpu_max 85",
    "0.clock:graphics 1410", "0.clock:sm 1410", "0.clock:memory 1215", "0.clock:video 1275", "0.max_clock:sm 1410",
    "0.pstate 0", "0.throttle_reasons 36", "0.field_74 5000000000", "0.field_75 250000000", "0.field_269 1500000000",
    "0.field_1 1", "0.ecc_corrected:dram 7", "0.ecc_uncorrected:sram 1",
    "0.field_142 2", "0.field_143 1", "0.field_144 1", "0.field_145 0", "0.field_230 1",
    "0.pcie_generation 4", "0.pcie_max_generation 4", "0.pcie_width 16", "0.pcie_max_width 16", "0.pcie_replays 3",
    "0.field_197 5000000000", "0.field_198 7", "0.field_173 9",
    "0.nvlink_state:0 1", "0.nvlink_state:1 0", "0.field_138 10", "0.field_139 4",
    "0.field_161:0 3", "0.field_161:4 4", "0.field_163:0 0",
    "0.fan:0 30", "0.mig_mode 0",
    "0.process.0 4242 compute 1073741824 37 -1", "0.process.1 4243 graphics -1 -1 -1",
)  # fmt: skip
A100_PAGE = f"""
nvidia_gpu_utilization_ratio{{{IDS}}} 0.43
nvidia_gpu_memory_utilization_ratio{{{IDS}}} 0.17
nvidia_gpu_encoder_utilization_ratio{{{IDS}}} 0.05
nvidia_gpu_decoder_utilization_ratio{{{IDS}}} 0.06
nvidia_gpu_memory_used_bytes{{{IDS}}} 1.073741824e+09
nvidia_gpu_memory_total_bytes{{{IDS}}} 4.294967296e+10
nvidia_gpu_memory_reserved_bytes{{{IDS}}} 6.291456e+08
nvidia_gpu_bar1_used_bytes{{{IDS}}} 2.097152e+06
nvidia_gpu_bar1_total_bytes{{{IDS}}} 6.8719476736e+10
nvidia_gpu_power_watts{{{IDS}}} 61.25
nvidia_gpu_power_limit_watts{{{IDS}}} 400.0
nvidia_gpu_power_limit_bound_watts{{bound="min",{IDS}}} 100.0
nvidia_gpu_power_limit_bound_watts{{bound="max",{IDS}}} 400.0
nvidia_gpu_power_limit_bound_watts{{bound="default",{IDS}}} 400.0
nvidia_gpu_energy_joules_total{{{IDS}}} 123456.789
nvidia_gpu_temperature_celsius{{gpu="0",sensor="gpu",uuid="{GPU}"}} 41.0
nvidia_gpu_temperature_celsius{{gpu="0",sensor="memory",uuid="{GPU}"}} 52.0
nvidia_gpu_temperature_limit_celsius{{gpu="0",limit="shutdown",uuid="{GPU}"}} 92.0
nvidia_gpu_temperature_limit_celsius{{gpu="0",limit="slowdown",uuid="{GPU}"}} 89.0
nvidia_gpu_temperature_limit_celsius{{gpu="0",limit="memory_max",uuid="{GPU}"}} 95.0
nvidia_gpu_temperature_limit_celsius{{gpu="0",limit="gpu_max",uuid="{GPU}"}} 85.0
nvidia_gpu_temperature_margin_celsius{{{IDS}}} 44.0
nvidia_gpu_clock_hertz{{clock="memory",{IDS}}} 1.215e+09
nvidia_gpu_clock_max_hertz{{clock="sm",{IDS}}} 1.41e+09
nvidia_gpu_performance_state{{{IDS}}} 0.0
nvidia_gpu_throttled{{gpu="0",reason="power_cap",uuid="{GPU}"}} 1.0
nvidia_gpu_throttled{{gpu="0",reason="software_thermal",uuid="{GPU}"}} 1.0
nvidia_gpu_throttled{{gpu="0",reason="idle",uuid="{GPU}"}} 0.0
nvidia_gpu_throttled{{gpu="0",reason="hardware_thermal",uuid="{GPU}"}} 0.0
nvidia_gpu_throttle_seconds_total{{gpu="0",reason="power_cap",uuid="{GPU}"}} 5.0
nvidia_gpu_throttle_seconds_total{{gpu="0",reason="thermal",uuid="{GPU}"}} 0.25
nvidia_gpu_throttle_seconds_total{{gpu="0",reason="software_thermal",uuid="{GPU}"}} 1.5
nvidia_gpu_ecc_enabled{{{IDS}}} 1.0
nvidia_gpu_ecc_errors_total{{gpu="0",memory="dram",severity="corrected",uuid="{GPU}"}} 7.0
nvidia_gpu_ecc_errors_total{{gpu="0",memory="sram",severity="uncorrected",uuid="{GPU}"}} 1.0
nvidia_gpu_remapped_rows{{cause="correctable",{IDS}}} 2.0
nvidia_gpu_remapped_rows{{cause="uncorrectable",{IDS}}} 1.0
nvidia_gpu_row_remap_pending{{{IDS}}} 1.0
nvidia_gpu_row_remap_failed{{{IDS}}} 0.0
nvidia_gpu_recovery_action{{action="reset",{IDS}}} 1.0
nvidia_gpu_recovery_action{{action="none",{IDS}}} 0.0
nvidia_gpu_pcie_generation{{{IDS}}} 4.0
nvidia_gpu_pcie_generation_max{{{IDS}}} 4.0
nvidia_gpu_pcie_width{{{IDS}}} 16.0
nvidia_gpu_pcie_width_max{{{IDS}}} 16.0
nvidia_gpu_pcie_replays_total{{{IDS}}} 3.0
nvidia_gpu_pcie_bytes_total{{direction="transmit",{IDS}}} 5e+09
nvidia_gpu_pcie_bytes_total{{direction="receive",{IDS}}} 7.0
nvidia_gpu_pcie_errors_total{{gpu="0",kind="correctable",uuid="{GPU}"}} 9.0
nvidia_gpu_nvlink_up{{gpu="0",link="0",uuid="{GPU}"}} 1.0
nvidia_gpu_nvlink_up{{gpu="0",link="1",uuid="{GPU}"}} 0.0
nvidia_gpu_nvlink_bytes_total{{direction="transmit",{IDS}}} 10240.0
nvidia_gpu_nvlink_bytes_total{{direction="receive",{IDS}}} 4096.0
nvidia_gpu_nvlink_errors_total{{gpu="0",kind="replay",uuid="{GPU}"}} 7.0
nvidia_gpu_nvlink_errors_total{{gpu="0",kind="crc",uuid="{GPU}"}} 0.0
nvidia_gpu_fan_speed_ratio{{fan="0",{IDS}}} 0.3
nvidia_gpu_mig_enabled{{{IDS}}} 0.0
nvidia_gpu_processes{{gpu="0",kind="compute",uuid="{GPU}"}} 1.0
nvidia_gpu_processes{{gpu="0",kind="graphics",uuid="{GPU}"}} 1.0
nvidia_gpu_implausible_readings_total{{{IDS}}} 0.0
""".split("\n")[1:-1]
MIG = f'{IDS.split(",", maxsplit=1)[0]},mig_profile="1g.10gb",mig_uuid="MIG-5",uuid="{GPU}"'
H100 = (
    "driver_version 550.90.07", "cuda_version 12040", "count 1",
    f"0.uuid {GPU}", "0.name NVIDIA H100 80GB HBM3", "0.minor_number 0", "0.mig_mode 1", "0.max_migs 7", "0.gpm 1",
    "0.gpm_2 81.5", "0.gpm_3 40", "0.gpm_5 37.5", "0.gpm_10 60", "0.gpm_11 0", "0.gpm_12 1", "0.gpm_13 2",
    "0.gpm_20 2", "0.gpm_21 1", "0.gpm_60 3", "0.gpm_61 4",
    "0.mig.2.uuid MIG-5", "0.mig.2.gi 9", "0.mig.2.ci 0", "0.mig.2.slices 1",
    "0.mig.2.name NVIDIA H100 80GB HBM3 MIG 1g.10gb",
    "0.mig.2.memory_total 10200547328", "0.mig.2.memory_used 1073741824", "0.mig.2.gpm_1 90", "0.mig.2.gpm_2 25",
    "0.mig.2.gpm_5 12.5", "0.mig.2.gpm_10 30",
)  # fmt: skip
H100_PAGE = f"""
nvidia_gpu_sm_active_ratio{{{IDS}}} 0.815
nvidia_gpu_sm_occupancy_ratio{{{IDS}}} 0.4
nvidia_gpu_tensor_active_ratio{{{IDS}}} 0.375
nvidia_gpu_dram_active_ratio{{{IDS}}} 0.6
nvidia_gpu_fp64_active_ratio{{{IDS}}} 0.0
nvidia_gpu_fp32_active_ratio{{{IDS}}} 0.01
nvidia_gpu_fp16_active_ratio{{{IDS}}} 0.02
nvidia_gpu_pcie_bytes_per_second{{direction="transmit",{IDS}}} 2.097152e+06
nvidia_gpu_pcie_bytes_per_second{{direction="receive",{IDS}}} 1.048576e+06
nvidia_gpu_nvlink_bytes_per_second{{direction="transmit",{IDS}}} 4.194304e+06
nvidia_gpu_nvlink_bytes_per_second{{direction="receive",{IDS}}} 3.145728e+06
nvidia_gpu_mig_enabled{{{IDS}}} 1.0
nvidia_gpu_mig_info{{compute_instance="0",gpu="0",gpu_instance="9",{MIG.partition(",")[2]}}} 1.0
nvidia_gpu_mig_memory_used_bytes{{{MIG}}} 1.073741824e+09
nvidia_gpu_mig_memory_total_bytes{{{MIG}}} 1.0200547328e+10
nvidia_gpu_mig_utilization_ratio{{{MIG}}} 0.9
nvidia_gpu_mig_sm_active_ratio{{{MIG}}} 0.25
nvidia_gpu_mig_tensor_active_ratio{{{MIG}}} 0.125
nvidia_gpu_mig_dram_active_ratio{{{MIG}}} 0.3
""".split("\n")[1:-1]


def test_every_group_of_metrics_of_an_a100_is_on_the_page(
    nvml: Any, run_exporter: Callable[..., Any], promtool: str
) -> None:
    nvml.tell(*A100)
    page = run_exporter(environment=nvml.environment).sees(*A100_PAGE)
    assert not re.search("nvidia_gpu_(sm|tensor|dram)_active|_mig_(info|memory)|bytes_per_second", page)
    assert subprocess.run([promtool, "check", "metrics"], input=page, text=True, check=False).returncode == 0


def test_an_h100_tells_its_activity_and_that_of_its_mig_devices_from_the_second_reading_on(
    nvml: Any, run_exporter: Callable[..., Any], promtool: str
) -> None:
    nvml.tell(*H100)
    page = run_exporter(environment=nvml.environment).sees(*H100_PAGE)
    assert "nvidia_gpu_utilization_ratio" not in page
    assert subprocess.run([promtool, "check", "metrics"], input=page, text=True, check=False).returncode == 0


def test_a_link_that_says_nothing_for_once_does_not_make_its_gpus_counter_jump(
    nvml: Any, run_exporter: Callable[..., Any]
) -> None:
    line = f'nvidia_gpu_nvlink_errors_total{{gpu="0",kind="replay",uuid="{GPU}"}}'
    nvml.tell(*A100)
    command = run_exporter(environment=nvml.environment)
    command.sees(f"{line} 7.0")
    nvml.tell(*(one for one in A100 if not one.startswith("0.field_161:4")), "0.power 1")
    until(lambda: f"{line} " not in command.metrics())
    nvml.tell(*A100)
    command.sees(f"{line} 7.0")


def test_a_gpu_that_is_no_longer_cut_up_tells_its_utilisation_again(
    nvml: Any, run_exporter: Callable[..., Any]
) -> None:
    nvml.tell(*H100)
    command = run_exporter(environment=nvml.environment)
    command.sees(f"nvidia_gpu_mig_enabled{{{IDS}}} 1.0")
    whole = [one for one in H100 if ".mig" not in one and "_mig" not in one]
    nvml.tell(*whole, "0.mig_mode 0", "0.utilization 55", "0.memory_utilization 1")
    command.sees(f"nvidia_gpu_utilization_ratio{{{IDS}}} 0.55")


def test_two_parts_of_one_mig_instance_have_each_their_slices(nvml: Any, run_exporter: Callable[..., Any]) -> None:
    parts = [
        f"0.mig.{n}.{key} {value}"
        for n in (0, 1)
        for key, value in (("uuid", f"MIG-{n}"), ("gi", 1), ("ci", n), ("slices", 2), ("compute_slices", 1))
    ]
    nvml.tell(*(one for one in H100 if ".mig." not in one), *parts, "0.mig.0.memory_total 21474836480")
    command = run_exporter(environment=nvml.environment)
    until(lambda: 'mig_profile="1c.2g.20gb"' in command.metrics())


def test_a_mig_device_that_goes_takes_its_series_with_it(nvml: Any, run_exporter: Callable[..., Any]) -> None:
    nvml.tell(*H100)
    command = run_exporter(environment=nvml.environment)
    command.sees(*H100_PAGE)
    nvml.tell(*(line for line in H100 if ".mig." not in line))
    until(lambda: "nvidia_gpu_mig_info" not in command.metrics())
    assert f"nvidia_gpu_mig_enabled{{{IDS}}} 1.0" in command.metrics()


def test_an_older_driver_that_lacks_ninety_nine_functions_still_tells_the_rest(
    build_nvml: Callable[..., Any], run_exporter: Callable[..., Any]
) -> None:
    """What the double exports and a driver of 2021 doesn't; the other functions are none of the double's anyway."""
    newer = (
        "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetTemperatureV", "nvmlDeviceGetMarginTemperature",
        "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetGraphicsRunningProcesses_v3", "nvmlGpmQueryDeviceSupport", "nvmlGpmSampleAlloc",
        "nvmlGpmSampleGet", "nvmlGpmSampleFree", "nvmlGpmMigSampleGet", "nvmlGpmMetricsGet",
    )  # fmt: skip
    known = {name for name in dir(pynvml) if re.fullmatch(r"nvml[A-Z]\w+", name) and callable(getattr(pynvml, name))}
    nvml = build_nvml(without=newer)
    assert len(known - exported(nvml.folder / "libnvidia-ml.so.1")) > 99
    nvml.tell(*A100)
    command = run_exporter(environment=nvml.environment)
    command.sees(
        f"nvidia_gpu_memory_used_bytes{{{IDS}}} 1.073741824e+09",
        f'nvidia_gpu_temperature_celsius{{gpu="0",sensor="gpu",uuid="{GPU}"}} 41.0',
        f'nvidia_gpu_throttled{{gpu="0",reason="power_cap",uuid="{GPU}"}} 1.0',
    )
    page = command.metrics()
    assert not re.search("nvidia_gpu_(temperature_margin|processes|memory_reserved)", page)
    assert len(command.log.splitlines()) == 2  # serving, reading


def test_an_xid_counts_from_a_0_that_was_scraped_and_needs_no_restart(
    nvml: Any, run_exporter: Callable[..., Any]
) -> None:
    nvml.tell(*A100)
    command = run_exporter(environment=nvml.environment)
    zero = f'nvidia_gpu_xid_errors_total{{gpu="0",uuid="{GPU}",xid="79"}} 0.0'
    command.sees(zero)
    workers = command.workers()
    nvml.tell(*A100, "event 1 0 79", "event 2 0 31")
    until(lambda: "XID 79" in command.log and "XID 31" in command.log)
    until(lambda: "nvidia_gpu_xid_last_timestamp_seconds{" in command.metrics())
    assert "nvidia_gpu_xid_info{" in command.metrics()
    assert zero in command.metrics(), "its first scrape was less than a minute ago"
    assert command.workers() == workers


def test_a_gpu_without_events_is_read_like_the_others(nvml: Any, run_exporter: Callable[..., Any]) -> None:
    nvml.tell(*A100, "0.no_events 1")
    run_exporter(environment=nvml.environment).sees(f"nvidia_gpu_power_watts{{{IDS}}} 61.25")


def test_while_any_call_hangs_the_page_is_there(nvml: Any, run_exporter: Callable[..., Any]) -> None:
    nvml.tell(*A100)
    command = run_exporter(environment=nvml.environment)
    command.sees(f"nvidia_gpu_up{{{IDS}}} 1.0")
    nvml.tell(*A100, "hang nvmlDeviceGetFieldValues")
    for _ in range(60):  # none waits for the call, which never returns; how long one takes is benchmarks/gpu.py's
        assert command.metrics()
        time.sleep(0.05)
    command.sees(f"nvidia_gpu_up{{{IDS}}} 0.0")
    nvml.tell(*A100)
    command.sees(f"nvidia_gpu_up{{{IDS}}} 1.0")


def test_garbage_is_left_out_and_counted_and_the_rest_stays(nvml: Any, run_exporter: Callable[..., Any]) -> None:
    changed = {"0.utilization": "808334905", "0.field_82": "644245923", "0.pstate": "32", "0.fan:0": "4000000"}
    nvml.tell(*(f"{line.split()[0]} {changed.get(line.split()[0], ' '.join(line.split()[1:]))}" for line in A100))
    command = run_exporter(environment=nvml.environment)
    command.sees(f"nvidia_gpu_power_watts{{{IDS}}} 61.25")
    until(lambda: re.search(r"nvidia_gpu_implausible_readings_total\S+ [1-9]", command.metrics()))
    page = command.metrics()
    assert not re.search("nvidia_gpu_utilization_ratio|sensor=.memory|performance_state|fan_speed", page)


def test_gpus_that_are_added_and_taken_away_are_followed(nvml: Any, run_exporter: Callable[..., Any]) -> None:
    other = f"{GPU[:-1]}9"
    nvml.tell(*A100)
    command = run_exporter(environment=nvml.environment)
    command.sees("nvidia_gpu_devices 1.0")
    workers = command.workers()
    nvml.tell(*(line for line in A100 if line != "count 1"), "count 2", f"1.uuid {other}", "1.power 9000")
    command.sees("nvidia_gpu_devices 2.0", f'nvidia_gpu_power_watts{{gpu="1",uuid="{other}"}} 9.0')
    nvml.tell(*A100)
    command.sees("nvidia_gpu_devices 1.0", f'nvidia_gpu_up{{gpu="1",uuid="{other}"}} 0.0')
    assert command.workers() == workers


def test_a_driver_that_was_loaded_anew_is_read_by_a_new_process_and_its_counters_go_on(
    nvml: Any, run_exporter: Callable[..., Any]
) -> None:
    nvml.tell(*A100)
    command = run_exporter(environment=nvml.environment)
    command.sees(f"nvidia_gpu_energy_joules_total{{{IDS}}} 123456.789")
    nvml.tell(*A100, "0.lost 1")  # NVML_ERROR_UNINITIALIZED: what a library says whose driver is gone
    command.sees(f"nvidia_gpu_up{{{IDS}}} 0.0")
    nvml.tell(*(line for line in A100 if "energy" not in line), "0.energy 1000")
    command.sees(f"nvidia_gpu_up{{{IDS}}} 1.0", f"nvidia_gpu_energy_joules_total{{{IDS}}} 123457.789")


# Honesty


def exported(library: Path) -> set[str]:
    listed = subprocess.run(["nm", "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True)
    return {line.split()[-1] for line in listed.stdout.splitlines() if "nvml" in line}


def test_every_function_of_the_double_is_one_of_nvidias(nvml: Any, header: Path) -> None:
    names = exported(nvml.folder / "libnvidia-ml.so.1")
    assert len(names) > 50
    assert [name for name in names if not re.search(rf"\b{name}\b", header.read_text(errors="replace"))] == []


def test_pynvmls_structures_have_the_sizes_of_the_header(tmp_path: Path, header: Path) -> None:
    structures = {
        "nvmlFieldValue_t": pynvml.c_nvmlFieldValue_t, "nvmlMemory_v2_t": pynvml.c_nvmlMemory_v2_t,
        "nvmlBAR1Memory_t": pynvml.c_nvmlBAR1Memory_t, "nvmlPciInfo_t": pynvml.nvmlPciInfo_t,
        "nvmlUtilization_t": pynvml.c_nvmlUtilization_t, "nvmlProcessInfo_t": pynvml.c_nvmlProcessInfo_v3_t,
        "nvmlProcessUtilizationSample_t": pynvml.c_nvmlProcessUtilizationSample_t,
        "nvmlDeviceAttributes_t": pynvml.c_nvmlDeviceAttributes, "nvmlEventData_t": pynvml.c_nvmlEventData_t,
        "nvmlGpmMetric_t": pynvml.c_nvmlGpmMetric_t, "nvmlGpmSupport_t": pynvml.c_nvmlGpmSupport_t,
        "nvmlMarginTemperature_t": pynvml.c_nvmlMarginTemperature_v1_t,
    }  # fmt: skip
    source = tmp_path / "sizes.c"
    prints = "".join(f'printf("{name} %zu\\n", sizeof({name}));' for name in structures)
    source.write_text(f"#include <nvml.h>\n#include <stdio.h>\nint main(void) {{ {prints} return 0; }}\n")
    gcc = need("gcc", "apt-get install gcc")
    subprocess.run([gcc, f"-I{header.parent}", str(source), "-o", str(tmp_path / "sizes")], check=True)
    told = subprocess.run([str(tmp_path / "sizes")], capture_output=True, text=True, check=True).stdout.split()
    sizes = dict(zip(told[::2], map(int, told[1::2]), strict=True))
    assert sizes == {name: ctypes.sizeof(structure) for name, structure in structures.items()}
