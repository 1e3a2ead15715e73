"""`pegel rules` as a user runs it."""

import subprocess
import sys
from pathlib import Path

import pytest
from pegel_rules import Settings, files, groups
from promtool import promtools, run

pytestmark = pytest.mark.integration


def pegel(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from pegel_agent.cli.main import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def refused(answer: subprocess.CompletedProcess[str]) -> str:
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr.count("\n") == 1
    return answer.stderr


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_the_files_are_written_into_a_new_folder_and_promtool_finds_nothing_wrong(tmp_path):
    folder = tmp_path / "new" / "rules"
    answer = pegel("rules", "-o", folder)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert contents(folder) == files(groups(Settings()))
    assert answer.stdout.splitlines() == [str(folder / name) for name in files(groups(Settings()))]
    checked = run("check", "rules", *folder.iterdir())
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count("SUCCESS") == len(files(groups(Settings()))) * len(promtools())


def test_a_second_run_writes_the_same_files_again(tmp_path):
    pegel("rules", "-o", tmp_path, "--format", "crd")
    first = contents(tmp_path)
    assert pegel("rules", "-o", tmp_path, "--format", "crd").returncode == 0
    assert contents(tmp_path) == first == files(groups(Settings()), form="crd")


def test_the_options_reach_the_rules(tmp_path):
    pegel("rules", "-o", tmp_path, "--accuracy-threshold", "0.9", "--time-scale", "0.1")
    assert contents(tmp_path) == files(groups(Settings(accuracy_threshold=0.9, time_scale=0.1)))


def test_a_file_where_the_folder_should_be_is_refused_in_one_line(tmp_path):
    place = tmp_path / "rules"
    place.write_text("mine")
    assert str(place) in refused(pegel("rules", "-o", place))
    assert place.read_text() == "mine"


def test_a_file_above_the_folder_is_refused_in_one_line(tmp_path):
    place = tmp_path / "rules"
    place.write_text("mine")
    assert str(place / "deep") in refused(pegel("rules", "-o", place / "deep"))


def test_a_folder_that_cannot_be_written_is_refused_in_one_line():
    # Not even root can make a folder here.
    assert "/proc/self/rules" in refused(pegel("rules", "-o", "/proc/self/rules"))


def test_a_folder_where_a_file_should_be_leaves_all_files_as_they_were(tmp_path):
    (tmp_path / "pegel-drift.yaml").mkdir()
    assert "pegel-drift.yaml: it is a folder" in refused(pegel("rules", "-o", tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["pegel-drift.yaml"]


def test_a_threshold_that_is_no_share_writes_nothing(tmp_path):
    assert "not 85" in refused(pegel("rules", "-o", tmp_path / "rules", "--accuracy-threshold", "85"))
    assert not (tmp_path / "rules").exists()


def test_the_help_ends_with_an_example():
    assert pegel("rules", "--help").stdout.rstrip().splitlines()[-1].strip()
    assert "Example:\n    pegel rules -o" in pegel("rules", "--help").stdout
