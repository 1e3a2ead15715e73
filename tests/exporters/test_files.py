"""What is written is whole, and only a file is ever put in a file's place."""

import os
import stat
import threading
from pathlib import Path

import pytest
from pegel_exporters.errors import UserError
from pegel_exporters.files import write_whole


def test_a_file_is_new_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    write_whole(path, b"first")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"first", 0o644)
    with pytest.raises(TypeError):
        write_whole(path, "no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"first"
    assert [file.name for file in tmp_path.iterdir()] == ["profile.json"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "profile.json"
    link.symlink_to("there/profile.json")
    for content in (b"first", b"second"):
        write_whole(link, content)
        assert link.is_symlink()
        assert (tmp_path / "there" / "profile.json").read_bytes() == content


def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    heard: list[bytes] = []
    reader = threading.Thread(target=lambda: heard.append(pipe.read_bytes()))
    reader.start()
    write_whole(pipe, b"whole")
    reader.join(10)
    assert (heard, pipe.is_fifo()) == ([b"whole"], True)


def test_a_device_stays_a_device_and_says_that_it_is_full(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    with pytest.raises(UserError, match=f"cannot write {full}: No space left on device"):
        write_whole(full, b"much")
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize("name", ["nowhere/profile.json", "folder", "x" * 300])
def test_a_place_where_no_file_can_be_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        write_whole(tmp_path / name, b"much")
