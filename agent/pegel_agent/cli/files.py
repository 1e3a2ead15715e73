"""Generated files: all of them in their folder, or none."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import click
from pegel_exporters.errors import UserError


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write texts by file name into a folder, made where missing: all of them or none. Prints their paths.

    Raises UserError when the folder can't be made or written, or a folder is where a file should be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder / name for name in files):
            if path.is_dir():
                raise UserError(f"cannot write {path}: it is a folder")
        with tempfile.TemporaryDirectory(dir=folder, prefix=".pegel-") as drafts:
            for name, text in files.items():
                Path(drafts, name).write_text(text, encoding="utf-8")
            for name in files:
                Path(drafts, name).replace(folder / name)
                click.echo(folder / name)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from error
