"""The status page's drawings: data to inline SVG, as safe markup. Pure functions.

Marks are drawn in a view box that is stretched to the width at hand; text stands outside it, placed in per cent, so
that it keeps its size on a phone and on a wall. Whatever the data, coordinates are finite and within the box.
Colours are the style sheet's.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from markupsafe import Markup, escape

from pegel_agent.sidecar.monitor.state import AccuracyState, EvidencePoint
from pegel_agent.sidecar.status.words import decimal, moment, percent, short

WIDTH = 1000
HEIGHT = 180
BAR_HEIGHT = 16
BIN_WIDTH = 10
BIN_HEIGHT = 60
MAX_BINS = 40
MAX_LABELS = 8
MAX_POINTS = 240
_LARGEST = 1e9
_STEPS = (
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200,
    86_400, 172_800, 604_800, 1_209_600, 2_592_000, 7_776_000, 31_536_000,
)  # fmt: skip

T = TypeVar("T")
AccuracyPoint = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear map of [low, high] to [start, end]; what is outside, or no number, goes to the nearer end or start."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        if math.isnan(value):
            return self.start
        share = min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)
        return round(self.start + share * (self.end - self.start), 1)


def _plain(value: float) -> str:
    return f"{value:g}"


def _tamed(value: float) -> float:
    return 0.0 if math.isnan(value) else min(max(value, -_LARGEST), _LARGEST)


def _number(value: float | None) -> float:
    return -math.inf if value is None else value


def _share(value: float) -> float:
    return min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_plain(x)} {_plain(y)}" for x, y in points)


def value_ticks(low: float, high: float, *, most: int = 5) -> tuple[float, ...]:
    """Round values (1, 2 or 5 times a power of ten apart) within [low, high], at most `most`."""
    if not low < high:
        return (low,)
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((step * power for step in (1, 2, 5) if step * power >= raw), 10 * power)
    return tuple(
        step * position for position in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    )


def time_ticks(first: float, last: float) -> tuple[tuple[float, str], ...]:
    """Round times in UTC within [first, last] with their labels: seconds, minutes or days, as the span needs."""
    span = last - first
    step = next((step for step in _STEPS if span / step <= (4 if step < 60 else 5)), math.ceil(span / 5))
    ticks = []
    for position in range(math.ceil(first / step), math.floor(last / step) + 1):
        if (then := moment(float(position * step))) is not None:
            day = f"{then.day} {then:%b}" + (f" {then.year}" if step >= 2_592_000 else "")
            midnight = step >= 86_400 or not (then.hour or then.minute or then.second)
            ticks.append(
                (float(position * step), day if midnight else f"{then:%H:%M:%S}" if step < 60 else f"{then:%H:%M}")
            )
    return tuple(ticks)


def _thinned(points: Sequence[T], key: Callable[[T], float]) -> list[T]:
    size = math.ceil(len(points) / MAX_POINTS)
    return [max(points[start : start + size], key=key) for start in range(0, len(points), size)] if points else []


def drifted_spans(history: Sequence[EvidencePoint]) -> tuple[tuple[float, float], ...]:
    """(first, last) time of each run of drifted windows; a run lasts until the first window without."""
    spans: list[tuple[float, float]] = []
    start: float | None = None
    for point in history:
        if point.drifted and start is None:
            start = point.time
        elif not point.drifted and start is not None:
            spans.append((start, point.time))
            start = None
    if start is not None:
        spans.append((start, history[-1].time))
    return tuple(spans)


def _times(values: Sequence[float]) -> tuple[float, float]:
    first, last = min(values), max(values)
    return (first, last) if last - first >= 1 else (last - 60, last)


def _frame(
    *, title: str, marks: Markup, x: Scale, y: Scale, values: Sequence[tuple[float, str]], over: Markup
) -> Markup:
    lines = Markup("").join(
        Markup('<line class="grid" x2="100%" y1="{0}" y2="{0}"/><text class="tick y" x="-8" y="{1}">{2}</text>').format(
            _plain(y(value)), _plain(y(value) + 4), label
        )
        for value, label in values
    )
    times = Markup("").join(
        Markup('<text class="tick {}" x="{}%" y="{}">{}</text>').format(
            "start" if x(time) < 80 else "end" if x(time) > WIDTH - 80 else "middle",
            _plain(round(x(time) / WIDTH * 100, 1)),
            HEIGHT + 20,
            label,
        )
        for time, label in time_ticks(x.low, x.high)
    )
    return Markup(
        '<svg class="chart" role="img" width="100%" height="{height}"><title>{title}</title>{lines}'
        '<svg viewBox="0 0 {width} {inner}" preserveAspectRatio="none" width="100%" height="{inner}">{marks}</svg>'
        '{over}{times}<text class="tick y" x="-8" y="{below}">UTC</text></svg>'
    ).format(
        height=HEIGHT + 26, title=title, lines=lines, width=WIDTH, inner=HEIGHT, marks=marks, over=over,
        times=times, below=HEIGHT + 20,
    )  # fmt: skip


def _last(x: float, y: float) -> Markup:
    return Markup('<circle class="last" cx="{}%" cy="{}" r="3.5"/>').format(
        _plain(round(x / WIDTH * 100, 1)), _plain(y)
    )


def evidence_chart(history: Sequence[EvidencePoint], limit: float) -> Markup:
    """Evidence (log10) at each window's close against the alarm line at `limit`, shaded while drifted.

    Evidence of −inf, as after a reset, is drawn at the bottom. Empty without a point.
    """
    usable = [point for point in history if moment(point.time) is not None]
    if not usable:
        return Markup("")
    values = [(point.time, _number(point.evidence)) for point in usable]
    finite = [_tamed(value) for _, value in values if math.isfinite(value)]
    limit = _tamed(limit)
    high = max([*finite, limit, 0.5]) * 1.15
    low = min([0.0, limit, *(max(value, -high) for value in finite)]) - 0.05 * high
    x = Scale(*_times([time for time, _ in values]), 0, WIDTH)
    y = Scale(low, high, HEIGHT, 0)
    places = [(x(time), y(value)) for time, value in _thinned(values, lambda point: _tamed(point[1]))]
    shades = Markup("").join(
        Markup('<rect class="drifted" x="{}" width="{}" height="{}"/>').format(
            _plain(min(x(first), WIDTH - 3)), _plain(max(x(last) - x(first), 3)), HEIGHT
        )
        for first, last in drifted_spans(usable)[-MAX_POINTS:]
    )
    alarm = Markup(
        '<line class="alarm" x2="100%" y1="{0}" y2="{0}"/><text class="alarm start" x="4" y="{1}">alarm at {2}</text>'
    ).format(_plain(y(limit)), _plain(max(y(limit) - 6, 12)), decimal(limit))
    latest = decimal(usable[-1].evidence)
    return _frame(
        title=f"Evidence for drift over time, last {latest}; the alarm line is at {decimal(limit)}",
        marks=shades + Markup('<path class="line" d="{}"/>').format(_path(places)),
        x=x,
        y=y,
        values=[(value, _plain(round(value, 6)).replace("-", "−")) for value in value_ticks(low, high)],
        over=alarm + _last(*places[-1]),
    )


def accuracy_points(accuracy: AccuracyState, now: float) -> tuple[AccuracyPoint, ...]:
    """The history with the accuracy of `now` at its end, so that the curve ends at the number beside it."""
    if accuracy.accuracy is None or accuracy.lower is None or accuracy.upper is None:
        return accuracy.history
    past = [point for point in accuracy.history if point[0] < now]
    return (*past, (now, accuracy.accuracy, accuracy.lower, accuracy.upper))


def accuracy_chart(history: Sequence[AccuracyPoint]) -> Markup:
    """Accuracy over time with the band of its 95 % interval. Empty without a point."""
    usable = [
        (time, _share(value), _share(lower), _share(upper))
        for time, value, lower, upper in history
        if moment(time) is not None and math.isfinite(value) and math.isfinite(lower) and math.isfinite(upper)
    ]
    if not usable:
        return Markup("")
    low, high = min(min(point[1:]) for point in usable), max(max(point[1:]) for point in usable)
    pad = max((high - low) * 0.1, 0.01)
    low, high = max(low - pad, 0.0), min(high + pad, 1.0)
    x = Scale(*_times([point[0] for point in usable]), 0, WIDTH)
    y = Scale(low, high, HEIGHT, 0)
    shown = _thinned(usable, lambda point: point[0])
    upper = [(x(time), y(top)) for time, _, _, top in shown]
    lower = [(x(time), y(bottom)) for time, _, bottom, _ in reversed(shown)]
    places = [(x(time), y(value)) for time, value, _, _ in shown]
    ticks = value_ticks(low, high)
    digits = 0 if len(ticks) < 2 or ticks[1] - ticks[0] >= 0.0099 else 1
    return _frame(
        title=f"Accuracy over time with its 95 % interval, last {percent(usable[-1][1])}",
        marks=Markup('<path class="band" d="{}Z"/><path class="line" d="{}"/>').format(
            _path([*upper, *lower]), _path(places)
        ),
        x=x,
        y=y,
        values=[(value, percent(value, digits)) for value in ticks],
        over=_last(*places[-1]),
    )


def evidence_top(limit: float, evidences: Sequence[float | None]) -> float:
    """Where the features' evidence bars end: one scale for all of them, with room beyond the limit."""
    known = [_tamed(value) for value in evidences if value is not None and math.isfinite(value)]
    return max([*known, _tamed(limit) * 1.3, 1.0])


def evidence_bar(evidence: float | None, limit: float, top: float, *, drifted: bool) -> Markup:
    """A feature's evidence as a bar from 0 to `top`, with a mark at the limit; no bar without evidence."""
    x = Scale(0.0, top, 0, WIDTH)
    return Markup(
        '<svg class="bar" role="img" viewBox="0 0 {width} {height}" preserveAspectRatio="none">'
        "<title>evidence {evidence}, limit {limit}</title>"
        '<rect class="track" width="{width}" y="3" height="{thick}"/>'
        '<rect class="{tone}" width="{length}" y="3" height="{thick}"/>'
        '<path class="limit" d="M{mark} 0V{height}"/></svg>'
    ).format(
        width=WIDTH,
        height=BAR_HEIGHT,
        thick=BAR_HEIGHT - 6,
        evidence=decimal(evidence),
        limit=decimal(limit),
        tone="over" if drifted else "under",
        length=_plain(x(_number(evidence))),
        mark=_plain(x(_tamed(limit))),
    )


@dataclass(frozen=True, slots=True)
class Bin:
    """A bin's name and its shares in the reference and now, 0 to 1."""

    name: str
    reference: float
    current: float


def folded(bins: Sequence[str], reference: Sequence[float], current: Sequence[float]) -> tuple[Bin, ...]:
    """At most MAX_BINS bins in their order: the largest, and the others' sum as the last."""
    every = [Bin(n, _share(r), _share(c)) for n, r, c in zip(bins, reference, current, strict=False)]
    if len(every) <= MAX_BINS:
        return tuple(every)
    ranked = sorted(range(len(every)), key=lambda place: -max(every[place].reference, every[place].current))
    kept, rest = sorted(ranked[: MAX_BINS - 1]), ranked[MAX_BINS - 1 :]
    return (
        *(every[place] for place in kept),
        Bin(
            f"{len(rest)} smaller bins",
            _share(sum(every[place].reference for place in rest)),
            _share(sum(every[place].current for place in rest)),
        ),
    )


def highest(bins: Sequence[Bin]) -> float:
    """The share at a histogram's top."""
    return max((max(one.reference, one.current) for one in bins), default=0.0)


def labelled(bins: Sequence[Bin]) -> Sequence[Bin]:
    """The bins that have room for their names below a histogram: all of them, or the first and the last."""
    return bins if len(bins) <= MAX_LABELS else (bins[0], bins[-1])


def histogram(bins: Sequence[Bin], *, title: str) -> Markup:
    """Two bars a bin, the reference's hollow and the current one solid; a bin's name and shares show on hover."""
    y = Scale(0.0, highest(bins) or 1.0, 0, BIN_HEIGHT - 2)

    def bars(offset: float, shares: Sequence[float]) -> str:
        return "".join(
            f"M{_plain(place * BIN_WIDTH + offset)} {BIN_HEIGHT}v-{_plain(y(share))}h3.6V{BIN_HEIGHT}"
            for place, share in enumerate(shares)
            if y(share)
        )

    # The only markup put together without Markup.format, which is slow: fifty features have a thousand of these.
    hovers = "".join(
        f'<rect x="{place * BIN_WIDTH}" width="{BIN_WIDTH}" height="{BIN_HEIGHT}"><title>{escape(short(one.name))}\n'
        f"reference {percent(one.reference)}\nnow {percent(one.current)}</title></rect>"
        for place, one in enumerate(bins)
    )
    return Markup(
        '<svg class="histogram" role="img" viewBox="0 0 {} {}" preserveAspectRatio="none"><title>{}</title>'
        '<path class="then" d="{}"/><path class="now" d="{}"/><g>{}</g></svg>'
    ).format(
        max(len(bins), 1) * BIN_WIDTH,
        BIN_HEIGHT,
        title,
        bars(1, [one.reference for one in bins]),
        bars(5.2, [one.current for one in bins]),
        Markup(hovers),  # noqa: S704
    )
