"""The GPU exporter's page, processor time and memory, beside prometheus_client's stock Collector on the same readings.

Both read the C double of NVML through the unmodified pynvml; Pegel's readings are real ones at every tick.
"""

import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
from measuring.figures import Figure, table
from measuring.processes import children, cpu_seconds, free_port

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from pegel_exporters.gpu import simulated  # noqa: E402

from tests.nvml import double  # noqa: E402

NOW = 1_789_999_920.0
GROUP = (
    "{{model: NVIDIA H100 80GB HBM3, count: {count}, memory_mib: 81559, memory_used: 0.5, idle_watts: 70,"
    " limit_watts: 700, mean: 0.5, swing: 0.3, gpm: true, nvlinks: 18{more}}}"
)
MIG = ", mig: [1g.10gb, 1g.10gb, 1g.10gb, 1g.10gb, 1g.10gb, 1g.10gb, 1g.10gb], pods: [{pods}]"
NODES = {"4 GPUs": GROUP.format(count=4, more=""), "24 GPUs of 7 MIG devices": GROUP.format(
    count=24, more=MIG.format(pods=", ".join(f"shop/model-{number}/model" for number in range(7)))
)}  # fmt: skip
BUDGET_MILLISECONDS, BUDGET_MIB = 10, 64
HANG_BUDGET_MILLISECONDS, HANG_SECONDS = 50, 5.0
SCRAPE_EVERY_SECONDS = 0.1


@dataclass(slots=True)
class Run:
    """What one contender came to: series, page times in ms, CPU seconds, and MiB after a tenth and at the end."""

    series: int
    milliseconds: list[float]
    cpu: float
    seconds: float
    early: float
    late: float
    hung: list[float] = field(default_factory=list)
    """Page times in ms while a call of the driver never returns."""


def family(pid: int) -> list[int]:
    """A process and its children."""
    return [pid, *children(pid)]


def resident_mib(pid: int) -> float:
    """Resident memory now."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


@contextmanager
def running(contender: str, folder: Path, interval: float) -> Iterator[tuple[int, int]]:
    """A contender's process id and port, once it serves a page."""
    port = free_port()
    environment = {
        **os.environ, "LD_LIBRARY_PATH": str(folder), "PEGEL_NVML_DOUBLE": str(folder / "scenario"),
        "PYTHONPATH": str(Path(__file__).parent),
    }  # fmt: skip
    pegel = [
        str(Path(sys.executable).with_name("pegel")), "gpu-exporter", "--listen", f"127.0.0.1:{port}",
        "--interval", f"{interval * 1000:.0f}ms", "--metrics", "native",
    ]  # fmt: skip
    collector = [sys.executable, str(Path(__file__).parent / "contenders" / "gpu_collector.py"), str(port)]
    with subprocess.Popen(
        pegel if contender == "pegel" else collector, env=environment, stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            until = time.monotonic() + 30
            while True:
                try:
                    if b"nvidia_gpu_power_watts{" in scraped(port)[0]:
                        break
                except OSError:
                    time.sleep(0.1)
                if time.monotonic() > until:
                    raise click.ClickException(f"{contender} served no page of GPUs within 30 seconds")
            yield process.pid, port
        finally:
            process.terminate()


def scraped(port: int) -> tuple[bytes, float]:
    """A page and how long it took, in milliseconds."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics", headers={"Accept-Encoding": "identity"})
    page = connection.getresponse().read()
    connection.close()
    return page, (time.perf_counter() - began) * 1e3


def measure(contender: str, folder: Path, ticks: int, interval: float) -> Run:
    """Scrape for as many ticks as asked for."""
    with running(contender, folder, interval) as (pid, port):
        took: list[float] = []
        began, cpu = time.monotonic(), cpu_seconds(family(pid))
        early = 0.0
        while (passed := time.monotonic() - began) < ticks * interval:
            page, milliseconds = scraped(port)
            took.append(milliseconds)
            if not early and passed > ticks * interval / 10:
                early = sum(map(resident_mib, family(pid)))
            time.sleep(SCRAPE_EVERY_SECONDS)
        series = sum(not line.startswith(b"#") for line in page.splitlines())
        used = cpu_seconds(family(pid)) - cpu
        run = Run(series, took, used, time.monotonic() - began, early, sum(map(resident_mib, family(pid))))
        if contender == "pegel":
            told = (folder / "scenario").read_text()
            (folder / "scenario").write_text(f"{told}hang nvmlDeviceGetPowerUsage\n")
            until = time.monotonic() + HANG_SECONDS
            while time.monotonic() < until:
                run.hung.append(scraped(port)[1])
                time.sleep(SCRAPE_EVERY_SECONDS / 2)
            (folder / "scenario").write_text(told)
        return run


def quantile(values: list[float], share: float) -> float:
    """The value below which this share lies."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def figures(name: str, pegel: Run, collector: Run, interval: float) -> list[Figure]:
    """What a node came to."""
    p99 = quantile(pegel.milliseconds, 0.99)
    return [
        Figure(
            f"{name}: page of {pegel.series:,} series, p50 / p99", f"p99 {BUDGET_MILLISECONDS} ms",
            f"{statistics.median(pegel.milliseconds):.1f} / {p99:.1f} ms; stock Collector "
            f"{statistics.median(collector.milliseconds):.0f} / {quantile(collector.milliseconds, 0.99):.0f} ms",
            p99 <= BUDGET_MILLISECONDS,
        ),
        Figure(
            "page while a call of the driver never returns, p50 / highest", f"{HANG_BUDGET_MILLISECONDS} ms",
            f"{statistics.median(pegel.hung):.1f} / {max(pegel.hung):.1f} ms",
            max(pegel.hung) <= HANG_BUDGET_MILLISECONDS,
        ),
        Figure(
            "memory of its two processes, after a tenth and at the end", f"{BUDGET_MIB} MiB",
            f"{pegel.early:.1f} to {pegel.late:.1f} MiB; stock Collector {collector.early:.1f} to {collector.late:.1f}",
            pegel.late <= BUDGET_MIB,
        ),
        Figure(
            "processor time", "",
            f"{pegel.cpu / pegel.seconds:.3f} cores at a reading each {interval:g} s; stock Collector"
            f" {collector.cpu / collector.seconds:.3f} at a scrape each {SCRAPE_EVERY_SECONDS:g} s or as it can",
        ),
    ]  # fmt: skip


@click.command()
@click.option(
    "--seconds", default=100.0, envvar="BENCH_SECONDS", show_default=True, show_envvar=True, type=click.FloatRange(1),
    help="For all of it; each contender gets a quarter.",
)  # fmt: skip
@click.option(
    "--interval", default=1.0, show_default=True, type=click.FloatRange(0.1),
    help="Seconds between readings; the exporter's own default is 5.",
)  # fmt: skip
def main(seconds: float, interval: float) -> None:
    """Measure page, memory and processor time at 4 whole GPUs and at 24 of 7 MIG devices.

    \b
    Example, 1,000 readings each:
      .venv/bin/python benchmarks/gpu.py --seconds 800 --interval 0.2
    """
    ticks = max(5, int(seconds / 4 / interval))
    lines: list[Figure] = []
    for name, groups in NODES.items():
        with tempfile.TemporaryDirectory(prefix="pegel-bench-") as made:
            folder = Path(made)
            scenario = folder / "node.yaml"
            scenario.write_text(f'driver_version: "550"\ncuda_version: "12.4"\ngroups: [{groups}]\n')
            double.build(folder)
            node = simulated.source(str(scenario))(NOW)
            (folder / "scenario").write_text("\n".join(double.lines_of_node(node)) + "\n")
            runs = []
            for contender in ("pegel", "collector"):
                click.echo(f"gpu: {name}, {contender}, {ticks} readings", err=True)
                runs.append(measure(contender, folder, ticks, interval))
            lines += figures(name, *runs, interval)
    click.echo(f"\nGPU exporter: {ticks:,} readings each\n{table(lines)}")


if __name__ == "__main__":
    main()
