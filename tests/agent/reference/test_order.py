"""Rows find their windows whatever the order of the file, and the hours are told apart where that pays."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pegel_agent.reference import order
from pegel_agent.reference.build import Roles, build_profile
from pegel_agent.reference.detection import stratum_of
from pegel_agent.reference.order import RowOrder
from pegel_agent.reference.profile import Profile
from pegel_agent.reference.seasons import expected_shares, quarters
from pegel_agent.statistics.budget import Window, parse_window
from pegel_agent.statistics.slots import FloatArray, Reference, Slot, reference_shares
from pegel_exporters.errors import UserError

MIDNIGHT = 1_699_920_000.0


def placed(times: FloatArray, window: Window, batch: int) -> tuple[list[int], list[int]]:
    """The windows' numbers, and each row's place among them."""
    rows = RowOrder(window)
    starts = range(0, len(times), batch)
    for start in starts:
        rows.see(times[start : start + batch])
    numbers = rows.finish(bins=10)
    found = [rows.windows_of(start, times[start : start + batch]) for start in starts]
    return numbers.tolist(), np.concatenate(found).tolist()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 5_000), min_size=1, max_size=60), st.sampled_from(["7", "1", "5m", "1s"]), st.integers(1, 9)
)
def test_rows_are_in_the_windows_that_their_order_in_time_says(times: list[int], window: str, batch: int) -> None:
    given_times, size = np.array(times, dtype=np.float64), parse_window(window)
    numbers, found = placed(given_times, size, batch)
    if size.rows is not None:
        rank = np.argsort(np.argsort(given_times, kind="stable"), kind="stable")
        expected = (rank // size.rows).tolist()
    else:
        expected = [int(time // (size.seconds or 1)) for time in times]
    assert [numbers[place] for place in found] == expected


def test_of_more_windows_than_are_kept_the_latest_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "_KEPT_BYTES", 10 * 4 * 30)
    numbers, found = placed(np.arange(100.0), Window(rows=2), 7)
    assert numbers == list(range(20, 50))
    assert found == [-1] * 40 + [place for place in range(30) for _ in range(2)]


def test_too_many_rows_in_no_order_are_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "_RANKED_ROWS", 10)
    assert placed(np.arange(30.0), Window(rows=5), 4)[1][-1] == 5, "in order, there may be any number"
    with pytest.raises(UserError, match="sort the file by time, or give --window in time"):
        placed(np.arange(30.0)[::-1], Window(rows=5), 4)


def built(folder: Path, columns: dict[str, FloatArray], window: str) -> Profile:
    path = folder / "data.parquet"
    pyarrow.parquet.write_table(pa.table(columns), path)
    roles = Roles(time="at")
    return build_profile(path, roles=roles, model_name="", model_version="", created=0.0, window=parse_window(window))


def days(rng: np.random.Generator, *, number: int = 2, rows_a_day: int = 100_000) -> dict[str, FloatArray]:
    """Columns: one with a season, one whose rows resemble their neighbours, one with neither."""
    at = MIDNIGHT + np.arange(number * rows_a_day) * (86_400 / rows_a_day)
    season = np.sin(2 * np.pi * at / 86_400) + rng.normal(size=len(at))
    walk = np.repeat(rng.normal(size=len(at) // 20), 20)
    return {"at": at, "season": season, "sticky": walk, "plain": rng.normal(size=len(at))}


def test_hours_are_told_apart_for_the_features_where_they_differ(tmp_path: Path) -> None:
    profile = built(tmp_path, days(np.random.default_rng(0)), "5m")
    features = {feature.name: feature for feature in profile.features}
    assert profile.order is not None
    assert (profile.order.window, profile.order.windows, profile.order.state) == ("300s", 576, "measured")
    assert {name for name, feature in features.items() if feature.hours} == {"season"}
    assert features["season"].reference.largest_effect < 2
    assert 15 < features["sticky"].reference.largest_effect < 30
    assert features["plain"].reference.largest_effect < 1.5
    assert stratum_of(profile, MIDNIGHT + 3 * 3_600 + 1_000) == 13
    with pytest.raises(UserError, match="rows need their times"):
        stratum_of(profile, None)


def test_too_few_rows_in_an_hour_leave_one_reference_with_large_design_effects(tmp_path: Path) -> None:
    profile = built(tmp_path, days(np.random.default_rng(1), rows_a_day=40_000), "5m")
    season = profile.features[0]
    assert not season.hours
    assert season.reference.largest_effect > 50
    assert stratum_of(profile, None) == stratum_of(profile, MIDNIGHT) == 0


def test_a_shuffled_file_gives_the_profile_of_the_sorted_one(tmp_path: Path) -> None:
    columns = days(np.random.default_rng(2), number=1, rows_a_day=5_000)
    mixed = np.random.default_rng(3).permutation(5_000)
    for window in ("100", "30m"):
        one = built(tmp_path, columns, window)
        assert built(tmp_path, {name: values[mixed] for name, values in columns.items()}, window) == one


def test_a_reference_of_few_windows_says_that_it_is_unknown(tmp_path: Path) -> None:
    profile = built(tmp_path, days(np.random.default_rng(4), number=1, rows_a_day=1_000), "100")
    assert profile.order is not None
    assert (profile.order.windows, profile.order.state) == (10, "unknown")
    assert all(not feature.design_effects for feature in profile.features)


def test_what_is_expected_of_a_day_is_the_whole_reference_even_in_bins_that_its_hours_left_empty() -> None:
    slots = (Slot.BELOW, Slot.INTERVAL, Slot.INTERVAL, Slot.ABOVE, Slot.MISSING)
    by_hour = np.array([[hour == 3, 4_000 + 50 * hour, 6_000 - 50 * hour, 0, 0] for hour in range(24)])
    whole = reference_shares(by_hour.sum(axis=0), slots)
    strata = quarters(tuple(reference_shares(hour, slots) for hour in by_hour))
    expected = expected_shares(Reference(whole, strata))
    assert expected.shape == (96, 5)
    np.testing.assert_allclose(expected.sum(axis=1), 1)
    np.testing.assert_allclose(expected.mean(axis=0), whole.shares, rtol=0.01)
    assert np.mean([stratum.shares[-1] for stratum in strata]) > 20 * whole.shares[-1]


def test_the_quarters_lie_between_the_hours_and_add_up_to_a_whole() -> None:
    slots = (Slot.BELOW, Slot.INTERVAL, Slot.ABOVE, Slot.MISSING)
    hours = tuple(reference_shares([10, 1_000 + 100 * hour, 20, 5], slots) for hour in range(24))
    strata = quarters(hours)
    assert len(strata) == 96
    for stratum in strata:
        assert stratum.shares.sum() == pytest.approx(1)
    middle = [stratum.shares[1] for stratum in strata]
    assert hours[4].shares[1] < middle[19] < middle[20] < hours[5].shares[1]
    assert all(stratum.rows >= 1_035 for stratum in strata)
    assert strata[18].rows > hours[4].rows, "a mixture of two hours is surer than one of them"
