"""Numbers, times and the verdict, as the page says them."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pegel_agent.sidecar.frames import TapState
from pegel_agent.sidecar.monitor.state import AccuracyState, ModelState, ReferenceState, UnknownAccuracy
from pegel_agent.sidecar.status import words
from pegel_agent.sidecar.status.page import render
from pegel_agent.statistics.budget import span
from status_samples import NOW, categorical, drifting, numeric, untouched

PROFILE = ReferenceState("profile", "9f31c2ab", NOW, 10_000, 0)
FIRST_WINDOW = replace(untouched(), reference=PROFILE, rows=312, tap=TapState(requests=40))
CALM = replace(FIRST_WINDOW, windows=8, evidence=1.24)


@pytest.mark.parametrize(
    ("state", "tone", "text"),
    [
        (drifting(), "drift", "Drift since 13:56 UTC in inventory (down) and city (new)"),
        (replace(drifting(), drifted_since=NOW - 86_400), "drift", "Drift since 2 May 14:03 UTC in inventory (down)"),
        (replace(drifting(), drifted_since=None), "drift", "Drift in inventory (down) and city (new)"),
        (replace(drifting(), features=()), "drift", "Drift since 13:56 UTC"),
        (
            replace(drifting(), features=tuple(numeric(f"f{n}", shift=1, evidence=9) for n in range(5))),
            "drift",
            "Drift since 13:56 UTC in f0 (up), f1 (up), f2 (up) and 2 more",
        ),
        (
            replace(drifting(), features=(numeric("a", shift=1, evidence=2.0), numeric("b", evidence=-1.0))),
            "drift",
            "Drift since 13:56 UTC in a (up)",
        ),
        (untouched(), "waiting", "No traffic yet"),
        (replace(untouched(), tap=TapState(requests=1)), "waiting", "No rows yet from 1 request"),
        (
            replace(untouched(), tap=TapState(requests=1_200, undecodable=1_180)),
            "waiting",
            "No rows yet: 1,180 of 1,200 requests undecodable",
        ),
        (
            replace(FIRST_WINDOW, rows=3_200, reference=ReferenceState("learning", "", None, 3_200, 10_000, 7, 80)),
            "waiting",
            "Learning its reference: 3,200 of 10,000 rows, 7 of 80 windows",
        ),
        (
            replace(FIRST_WINDOW, rows=15_000, reference=ReferenceState("learning", "", None, 15_000, 10_000, 30, 80)),
            "waiting",
            "Learning its reference: 10,000 of 10,000 rows, 30 of 80 windows",
        ),
        (
            replace(untouched(), tap=TapState(errors=2, refused=2)),
            "waiting",
            "No request has reached the model yet",
        ),
        (FIRST_WINDOW, "waiting", "First window still open: 312 rows so far"),
        (CALM, "calm", "No drift: evidence 1.2 of 3.9 needed"),
        (replace(CALM, evidence=-0.42), "calm", "No drift: evidence −0.4 of 3.9 needed"),
        (replace(CALM, evidence=-math.inf), "calm", "No drift: no evidence"),
        (replace(CALM, evidence=None), "calm", "No drift: no evidence"),
    ],
)
def test_each_state_has_its_verdict(state: ModelState, tone: str, text: str) -> None:
    verdict = words.verdict(state)
    assert verdict.tone == tone
    assert verdict.text.startswith(text)


def test_a_time_of_another_day_names_the_day_and_of_another_year_the_year() -> None:
    assert words.clock(NOW - 60, NOW) == "14:02 UTC"
    assert words.clock(NOW - 86_400, NOW) == "2 May 14:03 UTC"
    assert words.clock(NOW - 86_400 * 365, NOW) == "3 May 2025 14:03 UTC"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0000123, "12.3 µs"), (0.00084, "840 µs"), (0.0009996, "1.00 ms"), (0.0041, "4.10 ms"), (0.0123, "12.3 ms"),
        (0.9996, "1.00 s"), (1.25, "1.25 s"), (600.0, "600 s"), (None, "–"), (math.nan, "–"),
    ],
)  # fmt: skip
def test_durations_have_three_digits(seconds: float | None, text: str) -> None:
    assert words.duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == text


@pytest.mark.parametrize(
    ("value", "text"), [(-0.04, "0.0"), (-0.06, "−0.1"), (12_345.67, "12,345.7"), (-math.inf, "–"), (None, "–")]
)
def test_numbers_have_a_real_minus_and_no_negative_zero(value: float | None, text: str) -> None:
    assert words.decimal(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (40, "40 s"), (720, "12 min"), (6_300, "1.8 h"), (86_400, "24 h"), (864_000, "10 days")],
)
def test_how_long_ago_is_said_in_one_unit(seconds: float, text: str) -> None:
    assert words.ago(NOW - seconds, NOW) == text


def test_a_window_of_digits_counts_rows() -> None:
    assert (words.window("500"), words.window("1"), words.window("5m")) == ("500 rows", "1 row", "5m")


def test_a_direction_depends_on_the_kind_and_an_unknown_word_is_kept() -> None:
    assert words.direction(numeric("a", shift=1.0)) == "higher values"
    assert words.direction(replace(categorical("a"), direction="down")) == "another mix of categories"
    assert words.direction(replace(numeric("a"), direction="sideways")) == "sideways"
    assert words.direction(numeric("a", evidence=None)) == ""


def test_the_bin_that_moved_most_is_named_with_both_shares() -> None:
    assert words.moved_most(categorical("city")).replace("\N{NO-BREAK SPACE}", " ") == "other: 4.1 % → 9.1 %"
    assert words.moved_most(replace(categorical("city"), rows=0)) == ""


@pytest.mark.parametrize(
    ("evidence", "text"),
    [(3.0, "Leans to higher values"), (1.0, "Leans to higher values"), (0.9, "Quiet"), (None, "Quiet")],
)
def test_what_chance_brings_is_no_leaning(evidence: float | None, text: str) -> None:
    assert words.leaning(replace(numeric("a", shift=1.0), evidence=evidence)) == text


def test_a_model_that_refused_within_the_last_minute_is_named_and_one_that_did_before_is_not() -> None:
    refused = TapState(errors=5, refused=5, refused_last_minute=3, upstream="127.0.0.1:8501")
    assert (
        words.refusals(refused)
        == "The model does not listen on 127.0.0.1:8501: 3 connections refused in the last minute"
    )
    assert words.refusals(replace(refused, refused_last_minute=0)) == ""


def test_a_limit_is_the_number_of_windows_it_was_made_of() -> None:
    assert words.budget(math.log10(8_640)) == "8,640"
    assert words.budget(math.inf) == words.NONE


@pytest.mark.parametrize(
    ("state", "labels", "text"),
    [
        ("insufficient", 0, "No labels yet"),
        ("insufficient", 1, "Too few labels: 1 label"),
        ("immature", 2_100, "Labels are still coming in: 2,100 labels"),
    ],
)
def test_why_there_is_no_accuracy_is_said(state: Any, labels: int, text: str) -> None:
    assert words.accuracy_in_words(AccuracyState(state, labels, None, None, None, ())) == text


def test_an_unknown_accuracy_says_its_reason_on_the_page() -> None:
    unknown = UnknownAccuracy("late", NOW - 7_200, "12 % of the labels come late; give a longer --label-horizon")
    accuracy = AccuracyState("unknown", 2_310, None, None, None, (), unknown, 0.25, 86_400.0, 2 * 86_400.0)
    assert words.accuracy_in_words(accuracy) == f"Accuracy unknown: {unknown.text}"
    page = render(replace(drifting(), accuracy=accuracy)).decode()
    assert f"Accuracy unknown: {unknown.text} (since 12:03 UTC, 2,310 labels)." in page
    said = page.replace("\N{NO-BREAK SPACE}", " ")
    assert "judged when it is 1 d old; 25.0 % of those have a label; at this rate predictions are kept for 2 d." in said


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.5, "0.5 s"), (300, "5 min"), (66_600, "18.5 h"), (86_400, "1 d"), (22_400_000, "259 d")]
)
def test_a_length_of_time_has_the_largest_unit_that_fits(seconds: float, text: str) -> None:
    assert span(seconds) == text


@given(st.text(), st.integers(1, 90))
def test_a_name_is_one_printable_line_of_bounded_length(name: str, length: int) -> None:
    shown = words.short(name, length)
    assert shown
    assert shown.isprintable()
    assert len(shown) <= max(length, len("(no name)"))


@given(st.floats(), st.floats())
def test_any_number_can_be_said_as_a_time(time: float, now: float) -> None:
    assert words.clock(time, now)
    assert words.stamp(time)
    assert words.ago(time, now)


def test_drift_of_predictions_has_a_verdict_of_its_own() -> None:
    calm = replace(drifting(), drifted=False, drifted_since=None, score=0.0, prediction_drifted=True)
    assert words.verdict(calm).tone == "drift"
    assert words.verdict(calm).text == "Drift of predictions in prediction (new)"
    both = words.verdict(replace(drifting(), prediction_drifted=True))
    assert both.text.endswith("; predictions drift too")
    assert "prediction (" not in both.text, "only inputs are named for the data"


@pytest.mark.parametrize(
    ("dependence", "text"),
    [
        ("measured", "Measured in 40 windows of the reference"),
        ("assumed", "a design effect of 1: the reference has no time order"),
        ("unknown", "nothing is called drift"),
    ],
)
def test_how_the_design_effects_came_about_is_said(dependence: Any, text: str) -> None:
    known = replace(drifting().reference, dependence=dependence, order_windows=40)
    assert text in words.dependence(known)
    calm = replace(drifting(), drifted=False, reference=known)
    assert (words.verdict(calm).tone == "calm") == (dependence != "unknown")
