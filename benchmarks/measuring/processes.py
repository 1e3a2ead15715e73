"""What a process costs, and what it may use."""

import contextlib
import os
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

_HALF_CORE = (50_000, 100_000)  # microseconds of processor time in each so many


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time, user and system, that these processes have used, exact where /proc/PID/stat counts in 10 ms."""
    # The clock of another process, as clock_getcpuclockid(3) makes it; 2 is the scheduler's own account.
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids) / 1e9


def peak_mib(pid: int) -> float:
    """The most resident memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def own_peak_mib() -> float:
    """The most resident memory that this process has had."""
    return peak_mib(os.getpid())


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def wait_for_port(port: int, seconds: float = 20.0) -> None:
    """Return once somebody listens. Raises TimeoutError."""
    give_up = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > give_up:
                raise TimeoutError(f"nothing listens on port {port} after {seconds:g} s") from None
            time.sleep(0.05)


def split_cores() -> tuple[set[int], set[int]]:
    """The cores for load and model, and the one for what is measured; the same where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    return set(cores[:-1] or cores), {cores[-1]}


def pinned(command: Sequence[str], cores: set[int]) -> list[str]:
    """The command, run on these cores only."""
    return ["taskset", "--cpu-list", ",".join(map(str, sorted(cores))), *command]


@contextlib.contextmanager
def half_a_core(pids: Iterable[int]) -> Iterator[bool]:
    """Give each of these processes' whole half the time of a core; yields False where control groups can't be made."""
    pids = list(pids)
    root, quota = _cpu_controller()
    group = root / f"pegel-bench-{pids[0]}"
    try:
        group.mkdir()
    except OSError:
        yield False
        return
    try:
        for name, value in quota.items():
            (group / name).write_text(value)
        for pid in pids:
            (group / "cgroup.procs").write_text(str(pid))
        limited = True
    except OSError:
        limited = False
    try:
        yield limited
    finally:
        for member in (group / "cgroup.procs").read_text().split():
            (root / "cgroup.procs").write_text(member)
        group.rmdir()


def _cpu_controller() -> tuple[Path, dict[str, str]]:
    """Where control groups for processor time are made, and what limits one: version 2, else 1.

    The weight is a precedence over other work on the machine, as a group's processes lose their own.
    """
    quota, period = _HALF_CORE
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return root, {"cpu.max": f"{quota} {period}", "cpu.weight": "1000"}
    return root / "cpu", {"cpu.cfs_period_us": str(period), "cpu.cfs_quota_us": str(quota), "cpu.shares": "10240"}
