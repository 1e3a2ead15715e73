"""Which pod a process on a GPU belongs to: reads /proc and the kubelet's folder of logs, of a process only its control
groups and when it began.

The exporter sees the host's processes only where its pod has hostPID; elsewhere no process has an owner, and what pods
that share a GPU use of it can't be told apart.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pegel_exporters.gpu.cgroups import place_of

Pod = tuple[str, str]
"""Namespace and name."""

_START = 19
"""Where the start time stands in /proc/PID/stat after the command's name (proc(5): field 22)."""


class Owners:
    """Processes to pods. What was found of a process is kept while the same process runs under its number."""

    def __init__(self, proc: Path = Path("/proc"), logs: Path = Path("/var/log/pods")) -> None:
        self._proc = proc
        self._logs = logs
        self._known: dict[int, tuple[str, Pod | None]] = {}

    def of(self, pids: Iterable[int]) -> dict[int, Pod]:
        """The pods of those processes that are in one that the node knows."""
        pods: Mapping[str, Pod] | None = None
        known: dict[int, tuple[str, Pod | None]] = {}
        for pid in pids:
            began = self._began(pid)
            before = self._known.get(pid)
            if before is not None and before[0] == began and before[1] is not None:
                known[pid] = before
            elif began:
                pods = self._pods() if pods is None else pods
                known[pid] = began, self._pod(pid, pods)
        self._known = known
        return {pid: pod for pid, (_, pod) in known.items() if pod is not None}

    def _pod(self, pid: int, pods: Mapping[str, Pod]) -> Pod | None:
        try:
            place = place_of((self._proc / str(pid) / "cgroup").read_text(errors="replace"))
        except OSError:
            return None
        return pods.get(place.pod_uid) if place else None

    def _began(self, pid: int) -> str:
        """When a process began, empty where there is none of this number."""
        try:
            # A process names itself, and what it is called need not be UTF-8.
            stat = (self._proc / str(pid) / "stat").read_text(errors="replace")
            return stat.rpartition(")")[2].split()[_START]
        except (OSError, IndexError):
            return ""

    def _pods(self) -> dict[str, Pod]:
        """Pods by UID: the kubelet names their folders NAMESPACE_NAME_UID."""
        try:
            names = [entry.name for entry in self._logs.iterdir()]
        except OSError:
            return {}
        parts = (name.split("_") for name in names if name.count("_") == 2)
        return {uid: (namespace, pod) for namespace, pod, uid in parts}
