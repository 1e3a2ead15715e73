"""Columns from CSV and Parquet files, a batch at a time, so that a file may be larger than memory."""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from pegel_exporters.errors import UserError

from pegel_agent.reference.columns import Column, as_texts

Progress = Callable[[float], None]
"""Told the share of the file that has been read, 0 to 1."""

_BATCH_ROWS = 65_536
_BATCH_VALUES = 1 << 20
"""Of lists, so that a batch of long ones is no larger than others."""
_BLOCK_BYTES = 4 << 20
_MISSING_WORDS = ("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "-nan", "None", "NULL", "Null", "null")
"""How files spell a missing number. In a column of text only the empty field is missing: NA is also Namibia."""
_MISSING = pa.array(_MISSING_WORDS)
_DELIMITERS = ",;\t"
_HEADER_BYTES = 1 << 20


def column_names(path: Path) -> tuple[str, ...]:
    """The columns of a file in their order, without those that have no name (as the index that pandas writes).

    Raises UserError for a file that can't be read, has another ending than .csv or .parquet, or a name twice.
    """
    with reading(path):
        if _is_csv(path):
            names = _open_csv(path, delimiter=_delimiter(path)).schema.names
        else:
            names = pyarrow.parquet.read_schema(path).names
    for name in names:
        if name and names.count(name) > 1:
            raise UserError(f"{path}: two columns are named {name!r}")
    return tuple(name for name in names if name)


def read(
    path: Path,
    columns: Sequence[str],
    *,
    text: AbstractSet[str] = frozenset(),
    tokens: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> Iterator[Mapping[str, Column]]:
    """Batches of the columns, by name; those in `text` are read as text whatever they look like, and of those in
    `tokens`, whose rows are lists, how many are not its padding.

    Numbers become float64 with NaN for missing; text, truth values and dates become str with None for missing. A CSV
    column has numbers in a batch if all of its fields do, so a column may change from one batch to the next. The
    header tells what separates a CSV file's fields: commas, semicolons or tabs; with semicolons, numbers may have a
    decimal comma. Raises UserError for a file that can't be read or a nested column.
    """
    with reading(path):
        delimiter = _delimiter(path) if _is_csv(path) else ""
        batches = _csv_batches(path, columns, delimiter) if delimiter else _parquet_batches(path, columns, tokens or {})
        for batch, share in batches:
            yield {
                name: _token_counts(path, name, batch.column(name), tokens[name])
                if tokens and name in tokens
                else _column(path, name, batch.column(name), as_text=name in text, delimiter=delimiter)
                for name in columns
            }
            if progress:
                progress(share)


def first_text(values: Column) -> int:
    """The position of the first value (rows,) that is neither a number nor missing; 0 where there is none."""
    texts = ["" if value is None else str(value).strip() for value in values.tolist()]
    no_numbers = [at for at, text in enumerate(texts) if text not in _MISSING_WORDS and not is_number(text)]
    # Where decimal commas are numbers they don't stand out; where they aren't, they are found if nothing else is.
    without_commas = (at for at in no_numbers if not is_number(texts[at].replace(",", ".", 1)))
    return next(without_commas, no_numbers[0] if no_numbers else 0)


def is_number(text: str) -> bool:
    """Whether a text says a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def check_regular(path: Path) -> None:
    """Raises UserError for what can be opened and is no file that can be read more than once."""
    if path.is_dir():
        raise UserError(f"cannot read {path}: it is a folder")
    if path.exists() and not path.is_file():
        raise UserError(f"cannot read {path}: it is a pipe or a device, and it would be read more than once")


def _is_csv(path: Path) -> bool:
    ending = path.suffix.lower()
    if ending not in {".csv", ".parquet"}:
        raise UserError(f"{path}: expected a file that ends in .csv or .parquet")
    check_regular(path)
    return ending == ".csv"


def _delimiter(path: Path) -> str:
    """What separates a CSV file's fields: of comma, semicolon and tab the most frequent in its first line."""
    with path.open("rb") as file:
        header = file.readline(_HEADER_BYTES)
    if header.startswith(b"PAR1"):
        raise UserError(f"{path} is a Parquet file; give it a name that ends in .parquet")
    if header.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in header:
        raise UserError(f"{path} is not UTF-8; if it is UTF-16: iconv -f utf-16 -t utf-8 {_quoted(path)} > utf-8.csv")
    unquoted = re.sub(r'"[^"]*("|$)', "", header.decode("utf-8", "replace"))
    return max(_DELIMITERS, key=unquoted.count)


def _open_csv(source: Any, columns: Sequence[str] | None = None, *, delimiter: str) -> Any:
    convert = pyarrow.csv.ConvertOptions(
        # A type guessed from the first block would fail where a later block has a point or a letter.
        column_types=dict.fromkeys(columns or (), pa.string()),
        include_columns=columns,
        null_values=[""],
        strings_can_be_null=True,
    )
    parse = pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    # Only a single thread counts the rows that an error names.
    return pyarrow.csv.open_csv(
        source,
        pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
        parse_options=parse,
        convert_options=convert,
    )


def _csv_batches(path: Path, columns: Sequence[str], delimiter: str) -> Iterator[tuple[Any, float]]:
    size = path.stat().st_size
    with path.open("rb") as file:
        for batch in _open_csv(file, columns, delimiter=delimiter):
            yield batch, file.tell() / size


def _parquet_batches(path: Path, columns: Sequence[str], lists: Iterable[str]) -> Iterator[tuple[Any, float]]:
    with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
        seen = 0
        rows = max(1, min(_BATCH_ROWS, _BATCH_VALUES // _longest_mean(file, frozenset(lists))))
        for batch in file.iter_batches(rows, columns=list(columns)):
            seen += batch.num_rows
            yield batch, seen / file.metadata.num_rows


def _longest_mean(file: Any, lists: AbstractSet[str]) -> int:
    """How many values the lists of a column have on average, of the column and the row group with most; at least 1."""
    longest = 1
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        for column in (group.column(place) for place in range(group.num_columns)):
            if column.path_in_schema.split(".")[0] in lists and group.num_rows:
                longest = max(longest, column.num_values // group.num_rows)
    return longest


def _column(path: Path, name: str, array: Any, *, as_text: bool, delimiter: str) -> Column:
    """One column of a batch; `delimiter` is a CSV file's, empty for Parquet."""
    try:
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if not _unreadable(array.type):
            return _values(array, as_text=as_text, delimiter=delimiter)
    except (pa.ArrowException, ArithmeticError, ValueError, TypeError) as error:
        raise UserError(
            f"{path}: column {name!r} holds {array.type} with a value that can't be read; make it numbers or text, or"
            f" leave it out ({_ignore(name)})"
        ) from error
    option = shlex.quote(f"{name}=0" if "=" in name else name)
    tokens = f", build the profile with --tokens {option} to count it" if _holds_tokens(array.type) else ""
    raise UserError(
        f"{path}: column {name!r} holds {array.type}; make it numbers or text{tokens}, or leave it out"
        f" ({_ignore(name)})"
    )


def _ignore(name: str) -> str:
    return f"pegel profile build --ignore {shlex.quote(name)}"


def _unreadable(kind: Any) -> bool:
    """Whether a type is neither numbers nor text, nor dates and times, which have a text."""
    return bool(
        pa.types.is_nested(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_interval(kind)
        or isinstance(kind, pa.BaseExtensionType)
    )


def _values(array: Any, *, as_text: bool, delimiter: str) -> Column:
    kind = array.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        numbers = _numbers(array)
        return as_texts(numbers) if as_text else numbers
    if not delimiter:
        texts: Column = array.cast(pa.string()).to_numpy(zero_copy_only=False)
        return texts
    return _texts(array) if as_text else _numbers_or_texts(array, decimal_comma=delimiter == ";")


def _token_counts(path: Path, name: str, array: Any, padding: int) -> Column:
    """How many of each row's list are not the padding, NaN where there is no list."""
    if pa.types.is_null(array.type):
        return np.full(len(array), np.nan)
    if not _holds_tokens(array.type):
        raise UserError(f"{path}: column {name!r} holds {array.type}; tokens are counted in lists of whole numbers")
    values = array.flatten()
    values = values.cast(pa.uint8()) if pa.types.is_boolean(values.type) else values
    try:
        counted = pc.fill_null(pc.not_equal(values, pa.scalar(padding, values.type)), False)
    except (pa.ArrowInvalid, OverflowError):  # no value of this type is the padding
        counted = pc.is_valid(values)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths)
    so_far = np.concatenate([[0], np.cumsum(counted.to_numpy(zero_copy_only=False))])
    found: Column = (so_far[ends] - so_far[ends - lengths]).astype(np.float64)
    found[array.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return found


def _holds_tokens(kind: Any) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return False
    inner = kind.value_type
    return bool(pa.types.is_integer(inner) or pa.types.is_boolean(inner) or pa.types.is_null(inner))


def _numbers(array: Any) -> Column:
    values: Column = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values


def _numbers_or_texts(array: Any, *, decimal_comma: bool) -> Column:
    trimmed = pc.utf8_trim_whitespace(array)
    present = pc.if_else(pc.is_in(trimmed, _MISSING), pa.scalar(None, pa.string()), trimmed)
    if decimal_comma:
        present = pc.replace_substring(present, ",", ".", max_replacements=1)
    try:
        return _numbers(present)
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
def reading(path: Path) -> Iterator[None]:
    """Whatever is wrong with a file becomes a UserError of one line."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        if path.suffix.lower() == ".csv" and (isinstance(error, UnicodeDecodeError) or "invalid UTF8" in str(error)):
            raise UserError(
                f"{path} is not UTF-8; if it is Latin-1: iconv -f latin1 -t utf-8 {_quoted(path)} > utf-8.csv"
            ) from error
        if isinstance(error, UnicodeDecodeError):
            raise UserError(f"cannot read {path}: the names of its columns are not UTF-8") from error
        # The parser quotes the row; a log is no place for what a row says.
        reason = re.sub(r"(Expected \d+ columns, got \d+).*", r"\1 fields", str(error), flags=re.DOTALL)
        raise UserError(f"cannot read {path}: {reason}") from error


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
