"""Whatever the data, a drawing is well-formed XML whose coordinates are finite and within its box."""

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pegel_agent.sidecar.monitor.state import EvidencePoint
from pegel_agent.sidecar.status import charts
from pegel_agent.sidecar.status.charts import Bin

anything = st.floats(allow_nan=True, allow_infinity=True)
times = st.one_of(st.floats(0, 4e9), anything)
plausible_times = st.floats(1.6e9, 1.9e9)
points = st.lists(st.builds(EvidencePoint, times, st.one_of(st.floats(-5, 12), anything), st.booleans()), max_size=40)
accuracies = st.lists(st.tuples(times, *(st.one_of(st.floats(0, 1), anything),) * 3), max_size=40)
names = st.text(max_size=100)
shares = st.one_of(st.floats(0, 1), anything)

Corners = list[tuple[float, float]]


def corners(path: str) -> Corners:
    """All points of a path of M, L, H, V, h, v and Z."""
    x = y = 0.0
    found = []
    for command, text in re.findall(r"([A-Za-z])([^A-Za-z]*)", re.sub(r"(?<=\d)e(?=[+-]?\d)", "E", path)):
        numbers = [float(number) for number in text.split()]
        match command:
            case "M" | "L":
                x, y = numbers
            case "h":
                x += numbers[0]
            case "v":
                y += numbers[0]
            case "V":
                y = numbers[0]
            case "Z":
                continue
            case _:
                raise AssertionError(f"a path with {command}")
        found.append((x, y))
    return found


def extent(element: ElementTree.Element) -> Corners:
    """The corners of a rectangle or a path in its view box."""
    if element.tag == "path":
        return corners(element.get("d", ""))
    if element.tag == "rect":
        x, y = float(element.get("x", 0)), float(element.get("y", 0))
        return [(x, y), (x + float(element.get("width", 0)), y + float(element.get("height", 0)))]
    return []


def assert_within_its_box(svg: str) -> ElementTree.Element:
    """Every mark of a drawing lies in its view box, and every label and line beside it in the drawing."""
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert root[0].tag == "title"
    assert root[0].text
    boxes = [element for element in root.iter("svg") if element.get("viewBox")]
    assert len(boxes) == 1
    _, _, width, height = map(float, boxes[0].get("viewBox", "").split())
    for element in boxes[0].iter():
        for x, y in extent(element):
            assert -1e-6 <= x <= width + 1e-6
            assert -1e-6 <= y <= height + 1e-6
    if boxes[0] is not root:
        for element in root:
            for name in ("x", "x2", "cx", "y", "y1", "y2", "cy"):
                place = element.get(name, "0")
                if place.endswith("%"):
                    assert 0 <= float(place[:-1]) <= 100
                elif name.startswith("y") or name == "cy":
                    assert 0 <= float(place) <= float(root.get("height", 0))
                else:
                    assert place in ("0", "-8", "4")
    return root


@given(points, st.one_of(st.floats(0, 6), anything))
def test_evidence_stays_within_its_box(history: list[EvidencePoint], limit: float) -> None:
    if svg := charts.evidence_chart(history, limit):
        assert_within_its_box(svg)
    else:
        assert not any(0 <= point.time <= 2e11 for point in history)


@given(accuracies)
def test_accuracy_stays_within_its_box(history: list[charts.AccuracyPoint]) -> None:
    if svg := charts.accuracy_chart(history):
        assert_within_its_box(svg)


@given(st.lists(st.builds(Bin, names, shares, shares), max_size=60))
def test_a_histogram_stays_within_its_box(bins: list[Bin]) -> None:
    folded = charts.folded([one.name for one in bins], [one.reference for one in bins], [one.current for one in bins])
    assert len(folded) <= charts.MAX_BINS
    root = assert_within_its_box(charts.histogram(folded, title="t"))
    assert len(list(root.iter("rect"))) == len(folded)


@given(st.one_of(st.none(), anything), anything, st.lists(st.one_of(st.none(), anything), max_size=5), st.booleans())
def test_an_evidence_bar_stays_within_its_box(
    evidence: float | None, limit: float, others: list[float | None], drifted: bool
) -> None:
    top = charts.evidence_top(limit, [evidence, *others])
    assert_within_its_box(charts.evidence_bar(evidence, limit, top, drifted=drifted))


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_value_ticks_are_few_even_and_within(low: float, span: float) -> None:
    high = low + span
    ticks = charts.value_ticks(low, high)
    assert len(ticks) <= 6
    slack = 1e-6 * max(abs(low), abs(high), span)
    assert all(low - slack <= tick <= high + slack for tick in ticks)
    if len(ticks) > 2:
        steps = [b - a for a, b in pairwise(ticks)]
        assert max(steps) - min(steps) <= slack


@given(plausible_times, st.floats(1, 1e9))
def test_time_ticks_are_few_and_within(first: float, span: float) -> None:
    ticks = charts.time_ticks(first, first + span)
    assert len(ticks) <= 6
    assert all(first - 1e-3 <= time <= first + span + 1e-3 for time, _ in ticks)
    assert len({label for _, label in ticks}) == len(ticks)


@pytest.mark.parametrize(
    ("first", "last", "labels"),
    [
        (1_777_817_010, 1_777_817_040, ["14:03:30", "14:03:40", "14:03:50", "14:04:00"]),
        (1_777_810_000, 1_777_817_010, ["12:30", "13:00", "13:30", "14:00"]),
        (1_777_746_000, 1_777_789_200, ["21:00", "3 May", "03:00", "06:00"]),
        (1_777_500_000, 1_777_817_010, ["30 Apr", "1 May", "2 May", "3 May"]),
    ],
)
def test_time_ticks_are_round_times_in_utc(first: float, last: float, labels: list[str]) -> None:
    assert [label for _, label in charts.time_ticks(first, last)] == labels


def test_an_hour_in_drift_is_one_span_until_the_first_window_without() -> None:
    history = [EvidencePoint(float(time), 5.0, 3 <= time < 6 or time >= 8) for time in range(10)]
    assert charts.drifted_spans(history) == ((3.0, 6.0), (8.0, 9.0))


def test_a_long_history_is_thinned_but_keeps_its_peak() -> None:
    history = [EvidencePoint(1e9 + 300.0 * step, 7.0 if step == 4_321 else 0.0, False) for step in range(8_640)]
    root = ElementTree.fromstring(charts.evidence_chart(history, 3.9))
    line = next(path for path in root.iter("path") if path.get("class") == "line")
    places = corners(line.get("d", ""))
    assert len(places) <= charts.MAX_POINTS
    assert min(y for _, y in places) < 30 < charts.HEIGHT / 2 < sorted(y for _, y in places)[1]


def test_evidence_of_minus_infinity_is_drawn_at_the_bottom() -> None:
    history = [EvidencePoint(1e9, -math.inf, False), EvidencePoint(1e9 + 300, 1.0, False)]
    root = ElementTree.fromstring(charts.evidence_chart(history, 3.9))
    line = next(path for path in root.iter("path") if path.get("class") == "line")
    assert corners(line.get("d", ""))[0] == (0, charts.HEIGHT)


def test_the_alarm_line_is_where_evidence_equal_to_the_limit_is() -> None:
    root = ElementTree.fromstring(charts.evidence_chart([EvidencePoint(1e9, 3.9, True)], 3.9))
    alarm = next(line for line in root.iter("line") if line.get("class") == "alarm")
    last = next(root.iter("circle"))
    assert alarm.get("y1") == alarm.get("y2") == last.get("cy")


def test_paired_bars_are_as_high_as_their_shares() -> None:
    svg = charts.histogram([Bin("a", 0.2, 0.4), Bin("b", 0.8, 0.6)], title="t")
    heights = {
        path.get("class"): [charts.BIN_HEIGHT - y for _, y in corners(path.get("d", ""))[1::4]]
        for path in ElementTree.fromstring(svg).iter("path")
    }
    assert heights["then"] == pytest.approx([14.5, 58.0])
    assert heights["now"] == pytest.approx([29.0, 43.5])


def test_a_hundred_categories_keep_the_largest_and_fold_the_rest() -> None:
    shares_of = [0.5, *(0.5 / 99,) * 98, 0.4]
    bins = charts.folded([f"c{place}" for place in range(100)], shares_of, shares_of)
    assert (bins[0].name, bins[-2].name, bins[-1].name) == ("c0", "c99", "61 smaller bins")
    assert sum(one.reference for one in bins) == pytest.approx(sum(shares_of))
