"""Columns from CSV and Parquet files, a batch at a time, so that a file may be larger than memory."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from pegel_exporters.errors import UserError

from pegel_agent.reference.columns import Column, as_texts

Progress = Callable[[float], None]
"""Told the share of the file that has been read, 0 to 1."""

_BATCH_ROWS = 65_536
_BLOCK_BYTES = 4 << 20
_MISSING = pa.array(["", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "-nan", "None", "NULL", "Null", "null"])
"""How files spell a missing number. In a column of text only the empty field is missing: NA is also Namibia."""


def column_names(path: Path) -> tuple[str, ...]:
    """The columns of a file in their order, without those that have no name (as the index that pandas writes).

    Raises UserError for a file that can't be read, has another ending than .csv or .parquet, or a name twice.
    """
    with _errors(path):
        names = _open_csv(path).schema.names if _is_csv(path) else pyarrow.parquet.read_schema(path).names
    for name in names:
        if name and names.count(name) > 1:
            raise UserError(f"{path}: two columns are named {name!r}")
    return tuple(name for name in names if name)


def read(
    path: Path,
    columns: Sequence[str],
    *,
    text: AbstractSet[str] = frozenset(),
    progress: Progress | None = None,
) -> Iterator[Mapping[str, Column]]:
    """Batches of the columns, by name; those in `text` are read as text whatever they look like.

    Numbers become float64 with NaN for missing; text, truth values and dates become str with None for missing. A CSV
    column has numbers in a batch if all of its fields do, so a column may change from one batch to the next. Raises
    UserError for a file that can't be read or a nested column.
    """
    with _errors(path):
        for batch, share in (_csv_batches if _is_csv(path) else _parquet_batches)(path, columns):
            yield {name: _column(path, name, batch.column(name), name in text) for name in columns}
            if progress:
                progress(share)


def _is_csv(path: Path) -> bool:
    ending = path.suffix.lower()
    if ending not in {".csv", ".parquet"}:
        raise UserError(f"{path}: expected a file that ends in .csv or .parquet")
    return ending == ".csv"


def _open_csv(source: Any, columns: Sequence[str] | None = None) -> Any:
    convert = pyarrow.csv.ConvertOptions(
        # A type guessed from the first block would fail where a later block has a point or a letter.
        column_types=dict.fromkeys(columns or (), pa.string()),
        include_columns=columns,
        null_values=[""],
        strings_can_be_null=True,
    )
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    # Only a single thread counts the rows that an error names.
    return pyarrow.csv.open_csv(
        source,
        pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
        parse_options=parse,
        convert_options=convert,
    )


def _csv_batches(path: Path, columns: Sequence[str]) -> Iterator[tuple[Any, float]]:
    size = path.stat().st_size
    with path.open("rb") as file:
        for batch in _open_csv(file, columns):
            yield batch, file.tell() / size


def _parquet_batches(path: Path, columns: Sequence[str]) -> Iterator[tuple[Any, float]]:
    with pyarrow.parquet.ParquetFile(path) as file:
        seen = 0
        for batch in file.iter_batches(_BATCH_ROWS, columns=list(columns)):
            seen += batch.num_rows
            yield batch, seen / file.metadata.num_rows


def _column(path: Path, name: str, array: Any, as_text: bool) -> Column:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind):
        raise UserError(f"{path}: column {name!r} holds {kind}; make it numbers or text, or leave it out")
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        numbers = _numbers(array)
        return as_texts(numbers) if as_text else numbers
    if not _is_csv(path):
        texts: Column = array.cast(pa.string()).to_numpy(zero_copy_only=False)
        return texts
    return _texts(array) if as_text else _numbers_or_texts(array)


def _numbers(array: Any) -> Column:
    values: Column = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values


def _numbers_or_texts(array: Any) -> Column:
    trimmed = pc.utf8_trim_whitespace(array)
    try:
        return _numbers(pc.if_else(pc.is_in(trimmed, _MISSING), pa.scalar(None, pa.string()), trimmed))
    except pa.ArrowInvalid:
        return _texts(array)


def _texts(array: Any) -> Column:
    """A CSV file's texts as clients send what they stand for: `true` for True, `12` for pandas' 12.0."""
    array = pc.replace_substring_regex(array, r"^(-?(?:0|[1-9]\d*))\.0+$", r"\1")
    array = pc.replace_substring_regex(array, "^(?:True|TRUE)$", "true")
    array = pc.replace_substring_regex(array, "^(?:False|FALSE)$", "false")
    values: Column = array.to_numpy(zero_copy_only=False)
    return values


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Whatever is wrong with a file becomes one line."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except pa.ArrowException as error:
        # The parser quotes the row; a log is no place for what a row says.
        reason = re.sub(r"(Expected \d+ columns, got \d+).*", r"\1 fields", str(error), flags=re.DOTALL)
        raise UserError(f"cannot read {path}: {reason}") from error
