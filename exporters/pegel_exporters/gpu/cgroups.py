"""From a process's control groups to the pod and container that it is in. Pure.

The kubelet and the container runtime write both into the path: containerd, CRI-O and Docker, with systemd's names or
the plain ones, control groups v1 and v2, and nodes that are containers themselves.
"""

import re
from dataclasses import dataclass

_UUID = r"[0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}"
_POD = re.compile(rf"pod({_UUID}|[0-9a-f]{{32}})(?:\.slice)?(?=[/:]|$)")
"""A static pod's UID is a hash of 32 digits."""
_CONTAINER = re.compile(r"(?:^|[-/:])([0-9a-f]{64})(?:\.scope)?(?=/|$)")


@dataclass(frozen=True, slots=True)
class Place:
    """A pod by its UID, and a container of it by the runtime's id, empty where the path names none."""

    pod_uid: str
    container_id: str


def place_of(text: str) -> Place | None:
    """The place of a process by the text of /proc/PID/cgroup; None for one in no pod."""
    for line in text.splitlines():
        path = line.split(":", 2)[-1]
        if pod := _POD.search(path):
            container = _CONTAINER.search(path, pod.end())
            return Place(pod[1].replace("_", "-"), container[1] if container else "")
    return None
