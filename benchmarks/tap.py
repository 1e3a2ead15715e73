"""What the tap costs: processor time against nginx as a reverse proxy, added latency, memory. One run, side by side."""

import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from measuring.figures import Figure, median_and_spread, table
from measuring.load import CONNECTIONS, latencies, wrk, wrk_script
from measuring.processes import cpu_seconds, half_a_core, peak_mib, split_cores
from measuring.servers import Server, forwarder, model, nginx_proxy, sidecar
from pegel_agent.reference.columns import learn_feature
from pegel_agent.reference.profile import FORMAT, Profile, save

COLUMNS = 20
BODIES = 32
RATE = 1000.0
WINDOW = "10s"
SLICE_SECONDS = 1
_SETTLE_SECONDS = 0.3  # what was sent is analysed and acknowledged
_PRECEDENCE = -10  # of all that takes part alike: other work on this machine should not be what is measured
_SLICES_A_ROUND = 14
_MIN_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Size:
    """Requests of one size: `rows` rows each, and the pause of each connection at which all are analysed."""

    name: str
    rows: int
    pause_ms: int

    @property
    def model(self) -> str:
        return f"m{self.rows}"

    @property
    def target(self) -> str:
        return f"/v1/models/{self.model}:predict"


SIZES = (Size("0.5 KB", 2, 4), Size("9 KB", 53, 12))


@dataclass(frozen=True, slots=True)
class Traffic:
    """The requests of one size, and what makes wrk send them: as fast as it can, and paced."""

    size: Size
    requests: tuple[bytes, ...]
    flat_out: Path
    paced: Path


def traffic(folder: Path, size: Size, random_numbers: np.random.Generator) -> Traffic:
    """Bodies of random rows, and wrk's scripts for them."""
    rows = random_numbers.normal(size=(BODIES, size.rows, COLUMNS)).round(4).tolist()
    bodies = [json.dumps({"instances": instances}) for instances in rows]
    requests = tuple(
        (
            f"POST {size.target} HTTP/1.1\r\nHost: model\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()
        for body in bodies
    )
    return Traffic(
        size, requests,
        wrk_script(folder / f"flat-{size.rows}.lua", size.target, bodies, pause_ms=0),
        wrk_script(folder / f"paced-{size.rows}.lua", size.target, bodies, pause_ms=size.pause_ms),
    )  # fmt: skip


def reference(path: Path, random_numbers: np.random.Generator) -> Path:
    """A profile of the rows that `traffic` sends and of what the model answers."""
    values = random_numbers.normal(size=(10_000, COLUMNS))
    features = [learn_feature(f"f{position}", "input", values[:, position]) for position in range(COLUMNS)]
    save(Profile(FORMAT, time.time(), "m", "1", len(values), tuple(f for f in features if f)), path)
    return path


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds of processor time a request, of each process, and requests a second."""

    processes: tuple[float, ...]
    rate: float

    @property
    def microseconds(self) -> float:
        return sum(self.processes)


def cost(server: Server, script: Path, load_cores: set[int]) -> Cost:
    """One slice of load by wrk."""
    before = [cpu_seconds([pid]) for pid in server.pids]
    answers = wrk(script, server.port, seconds=SLICE_SECONDS, cores=load_cores)
    time.sleep(_SETTLE_SECONDS)
    used = [cpu_seconds([pid]) - start for pid, start in zip(server.pids, before, strict=True)]
    return Cost(tuple(seconds / answers * 1e6 for seconds in used), answers / SLICE_SECONDS)


def p99(seconds: list[float]) -> float:
    """The 99th percentile in milliseconds."""
    return float(np.percentile(seconds, 99)) * 1e3


@dataclass(frozen=True, slots=True)
class Servers:
    """All that run: the model, and what may stand before it."""

    model: Server
    nginx: Server
    forwarder: Server
    sidecar: Server


@contextlib.contextmanager
def servers(folder: Path, profile: Path, load_cores: set[int], tap_cores: set[int]) -> Iterator[Servers]:
    """Start them; what is measured shares one core, load and model have the others."""
    served = ",".join(size.model for size in SIZES)
    answers = {size.target: json.dumps({"predictions": [[0.25, 0.75]] * size.rows}) for size in SIZES}
    with contextlib.ExitStack() as running:
        behind = running.enter_context(model(folder, answers, load_cores))
        yield Servers(
            behind,
            running.enter_context(nginx_proxy(folder, behind.port, tap_cores)),
            running.enter_context(forwarder(folder, behind.port, tap_cores)),
            running.enter_context(
                sidecar(folder, behind.port, tap_cores, profile=profile, window=WINDOW, served=served)
            ),
        )


@dataclass(frozen=True, slots=True)
class Pair:
    """Costs of a contender and of nginx, slice by slice, each pair taken within seconds."""

    contender: list[Cost]
    nginx: list[Cost]

    def ratios(self) -> list[float]:
        return [a.microseconds / b.microseconds for a, b in zip(self.contender, self.nginx, strict=True)]

    def figure(self, what: str, budget: float) -> Figure:
        processes = zip(*(one.processes for one in self.contender), strict=True)
        mine = " + ".join(f"{statistics.median(each):.0f}" for each in processes)
        theirs = statistics.median(one.microseconds for one in self.nginx)
        rate = statistics.median(one.rate for one in self.contender)
        measured = f"{median_and_spread(self.ratios())}: {mine} µs to {theirs:.0f} µs, {rate:,.0f}/s"
        return Figure(what, f"{budget} × nginx", measured, statistics.median(self.ratios()) <= budget)


def pair(contender: Server, nginx: Server, script: Path, load_cores: set[int], into: Pair, *, swapped: bool) -> None:
    """One slice of each, in turns first."""
    both = [(contender, into.contender), (nginx, into.nginx)]
    for server, costs in reversed(both) if swapped else both:
        costs.append(cost(server, script, load_cores))


@click.command()
@click.option(
    "--seconds", default=100.0, envvar="BENCH_SECONDS", show_default=True, show_envvar=True, type=click.FloatRange(1),
    help="How long to measure, about; three rounds at least.",
)  # fmt: skip
def main(seconds: float) -> None:
    """Measure what the tap costs, next to nginx and to no proxy at all.

    Needs nginx and wrk, which benchmarks/install-tools installs. Half a core for the tap needs control groups, that is
    mostly root.

    \b
    Example, quick and rough:
      .venv/bin/python benchmarks/tap.py --seconds 45
    """
    rounds = max(_MIN_ROUNDS, int(seconds / _SLICES_A_ROUND / (SLICE_SECONDS + _SETTLE_SECONDS)))
    load_cores, tap_cores = split_cores()
    with contextlib.suppress(PermissionError):
        os.nice(_PRECEDENCE)
    random_numbers = np.random.default_rng(1)
    with tempfile.TemporaryDirectory(prefix="pegel-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx's workers give up root
        all_traffic = [traffic(folder, size, random_numbers) for size in SIZES]
        profile = reference(folder / "profile.json", random_numbers)
        with servers(folder, profile, load_cores, tap_cores) as running:
            os.sched_setaffinity(0, load_cores)
            figures = measure(running, all_traffic, rounds, load_cores)
    one_core = "" if load_cores != tap_cores else "; everything on one core"
    click.echo(
        f"\nThe tap: {rounds} rounds of {SLICE_SECONDS} s, {CONNECTIONS} connections{one_core}\n{table(figures)}"
    )


def measure(running: Servers, all_traffic: list[Traffic], rounds: int, load_cores: set[int]) -> list[Figure]:
    """All rounds, and what came of them."""
    alone = [Pair([], []) for _ in all_traffic]
    whole = [Pair([], []) for _ in all_traffic]
    added: list[dict[str, list[float]]] = [{"nginx": [], "sidecar": []} for _ in all_traffic]
    direct: list[list[float]] = [[] for _ in all_traffic]
    busy: list[list[float]] = [[] for _ in all_traffic]
    at_first = running.sidecar.outcomes()
    with click.progressbar(range(rounds), label="tap: processor time and latency, in rounds") as bar:
        for number in bar:
            swapped = number % 2 == 1
            for position, one in enumerate(all_traffic):
                pair(running.forwarder, running.nginx, one.flat_out, load_cores, alone[position], swapped=swapped)
                pair(running.sidecar, running.nginx, one.paced, load_cores, whole[position], swapped=swapped)
            with half_a_core(running.nginx.pids), half_a_core(running.sidecar.pids) as limited:
                for position, one in enumerate(all_traffic):
                    taken = {}
                    order = [running.model, running.nginx, running.sidecar]
                    for server in reversed(order) if swapped else order:
                        before = cpu_seconds(server.pids)
                        took = latencies(server.port, one.requests, rate=RATE, seconds=SLICE_SECONDS)
                        taken[server.name] = p99(took)
                        time.sleep(_SETTLE_SECONDS)
                        if server is running.sidecar:
                            busy[position].append((cpu_seconds(server.pids) - before) / SLICE_SECONDS)
                    direct[position].append(taken["model"])
                    for name, values in added[position].items():
                        values.append(taken[name] - taken["model"])
    time.sleep(1.0)
    outcomes = {name: count - at_first[name] for name, count in running.sidecar.outcomes().items()}
    core = "half a core" if limited else "a whole core: no control groups here"
    figures = []
    for position, one in enumerate(all_traffic):
        figures.append(alone[position].figure(f"forwarder, processor time, {one.size.name}", 1.3))
        figures.append(whole[position].figure(f"all of it, every exchange analysed, {one.size.name}", 2.5))
    for position, one in enumerate(all_traffic):
        delay = added[position]["sidecar"]
        figures.append(
            Figure(
                f"added p99 at {RATE:,.0f} a second, {core}, {one.size.name}", "0.5 ms",
                f"{median_and_spread(delay)} ms; nginx adds {median_and_spread(added[position]['nginx'])} ms to "
                f"{statistics.median(direct[position]):.2f} ms; {statistics.median(busy[position]):.0%} of a core",
                statistics.median(delay) <= 0.5,
            )
        )  # fmt: skip
    forwarding, analysing = running.sidecar.pids
    memory = peak_mib(forwarding)
    both = memory + peak_mib(analysing)
    shed, undecodable, seen = outcomes["shed"], outcomes["undecodable"], sum(outcomes.values())
    return [
        *figures,
        Figure("memory at its peak, forwarder", "32 MiB", f"{memory:.0f} MiB", memory <= 32),
        Figure("memory at its peak, forwarder and analyser", "128 MiB", f"{both:.0f} MiB", both <= 128),
        Figure("exchanges shed", "0", f"{shed:,} and {undecodable:,} undecodable of {seen:,}", shed + undecodable == 0),
    ]


if __name__ == "__main__":
    main()
