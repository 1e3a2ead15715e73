"""Files become columns of numbers and text, and a file that can't is refused in one line."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from pegel_agent.reference import tables
from pegel_exporters.errors import UserError


def written(folder: Path, content: str | bytes, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def whole(path: Path, text: frozenset[str] = frozenset()) -> dict[str, list[object]]:
    names = tables.column_names(path)
    batches = list(tables.read(path, names, text=text))
    return {name: [value for batch in batches for value in batch[name].tolist()] for name in names}


def test_a_csv_has_numbers_text_and_what_is_missing(tmp_path: Path) -> None:
    path = written(tmp_path, '\ufeffa,b\n1,"x, y\nz"\n2.5,\n 1e3 ,NA\nNaN,"q"\n')
    found = whole(path)
    assert found["a"] == pytest.approx([1, 2.5, 1000, np.nan], nan_ok=True)
    assert found["b"] == ["x, y\nz", None, "NA", "q"]


def test_a_column_that_is_named_as_text_stays_text(tmp_path: Path) -> None:
    path = written(tmp_path, "a\n01\n12.0\n-3.00\n1.50\n\nTrue\nFALSE\n")
    assert whole(path, frozenset("a"))["a"] == ["01", "12", "-3", "1.50", "true", "false"]


def test_a_column_may_begin_with_whole_numbers_and_go_on_with_fractions(tmp_path: Path) -> None:
    rows = ["1"] * 3_000_000 + ["1.5"]
    path = written(tmp_path, "a\n" + "\n".join(rows))
    assert whole(path)["a"][-2:] == [1.0, 1.5]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_header_tells_what_separates_the_fields(tmp_path: Path, delimiter: str) -> None:
    path = written(
        tmp_path,
        '\ufeff"a;b,c; d,\te";x;y\nUlm;1.5;2\n'.replace(";x;y", f"{delimiter}x{delimiter}y").replace(
            "Ulm;1.5;2", delimiter.join(("Ulm", "1.5", "2"))
        ),
    )
    assert whole(path) == {"a;b,c; d,\te": ["Ulm"], "x": [1.5], "y": [2.0]}


def test_a_decimal_comma_is_one_where_semicolons_separate(tmp_path: Path) -> None:
    path = written(tmp_path, 'price;size;tags;grouped;mixed\n1,5;2.5;a,b;1.234,5;"-,5e1"\n;3;c;2;NA\n')
    found = whole(path)
    assert found["price"] == pytest.approx([1.5, np.nan], nan_ok=True)
    assert found["size"] == [2.5, 3.0]
    assert found["tags"] == ["a,b", "c"]
    assert found["grouped"] == ["1.234,5", "2"]
    assert found["mixed"] == pytest.approx([-5.0, np.nan], nan_ok=True)


def test_a_decimal_comma_is_text_where_commas_separate(tmp_path: Path) -> None:
    assert whole(written(tmp_path, 'a,b\n"1,5",2\n'))["a"] == ["1,5"]


@pytest.mark.parametrize(
    ("values", "position"),
    [(["1", "NA", None, "old"], 3), (["1,5", "old"], 1), (["1", "1,5", " 2 "], 1), (["1", None], 0)],
)
def test_the_first_text_among_numbers_is_found(values: list[str | None], position: int) -> None:
    assert tables.first_text(np.array(values, dtype=object)) == position


def test_a_column_without_a_name_is_left_out(tmp_path: Path) -> None:
    assert tables.column_names(written(tmp_path, ",a\n0,1\n")) == ("a",)


def test_only_the_columns_asked_for_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, "a,b\n1,2\n")
    assert [dict(batch) for batch in tables.read(path, ("b",))] == [{"b": np.array([2.0])}]


def test_progress_ends_at_the_whole_file(tmp_path: Path) -> None:
    shares: list[float] = []
    list(tables.read(written(tmp_path, "a\n" + "1\n" * 5_000_000), ("a",), progress=shares.append))
    assert shares == sorted(shares)
    assert len(shares) > 1
    assert shares[-1] == 1


def test_parquet_has_the_same_columns(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    table = pa.table(
        {
            "i": pa.array([1, None, 3]),
            "f": pa.array([0.5, float("nan"), 2.0], pa.float32()),
            "s": pa.array(["1", None, "True"]),
            "d": pa.array(["x", "y", "x"]).dictionary_encode(),
            "b": pa.array([True, False, None]),
            "n": pa.nulls(3),
            "t": pa.array([0, 1, None], pa.date32()),
        }
    )
    pyarrow.parquet.write_table(table, path)
    found = whole(path, frozenset("i"))
    assert found["i"] == ["1", None, "3"]
    assert found["f"] == pytest.approx([0.5, np.nan, 2.0], nan_ok=True)
    assert found["s"] == ["1", None, "True"]
    assert found["d"] == ["x", "y", "x"]
    assert found["b"] == ["true", "false", None]
    assert np.isnan(np.array(found["n"])).all()
    assert found["t"] == ["1970-01-01", "1970-01-02", None]


def test_a_nested_column_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pyarrow.parquet.write_table(pa.table({"embedding": [[1.0, 2.0]]}), path)
    with pytest.raises(UserError, match="'embedding' holds list"):
        whole(path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("data.csv", "", "Empty CSV"),
        ("data.csv", "a,b\n1,secret\n2,secret,3\n", "Row #3: Expected 2 columns, got 3 fields"),
        ("data.csv", b"a\n\xff\xfe\n", "is not UTF-8; if it is Latin-1: iconv"),
        ("data.csv", b"PAR1\x15\x04\x15", "is a Parquet file"),
        ("data.csv", "a;b\n1;secret\n2;secret;3\n", "Row #3: Expected 2 columns, got 3 fields"),
        ("data.csv", "a,a\n1,2\n", "two columns are named 'a'"),
        ("data.txt", "a\n1\n", "ends in .csv or .parquet"),
        ("data.parquet", "a\n1\n", "cannot read"),
    ],
)
def test_a_file_that_is_no_table_is_refused_in_one_line(
    tmp_path: Path, name: str, content: str | bytes, words: str
) -> None:
    path = written(tmp_path, content, name)
    with pytest.raises(UserError, match=words) as caught:
        whole(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere.csv", "nowhere.parquet"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=rf"{name} does not exist"):
        whole(tmp_path / name)
