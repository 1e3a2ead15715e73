"""A backtest's result as text for a terminal. Pure functions."""

from datetime import datetime

from pegel_agent.batch.backtest import BacktestResult, WindowResult
from pegel_agent.batch.text import short, table
from pegel_agent.reference.profile import Role
from pegel_agent.statistics.budget import parse_window

_NAMED = 3
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_HEADERS: dict[Role, str] = {"input": "EVIDENCE", "prediction": "PREDICTIONS"}


def backtest_text(result: BacktestResult, *, data: str) -> str:
    """A line for each window, those with drift marked, and a last line that says it all."""
    timed = result.history[0].time is not None
    roles = tuple(result.history[0].evidence)
    header = (
        "WINDOW",
        *(("ENDED (UTC)",) if timed else ()),
        "ROWS",
        *(_HEADERS[role] for role in roles),
        "",
        "DRIFT IN",
    )
    rows = [
        (
            f"{window.window:,}",
            *((_stamp(window.time),) if timed else ()),
            f"{window.rows:,}",
            *(_evidence(window.evidence[role]) for role in roles),
            window.state.upper() if window.state == "alarm" else window.state,
            _drifted(window, result),
        )
        for window in result.history
    ]
    numbers = frozenset({0, *range(1 + timed, 2 + timed + len(roles))})
    return f"{table(header, rows, right=numbers)}\n\n{_legend(result)}\n{_summary(result, data)}"


def notes(result: BacktestResult, *, data: str) -> list[str]:
    """What of the file didn't count, or not as it stands."""
    found = []
    if not result.judged:
        found.append(
            "the profile's rows are too few to tell how they resemble their neighbours: nothing is called drift"
        )
    elif result.order is not None and str(parse_window(result.order.window)) != result.window:
        measured = window_length(str(parse_window(result.order.window)))
        found.append(
            f"the profile's design effects are of windows of {measured}, and these are of "
            f"{window_length(result.window)}; build it with --window as it is here"
        )
    if result.unseen:
        found.append(
            f"{data} has no column {', '.join(map(short, result.unseen))}: no drift of predictions is looked for"
        )
    if result.rows_left_over:
        found.append(f"the last {_counted(result.rows_left_over, 'row')} of {data} fill no window and are left out")
    for name, feature in result.features.items():
        if feature.invalid:
            found.append(f"{_counted(feature.invalid, 'value')} of {short(name)} without a number, counted as missing")
    return found


def direction(kind: str, word: str) -> str:
    """The detector's word for where a feature went; categories have no order to go up or down in."""
    return word if kind == "numeric" or word in {"", "new", "missing"} else "mix"


def window_length(seconds_or_rows: str) -> str:
    """`500 rows` as it is, `3600 s` as `1 h`."""
    number, unit = seconds_or_rows.split()
    if unit != "s":
        return seconds_or_rows
    seconds = float(number)
    size, name = next((size, name) for size, name in _UNITS if seconds % size == 0 or size == 1)
    return f"{seconds / size:g} {name}"


def _legend(result: BacktestResult) -> str:
    return (
        f"Evidence is log10; an alarm begins at {result.limit:.2f}: without drift once in "
        f"{result.budget_windows:,.0f} windows on average, at most."
    )


def _summary(result: BacktestResult, data: str) -> str:
    rows, windows = _counted(result.rows - result.rows_left_over, "row"), _counted(result.windows, "window")
    size = f"{data}: {rows} in {windows} of {window_length(result.window)}"
    if not result.alarms:
        return f"{size}: no alarm"
    first = result.alarms[0]
    when = f"window {first.window:,}" + (f", {_stamp(first.time)}" if first.time else "")
    names = [_moved(result, name) for name in first.features[:_NAMED]]
    more = len(first.features) - _NAMED
    named = ", ".join(names) + (f" and {more} more" if more > 0 else "")
    count = _counted(len(result.alarms), "alarm")
    return f"{size}: {count}, {'the first ' if len(result.alarms) > 1 else ''}in {when}: {named}"


def _moved(result: BacktestResult, name: str) -> str:
    """A feature with where it went and the bin whose share changed most."""
    feature = result.features[name]
    change = [abs(now - before) for now, before in zip(feature.current, feature.reference, strict=True)]
    most = change.index(max(change))
    where = direction(feature.kind, feature.direction)
    return (
        f"{short(name)}{f' {where}' if where else ''} "
        f"({short(feature.bins[most])}: {feature.reference[most]:.1%} to {feature.current[most]:.1%})"
    )


def _drifted(window: WindowResult, result: BacktestResult) -> str:
    names = [
        f"{short(one.name)} {direction(result.features[one.name].kind, one.direction)}".rstrip()
        for one in window.drifted[:_NAMED]
    ]
    more = len(window.drifted) - _NAMED
    return ", ".join(names) + (f", {more} more" if more > 0 else "")


def _evidence(evidence: float | None) -> str:
    return "-" if evidence is None else f"{evidence:.2f}"


def _stamp(time: datetime | None) -> str:
    return "" if time is None else time.strftime("%Y-%m-%d %H:%M" if time.second == 0 else "%Y-%m-%d %H:%M:%S")


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}"
