"""`pegel dashboards` as a user runs it."""

import subprocess
import sys
from pathlib import Path

import pytest
from pegel_dashboards import files

pytestmark = pytest.mark.integration


def pegel(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from pegel_agent.cli.main import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("form", ["json", "configmap"])
def test_the_files_are_the_same_in_every_process(tmp_path, form):
    for folder in (tmp_path / "one", tmp_path / "two"):
        answer = pegel("dashboards", "-o", folder, "--format", form)
        assert (answer.returncode, answer.stderr) == (0, "")
        assert {path.name: path.read_text() for path in folder.iterdir()} == files(form=form)


def test_a_file_where_the_folder_should_be_is_refused_in_one_line(tmp_path):
    place = tmp_path / "dashboards"
    place.write_text("mine")
    answer = pegel("dashboards", "-o", place)
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)
    assert str(place) in answer.stderr
    assert place.read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_refused_in_one_line():
    # Not even root can make a folder here.
    answer = pegel("dashboards", "-o", "/proc/self/dashboards")
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)
    assert "/proc/self/dashboards" in answer.stderr


def test_an_unknown_format_is_refused_in_one_line(tmp_path):
    answer = pegel("dashboards", "-o", tmp_path, "--format", "v2")
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)
    assert list(tmp_path.iterdir()) == []
