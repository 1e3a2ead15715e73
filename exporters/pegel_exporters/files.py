"""A file is written whole or not at all."""

import os
import tempfile
from pathlib import Path

from pegel_exporters.errors import UserError


def write_whole(path: str | Path, content: bytes) -> None:
    """Write a file whole, or leave what was there as it was; a link stays a link.

    What is no file, as a pipe or /dev/stdout, stays what it is and is written to. Raises UserError when that fails.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
        else:
            _replace(Path(os.path.realpath(path)), content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def _replace(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:200]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
