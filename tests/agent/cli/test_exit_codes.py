"""1 means drift or a failed check, in every command; bad input is 2 and a failure of Pegel's own 3, in one line."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.agent.cli.test_bad_data import AGES, CITIES, ROWS, Commands, Done, csv, parquet
from tests.agent.cli.test_bad_data import pegel as pegel  # noqa: PLC0414 - a fixture

PEGEL = Path(sys.executable).parent / "pegel"


def table(age: Any, city: Any = None) -> bytes:
    """A Parquet file."""
    file = io.BytesIO()
    pq.write_table(pa.table({"age": age, "city": pa.array(CITIES) if city is None else city}), file)
    return file.getvalue()


def text(encoding: str) -> bytes:
    return "größe,city,age\n1,Köln,2\n".encode(encoding)


GOOD_TABLE = table(pa.array(AGES))
ROWS_OF_TEXT = "age,city\n" + "\n".join(f"{age},{city}" for age, city in zip(AGES, CITIES, strict=True))
INVALID_TEXT = pa.Array.from_buffers(
    pa.string(), 2, [None, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"\xff\xfe")]
)
BAD_FILES: Mapping[str, bytes] = {
    "Latin-1 in the header.csv": text("latin-1"),
    "cp1252 in a row.csv": "age,city\n1,Köln\n2,\x80\n".encode("latin-1"),
    "UTF-16 with a mark.csv": text("utf-16"),
    "UTF-16 without.csv": text("utf-16-le"),
    "UTF-16 the other way.csv": text("utf-16-be"),
    "UTF-32.csv": text("utf-32"),
    "zero bytes.csv": b"\0" * 100,
    "zero bytes in a header.csv": b"age\0,city\n1,Ulm\n",
    "a row too long.csv": b"age,city\n1,Ulm,3\n",
    "no names.csv": b",,\n1,2,3\n",
    "names twice.csv": b"age,city,age\n1,2,3\n",
    "nothing.csv": b"",
    "an empty line.csv": b"\n",
    "a mark and no more.csv": b"\xef\xbb\xbf",
    "another column.csv": b"height\n1\n",
    "JSON.csv": b'{"age": 1, "city": "Ulm"}',
    "no bytes.parquet": b"",
    "CSV.parquet": ROWS_OF_TEXT.encode(),
    "cut in the middle.parquet": GOOD_TABLE[: len(GOOD_TABLE) // 2],
    "cut at the end.parquet": GOOD_TABLE[:-5],
    "without a beginning.parquet": GOOD_TABLE[20:],
    "zeros in the middle.parquet": GOOD_TABLE[:200] + b"\0" * 400 + GOOD_TABLE[600:],
    "uuid.parquet": table(pa.array([uuid.uuid4().bytes for _ in range(ROWS)], pa.uuid())),
    "bytes.parquet": table(pa.array([os.urandom(16) for _ in range(ROWS)], pa.binary(16))),
    "large bytes.parquet": table(pa.array([b"\xff"] * ROWS, pa.large_binary())),
    "a dictionary of bytes.parquet": table(pa.array([b"\xff"] * ROWS).dictionary_encode()),
    "structs.parquet": table(pa.array([{"years": 1}] * ROWS)),
    "maps.parquet": table(pa.array([[("years", 1)]] * ROWS, pa.map_(pa.string(), pa.int64()))),
    "lists of structs.parquet": table(pa.array([[{"years": 1}]] * ROWS)),
    "durations.parquet": table(pa.array([timedelta(days=1)] * ROWS)),
    "times far away.parquet": table(pa.array([2**62] * ROWS, pa.timestamp("us", "Europe/Berlin"))),
    "dates.parquet": table(pa.array([date(2024, 1, 2)] * ROWS)),
    "times.parquet": table(pa.array([datetime(2024, 1, 2)] * ROWS)),
    "texts that are none.parquet": table(INVALID_TEXT, pa.array(["Ulm", "Bonn"])),
}
FINE_FILES: Mapping[str, bytes] = {
    "decimals.parquet": table(pa.array([Decimal(str(age)) for age in AGES], pa.decimal256(50, 3))),
    "halves.parquet": table(pa.array(np.array(AGES, np.float16))),
    "a dictionary of texts.parquet": table(pa.array(AGES), pa.array(CITIES).dictionary_encode()),
    "a mark before the header.csv": b"\xef\xbb\xbf" + ROWS_OF_TEXT.encode(),
    "lines of another system.csv": ROWS_OF_TEXT.replace("\n", "\r\n").encode(),
}


def commands(data: str) -> list[tuple[str, ...]]:
    """All that read a file of rows."""
    return [
        ("profile", "build", data, "-o", "new.json"),
        ("check", "--profile", "profile.json", data),
        ("check", "--profile", "profile.json", data, "--output", "json", "--time", "at"),
        ("backtest", "--profile", "profile.json", data, "--window", "50"),
        ("feedback", data, "--to", "http://127.0.0.1:9"),
        ("report", "--reference", data, "--current", data, "-o", "report.html"),
    ]


@pytest.mark.parametrize("name", BAD_FILES)
def test_no_file_that_can_not_be_used_is_drift(pegel: Commands, name: str) -> None:
    (pegel.folder / name).write_bytes(BAD_FILES[name])
    for arguments in commands(name):
        done = pegel(*arguments)
        assert done.code in {0, 2}, (arguments, done)
        assert "Traceback" not in done.err
        if arguments[0] == "check":
            assert done.code == 2, (arguments, done)
    if (done := pegel("check", "--profile", "profile.json", name)).err.count(": column "):
        assert "'age'" in done.err


@pytest.mark.parametrize("name", FINE_FILES)
def test_the_same_numbers_in_another_type_are_the_same(pegel: Commands, name: str) -> None:
    (pegel.folder / name).write_bytes(FINE_FILES[name])
    done = pegel("check", "--profile", "profile.json", name)
    assert done.code == 0, done


@pytest.mark.parametrize("name", ["folder.csv", "folder.parquet", "pipe.csv", "null.csv", "nowhere.csv", "loop.csv"])
def test_what_is_no_file_is_refused_and_nobody_waits(
    pegel: Commands, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    path = tmp_path_factory.mktemp("odd") / name
    if name.startswith("folder"):
        path.mkdir()
    elif name == "pipe.csv":
        os.mkfifo(path)
    elif name == "null.csv":
        path.symlink_to("/dev/null")
    elif name == "loop.csv":
        path.symlink_to(path)
    for arguments in commands(str(path)):
        done = pegel(*arguments)
        assert (done.code, name in done.err or "evidently" in done.err) == (2, True), (arguments, done)


BAD_PROFILES: Mapping[str, bytes] = {
    "nothing": b"",
    "no object": b"[1]",
    "another version": b'{"format": "pegel-profile/9"}',
    "deep": b'{"a": ' * 20_000,
    "deep in the format": b'{"format": ' + b"[" * 20_000,
    "Latin-1": '{"format": "\xe4"}'.encode("latin-1"),
    "UTF-16": '{"format": "pegel-profile/1"}'.encode("utf-16"),
    "huge numbers": b'{"format": "pegel-profile/1", "rows": ' + b"9" * 5_000 + b"}",
    "cut": b'{"format": "pegel-profile/1", "created": 1, "model_na',
}


@pytest.mark.parametrize("content", BAD_PROFILES.values(), ids=BAD_PROFILES)
def test_a_profile_that_is_none_is_no_drift_either(pegel: Commands, content: bytes) -> None:
    (pegel.folder / "bad.json").write_bytes(content)
    for arguments in (
        ("check", "--profile", "bad.json", "good.csv"),
        ("backtest", "--profile", "bad.json", "good.csv"),
        ("profile", "show", "bad.json"),
        ("what-leaves", "--profile", "bad.json"),
        ("sidecar", "--profile", "bad.json"),
    ):
        done = pegel(*arguments)
        assert (done.code, "bad.json" in done.err) == (2, True), (arguments, done)


@pytest.mark.parametrize(
    "arguments",
    [
        ("check",),
        ("check", "good.csv"),
        ("check", "--profile", "profile.json", "good.csv", "--alpha", "2"),
        ("check", "--profile", "profile.json", "good.csv", "--time", "at"),
        ("check", "--profile", "/", "good.csv"),
        ("check", "--profile", "profile.json", "good.csv", "--config", "/"),
        ("check", "--profile", "profile.json", "good.csv", "--config", "good.csv"),
        ("check", "--profile", "profile.json", "good.csv", "--category-key", "nowhere"),
        ("profile", "build", "good.csv", "-o", "nowhere/p.json"),
        ("profile", "build", "good.csv", "-o", "/proc/p.json"),
        ("profile", "build", "good.csv", "-o", "/"),
        ("profile", "build", "good.csv", "-o", "p.json", "--score", "age", "--score", "city"),
        ("profile", "build", "good.csv", "-o", "p.json", "--time", "age", "--time", "city"),
        ("backtest", "--profile", "profile.json", "good.csv", "--plot", "nowhere/p.png"),
        ("rules", "-o", "/proc/rules"),
        ("dashboards", "-o", "good.csv"),
        ("inject", "-f", "nowhere.yaml"),
        ("inject", "-f", "/"),
        ("inject", "-f", "good.csv", "--memory", "1"),
        ("gpu-exporter", "--simulate", "nowhere"),
        ("gpu-exporter", "--simulate", "v100", "--prices", "good.csv"),
        ("gpu-exporter", "--simulate", "v100", "--prices", "../deep.yaml"),
        ("gpu-exporter", "--simulate", "../deep.yaml"),
        ("gpu-exporter", "--simulate", "v100", "--listen", "nonsense"),
        ("sidecar", "--listen", "nonsense"),
        ("feedback", "good.csv", "--to", "nonsense"),
        ("demo", "--for", "1s"),
        ("nonsense",),
        ("--nonsense",),
    ],
    ids=" ".join,
)
def test_bad_use_is_one_line_and_2(pegel: Commands, arguments: tuple[str, ...]) -> None:
    (pegel.folder.parent / "deep.yaml").write_text("[" * 5_000, encoding="utf-8")
    assert pegel(*arguments).code == 2


def test_truth_values_and_0_and_1_are_the_same_values(pegel: Commands) -> None:
    flags = np.random.default_rng(2).random(ROWS) < 0.3
    kinds: dict[str, list[Any]] = {
        "bool.parquet": flags.tolist(),
        "int.parquet": flags.astype(int).tolist(),
        "float.parquet": flags.astype(float).tolist(),
        "text.csv": [str(flag) for flag in flags],
        "int.csv": flags.astype(int).tolist(),
    }
    for name, values in kinds.items():
        (parquet if name.endswith("parquet") else csv)(pegel.folder / name, {"flag": values, "age": AGES})
    for reference in kinds:
        assert pegel("profile", "build", reference, "-o", "flags.json").code == 0
        for batch in kinds:
            done = pegel.check(batch, "flags.json")
            assert (done.code, done.result["features"]["flag"]["psi"]) == (0, 0), (reference, batch)
            replayed = pegel.backtest(batch, "flags.json")
            assert (replayed.code, replayed.result["alarms"], replayed.err) == (0, [], ""), (reference, batch)


def test_numbers_where_the_profile_has_names_are_another_type_and_no_drift(pegel: Commands) -> None:
    csv(pegel.folder / "data.csv", {"age": AGES, "city": AGES})
    done = pegel.check("data.csv")
    assert done.code == 2
    assert "data.csv: column 'city' has numbers alone, where the profile has text and no number" in done.err


@pytest.mark.integration
def test_a_failure_of_pegel_s_own_is_3_and_a_line_whatever_it_is(tmp_path: Path) -> None:
    csv(tmp_path / "good.csv", {"age": AGES, "city": CITIES})
    reading = (
        ("profile", "build", "good.csv", "-o", "p.json"),
        ("check", "--profile", "p.json", "good.csv"),
        ("backtest", "--profile", "p.json", "good.csv"),
        ("what-leaves", "--profile", "p.json"),
    )
    assert run(*reading[0], folder=tmp_path).code == 0
    for number, failure in enumerate(
        (
            "raise ImportError('libnumpy.so: cannot open shared object file')",
            "raise MemoryError",
            "raise RuntimeError('row 17 says secret')",
            "raise OSError(5, 'Input/output error')",
            "import numpy._no_such_part",
            "def f(): f()\nf()",
            "this is no Python",
        )
    ):
        broken = tmp_path / f"broken{number}" / "numpy"
        broken.mkdir(parents=True)
        (broken / "__init__.py").write_text(failure, encoding="utf-8")
        for arguments in reading:
            done = run(*arguments, folder=tmp_path, PYTHONPATH=str(broken.parent))
            assert (done.code, done.out, done.err.count("\n")) == (3, "", 1), (failure, arguments, done)
            assert "secret" not in done.err
        shown = run(*reading[0], "--debug", folder=tmp_path, PYTHONPATH=str(broken.parent))
        assert (shown.code, "Traceback" in shown.err) == (3, True)


def run(*arguments: str, folder: Path, **environment: str) -> Done:
    done = subprocess.run(
        [PEGEL, *arguments], capture_output=True, text=True, check=False, cwd=folder, timeout=120,
        env=os.environ | environment,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def drifted(pegel: Commands) -> list[str]:
    """The words of a check that finds drift."""
    csv(pegel.folder / "moved.csv", {"age": [age + 10 for age in AGES], "city": CITIES})
    return [str(PEGEL), "check", "--profile", "profile.json", "moved.csv"]


@pytest.mark.integration
def test_output_that_can_not_be_written_is_no_drift(pegel: Commands, drifted: list[str]) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(drifted, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=pegel.folder)
    assert (done.returncode, done.stderr) == (2, "pegel: cannot write the output: No space left on device\n")


@pytest.mark.integration
@pytest.mark.parametrize("words", [["check", "--profile", "profile.json", "moved.csv"], ["--help"], ["check", "-h"]])
def test_a_reader_who_has_gone_ends_a_command_as_it_ends_others(
    pegel: Commands, drifted: list[str], words: list[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([drifted[0], *words], stdout=writer, stderr=subprocess.PIPE, check=False, cwd=pegel.folder)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.integration
def test_a_verdict_needs_no_output(pegel: Commands, drifted: list[str]) -> None:
    closed = subprocess.run(["sh", "-c", '"$@" >&- 2>&-', "sh", *drifted], check=False, cwd=pegel.folder)
    assert closed.returncode == 1
    full = subprocess.run(
        ["sh", "-c", '"$@" 2>/dev/full', "sh", *drifted, "--alpha", "2"], check=False, cwd=pegel.folder
    )
    assert full.returncode == 2


@pytest.mark.integration
def test_ctrl_c_is_130_and_no_traceback(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    command = [PEGEL, "inject", "-f", str(ready)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        writer = os.open(ready, os.O_WRONLY)  # returns once the command reads
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        os.close(writer)
    assert (process.returncode, out, err.strip()) == (130, "", "")


def test_drift_is_1(pegel: Commands, drifted: list[str]) -> None:
    done = pegel(*drifted[1:], "--output", "json")
    assert (done.code, json.loads(done.out)["drift"]) == (1, True)
