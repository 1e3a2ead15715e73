"""`pegel profile` and `pegel check` as a pipeline runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from pegel_agent.cli.main import pegel
from pegel_exporters.errors import UserError

PEGEL = Path(sys.executable).parent / "pegel"


def csv(path: Path, *, rows: int, seed: int, shift: float = 0.0) -> Path:
    rng = np.random.default_rng(seed)
    columns = (rng.normal(40 + 10 * shift, 10, rows), rng.choice(["Ulm", "Köln"], rows), rng.normal(size=rows))
    lines = (f"{age:.3f},{city},{price:.3f}" for age, city, price in zip(*columns, strict=True))
    path.write_text("\n".join(("age,city,price", *lines)) + "\n", encoding="utf-8")
    return path


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(pegel, [str(argument) for argument in arguments])


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PEGEL, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return csv(tmp_path / "train.csv", rows=2_000, seed=1)


@pytest.fixture
def profile(tmp_path: Path, data: Path) -> Path:
    path = tmp_path / "profile.json"
    assert invoke("profile", "build", data, "-o", path, "--label", "price").exit_code == 0
    return path


@pytest.mark.integration
def test_a_pipeline_builds_shows_and_checks(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "profile.json"
    built = run("profile", "build", data, "-o", path, "--label", "price", "--model-name", "houses")
    assert (built.returncode, built.stderr) == (0, "")
    assert "2 features from 2,000 rows; the smallest shift" in built.stdout
    shown = run("profile", "show", path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "of houses" in shown.stdout
    same = run("check", "--profile", path, csv(tmp_path / "same.csv", rows=500, seed=2))
    assert (same.returncode, same.stderr) == (0, "")
    assert same.stdout.endswith("no drift\n")
    moved = run(
        "check", "--profile", path, csv(tmp_path / "moved.csv", rows=500, seed=3, shift=0.6), "--output", "json"
    )
    assert (moved.returncode, moved.stderr) == (1, "")
    verdict = json.loads(moved.stdout)
    assert (verdict["drift"], verdict["score"]) == (True, 0.5)
    assert verdict["features"]["age"]["direction"] == "up"
    assert verdict["features"]["city"]["ks"] is None


@pytest.mark.integration
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("profile", "build", "nowhere.csv", "-o", "out.json"), "nowhere.csv does not exist"),
        (("profile", "build", "train.csv"), "Missing option"),
        (("profile", "build", "train.csv", "-o", "no/out.json"), "there is no folder no"),
        (("profile", "build", "train.csv", "-o", "train.csv"), "train.csv is the data itself"),
        (("profile", "build", "train.csv", "-o", "out.json", "--label", "y"), "has no column 'y'"),
        (("profile", "show", "train.csv"), "train.csv is not a pegel-profile/1 profile"),
        (("check", "--profile", "nowhere.json", "train.csv"), "cannot read the profile nowhere.json"),
        (("check", "--profile", "profile.json", "other.csv"), "other.csv has no column 'age'"),
        (("check", "--profile", "profile.json", "train.csv", "--alpha", "2"), "2.0 is not in the range"),
        (
            ("check", "--profile", "profile.json", "train.csv", "--alpha", "nan"),
            "'--alpha': nan is not a finite number",
        ),
        (("check", "--profile", "profile.json", "train.csv", "--min-psi", "nan"), "'--min-psi': nan is not a finite"),
        (("check", "--profile", "profile.json", "train.csv", "--min-psi", "inf"), "'--min-psi': inf is not a finite"),
        (("check", "--profile", "profile.json", "train.csv", "--alpha", "low"), "'low' is not a number"),
        (("profile", "build", "train.csv", "-o", "."), "'.' is a folder; a file is needed"),
        (("rules", "-o", "train.csv"), "'train.csv' is a file; a folder is needed"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_and_writes_nothing(
    tmp_path: Path, data: Path, profile: Path, arguments: tuple[str, ...], words: str
) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = subprocess.run([PEGEL, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("pegel: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.integration
def test_a_person_at_a_terminal_sees_progress(tmp_path: Path, data: Path) -> None:
    leader, follower = os.openpty()
    done = subprocess.run(
        [PEGEL, "profile", "build", data, "-o", tmp_path / "profile.json"],
        stdout=subprocess.PIPE,
        stderr=follower,
        check=False,
    )
    os.close(follower)
    shown = os.read(leader, 65_536).decode()
    os.close(leader)
    assert done.returncode == 0
    assert "Reading train.csv" in shown
    assert "100%" in shown
    assert b"Reading" not in done.stdout


def test_show_as_json_has_every_bin(profile: Path) -> None:
    shown = json.loads(invoke("profile", "show", profile, "--output", "json").output)
    age, city = shown["features"]
    assert sum(bin_["rows"] for bin_ in age["bins"]) == 2_000
    assert [bin_["bin"] for bin_ in city["bins"]] == ["Köln", "Ulm", "other", "missing"]
    assert len(shown["hash"]) == 8
    assert 0.08 < shown["smallest_shift"] < 0.12


def test_a_column_that_is_left_out_is_pointed_out(tmp_path: Path) -> None:
    data = tmp_path / "ids.csv"
    data.write_text("id,x\n" + "".join(f"u{i},{i % 7}\n" for i in range(100)), encoding="utf-8")
    done = invoke("profile", "build", data, "-o", tmp_path / "profile.json")
    assert (done.exit_code, done.stderr.count("\n")) == (0, 1)
    assert done.stderr.startswith("note: id is left out: ")
    assert "a design effect of 1 is assumed" in done.stdout
    assert "of 1 features" in done.stdout


@pytest.mark.parametrize(
    ("window", "says"),
    [
        ("50", "measured in 40 windows of 50 rows: design effects up to "),
        ("1h", "the rows fill 1 windows of 3600s, which is too few"),
    ],
)
def test_rows_with_times_are_looked_at_in_windows(tmp_path: Path, window: str, says: str) -> None:
    plain = csv(tmp_path / "plain.csv", rows=2_000, seed=1).read_text(encoding="utf-8").splitlines()
    timed = [f"{line},{at}" for at, line in enumerate(plain[1:], start=1_700_000_000)]
    data = tmp_path / "timed.csv"
    data.write_text("\n".join([f"{plain[0]},at", *timed]), encoding="utf-8")
    target = tmp_path / "profile.json"
    done = invoke("profile", "build", data, "-o", target, "--time", "at", "--window", window)
    assert done.exit_code == 0
    assert says in (done.stdout if window == "50" else done.stderr)
    assert says in invoke("profile", "show", target).output
    shown = json.loads(invoke("profile", "show", target, "--output", "json").output)
    assert [feature["name"] for feature in shown["features"]] == ["age", "city", "price"], "the time is no feature"
    assert shown["order"]["state"] == ("measured" if window == "50" else "unknown")
    assert bool(shown["features"][0]["design_effects"]) == (window == "50")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--window", "500"), "--window goes with --time"),
        (("--time", "age", "--window", "soon"), "--window: 'soon' is not a duration"),
        (("--time", "city"), "'city' in row 1 is no time"),
        (("--time", "when"), "has no column 'when'"),
        (("--time", "age", "--prediction", "age"), "can't be left out and be a prediction"),
    ],
)
def test_a_time_order_that_is_none_is_refused(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    data = csv(tmp_path / "data.csv", rows=50, seed=1)
    done = invoke("profile", "build", data, "-o", tmp_path / "profile.json", *options)
    assert isinstance(done.exception, UserError)
    assert words in str(done.exception)
    assert not (tmp_path / "profile.json").exists()


@pytest.mark.parametrize("rows", [1, 2, 20])
def test_a_reference_too_small_to_tell_gets_a_warning(tmp_path: Path, rows: int) -> None:
    data = csv(tmp_path / "few.csv", rows=rows, seed=1)
    done = invoke("profile", "build", data, "-o", tmp_path / "profile.json", "--ignore", "city")
    assert done.exit_code == 0
    assert f"warning: profile.json: with only {rows} row" in done.stderr


@pytest.mark.parametrize(("rows", "few"), [(1, True), (5, True), (100, True), (500, False)])
def test_a_batch_too_small_to_tell_gets_a_warning(tmp_path: Path, profile: Path, rows: int, few: bool) -> None:
    batch = csv(tmp_path / "batch.csv", rows=rows, seed=2)
    done = invoke("check", "--profile", profile, batch, "--output", "json")
    assert done.exit_code == 0
    assert done.stderr.startswith(f"warning: batch.csv: with only {rows} row") == few
    assert json.loads(done.stdout)["rows"] == rows


def test_a_limit_that_the_user_set_is_no_reason_for_a_warning(tmp_path: Path, profile: Path) -> None:
    batch = csv(tmp_path / "batch.csv", rows=500, seed=2)
    assert invoke("check", "--profile", profile, batch, "--min-psi", "1").stderr == ""


@pytest.mark.parametrize("command", [("profile",), ("profile", "build"), ("profile", "show"), ("check",)])
def test_help_has_an_example(command: tuple[str, ...]) -> None:
    assert f"Example:\n    pegel {' '.join(command)} " in invoke(*command, "--help").output
