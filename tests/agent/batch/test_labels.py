"""Labels from files, whatever wrote them; what is no label is named by its number."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from pegel_agent.batch.labels import read_labels
from pegel_exporters.errors import UserError


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_csv_file_s_ids_and_labels_stay_text_and_its_numbers_are_numbers(tmp_path: Path) -> None:
    path = write(
        tmp_path, "labels.csv",
        "customer,id,row,label,score,ts\nAnna,007,,1,0.5,2024-03-01T00:00:00Z\nBen,order-8,2,True,,1709251200\n",
    )  # fmt: skip
    assert list(read_labels(path)) == [
        {"id": "007", "row": 0, "label": "1", "score": 0.5, "ts": 1_709_251_200.0},
        {"id": "order-8", "row": 2, "label": "true", "ts": 1_709_251_200.0},
    ]


def test_a_parquet_file_s_values_keep_their_types_and_all_their_digits(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "id": pa.array([2**62 + 1, 5, None]),
        "label": pa.array([1, 0, 1]),
        "prediction": pa.array([None, 0.25, float("nan")]),
        "row": pa.array([1.0, None, 0.0]),
        "ts": pa.array([datetime(2024, 3, 1), None, None], pa.timestamp("us")),
        "customer": pa.array(["Anna", "Ben", "Cem"]),
    }
    path = tmp_path / "labels.parquet"
    pyarrow.parquet.write_table(pa.table(columns).slice(0, 2), path)
    at = datetime(2024, 3, 1, tzinfo=UTC).timestamp()
    assert list(read_labels(path)) == [
        {"id": 2**62 + 1, "row": 1, "label": 1, "ts": at},
        {"id": 5, "row": 0, "label": 0, "prediction": 0.25},
    ]
    pyarrow.parquet.write_table(pa.table(columns), path)
    with pytest.raises(UserError, match=r"labels\.parquet, row 3: neither id nor prediction"):
        list(read_labels(path))


@pytest.mark.parametrize("name", ["labels.ndjson", "labels.jsonl"])
def test_lines_of_json_may_have_more_fields_which_go_nowhere(tmp_path: Path, name: str) -> None:
    path = write(
        tmp_path, name, '{"id": "a", "label": "cat", "customer": {"name": "Anna"}}\n\n{"prediction":1,"label":0}\n'
    )
    assert list(read_labels(path)) == [{"id": "a", "row": 0, "label": "cat"}, {"row": 0, "label": 0, "prediction": 1}]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("labels.ndjson", '{"id": 1, "label": 1}\n{"id": 2}\n', "labels.ndjson, line 2: no label"),
        ("labels.ndjson", '{"id": 1, "label": 1}\n\n[3]\n', "labels.ndjson, line 3: not a JSON object"),
        ("labels.ndjson", '{"id": 1, "label": 1\n', "labels.ndjson, line 1: expected one JSON object a line"),
        ("labels.ndjson", '{"label": 1}\n', "labels.ndjson, line 1: neither id nor prediction"),
        ("labels.ndjson", '{"id": 1, "label": {}}\n', "labels.ndjson, line 1: label must be a text of up to 256"),
        ("labels.ndjson", '{"id": 1, "label": 1, "row": "x"}\n', "labels.ndjson, line 1: row must be a whole number"),
        ("labels.ndjson", "x" * 70_000, "labels.ndjson, line 1: longer than 64 KiB"),
        ("labels.csv", "id,label\na,1\nb,\n", "labels.csv, row 2: no label"),
        ("labels.csv", "id,label,row\na,1,first\n", "labels.csv, row 1: row must be a number"),
        ("labels.csv", "id,label,ts\na,1,soon\n", "labels.csv, row 1: ts must be a time"),
        ("labels.csv", "id,truth\na,1\n", "labels.csv has no column label; it has id, truth"),
        ("labels.csv", "order,label\na,1\n", "labels.csv has no column id or prediction; it has order, label"),
        ("labels.csv", f"id,label\n{'a' * 300},1\n", "labels.csv, row 1: id must be a text of up to 256 characters"),
        ("labels.txt", "", "expected a file that ends in .csv, .parquet or .ndjson"),
        ("labels.parquet", "id,label\n", "cannot read .*labels.parquet"),
    ],
)
def test_what_is_no_label_is_named_by_its_line_and_not_quoted(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        list(read_labels(write(tmp_path, name, text)))


@pytest.mark.parametrize("name", ["nowhere.csv", "nowhere.parquet", "nowhere.ndjson"])
def test_a_file_that_is_not_there_is_said_to_be_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"{name} does not exist"):
        list(read_labels(tmp_path / name))
