"""`pegel backtest` as people and programs run it."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from pegel_agent.cli.main import pegel

PEGEL = Path(sys.executable).parent / "pegel"


def csv(path: Path, *, rows: int, seed: int, drift_from: int | None = None) -> Path:
    rng = np.random.default_rng(seed)
    moved = np.arange(rows) >= (rows if drift_from is None else drift_from)
    columns = (rng.normal(np.where(moved, 46, 40), 10), rng.choice(["Ulm", "Köln"], rows), np.arange(rows) * 36)
    lines = (f"{age:.3f},{city},{1_709_251_200 + at}" for age, city, at in zip(*columns, strict=True))
    path.write_text("\n".join(("age,city,served", *lines)) + "\n", encoding="utf-8")
    return path


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(pegel, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backtest")
    train = csv(folder / "train.csv", rows=10_000, seed=1)
    csv(folder / "traffic.csv", rows=5_000, seed=2, drift_from=3_000)
    built = invoke("profile", "build", train, "-o", folder / "profile.json", "--ignore", "served")
    assert built.exit_code == 0, built
    return folder


@pytest.mark.integration
def test_a_person_reads_a_line_for_each_window_and_where_the_alarm_began(folder: Path) -> None:
    done = subprocess.run(
        [PEGEL, "backtest", "--profile", "profile.json", "traffic.csv", "--time", "served", "--window", "1h"],
        capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    header, *lines = done.stdout.splitlines()
    assert header.startswith("WINDOW  ENDED (UTC)")
    assert [line.split()[0] for line in lines[:50]] == [str(number) for number in range(1, 51)]
    alarms = [line for line in lines if "ALARM" in line]
    assert len(alarms) == 1
    assert alarms[0].endswith("age up")
    assert "1 alarm, in window 3" in lines[-1]


def test_a_program_reads_windows_alarms_and_features(folder: Path) -> None:
    done = invoke("backtest", "--profile", folder / "profile.json", folder / "traffic.csv", "--output", "json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["windows"], list(found["features"])) == (0, 10, ["age", "city"])
    (alarm,) = found["alarms"]
    assert (alarm["window"] in (7, 8), alarm["time"], alarm["features"]) == (True, None, ["age"])
    assert found["budget_windows"] == 8_640
    timed = invoke(
        "backtest", "--profile", folder / "profile.json", folder / "traffic.csv", "--output", "json",
        "--time", "served", "--window", "6h", "--false-alarms", "1/30d",
    )  # fmt: skip
    found = json.loads(timed.stdout)
    assert (found["windows"], found["budget_windows"]) == (9, 120)
    assert [(alarm["window"], alarm["time"]) for alarm in found["alarms"]] == [(6, "2024-03-02T12:00:00Z")]


@pytest.mark.parametrize(("name", "begins"), [("out.png", b"\x89PNG\r\n"), ("out.svg", b"<?xml")])
def test_the_picture_is_drawn(folder: Path, name: str, begins: bytes) -> None:
    plot = folder / name
    done = invoke("backtest", "--profile", folder / "profile.json", folder / "traffic.csv", "--plot", plot)
    assert done.exit_code == 0, done
    picture = plot.read_bytes()
    assert picture.startswith(begins)
    assert name.endswith("svg") or struct.unpack(">II", picture[16:24]) == (1_600, 1_120)


@pytest.mark.parametrize("rows", [500, 20_000])
def test_a_picture_without_an_alarm_or_with_one_window_is_drawn_too(folder: Path, tmp_path: Path, rows: int) -> None:
    calm = csv(tmp_path / "$calm$.csv", rows=rows, seed=5)
    done = invoke("backtest", "--profile", folder / "profile.json", calm, "--plot", tmp_path / "out.png")
    assert done.exit_code == 0, done
    assert (tmp_path / "out.png").stat().st_size > 10_000


@pytest.mark.integration
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("traffic.csv", "--window", "5m"), "--window 5m: a window of time needs --time COLUMN"),
        (("traffic.csv", "--window", "often"), "--window: 'often' is not a duration"),
        (("traffic.csv", "--window", "0"), "--window: a window needs at least one row"),
        (("traffic.csv", "--false-alarms", "1/30d"), "--false-alarms: a window of 500 rows has no clock"),
        (("traffic.csv", "--false-alarms", "1/1w"), "--false-alarms: the budget 1/1w allows an alarm in nearly"),
        (("traffic.csv", "--time", "when"), "traffic.csv has no column 'when'; it has age, city, served"),
        (("traffic.csv", "--time", "city"), "traffic.csv: 'city' in row 1 is no time"),
        (("traffic.csv", "--window", "9999"), "traffic.csv has 5,000 rows, and a window takes 9,999"),
        (("traffic.csv", "--plot", "out.gif"), "--plot out.gif: expected a file that ends in .png or .svg"),
        (("traffic.csv", "--plot", "no/out.png"), "cannot write no/out.png: there is no folder no"),
        (("traffic.csv", "--harmless-drift", "nan"), "nan is not a finite number"),
        (("nowhere.csv",), "nowhere.csv does not exist"),
        (("profile.json",), "expected a file that ends in .csv or .parquet"),
    ],
)
def test_what_can_not_work_is_one_line_and_exit_code_2(folder: Path, arguments: tuple[str, ...], words: str) -> None:
    before = sorted(folder.iterdir())
    done = subprocess.run(
        [PEGEL, "backtest", "--profile", "profile.json", *arguments],
        capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert words in done.stderr
    assert sorted(folder.iterdir()) == before


@pytest.mark.integration
def test_without_matplotlib_one_line_says_how_to_install_it(folder: Path) -> None:
    program = "import sys; sys.modules['matplotlib'] = None; from pegel_agent.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "backtest", "--profile", "profile.json", "traffic.csv", "--plot", "new.png"],
        capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "pegel: --plot needs matplotlib: pip install 'pegel[plot]'\n"


@pytest.mark.integration
def test_a_person_at_a_terminal_sees_progress(folder: Path) -> None:
    leader, follower = os.openpty()
    subprocess.run(
        [PEGEL, "backtest", "--profile", "profile.json", "traffic.csv"],
        stdout=subprocess.DEVNULL, stderr=follower, check=True, cwd=folder,
    )  # fmt: skip
    os.close(follower)
    shown = os.read(leader, 65_536).decode()
    os.close(leader)
    assert "Reading traffic.csv" in shown
    assert "100%" in shown
