"""The images of the Containerfile, built by buildah, and containers that runc starts as Kubernetes would."""

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.agent.sidecar.tap.tap_process import until

ROOT = Path(__file__).parents[2]
_BASE = "localhost/debian-bookworm:slim"
_AUTHORITIES = Path("/usr/local/share/ca-certificates")


def store() -> Path:
    """The image store with the base. Where it is missing CI makes it, and anyone else's test is skipped."""
    install = Path(__file__).parent / "install-builder"
    where = subprocess.run([install, "--where"], capture_output=True, text=True, check=False)
    if where.returncode != 0:
        if os.environ.get("CI") != "true":
            pytest.skip(where.stderr.strip())
        where = subprocess.run([install], stdout=subprocess.PIPE, text=True, check=True)
    return Path(where.stdout.strip())


def _buildah(*arguments: str | Path) -> str:
    folder = store()
    done = subprocess.run(
        ["buildah", "--root", folder / "store", "--runroot", folder / "run", *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout.strip()


@dataclass(frozen=True)
class Image:
    """A built image."""

    target: str
    root: Path
    """Its files."""
    settings: dict[str, Any]
    """What the Open Container Initiative calls its config: User, Env, Entrypoint, Cmd, Labels, ExposedPorts."""


@contextlib.contextmanager
def built(target: str) -> Iterator[Image]:
    """A target of the Containerfile, built from the working tree; layers that nothing changed are not built again."""
    # A network that looks into TLS has an authority of its own; Debian's certificates take it in from here.
    volumes = ["--volume", f"{_AUTHORITIES}:{_AUTHORITIES}:ro"] if _AUTHORITIES.is_dir() else []
    name = f"localhost/pegel-{target}"
    _buildah(
        "build", "--layers", "--isolation", "chroot", "--pull-never", "--build-arg", f"BASE={_BASE}", *volumes,
        "--target", target, "--tag", name, ROOT,
    )  # fmt: skip
    inspected = json.loads(_buildah("inspect", "--type", "image", name))
    container = _buildah("from", "--pull-never", name)
    try:
        yield Image(target, Path(_buildah("mount", container)), inspected["OCIv1"]["config"])
    finally:
        _buildah("rm", container)


@dataclass(frozen=True)
class Container:
    """A started container. It shares the network of this machine, so that nothing has to be set up."""

    process: subprocess.Popen[bytes]
    log: Path
    _runc: tuple[str | Path, ...]
    _name: str

    def wait_until(self, true: Callable[[], bool]) -> None:
        """Wait for what must come; fails with the log when the container ends before."""
        until(lambda: self.process.poll() is not None or true())
        assert self.process.poll() is None, self.log.read_text()

    def execute(self, command: Sequence[str]) -> tuple[int, str]:
        """Run a hook or a probe in it; the exit code and what it wrote."""
        done = subprocess.run([*self._runc, "exec", self._name, *command], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def end(self) -> int:
        """SIGTERM to its first process; the exit code."""
        subprocess.run([*self._runc, "kill", self._name, "TERM"], check=True)
        return self.process.wait(15)

    def end_of_itself(self) -> tuple[int, str]:
        """Wait until it ends; the exit code and what it wrote."""
        code = self.process.wait(60)
        return code, self.log.read_text()


@contextlib.contextmanager
def started(image: Image, *arguments: str, user: str = "", temporary: Path | None = None) -> Iterator[Container]:
    """A container with no capability, no way to gain one, and a file system that can't be written.

    `arguments` take the place of the image's own, `user` (UID:GID) that of its user; `temporary` is a folder that it
    may write to as /tmp, like an emptyDir.
    """
    uid, gid = (user or image.settings["User"]).split(":")
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder)
        log = bundle / "log"
        (bundle / "config.json").write_text(json.dumps({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": int(uid), "gid": int(gid)},
                "args": [*image.settings["Entrypoint"], *(arguments or image.settings["Cmd"])],
                "env": image.settings["Env"],
                "cwd": "/",
                "capabilities": {},
                "noNewPrivileges": True,
            },
            "root": {"path": str(image.root), "readonly": True},
            "mounts": _mounts(temporary),
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
        }))  # fmt: skip
        name = f"pegel-{image.target}-{bundle.name}"
        runc = ("runc", "--root", bundle / "state")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*runc, "run", "--bundle", bundle, name], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            yield Container(process, log, runc, name)
            assert "Traceback" not in log.read_text(), log.read_text()
        finally:
            subprocess.run([*runc, "delete", "--force", name], check=False, stderr=subprocess.DEVNULL)
            process.wait(10)


def _mounts(temporary: Path | None) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
    ]
    if temporary is not None:
        temporary.chmod(0o777)
        mounts.append({"destination": "/tmp", "type": "bind", "source": str(temporary), "options": ["bind", "rw"]})
    return mounts
