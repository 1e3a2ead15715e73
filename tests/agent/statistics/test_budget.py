"""Windows and budgets as people write them."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pegel_agent.statistics.budget import Part, Window, budget_windows, parse_duration, parse_window, share_of


@pytest.mark.parametrize(
    ("text", "window"),
    [("5m", Window(seconds=300)), ("500", Window(rows=500)), (" 90s ", Window(seconds=90)), ("1.5h", Window(5400))],
)
def test_a_window_is_of_time_or_of_rows(text: str, window: Window) -> None:
    assert parse_window(text) == window


@pytest.mark.parametrize("text", ["", "0", "0s", "-5m", "5", "m", "5 m", "5w", "1e3s", "²", "5m5s", "9" * 5000, "NaNs"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_a_window_is_at_least_a_second_or_a_row() -> None:
    with pytest.raises(ValueError, match="at least 1s"):
        parse_window("0.5s")
    with pytest.raises(ValueError, match="at least one row"):
        parse_window("0")


@pytest.mark.parametrize(
    ("budget", "window", "windows"),
    [
        ("1/30d", Window(seconds=300), 8640),
        ("2/30d", Window(seconds=300), 4320),
        ("1/8640w", Window(rows=500), 8640),
        ("1/100w", Window(seconds=300), 100),
        (None, Window(rows=500), 8640),
        (None, Window(seconds=3600), 720),
    ],
)
def test_a_budget_is_a_number_of_windows_between_alarms(budget: str | None, window: Window, windows: float) -> None:
    assert budget_windows(budget, window) == windows


@pytest.mark.parametrize(
    ("budget", "window", "complaint"),
    [
        ("1/30d", Window(rows=500), "has no clock"),
        ("1/1w", Window(rows=500), "nearly every window"),
        ("9/10m", Window(seconds=300), "nearly every window"),
        ("0/30d", Window(seconds=300), "is not a budget"),
        ("30d", Window(seconds=300), "is not a budget"),
        ("1/" + "9" * 400 + "w", Window(seconds=300), "is not a duration"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused(budget: str, window: Window, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        budget_windows(budget, window)


def test_the_parts_of_a_budget_add_up_to_the_whole() -> None:
    alarms_per_window = [1 / share_of(8640, part) for part in get_args(Part)]
    assert len(alarms_per_window) == 4
    assert sum(alarms_per_window) == pytest.approx(1 / 8640)


@given(st.text(max_size=30), st.sampled_from([Window(seconds=60), Window(rows=9)]))
def test_no_text_gives_anything_but_a_finite_number_or_a_value_error(text: str, window: Window) -> None:
    try:
        assert 2 <= budget_windows(text, window) < float("inf")
    except ValueError as error:
        assert str(error)  # noqa: PT017
