"""Labels from a file, as the feedback items that a sidecar takes."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
from pegel_exporters.errors import UserError

from pegel_agent.reference import tables
from pegel_agent.reference.times import unix_times
from pegel_agent.sidecar.feedback.items import Item, Rejected, item_of

_FIELDS = tuple(field.name for field in msgspec.structs.fields(Item))
_TIMES = frozenset({"ts", "predicted_ts"})
_LINES = frozenset({".ndjson", ".jsonl"})
_MOST_LINE_BYTES = 64 << 10
_BATCH_ROWS = 65_536


def read_labels(path: Path, *, progress: tables.Progress | None = None) -> Iterator[dict[str, Any]]:
    """The items of a CSV, Parquet or NDJSON file, with the fields of a feedback item that have a value.

    A file's other columns are left out, so they go nowhere. `ts` and `predicted_ts` may be ISO 8601 or Unix seconds.
    Raises UserError for a file that can't be read, and for the first item that no sidecar would take, by its number.
    """
    ending = path.suffix.lower()
    tables.check_regular(path)
    if ending in _LINES:
        found = _from_lines(path, progress)
    elif ending == ".parquet":
        found = _from_parquet(path, progress)
    elif ending == ".csv":
        found = _from_csv(path, progress)
    else:
        raise UserError(f"{path}: expected a file that ends in .csv, .parquet or .ndjson")
    for where, raw in found:
        try:
            item = _checked(raw)
        except Rejected as why:
            raise UserError(f"{path}, {where}: {why}") from None
        yield item


def _checked(raw: object) -> dict[str, Any]:
    """The item's own fields. Raises Rejected."""
    item = item_of(raw)
    if item.id is None and item.prediction is None:
        raise Rejected("neither id nor prediction")
    return {name: value for name in _FIELDS if (value := getattr(item, name)) is not None}


def _from_lines(path: Path, progress: tables.Progress | None) -> Iterator[tuple[str, object]]:
    try:
        size, read = path.stat().st_size, 0
        with path.open("rb") as file:
            number = 0
            while line := file.readline(_MOST_LINE_BYTES):
                number += 1
                read += len(line)
                if len(line) == _MOST_LINE_BYTES:
                    raise UserError(f"{path}, line {number:,}: longer than {_MOST_LINE_BYTES >> 10} KiB")
                if line.strip():
                    try:
                        yield f"line {number:,}", msgspec.json.decode(line)
                    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                        raise UserError(f"{path}, line {number:,}: expected one JSON object a line") from None
                if progress:
                    progress(read / size)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _from_csv(path: Path, progress: tables.Progress | None) -> Iterator[tuple[str, object]]:
    columns = _columns(path)
    row = 0
    for batch in tables.read(path, columns, text=frozenset(columns), progress=progress):
        for values in zip(*(batch[name].tolist() for name in columns), strict=True):
            row += 1
            yield _row(path, row, zip(columns, values, strict=True), _from_text)


def _from_parquet(path: Path, progress: tables.Progress | None) -> Iterator[tuple[str, object]]:
    # Not as `tables` reads them, where whole numbers become float64: an id may have more than 53 bits.
    columns = _columns(path)
    row = 0
    with (
        tables.reading(path),
        pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file,  # or all of it stays in memory
    ):
        for batch in file.iter_batches(_BATCH_ROWS, columns=list(columns)):
            listed = [_listed(path, name, batch.column(name)) for name in columns]
            for values in zip(*listed, strict=True):
                row += 1
                yield _row(path, row, zip(columns, values, strict=True), _from_value)
            if progress:
                progress(row / file.metadata.num_rows)


def _listed(path: Path, name: str, array: Any) -> list[Any]:
    try:
        values: list[Any] = array.to_pylist()
    except (pa.ArrowException, ArithmeticError, ValueError, TypeError) as error:
        raise UserError(f"{path}: column {name!r} holds {array.type} with a value that can't be read") from error
    return values


def _columns(path: Path) -> tuple[str, ...]:
    names = tables.column_names(path)
    for needed in ({"label"}, {"id", "prediction"}):
        if needed.isdisjoint(names):
            raise UserError(f"{path} has no column {' or '.join(sorted(needed))}; it has {', '.join(names)}")
    return tuple(name for name in _FIELDS if name in names)


def _row(path: Path, row: int, values: Any, convert: Callable[[str, Any], Any]) -> tuple[str, dict[str, Any]]:
    where = f"row {row:,}"
    try:
        return where, {name: found for name, value in values if (found := convert(name, value)) is not None}
    except Rejected as why:
        raise UserError(f"{path}, {where}: {why}") from None


def _from_text(name: str, text: str | None) -> object:
    """A CSV file's field: text, but where an item has a number. Raises Rejected."""
    if text is None or not text.strip():
        return None
    try:
        if name == "row":
            return int(text)
        if name == "score":
            return float(text)
        return float(unix_times(np.array([text], dtype=object))[0]) if name in _TIMES else text
    except ValueError:
        raise Rejected(f"{name} must be {'a time' if name in _TIMES else 'a number'}") from None


def _from_value(name: str, value: Any) -> object:
    """A Parquet file's value as JSON would have it: a whole number where a missing neighbour made it a float."""
    if isinstance(value, float):
        if value != value:  # noqa: PLR0124 - NaN, which is how pandas says missing
            return None
        return int(value) if name in {"id", "row"} and value.is_integer() else value
    if name in _TIMES and isinstance(value, str):
        return _from_text(name, value)
    if isinstance(value, datetime):
        return _from_text(name, value.isoformat())
    return value
