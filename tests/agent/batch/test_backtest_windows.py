"""Recorded rows in windows: the sidecar's evidence, however the file is cut; rows and times that can't be used."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from pegel_agent.batch.backtest import BacktestResult, backtest
from pegel_agent.batch.backtest_text import backtest_text, notes
from pegel_agent.reference.build import Roles, build_profile
from pegel_agent.reference.columns import learn_feature
from pegel_agent.reference.profile import FORMAT, Order, Profile
from pegel_agent.sidecar.monitor.windows import Watch
from pegel_agent.statistics.budget import Window
from pegel_exporters.errors import UserError

from tests.agent.sidecar.monitor.monitor_samples import exchange, monitor, numbers, state, texts

CITIES = np.array(["Ulm", "Köln", "Berlin"], dtype=object)
START = datetime(2024, 3, 1, tzinfo=UTC).timestamp()


def rows(seed: int, size: int, *, shift: float = 0.0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "age": rng.normal(40 + 10 * shift, 10, size),
        "city": rng.choice(CITIES, size),
        "score": rng.random(size),
    }


def joined(*parts: dict[str, Any]) -> dict[str, Any]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@pytest.fixture(scope="module")
def profile() -> Profile:
    columns = rows(1, 10_000)
    features = [learn_feature(name, "prediction" if name == "score" else "input", columns[name]) for name in columns]
    return Profile(FORMAT, 0.0, "m", "1", 10_000, tuple(feature for feature in features if feature is not None))


def parquet(folder: Path, columns: dict[str, Any], *, row_group: int = 65_536) -> Path:
    path = folder / "traffic.parquet"
    pyarrow.parquet.write_table(pa.table(columns), path, row_group_size=row_group)
    return path


def csv(folder: Path, columns: dict[str, Any]) -> Path:
    path = folder / "traffic.csv"
    pyarrow.csv.write_csv(pa.table(columns), path)
    return path


def run(profile: Profile, path: Path, *, window: Window, time: str | None = None, budget: float = 1_000.0) -> Any:
    return backtest(profile, path, window=window, budget_windows=budget, time=time)


def evidence(result: BacktestResult, role: Any = "input") -> list[Any]:
    return [window.evidence[role] for window in result.history]


def hours(*of: float) -> Any:
    return np.array([START + 3_600 * hour for hour in of])


def test_relations_between_inputs_are_watched_as_the_sidecar_does(tmp_path: Path) -> None:
    def flats(seed: int, size: int, noise: float) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        area = rng.normal(80, 20, size)
        rest = np.sqrt(1 - noise**2)
        rent = 20 * (rest * (area - 80) / 20 + noise * rng.normal(size=size))
        area[rng.random(size) < 0.02] = np.nan
        return {"area": area, "age": rng.normal(40, 10, size), "rent": rent}

    reference = tmp_path / "reference.parquet"
    pyarrow.parquet.write_table(pa.table(flats(1, 10_000, 0.3)), reference)
    related = build_profile(reference, roles=Roles(), model_name="m", model_version="1", created=1.5)
    traffic = joined(flats(2, 3_000, 0.3), flats(3, 2_000, 0.4))
    result = run(related, csv(tmp_path, traffic), window=Window(rows=500), budget=4 * 8_640.0)
    sidecar = monitor(related)  # in which the data have a quarter of 8,640 windows
    for start in range(0, 5_000, 250):
        part = slice(start, start + 250)
        sidecar.add(exchange(numbers(np.column_stack([of[part] for of in traffic.values()]), list(traffic))), 0.0)
    assert evidence(result) == pytest.approx([point.evidence for point in state(sidecar).history])
    assert {"relation of area to rent", "relation of rent to area"}.intersection(result.alarms[0].features)
    assert 6 < result.alarms[0].window <= 9


def test_the_evidence_is_the_sidecar_s_on_the_same_rows_in_the_same_windows(tmp_path: Path, profile: Profile) -> None:
    inputs = msgspec.structs.replace(profile, features=profile.features[:2])
    traffic = joined(rows(2, 5_000), rows(3, 1_500, shift=0.15))
    result = run(inputs, csv(tmp_path, traffic), window=Window(rows=500))
    sidecar = monitor(inputs)
    for start in range(0, 6_500, 250):
        part = slice(start, start + 250)
        sidecar.add(
            exchange([numbers(traffic["age"][part, None], ["age"]), texts(traffic["city"][part, None], ["city"])]), 0.0
        )
    told = [point.evidence for point in state(sidecar).history]
    assert result.windows == len(told) == 13
    # Near its limit each stops counting, and the sidecar's limit is a part of a budget.
    below = [at for at, value in enumerate(told) if value is not None and value < 2]
    assert len(below) >= 10
    assert [evidence(result)[at] for at in below] == pytest.approx([told[at] for at in below], abs=1e-9)
    assert max(evidence(result)) > max(evidence(result)[:10]) + 1


@pytest.mark.parametrize("row_group", [37, 501, 4_000])
def test_how_the_file_is_cut_changes_nothing(tmp_path: Path, profile: Profile, row_group: int) -> None:
    traffic = joined(rows(4, 3_000), rows(5, 1_000, shift=1.0))
    traffic["at"] = START + np.arange(4_000) * 10.0
    whole = parquet(tmp_path, traffic)
    by_rows, by_time = (
        run(profile, whole, window=window, time="at") for window in (Window(rows=500), Window(seconds=3_600))
    )
    cut = parquet(tmp_path, traffic, row_group=row_group)
    assert run(profile, cut, window=Window(rows=500), time="at") == by_rows
    assert run(profile, cut, window=Window(seconds=3_600), time="at") == by_time


def test_a_file_larger_than_a_batch_gives_what_its_halves_give(tmp_path: Path, profile: Profile) -> None:
    traffic = rows(6, 150_000)
    result = run(profile, parquet(tmp_path, traffic), window=Window(rows=1_000))
    assert (result.windows, result.rows, result.rows_left_over, result.alarms) == (150, 150_000, 0, ())
    half = {name: values[:75_000] for name, values in traffic.items()}
    assert run(profile, parquet(tmp_path, half), window=Window(rows=1_000)).history == result.history[:75]


def test_drift_that_comes_and_goes_and_comes_is_two_alarms_with_window_time_and_features(
    tmp_path: Path, profile: Profile
) -> None:
    calm, moved = rows(7, 15_000), rows(8, 5_000, shift=0.5)
    traffic = joined(calm, moved, calm, moved)
    traffic["at"] = START + np.arange(40_000) * 7.2  # 500 rows an hour
    result = run(profile, parquet(tmp_path, traffic), window=Window(seconds=3_600), time="at")
    assert result.windows == 80
    assert [alarm.features for alarm in result.alarms] == [("age",), ("age",)]
    first, second = result.alarms
    assert (31 <= first.window <= 34, 71 <= second.window <= 74) == (True, True)
    assert first.time == datetime.fromtimestamp(START, UTC) + timedelta(hours=first.window)
    assert result.features["age"].direction == "up"
    assert result.features["city"].windows == result.features["score"].windows == 0
    assert result.features["age"].current[-4] > 1.5 * result.features["age"].reference[-4]
    text = backtest_text(result, data="traffic.parquet")
    assert sum("ALARM" in line for line in text.splitlines()) == 2
    assert f"2 alarms, the first in window {first.window}" in text.splitlines()[-1]


def test_predictions_have_an_alarm_of_their_own(tmp_path: Path, profile: Profile) -> None:
    traffic = joined(rows(9, 5_000), rows(10, 5_000) | {"score": np.random.default_rng(10).random(5_000) ** 2})
    result = run(profile, parquet(tmp_path, traffic), window=Window(rows=500))
    assert [alarm.features for alarm in result.alarms] == [("score",)]
    assert max(evidence(result)) < result.limit
    assert result.limit == pytest.approx(np.log10(2_000)), "two processes share the budget"


def test_a_file_without_predictions_has_the_whole_budget_for_its_inputs(tmp_path: Path, profile: Profile) -> None:
    traffic = rows(11, 1_000)
    del traffic["score"]
    result = run(profile, csv(tmp_path, traffic), window=Window(rows=500))
    assert (result.unseen, list(result.features)) == (("score",), ["age", "city"])
    assert result.limit == pytest.approx(3)
    assert "no column score" in notes(result, data="traffic.csv")[0]


def test_windows_of_time_begin_at_whole_hours_and_those_without_rows_are_none(tmp_path: Path, profile: Profile) -> None:
    traffic = rows(12, 6) | {"at": hours(0.5, 0.99, 1.0, 5.2, 5.3, 700_000.0)}
    result = run(profile, parquet(tmp_path, traffic), window=Window(seconds=3_600), time="at")
    assert [window.rows for window in result.history] == [2, 1, 2, 1]
    assert [window.time for window in result.history if window.time][:3] == [
        datetime(2024, 3, 1, hour, tzinfo=UTC) for hour in (1, 2, 6)
    ]


def test_a_row_up_to_a_window_late_counts_in_the_open_window(tmp_path: Path, profile: Profile) -> None:
    traffic = rows(13, 5) | {"at": hours(0.5, 1.5, 0.1, 1.6, 2.1)}
    result = run(profile, parquet(tmp_path, traffic), window=Window(seconds=3_600), time="at")
    assert [window.rows for window in result.history] == [1, 3, 1]


@pytest.mark.parametrize("row_group", [1, 2, 10])
def test_rows_that_are_not_in_order_are_an_error_that_names_the_first(
    tmp_path: Path, profile: Profile, row_group: int
) -> None:
    traffic = rows(14, 5) | {"at": hours(0.5, 1.5, 2.5, 0.9, 2.6)}
    path = parquet(tmp_path, traffic, row_group=row_group)
    with pytest.raises(UserError, match=r"row 4 is more than a window earlier .* sort the file by 'at'"):
        run(profile, path, window=Window(seconds=3_600), time="at")
    with pytest.raises(UserError, match="row 4 is more than a window earlier"):
        run(profile, path, window=Window(rows=1), time="at")


@pytest.mark.parametrize(
    "times",
    [
        pa.array(["2024-03-01T00:10:00Z", "2024-03-01 01:10", "2024-03-01T04:10:00.25+02:00"]),
        pa.array([START + 600, START + 4_200, START + 7_800]),
        pa.array([int(START) + 600, int(START) + 4_200, int(START) + 7_800]),
        pa.array([datetime(2024, 3, 1, hour, 10) for hour in range(3)], pa.timestamp("ns")),
        pa.array(
            [datetime(2024, 3, 1, hour, 10, tzinfo=UTC) for hour in range(3)], pa.timestamp("ms", "Europe/Berlin")
        ),
    ],
    ids=["ISO 8601", "seconds", "whole seconds", "timestamps", "timestamps with a zone"],
)
@pytest.mark.parametrize("write", [csv, parquet])
def test_times_are_read_in_all_usual_forms(tmp_path: Path, profile: Profile, times: Any, write: Any) -> None:
    path = write(tmp_path, rows(15, 3) | {"at": times})
    result = run(profile, path, window=Window(seconds=3_600), time="at")
    assert [window.time for window in result.history] == [datetime(2024, 3, 1, h, tzinfo=UTC) for h in (1, 2, 3)]


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (["2024-03-01", "", "2024-03-01"], "'at' in row 2 is missing"),
        (["2024-03-01", "2024-03-01", "yesterday"], "'at' in row 3 is no time"),
        (["1709251200", "1709251200000", "1"], "'at' in row 2 is no Unix time in seconds; milliseconds, perhaps"),
        (["1709251200", "", "1"], "'at' in row 2 is missing"),
        (["1709251200", "inf", "1"], "'at' in row 2 is no Unix time"),
    ],
)
def test_a_time_that_can_not_be_read_is_named_by_its_row(
    tmp_path: Path, profile: Profile, times: list[str], words: str
) -> None:
    columns = rows(16, 3)
    path = tmp_path / "traffic.csv"
    lines = [f"{a},{c},{s},{t}" for a, c, s, t in zip(*columns.values(), times, strict=True)]
    path.write_text("\n".join(("age,city,score,at", *lines)) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=words):
        run(profile, path, window=Window(seconds=3_600), time="at")


def test_rows_that_fill_no_window_are_left_out_and_pointed_out(tmp_path: Path, profile: Profile) -> None:
    result = run(profile, csv(tmp_path, rows(17, 1_250)), window=Window(rows=500))
    assert (result.windows, result.rows, result.rows_left_over) == (2, 1_250, 250)
    assert notes(result, data="traffic.csv") == ["the last 250 rows of traffic.csv fill no window and are left out"]
    assert "1,000 rows in 2 windows of 500 rows" in backtest_text(result, data="traffic.csv").splitlines()[-1]


def test_a_value_of_the_wrong_kind_counts_as_missing_and_is_pointed_out(tmp_path: Path, profile: Profile) -> None:
    columns = rows(18, 500)
    ages = [f"{age:.2f}" for age in columns["age"]]
    ages[3], ages[400] = "unknown", ""
    result = run(profile, csv(tmp_path, columns | {"age": np.array(ages, dtype=object)}), window=Window(rows=500))
    assert result.features["age"].invalid == 1
    assert result.features["age"].current[-1] == 2 / 500
    assert notes(result, data="traffic.csv") == ["1 value of age without a number, counted as missing"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("age,city,score\n", "has no rows"),
        ("age,city,score\n1,Ulm,0.5\n", "has 1 row, and a window takes 500"),
        ("age,score\n1,0.5\n", "has no column 'city', which the profile has; it has age, score"),
        ("a,b\n1,2\n", "has no column 'age'"),
        ("", "Empty CSV file"),
    ],
    ids=["only a header", "less than a window", "an input is missing", "another model's", "empty"],
)
def test_a_file_that_can_not_be_used_is_refused(tmp_path: Path, profile: Profile, text: str, words: str) -> None:
    path = tmp_path / "traffic.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=words):
        run(profile, path, window=Window(rows=500))


def test_the_table_has_aligned_columns_and_a_line_for_each_window(tmp_path: Path, profile: Profile) -> None:
    traffic = rows(19, 6_000) | {"at": START + np.arange(6_000) * 3.6}
    result = run(profile, parquet(tmp_path, traffic), window=Window(seconds=1_800), time="at")
    header, *lines = backtest_text(result, data="traffic.parquet").splitlines()
    assert lines[12] == ""
    assert header.split() == ["WINDOW", "ENDED", "(UTC)", "ROWS", "EVIDENCE", "PREDICTIONS", "DRIFT", "IN"]
    assert {line.index(".") for line in lines[:12]} == {lines[0].index(".")}
    assert lines[0].split()[:4] == ["1", "2024-03-01", "00:30", "500"]
    assert lines[-1].endswith("6,000 rows in 12 windows of 30 min: no alarm")


def by_the_hour(days: int, *, seed: int) -> dict[str, Any]:
    """180 rows an hour whose mean follows the hour of the day by one standard deviation."""
    rng = np.random.default_rng(seed)
    at = START + np.arange(days * 24 * 180) * 20.0
    season = np.sin(2 * np.pi * (at % 86_400) / 86_400)
    return {"load": rng.normal(season, 1.0), "kind": rng.choice(CITIES, len(at)), "at": at}


@pytest.fixture(scope="module")
def seasonal(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    path = parquet(tmp_path_factory.mktemp("reference"), by_the_hour(60, seed=21))
    return build_profile(
        path, roles=Roles(time="at"), model_name="m", model_version="1", created=0.0, window=Window(seconds=3_600)
    )


def test_hours_that_differ_are_compared_with_their_own_as_in_the_sidecar(tmp_path: Path, seasonal: Profile) -> None:
    assert any(feature.hours for feature in seasonal.features)
    traffic = by_the_hour(3, seed=22)
    result = run(seasonal, parquet(tmp_path, traffic), window=Window(seconds=3_600), time="at")
    assert (result.windows, result.alarms, notes(result, data="x")) == (72, (), [])
    watch = Watch(seasonal, budget_windows=1_000.0, tolerance=0.0)
    told = []
    for start in range(0, 72 * 180, 180):
        part = slice(start, start + 180)
        middle = float(traffic["at"][part][[0, -1]].mean())
        watch.add({name: traffic[name][part] for name in ("load", "kind")}, middle)
        verdict = watch.close_window(middle)
        assert verdict is not None
        told.append(verdict.evidence)
    assert max(told) < 2
    assert evidence(result) == pytest.approx(told, abs=1e-9)


def test_a_profile_that_tells_hours_apart_needs_times(tmp_path: Path, seasonal: Profile) -> None:
    path = parquet(tmp_path, by_the_hour(1, seed=23))
    with pytest.raises(UserError, match="rows need their times"):
        run(seasonal, path, window=Window(rows=500))


def test_by_a_reference_whose_order_is_unknown_nothing_is_called_drift(tmp_path: Path, profile: Profile) -> None:
    unknown = msgspec.structs.replace(profile, order=Order("500", 12, "unknown"))
    traffic = parquet(tmp_path, rows(24, 3_000, shift=2.0))
    result = run(unknown, traffic, window=Window(rows=500))
    assert (result.alarms, {window.state for window in result.history}) == ((), {""})
    assert "nothing is called drift" in notes(result, data="x")[0]


def test_windows_of_another_length_than_the_reference_s_are_pointed_out(tmp_path: Path, profile: Profile) -> None:
    measured = msgspec.structs.replace(profile, order=Order("300s", 100, "measured"))
    result = run(measured, parquet(tmp_path, rows(25, 1_000)), window=Window(rows=500))
    assert notes(result, data="x") == [
        "the profile's design effects are of windows of 5 min, and these are of 500 rows;"
        " build it with --window as it is here"
    ]
