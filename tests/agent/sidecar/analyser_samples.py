"""Frames as the forwarder sends them, and an analyser process to send them to."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
from pegel_agent.reference import profile as profiles
from pegel_agent.reference.columns import learn_feature
from pegel_agent.reference.profile import FORMAT, Profile
from pegel_agent.sidecar import frames
from pegel_agent.sidecar.paths import PROTOCOLS, TFSERVING
from pegel_agent.sidecar.settings import AnalyserSettings

FEATURES = 50
MODEL = ("houses", "3")


def profile(features: int = FEATURES, rows: int = 10_000) -> Profile:
    """Standard normal numbers, and a prediction of 0 or 1."""
    rng = np.random.default_rng(21)
    columns = [(f"f{number}", "input", rng.normal(size=rows)) for number in range(features)]
    columns.append(("class", "prediction", rng.integers(0, 2, rows).astype(float)))
    found = [learn_feature(name, role, values) for name, role, values in columns]  # type: ignore[arg-type]
    return Profile(FORMAT, 1_700_000_000.0, *MODEL, rows, tuple(one for one in found if one is not None))


def exchange(
    instances: Sequence[Any], predictions: Sequence[Any], *, request_id: str | None = None
) -> tuple[bytes, bytes]:
    """A TF Serving request and its answer."""
    return raw_exchange(
        json.dumps({"instances": instances}), json.dumps({"predictions": predictions}), request_id=request_id
    )


def raw_exchange(
    asked: str, answered: str, *, request_id: str | None = None, target: str = "/v1/models/houses:predict"
) -> tuple[bytes, bytes]:
    """The same with bodies as they are written."""
    named = f"X-Request-Id: {request_id}\r\n" if request_id else ""
    return (
        f"POST {target} HTTP/1.1\r\nHost: a\r\n{named}Content-Length: {len(asked)}\r\n\r\n{asked}".encode(),
        f"HTTP/1.1 200 OK\r\nContent-Length: {len(answered)}\r\n\r\n{answered}".encode(),
    )


def frame(request: bytes, response: bytes, *, ended: float = 1_000.0, name: str = "") -> bytes:
    """As the forwarder sends it; with the name that the model may be served by, where that isn't known."""
    header = frames.HEADER.pack(
        len(request), len(response), PROTOCOLS.index(TFSERVING), len(name.encode()), 200, ended - 0.25, 0.25
    )
    return header + name.encode() + request + response


@dataclass(frozen=True)
class Running:
    """An analyser process, its HTTP socket and the forwarder's end of its exchanges."""

    process: "subprocess.Popen[str]"
    http: httpx.Client
    exchanges: socket.socket
    folder: Path

    def outcomes(self, exchanges: int) -> tuple[bytes, str]:
        """Wait until so many exchanges are acknowledged: what became of each, and by what name the model is served."""
        outcomes, names = b"", b""
        while len(outcomes) < exchanges:
            header = self._received(frames.ACKNOWLEDGEMENT.size)
            found, named = frames.ACKNOWLEDGEMENT.unpack(header)
            outcomes += self._received(found)
            names += self._received(named)
        return outcomes, names.decode()

    def acknowledged(self, exchanges: int) -> tuple[int, int]:
        """The same: how many were analysed, and undecodable."""
        outcomes, _ = self.outcomes(exchanges)
        return outcomes.count(frames.ANALYSED), sum(outcome in frames.REASONS for outcome in outcomes)

    def _received(self, size: int) -> bytes:
        data = self.exchanges.recv(size, socket.MSG_WAITALL) if size else b""
        assert len(data) == size, "the analyser is gone"
        return data

    def get(self, path: str) -> httpx.Response:
        tap = msgspec.json.encode(frames.TapState(requests=7)).decode()
        return self.http.get(path, headers={frames.TAP_STATE_HEADER: tap})

    def processor_seconds(self) -> float:
        """What it has used so far."""
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0]) / 1e9

    def memory(self, line: str = "VmRSS:") -> int:
        """Bytes of a line of /proc/PID/status."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition(line)[2].split()[0]) << 10


@contextlib.contextmanager
def analyser(folder: Path, reference: Profile | None, **settings: Any) -> Iterator[Running]:
    """A started analyser; ended when the block is left."""
    path = None
    if reference is not None:
        path = str(folder / "profile.json")
        profiles.save(reference, path)
    told = AnalyserSettings(*MODEL, path, None, 500, 8640.0, str(folder), **settings)
    environment = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    process = subprocess.Popen(
        [sys.executable, "-m", "pegel_agent.sidecar.analyser", msgspec.json.encode(told).decode()],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        text=True,
    )
    exchanges = socket.socket(socket.AF_UNIX)
    exchanges.settimeout(60)
    try:
        give_up = time.monotonic() + 60
        while True:
            try:
                exchanges.connect(str(folder / frames.EXCHANGE_SOCKET))
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > give_up:
                    raise AssertionError("the analyser did not start") from None
                time.sleep(0.05)
        transport = httpx.HTTPTransport(uds=str(folder / frames.HTTP_SOCKET))
        with httpx.Client(transport=transport, base_url="http://analyser", timeout=60) as http:
            yield Running(process, http, exchanges, folder)
    finally:
        exchanges.close()
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stderr):
            if pipe is not None:
                pipe.close()
