"""A real MLServer with `pegel sidecar` before it: clients see the same bytes, and the rows are counted as sent."""

import csv
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pegel_agent.reference import profile as profiles
from pegel_exporters.catalogue import TAP_OTHER_MODEL_REQUESTS
from sklearn.datasets import load_wine

from tests.agent.sidecar.tap.tap_process import labelled, tap, until
from tests.modelservers import mlserver, train_wine

pytestmark = pytest.mark.integration

WINE = load_wine()
NAMES = [f"wine {number}" for number in range(13)]
ROWS = np.random.default_rng(5).normal(WINE.data.mean(axis=0), 2 * WINE.data.std(axis=0), size=(37, 13)).round(2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with mlserver(train_wine(tmp_path_factory.mktemp("model")), "wine") as port:
        yield port


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the command from the rows that the model was trained on."""
    folder = tmp_path_factory.mktemp("profile")
    with (folder / "wine.csv").open("w", newline="") as file:
        csv.writer(file).writerows([NAMES, *WINE.data.tolist()])
    program = [sys.executable, "-c", "from pegel_agent.cli.main import main; main()", "profile", "build"]
    subprocess.run([*program, folder / "wine.csv", "-o", folder / "profile.json"], check=True)
    return folder / "profile.json"


def _ask(port: int, body: bytes, *, path: str = "/v2/models/wine/infer", method: str = "POST") -> bytes:
    """The answer's bytes, without what a server makes anew each time."""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: model\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.sendall(head.encode() + body)
        answer = b"".join(iter(lambda: client.recv(1 << 16), b""))
    return re.sub(rb"(?i)\r\n(date|ce-[a-z]+|x-request-id): [^\r]*", b"", answer)


def _tensor(rows: "np.ndarray[Any, Any]", *, nested: bool = False, datatype: str = "FP64") -> bytes:
    data = rows.tolist() if nested else rows.ravel().tolist()
    tensor = {"name": "x", "shape": list(rows.shape), "datatype": datatype, "data": data}
    return json.dumps({"id": "order-1", "inputs": [tensor]}).encode()


GOOD = {
    "one row": (ROWS[:1], _tensor(ROWS[:1])),
    "rows in one flat list": (ROWS[1:12], _tensor(ROWS[1:12])),
    "rows in lists": (ROWS[12:20], _tensor(ROWS[12:20], nested=True)),
    "single precision": (ROWS[20:25], _tensor(ROWS[20:25], datatype="FP32")),
    "with blanks and a version": (ROWS[25:37], json.dumps(json.loads(_tensor(ROWS[25:37])), indent=2).encode()),
}
BAD = {
    "too few columns": _tensor(ROWS[:2, :3]),
    "no JSON": b"{",
    "no inputs": b'{"id": "order-1"}',
}


def test_clients_see_the_same_bytes_and_every_row_is_counted_in_its_bin(model: int, profile: Path) -> None:
    with tap(model, "--profile", str(profile), ready=True) as running:
        errors = 0
        for name, body in [*((name, body) for name, (_, body) in GOOD.items()), *BAD.items()]:
            direct = _ask(model, body)
            assert _ask(running.port, body) == direct, name
            assert direct.startswith(b"HTTP/1.1 200") == (name in GOOD), direct
            errors += direct.startswith(b"HTTP/1.1 5")
        for method, path in [("GET", "/v2/models/wine"), ("GET", "/v2/health/ready"), ("POST", "/v2/models/no/infer")]:
            direct = _ask(model, b"", method=method, path=path)
            assert _ask(running.port, b"", method=method, path=path) == direct
        code = direct.split()[1].decode()

        outcomes = {
            "ok": len(GOOD) + len(BAD) - errors,
            "error": errors,
            "client_abort": 0,
            "timeout": 0,
            "unfollowed": 0,
        }
        until(lambda: running.outcomes() == outcomes)
        assert labelled(running.counts(), TAP_OTHER_MODEL_REQUESTS.name) == {"200": 0, code: 1}
        until(lambda: sum(running.copies().values()) == len(GOOD) + len(BAD))
        copies = running.copies()
        # What the model refused is understood as well; it only has no rows, as the counts below show.
        assert (copies["analysed"], copies["shed"]) == (len(GOOD) + len(BAD), 0)

        sent = np.concatenate([rows for rows, _ in GOOD.values()])
        reference = profiles.load(profile)
        expected = {
            f'ml_feature_rows_total{{bin="{name}",feature="{feature.name}",reference="{reference.hash}"}}': float(count)
            for column, feature in enumerate(reference.features)
            for name, count in zip(feature.bins.names, feature.bins.counts(sent[:, column]), strict=True)
        }
        until(lambda: running.counts().get("ml_inference_rows_total") == len(sent))
        until(lambda: _feature_rows(running.counts()) == expected)


def _feature_rows(counts: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in counts.items() if key.startswith("ml_feature_rows_total")}
