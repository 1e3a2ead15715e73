"""What the commands say of data that is not as it should be: one line that helps, or a result that is true."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pegel_agent.cli import main as cli
from pegel_agent.reference.profile import FORMAT

from tests.agent.cli.test_feedback_command import HOSTS, fleet

ROWS = 600
_RNG = np.random.default_rng(1)
AGES: list[Any] = _RNG.normal(40, 10, ROWS).round(3).tolist()
CITIES: list[Any] = _RNG.choice(["Ulm", "Bonn"], ROWS).tolist()
GOOD = {"age": AGES, "city": CITIES}


class Done(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> Any:
        """Its JSON; NaN and infinities are no numbers there."""
        return json.loads(self.out, parse_constant=_no_number)


def _no_number(text: str) -> NoReturn:
    raise AssertionError(f"{text} in a result")


class Commands:
    """`pegel` in a folder, as the shell starts it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._monkeypatch, self._capsys = folder, monkeypatch, capsys
        monkeypatch.chdir(folder)

    def __call__(self, *arguments: str) -> Done:
        before = {path.name: path.read_bytes() for path in self.folder.iterdir()}
        self._monkeypatch.setattr(sys, "argv", ["pegel", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        done = Done(int(ended.value.code or 0), *self._capsys.readouterr())
        if done.code == 2:
            assert (done.out, done.err.count("\n")) == ("", 1), done
            assert done.err.startswith("pegel: ")
            assert {path.name: path.read_bytes() for path in self.folder.iterdir()} == before, "half-written"
        return done

    def check(self, data: str, profile: str = "profile.json") -> Done:
        return self("check", "--profile", profile, data, "--output", "json")

    def backtest(self, data: str, profile: str = "profile.json") -> Done:
        return self("backtest", "--profile", profile, data, "--window", "50", "--output", "json")


@pytest.fixture
def pegel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    """With a profile of good data in `profile.json`."""
    run = Commands(tmp_path, monkeypatch, capsys)
    csv(tmp_path / "good.csv", GOOD)
    assert run("profile", "build", "good.csv", "-o", "profile.json").code == 0
    return run


def csv(path: Path, columns: Mapping[str, list[Any]]) -> None:
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def parquet(path: Path, columns: Mapping[str, list[Any]]) -> None:
    pq.write_table(pa.table(dict(columns)), path)


UNREADABLE = {
    "a file of 0 bytes": ("data.csv", b"", "Empty CSV file"),
    "a header alone": ("data.csv", b"age,city\n", "data.csv has no rows"),
    "a row too short": ("data.csv", b"age,city\n1,Ulm\n2\n", "Expected 2 columns, got 1"),
    "Latin-1": ("data.csv", "age,city\n1,Köln\n".encode("latin-1"), "is not UTF-8; if it is Latin-1: iconv"),
    "two columns of a name": ("data.csv", b"age,age\n1,2\n", "two columns are named 'age'"),
    "a cut Parquet file": ("data.parquet", b"PAR1 and no more", "cannot read data.parquet"),
    "Parquet named CSV": ("data.csv", b"PAR1....", "data.csv is a Parquet file"),
    "another ending": ("data.xlsx", b"age,city\n1,Ulm\n", "expected a file that ends in .csv or .parquet"),
}


@pytest.mark.parametrize(("name", "content", "words"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_that_can_not_be_read_is_refused_by_every_command(
    pegel: Commands, name: str, content: bytes, words: str
) -> None:
    (pegel.folder / name).write_bytes(content)
    for done in (pegel("profile", "build", name, "-o", "new.json"), pegel.check(name), pegel.backtest(name)):
        assert done.code == 2
        assert words in done.err


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ([[1.0, 2.0]] * ROWS, "column 'age' holds list<"),
        ([{"years": 1.0}] * ROWS, "column 'age' holds struct<"),
        ([b"40"] * ROWS, "column 'age' holds binary; make it numbers or text, or leave it out"),
    ],
    ids=["lists", "structs", "bytes"],
)
def test_a_nested_column_is_refused_by_every_command_that_needs_it(
    pegel: Commands, column: list[Any], words: str
) -> None:
    parquet(pegel.folder / "data.parquet", {"age": column, "city": CITIES})
    for done in (
        pegel("profile", "build", "data.parquet", "-o", "new.json"),
        pegel.check("data.parquet"),
        pegel.backtest("data.parquet"),
    ):
        assert done.code == 2
        assert words in done.err
    assert pegel("profile", "build", "data.parquet", "-o", "new.json", "--ignore", "age").code == 0


class Batch(NamedTuple):
    """A batch against the good profile, and what is drift in it."""

    columns: dict[str, list[Any]]
    drifted: dict[str, str]
    """Feature to direction."""


BATCHES = {
    "constant": Batch({"age": [40] * ROWS, "city": ["Ulm"] * ROWS}, {"age": "narrower", "city": "shape"}),
    "all missing": Batch({"age": [""] * ROWS, "city": [""] * ROWS}, {"age": "missing", "city": "missing"}),
    "one column missing": Batch({"age": ["NA"] * ROWS, "city": CITIES}, {"age": "missing"}),
    "infinite here and there": Batch({"age": ["inf", "-inf"] * 50 + AGES[100:], "city": CITIES}, {"age": "tails"}),
    "infinite everywhere": Batch({"age": ["inf"] * ROWS, "city": CITIES}, {"age": "up"}),
    "10,000 categories": Batch({"age": AGES, "city": [f"c{n % 10_000}" for n in range(ROWS)]}, {"city": "new"}),
    "truth values": Batch({"age": AGES, "city": ["true", "False"] * (ROWS // 2)}, {"city": "new"}),
    "dates": Batch({"age": AGES, "city": ["2024-01-02"] * ROWS}, {"city": "new"}),
    "beyond single precision": Batch({"age": ["1e300"] * 100 + AGES[100:], "city": CITIES}, {"age": "tails"}),
    "as it was": Batch(GOOD, {}),
}


@pytest.mark.parametrize(("columns", "drifted"), BATCHES.values(), ids=BATCHES)
def test_odd_values_are_drift_with_a_direction_and_every_measure_is_a_number(
    pegel: Commands, columns: dict[str, list[Any]], drifted: dict[str, str]
) -> None:
    csv(pegel.folder / "data.csv", columns)
    done = pegel.check("data.csv")
    assert done.code == (1 if drifted else 0), done
    found = done.result["features"]
    assert {name: one["direction"] for name, one in found.items() if one["drifted"]} == drifted
    replayed = pegel.backtest("data.csv")
    assert replayed.code == 0
    named = {name for alarm in replayed.result["alarms"] for name in alarm["features"]}
    assert named <= set(drifted), "as it reads on traffic, slower for a single window of 50"
    assert bool(named) == bool(drifted)


@pytest.mark.parametrize(
    "column",
    [["forty", *AGES[1:]], ["true", "false"] * (ROWS // 2), ["2024-01-02"] * ROWS],
    ids=["mixed", "truth values", "dates"],
)
def test_text_where_the_profile_has_numbers_stops_a_check_and_is_counted_by_a_backtest(
    pegel: Commands, column: list[Any]
) -> None:
    csv(pegel.folder / "data.csv", {"age": column, "city": CITIES})
    checked = pegel.check("data.csv")
    assert checked.code == 2
    assert "data.csv: column 'age' has text in row 1, where the profile has numbers" in checked.err
    replayed = pegel.backtest("data.csv")
    assert replayed.code == 0
    texts = sum(isinstance(value, str) for value in column)
    assert f"note: {texts} value" in replayed.err
    assert "of age without a number, counted as missing" in replayed.err


def test_dates_and_truth_values_of_parquet_are_no_numbers_either(pegel: Commands) -> None:
    for column in ([date(2024, 1, 2)] * ROWS, [True, False] * (ROWS // 2)):
        parquet(pegel.folder / "data.parquet", {"age": column, "city": CITIES})
        done = pegel.check("data.parquet")
        assert (done.code, "column 'age' has text in row 1" in done.err) == (2, True)


@pytest.mark.parametrize("ages", [[41], [""], ["inf"]], ids=["a number", "missing", "infinite"])
def test_a_single_row_is_no_drift_and_said_to_show_little(pegel: Commands, ages: list[Any]) -> None:
    csv(pegel.folder / "data.csv", {"age": ages, "city": ["Ulm"]})
    done = pegel.check("data.csv")
    assert (done.code, done.result["rows"]) == (0, 1)
    assert done.err.startswith("warning: data.csv: with only 1 row, a change with a PSI below ")
    refused = pegel.backtest("data.csv")
    assert (refused.code, "data.csv has 1 row, and a window takes 50" in refused.err) == (2, True)


BUILT = {
    "constant": ({"age": [40] * ROWS, "city": ["Ulm"] * ROWS}, {"age", "city"}),
    "one column missing": ({"age": [""] * ROWS, "city": CITIES}, {"city"}),
    "infinite here and there": ({"age": ["inf", "-inf"] * 50 + AGES[100:], "city": CITIES}, {"age", "city"}),
    "infinite everywhere": ({"age": ["inf"] * ROWS, "city": CITIES}, {"city"}),
    "10,000 categories": ({"age": AGES, "city": [f"c{n % 10_000}" for n in range(ROWS)]}, {"age"}),
    "truth values": ({"age": ["true", "false"] * (ROWS // 2), "city": CITIES}, {"age", "city"}),
    "dates": ({"age": [f"2024-01-{1 + n % 28:02}" for n in range(ROWS)], "city": CITIES}, {"age", "city"}),
    "a single row": ({"age": [40], "city": ["Ulm"]}, {"age"}),
}


@pytest.mark.parametrize(("columns", "profiled"), BUILT.values(), ids=BUILT)
def test_a_reference_of_odd_values_makes_a_profile_that_they_fit_or_says_what_it_leaves_out(
    pegel: Commands, columns: dict[str, list[Any]], profiled: set[str]
) -> None:
    csv(pegel.folder / "odd.csv", columns)
    built = pegel("profile", "build", "odd.csv", "-o", "odd.json")
    assert built.code == 0
    assert {name for name in columns if f"note: {name} is left out" in built.err} == set(columns) - profiled
    shown = pegel("profile", "show", "odd.json", "--output", "json")
    assert {feature["name"] for feature in shown.result["features"]} == profiled
    done = pegel.check("odd.csv", "odd.json")
    assert (done.code, done.result["drift"]) == (0, False)
    assert ("with only 1 row" in done.err) == (len(columns["age"]) == 1), "a pass that shows nothing is said to"


def test_a_reference_with_too_few_windows_to_know_its_order_is_noted_by_every_check(pegel: Commands) -> None:
    csv(pegel.folder / "short.csv", {**GOOD, "at": list(range(ROWS))})
    built = pegel("profile", "build", "short.csv", "-o", "short.json", "--time", "at", "--window", "50")
    assert (built.code, "12 windows of 50 rows, which is too few" in built.err) == (0, True)
    csv(pegel.folder / "moved.csv", {"age": [age + 10 for age in AGES], "city": CITIES})
    for data, code in (("good.csv", 0), ("moved.csv", 1)):
        done = pegel.check(data, "short.json")
        assert (done.code, done.result["design_effects"]) == (code, "unknown")
        assert done.err.startswith(f"note: {data}: the profile has too few windows to tell how much rows resemble")
        assert "drift here may be no more than rows that are alike" in done.err


@pytest.mark.parametrize("columns", [{"age": [""] * ROWS, "city": [""] * ROWS}, {"age": [], "city": []}])
def test_a_reference_without_values_is_refused(pegel: Commands, columns: dict[str, list[Any]]) -> None:
    csv(pegel.folder / "none.csv", columns)
    done = pegel("profile", "build", "none.csv", "-o", "none.json")
    assert done.code == 2
    assert ("has no column to profile: none has a number" if columns["age"] else "has no rows") in done.err


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (FORMAT, "pegel-profile/2", "unknown format 'pegel-profile/2'"),
        ('"rows":', '"surprise": 1, "rows":', "Object contains unknown field `surprise`"),
        ('"rows": 600', '"rows": NaN', "JSON is malformed"),
        ('"rows": 600', '"rows": 5', "feature 'age' counts 600 rows of 5"),
        ('"categorical"', '"picture"', "Invalid enum value 'picture'"),
        ("{", "", "is not a pegel-profile/1 profile"),
    ],
)
def test_a_profile_of_another_version_or_a_broken_one_is_refused(
    pegel: Commands, old: str, new: str, words: str
) -> None:
    text = (pegel.folder / "profile.json").read_text(encoding="utf-8")
    assert old in text
    (pegel.folder / "other.json").write_text(text.replace(old, new, 1), encoding="utf-8")
    for done in (
        pegel.check("good.csv", "other.json"),
        pegel.backtest("good.csv", "other.json"),
        pegel("profile", "show", "other.json"),
    ):
        assert done.code == 2
        assert words in done.err


def test_a_profile_of_another_model_names_the_column_that_the_batch_lacks(pegel: Commands) -> None:
    csv(pegel.folder / "other.csv", {"height": AGES, "city": CITIES})
    assert pegel("profile", "build", "other.csv", "-o", "other.json").code == 0
    for done in (pegel.check("good.csv", "other.json"), pegel.backtest("good.csv", "other.json")):
        assert done.code == 2
        assert "good.csv has no column 'height', which the profile has; it has age, city" in done.err


LABELS = {
    "0 bytes": ("labels.csv", b"", "Empty CSV file"),
    "a header alone": ("labels.csv", b"id,label\n", "labels.csv has no labels"),
    "no column of labels": ("labels.csv", b"id,truth\na,1\n", "has no column label; it has id, truth"),
    "no label": ("labels.csv", b"id,label\na,1\nb,\n", "row 2: no label"),
    "no id": ("labels.csv", b"id,label\n,1\n", "row 1: neither id nor prediction"),
    "a row that is no number": ("labels.csv", b"id,label,row\na,1,first\n", "row 1: row must be a number"),
    "a time that is none": ("labels.csv", b"id,label,ts\na,1,yesterday\n", "row 1: ts must be a time"),
    "a list": ("labels.ndjson", b'{"id": "a", "label": [1]}', "line 1: label must be a text of up to 256 characters"),
    "NaN": ("labels.ndjson", b'{"id": "a", "label": NaN}', "line 1: expected one JSON object a line"),
    "no object": ("labels.ndjson", b"[1]", "line 1: not a JSON object"),
    "nothing": ("labels.ndjson", b"\n", "labels.ndjson has no labels"),
}


@pytest.mark.parametrize(("name", "content", "words"), LABELS.values(), ids=LABELS)
def test_labels_that_are_none_are_refused_before_any_is_sent(
    pegel: Commands, name: str, content: bytes, words: str
) -> None:
    (pegel.folder / name).write_bytes(content)
    done = pegel("feedback", name, "--to", "http://127.0.0.1:9")
    assert done.code == 2
    assert words in done.err


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ([[1.0]], "row 1: label must be a text of up to 256 characters, a number, true or false"),
        ([date(2024, 1, 2)], "row 1: label must be a text of up to 256 characters"),
        ([float("nan")], "row 1: no label"),
    ],
)
def test_labels_of_parquet_that_are_none_are_refused_too(pegel: Commands, label: list[Any], words: str) -> None:
    parquet(pegel.folder / "labels.parquet", {"id": ["a"], "label": label})
    done = pegel("feedback", "labels.parquet", "--to", "http://127.0.0.1:9")
    assert done.code == 2
    assert words in done.err


@pytest.mark.integration
def test_labels_of_classes_that_the_profile_does_not_know_count_as_others_and_go_nowhere(pegel: Commands) -> None:
    csv(pegel.folder / "train.csv", {**GOOD, "truth": [n % 2 for n in range(ROWS)], "said": [0, 1, 1] * (ROWS // 3)})
    build = ("profile", "build", "train.csv", "-o", "model.json", "--label", "truth", "--prediction", "said")
    assert pegel(*build).code == 0
    labels = [
        {"prediction": 1, "label": "martian"},
        {"prediction": "martian", "label": 1},
        {"prediction": 1, "label": 1},
    ]
    (pegel.folder / "labels.ndjson").write_text("\n".join(map(json.dumps, labels)), encoding="utf-8")
    with fleet(pegel.folder, "--profile", "model.json", hosts=HOSTS[:1]) as (sidecar,):
        done = Done(*run_feedback(pegel.folder, f"http://{sidecar.host}:{sidecar.admin}"))
        page = sidecar.page()
    assert done == (0, "labels.ndjson: 3 labels to 1 replica: 3 counted\n", "")
    assert confusion(page) == {("1", "other"): 1, ("other", "1"): 1, ("1", "1"): 1}
    assert "martian" not in page


def run_feedback(folder: Path, to: str) -> tuple[int, str, str]:
    """`pegel feedback` while a sidecar writes to its log in the folder."""
    command = [Path(sys.executable).parent / "pegel", "feedback", "labels.ndjson", "--to", to]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    return done.returncode, done.stdout, done.stderr


def confusion(page: str) -> dict[tuple[str, str], float]:
    """Rows by predicted and actual class, without the zeros."""
    found = re.findall(r"^ml_confusion_total\{(.*)\} (\S+)$", page, re.MULTILINE)
    cells = {
        (labels["predicted"], labels["actual"]): float(rows)
        for text, rows in found
        for labels in [dict(re.findall(r'(\w+)="([^"]*)"', text))]
    }
    return {cell: rows for cell, rows in cells.items() if rows}


def test_a_column_of_numbers_with_one_word_among_them_is_no_column_of_names(pegel: Commands) -> None:
    values = [str(number % 60) for number in range(2_000)]
    values[1_234] = "forty"
    (pegel.folder / "mixed.csv").write_text("age\n" + "\n".join(values) + "\n", encoding="utf-8")
    said = pegel("profile", "build", "mixed.csv", "-o", "mixed.json")
    assert said.code == 2
    assert "column 'age' has numbers and text; mend it, or pass --categorical age" in said.err
    assert pegel("profile", "build", "mixed.csv", "-o", "mixed.json", "--categorical", "age").code == 0
