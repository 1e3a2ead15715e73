"""What the status page says in words: numbers, times, directions and the verdict. Pure functions.

A value that is not there, or not finite, is a dash; times are in UTC.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pegel_agent.sidecar.blindness import DECODING, LOOKS, UNFOLLOWED
from pegel_agent.sidecar.frames import TapState
from pegel_agent.sidecar.monitor.state import AccuracyState, FeatureState, ModelState, ReferenceState
from pegel_agent.statistics.budget import span

Tone = Literal["drift", "calm", "waiting"]

NONE = "–"
_LATEST = 253_402_300_799.0  # the end of year 9999, where datetime ends
_NAMED = 3
_NOTEWORTHY = 1.0
_NAME_LENGTH = 80

_NUMERIC_DIRECTIONS = {
    "up": "higher values",
    "down": "lower values",
    "wider": "more spread",
    "narrower": "less spread",
    "tails": "another share in the outermost bins",
    "shape": "another shape",
    "missing": "more missing values",
}
_CATEGORICAL_DIRECTIONS = dict.fromkeys(_NUMERIC_DIRECTIONS, "another mix of categories") | {
    "new": "more new or rare categories",
    "missing": "more missing values",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The model's state in one sentence, and how it feels."""

    tone: Tone
    text: str


def count(value: int) -> str:
    """`12345` as `12,345`."""
    return f"{value:,}"


def counted(value: int, thing: str) -> str:
    """`1 row`, `12,345 rows`."""
    return f"{count(value)} {thing}{'' if value == 1 else 's'}"


def decimal(value: float | None, digits: int = 1) -> str:
    """A number with so many digits after the point and a real minus sign."""
    if value is None or not math.isfinite(value):
        return NONE
    text = f"{value:,.{digits}f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else text.lstrip("-")


def percent(share: float | None, digits: int = 1) -> str:
    """`0.0512` as `5.1 %`."""
    return NONE if share is None or not math.isfinite(share) else f"{decimal(share * 100, digits)}\N{NO-BREAK SPACE}%"


def share_of(part: int, whole: int) -> str:
    """What part of a whole: `0.8 %`; empty where there is nothing to tell."""
    return percent(part / whole) if part and whole else ""


def duration(seconds: float | None) -> str:
    """A latency with three digits: `840 µs`, `12.3 ms`, `1.25 s`."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    for unit, scale in (("µs", 1e6), ("ms", 1e3)):
        if seconds * scale < 999.5:
            return f"{_three_digits(seconds * scale)}\N{NO-BREAK SPACE}{unit}"
    return f"{_three_digits(seconds)}\N{NO-BREAK SPACE}s"


def _three_digits(value: float) -> str:
    return decimal(value, 0 if value >= 99.95 else 1 if value >= 9.995 else 2)


def moment(time: float | None) -> datetime | None:
    """A Unix time in UTC; None for what is no time."""
    if time is None or not 0 <= time <= _LATEST:
        return None
    return datetime.fromtimestamp(time, UTC)


def clock(time: float | None, now: float) -> str:
    """`14:02 UTC` on the day of `now`, `3 May 14:02 UTC` in its year, with the year otherwise."""
    then, today = moment(time), moment(now)
    if then is None:
        return NONE
    if today is not None and then.date() == today.date():
        return f"{then:%H:%M} UTC"
    year = "" if today is not None and then.year == today.year else f" {then.year}"
    return f"{then.day} {then:%b}{year} {then:%H:%M} UTC"


def stamp(time: float | None) -> str:
    """`2026-05-03 14:02:10 UTC`."""
    then = moment(time)
    return NONE if then is None else f"{then:%Y-%m-%d %H:%M:%S} UTC"


def ago(time: float | None, now: float) -> str:
    """How long since: `40 s`, `12 min`, `1.8 h`, `3 days`."""
    if moment(time) is None or moment(now) is None or time is None:
        return NONE
    seconds = max(now - time, 0)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 5_400:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3_600:.{1 if seconds < 36_000 else 0}f} h"
    return f"{count(round(seconds / 86_400))} days"


def window(text: str) -> str:
    """The setting `500` as `500 rows`, `5m` as it is."""
    return counted(int(text), "row") if text.isascii() and text.isdigit() and len(text) < 16 else text


def short(name: str, length: int = _NAME_LENGTH) -> str:
    """A name on one line, cut where it would fill the page; `(no name)` for an empty one."""
    plain = name[: length + 1]
    if not plain.isprintable():
        plain = "".join(character if character.isprintable() else " " for character in plain)
    return f"{plain[: length - 1]}…" if len(plain) > length else plain.strip() or "(no name)"


def direction(feature: FeatureState) -> str:
    """What moved, in words; the detector's own word where it is not a known one."""
    words = _NUMERIC_DIRECTIONS if feature.kind == "numeric" else _CATEGORICAL_DIRECTIONS
    return words.get(feature.direction, feature.direction)


def leaning(feature: FeatureState) -> str:
    """Where a feature that has not drifted may be going; less evidence than 1 is what chance brings."""
    said = direction(feature)
    return f"Leans to {said}" if said and feature.evidence is not None and feature.evidence >= _NOTEWORTHY else "Quiet"


def moved_most(feature: FeatureState) -> str:
    """The bin whose share moved most, with both shares: `20 to 25: 5.0 % → 14.2 %`; empty before there are rows."""
    changes = [
        (abs(now - then), name, then, now)
        for name, then, now in zip(feature.bins, feature.reference, feature.current, strict=False)
        if math.isfinite(now - then)
    ]
    if not feature.rows or not changes:
        return ""
    _, name, then, now = max(changes, key=lambda change: change[0])
    return f"{short(name)}: {percent(then)} → {percent(now)}"


def budget(limit: float) -> str:
    """The false-alarm budget that a limit (log10) stands for, as a number of windows."""
    return count(round(10**limit)) if 0 <= limit < 15 else NONE


def dependence(reference: ReferenceState) -> str:
    """How the reference's rows depend on each other, and what follows for the alarm."""
    windows = counted(reference.order_windows, "window")
    if reference.dependence == "measured":
        return f"Measured in {windows} of the reference: the evidence allows for rows that resemble their neighbours."
    if reference.dependence == "unknown":
        return (
            f"Unknown: the reference fills only {windows}. Evidence is shown, but nothing is called drift before a "
            "profile is built from more rows."
        )
    return (
        "Assumed independent, a design effect of 1: the reference has no time order. Rows that resemble their "
        "neighbours, or hours that differ, can raise false alarms."
    )


def refusals(tap: TapState) -> str:
    """What to know of a model that refused connections within the last minute; empty where it did not."""
    if not tap.refused_last_minute:
        return ""
    where = f" on {tap.upstream}" if tap.upstream else ""
    return (
        f"The model does not listen{where}: {counted(tap.refused_last_minute, 'connection')} refused in the last minute"
    )


def served(tap: TapState) -> str:
    """By which names the model is served; empty while that is not known."""
    names = ", ".join(short(name, 40) for name in tap.served)
    return f"{names} (found)" if names and tap.served_found else names


def other_models(tap: TapState) -> str:
    """What to know of requests for other models; empty without any."""
    if not tap.other_model_requests:
        return ""
    verb = "passes" if tap.other_model_requests == 1 else "pass"
    requests = counted(tap.other_model_requests, "request")
    return f"{requests} for other models {verb} by unread: name them with --served-model if they are this model's"


def unread(tap: TapState) -> list[str]:
    """What goes by unread, and why: one sentence for each reason."""
    connections = [
        f"{counted(tap.unfollowed[reason], 'connection')}: they {said}"
        for reason, said in UNFOLLOWED.items()
        if reason in tap.unfollowed
    ]
    exchanges = [
        f"{counted(tap.undecodable_reasons[reason], 'POST')} to paths that Pegel doesn't read: looks like {said}"
        for reason, said in LOOKS.items()
        if reason in tap.undecodable_reasons
    ] + [
        f"{counted(tap.undecodable_reasons[reason], 'exchange')} not decoded: {said}"
        for reason, said in DECODING.items()
        if reason in tap.undecodable_reasons
    ]
    return connections + exchanges


def accuracy_in_words(accuracy: AccuracyState) -> str:
    """Why there is no accuracy to show."""
    if accuracy.unknown is not None:
        return f"Accuracy unknown: {accuracy.unknown.text}"
    if not accuracy.labels:
        return "No labels yet"
    if accuracy.state == "ok":
        return "Errors are measured, as the model answers with numbers: see ml_model_quality"
    have = counted(accuracy.labels, "label")
    return f"Labels are still coming in: {have}" if accuracy.state == "immature" else f"Too few labels: {have}"


def labels_in_words(accuracy: AccuracyState) -> str:
    """When labels are judged, what share of the predictions has one, and how long predictions are kept for them."""
    if not accuracy.horizon_seconds:
        return "Each label is judged at once, whether or not others of its time are still to come."
    said = f"A prediction is judged when it is {span(accuracy.horizon_seconds)} old"
    if accuracy.coverage is not None:
        said += f"; {percent(accuracy.coverage)} of those have a label"
    if accuracy.retention_seconds is not None:
        said += f"; at this rate predictions are kept for {span(accuracy.retention_seconds)}"
    return f"{said}."


def verdict(state: ModelState) -> Verdict:
    """The one sentence that the page is for."""
    if state.drifted:
        since = f" since {clock(state.drifted_since, state.now)}" if moment(state.drifted_since) else ""
        too = "; predictions drift too" if state.prediction_drifted else ""
        inputs = tuple(feature for feature in state.features if feature.role == "input")
        return Verdict("drift", f"Drift{since}{_where(inputs)}{too}")
    if state.prediction_drifted:
        predictions = tuple(feature for feature in state.features if feature.role == "prediction")
        return Verdict("drift", f"Drift of predictions{_where(predictions)}")
    if waits := _waits_for(state):
        return Verdict("waiting", waits)
    if state.reference.dependence == "unknown":
        return Verdict("waiting", "Nothing is called drift: the reference is too short to tell what is normal")
    if state.evidence is None or not math.isfinite(state.evidence):
        return Verdict("calm", "No drift: no evidence")
    return Verdict("calm", f"No drift: evidence {decimal(state.evidence)} of {decimal(state.evidence_limit)} needed")


def _waits_for(state: ModelState) -> str:
    tap, reference = state.tap, state.reference
    if not state.rows and not tap.requests:
        return _without_requests(tap)
    if not state.rows and tap.undecodable:
        return f"No rows yet: {count(tap.undecodable)} of {counted(tap.requests, 'request')} undecodable"
    if not state.rows:
        return f"No rows yet from {counted(tap.requests, 'request')}"
    if reference.source == "learning":
        rows, windows = min(reference.rows, reference.rows_needed), min(reference.windows, reference.windows_needed)
        return (
            f"Learning its reference: {count(rows)} of {counted(reference.rows_needed, 'row')}, "
            f"{count(windows)} of {counted(reference.windows_needed, 'window')}"
        )
    if not state.windows:
        return f"First window still open: {counted(state.rows, 'row')} so far"
    return ""


def _without_requests(tap: TapState) -> str:
    if tap.other_model_requests:
        return f"No request for {served(tap) or 'this model'} yet"
    if tap.unfollowed:
        return "Traffic passes that can't be read: no request counted yet"
    return "No request has reached the model yet" if tap.refused else "No traffic yet"


def _where(features: tuple[FeatureState, ...]) -> str:
    drifted = [feature for feature in features if feature.drifted] or [f for f in features[:1] if f.direction]
    named = [
        short(feature.name, 40) + (f" ({feature.direction})" if feature.direction else "")
        for feature in drifted[:_NAMED]
    ]
    if not named:
        return ""
    more = len(drifted) - len(named)
    if more:
        return f" in {', '.join(named)} and {more} more"
    return f" in {' and '.join([', '.join(named[:-1]), named[-1]] if len(named) > 1 else named)}"
