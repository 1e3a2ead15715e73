"""Windows and false-alarm budgets as people write them, and the number the detector needs."""

import re
from dataclasses import dataclass
from typing import Literal

Part = Literal["data_drift", "prediction_drift", "accuracy_drop", "fleet"]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SPANS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))
DEFAULT_BUDGET = "1/30d"
DEFAULT_BUDGET_WINDOWS = 8640
"""Where windows have no length in time: as many as there are five-minute windows in 30 days."""

_SHARES: dict[Part, float] = {"data_drift": 0.25, "prediction_drift": 0.25, "accuracy_drop": 0.25, "fleet": 0.25}
"""What may raise a false alarm, and how much of a model's budget it may use."""


@dataclass(frozen=True, slots=True)
class Window:
    """How long a window is: in seconds or in rows; the other is None."""

    seconds: float | None = None
    rows: int | None = None

    def __str__(self) -> str:
        return f"{self.rows} rows" if self.rows is not None else f"{self.seconds:g} s"


def parse_duration(text: str) -> float:
    """Seconds of `90s`, `5m`, `1.5h` or `30d`. Raises ValueError."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])", text.strip(), re.ASCII)
    if match is None or float(match[1]) == 0:
        raise ValueError(f"{text!r} is not a duration; write 90s, 5m, 1h or 30d")
    return float(match[1]) * _SECONDS[match[2]]


def span(seconds: float) -> str:
    """A length of time that need not be exact: `5 min`, `18.5 h`, `1 d`."""
    size, unit = next((one for one in _SPANS if seconds >= one[0]), _SPANS[-1])
    return f"{seconds / size:.3g} {unit}"


def parse_window(text: str) -> Window:
    """A window of `5m` (time) or `500` (rows). Raises ValueError."""
    rows = _whole(text.strip())
    if rows == 0:
        raise ValueError("a window needs at least one row")
    if rows is not None:
        return Window(rows=rows)
    seconds = parse_duration(text)
    if seconds < 1:
        raise ValueError(f"a window of {text.strip()} is too short: at least 1s")
    return Window(seconds=seconds)


def budget_windows(text: str | None, window: Window) -> float:
    """Mean number of windows between false alarms for a budget such as `1/30d` or `2/1000w`; None is the default.

    A budget in time needs windows in time. Raises ValueError.
    """
    if text is None:
        text = DEFAULT_BUDGET if window.seconds is not None else f"1/{DEFAULT_BUDGET_WINDOWS}w"
    alarms, slash, per = text.strip().partition("/")
    count = _whole(alarms)
    if not slash or not count:
        raise ValueError(f"{text!r} is not a budget; write 1/30d, or 1/8640w to count in windows")
    counted = _whole(per[:-1]) if per.endswith("w") else None
    if counted is not None:
        windows = counted / count
    elif window.seconds is None:
        raise ValueError(f"a window of {window.rows} rows has no clock: count the budget in windows, such as 1/8640w")
    else:
        windows = parse_duration(per) / window.seconds / count
    if windows < 2:
        raise ValueError(f"the budget {text} allows an alarm in nearly every window")
    return windows


def share_of(windows: float, part: Part) -> float:
    """Mean number of windows between false alarms of one part, so that all of them raise one in `windows` windows."""
    return windows / _SHARES[part]


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else None
