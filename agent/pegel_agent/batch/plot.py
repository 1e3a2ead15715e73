"""A backtest as a picture: evidence over the windows, and how the features that moved most look now.

matplotlib is imported only here and only when a picture is asked for: it is an extra of its own, `plot`.
"""

import io
import re
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pegel_exporters.errors import UserError
from pegel_exporters.files import write_whole

from pegel_agent.batch.backtest import BacktestResult, FeatureResult
from pegel_agent.batch.backtest_text import direction, window_length
from pegel_agent.batch.text import short
from pegel_agent.reference.profile import Role

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = 3
_INK, _QUIET, _REFERENCE, _ALARM = "#1f2933", "#7b8794", "#b8c2cc", "#c2410c"
_COLOURS: dict[Role, str] = {"input": "#1d4ed8", "prediction": "#0f766e"}
_WORDS: dict[Role, str] = {"input": "inputs", "prediction": "predictions"}
_BIN_CHARACTERS = 14
_NAME_CHARACTERS = 22
_NAMED_BINS = 6
_MOST_MARKS = 8


def check_output(path: Path) -> None:
    """Raises UserError where a picture can't be drawn to this file, before anything is read."""
    if path.suffix.lower() not in {".png", ".svg"}:
        raise UserError(f"--plot {path}: expected a file that ends in .png or .svg")
    if not path.absolute().parent.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {path.parent}")
    try:
        import matplotlib  # noqa: F401, PLC0415
    except ModuleNotFoundError:
        raise UserError("--plot needs matplotlib: pip install 'pegel[plot]'") from None


def draw(result: BacktestResult, path: Path, *, title: str) -> None:
    """Write the picture, whole or not at all: 1600 pixels wide. Raises UserError when it can't be written."""
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: PLC0415

    shown = _most_moved(result)
    figure = Figure(figsize=(8, 5.6), dpi=200, layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.06))
    rows = figure.subplot_mosaic(
        [["evidence"] * _SHOWN, [*map(str, range(len(shown))), *["."] * (_SHOWN - len(shown))]],
        height_ratios=[1.5, 1],
    )
    figure.suptitle(_title(result, title), x=0.01, ha="left", fontsize=11, color=_INK, fontweight="bold")
    _draw_evidence(rows["evidence"], result)
    for place, (name, feature) in enumerate(shown):
        _draw_shares(rows[str(place)], name, feature)
        if place == 0:
            rows["0"].set_ylabel("share of rows", fontsize=8, color=_INK)
    _save(figure, path)


def _title(result: BacktestResult, title: str) -> str:
    found = len(result.alarms)
    verdict = f"{found} alarm{'s' * (found != 1)}" if found else "no alarm"
    return f"{_plain(short(title))}: {verdict} in {result.windows:,} window{'s' * (result.windows != 1)}"


def _most_moved(result: BacktestResult) -> list[tuple[str, FeatureResult]]:
    """The features with the strongest evidence; those that were in drift, where there are any."""
    found = [(name, feature) for name, feature in result.features.items() if sum(feature.current)]
    in_drift = [(name, feature) for name, feature in found if feature.windows]
    return sorted(in_drift or found, key=lambda item: -_number(item[1].evidence))[:_SHOWN]


def _draw_evidence(axes: "Axes", result: BacktestResult) -> None:
    timed = result.history[0].time is not None
    at: Any = [window.time if timed else window.window for window in result.history]
    lowest = -1.0
    for role in result.history[0].evidence:
        evidence = np.array([_number(window.evidence[role]) for window in result.history])
        finite = evidence[np.isfinite(evidence)]
        lowest = min(lowest, float(finite.min(initial=0)))
        marker = "o" if len(evidence) <= 60 else ""
        axes.plot(
            at, np.where(np.isfinite(evidence), evidence, np.nan), color=_COLOURS[role], linewidth=1.4,
            marker=marker, markersize=2.5, label=_WORDS[role],
        )  # fmt: skip
    axes.axhline(result.limit, color=_ALARM, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate(
        f"alarm limit: once in {result.budget_windows:,.0f} windows without drift", (0.005, result.limit),
        xycoords=("axes fraction", "data"), xytext=(0, 3), textcoords="offset points", fontsize=7.5, color=_ALARM,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
    )  # fmt: skip
    top = max(result.limit, *(_number(value) for window in result.history for value in window.evidence.values()))
    span = top - lowest
    axes.set_ylim(lowest - 0.08 * span, top + 0.2 * span)
    for place, alarm in enumerate(result.alarms):
        moment: Any = alarm.time if timed else alarm.window
        axes.axvline(moment, color=_ALARM, linewidth=0.8, alpha=0.6)
        if place < _MOST_MARKS:
            axes.plot([moment], [top + 0.13 * span], marker="v", color=_ALARM, markersize=6, clip_on=False)
    _shade_drift(axes, result, at)
    axes.set_ylabel("evidence (log10)", fontsize=8, color=_INK)
    axes.set_xlabel(
        "end of the window (UTC)" if timed else f"window ({window_length(result.window)} each)", fontsize=8, color=_INK
    )
    if timed:
        from matplotlib import dates  # noqa: PLC0415

        locator = dates.AutoDateLocator(tz=UTC, maxticks=9)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.get_offset_text().set_fontsize(7.5)
    else:
        from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(result.history[0].evidence) > 1:
        axes.legend(loc="lower right", fontsize=7.5, frameon=False, ncols=2)
    _plain_axes(axes)


def _shade_drift(axes: "Axes", result: BacktestResult, at: Any) -> None:
    """A pale ground behind the windows in drift."""
    states = [bool(window.state) for window in result.history]
    began = None
    for place, drifted in enumerate([*states, False]):
        if drifted and began is None:
            began = place
        elif not drifted and began is not None:
            axes.axvspan(at[began], at[min(place, len(at) - 1)], color=_ALARM, alpha=0.08, linewidth=0)
            began = None


def _draw_shares(axes: "Axes", name: str, feature: FeatureResult) -> None:
    """The reference's share of each bin as a bar, and the traffic's as a line of steps before it."""
    drawn = [
        place for place in range(len(feature.bins))
        if max(feature.reference[place], feature.current[place]) >= 0.001
        or 0 < place < len(feature.bins) - 2
    ]  # fmt: skip
    reference = [feature.reference[place] for place in drawn]
    current = [feature.current[place] for place in drawn]
    x = np.arange(len(drawn))
    axes.bar(x - 0.2, reference, width=0.4, color=_REFERENCE, label="reference")
    axes.bar(
        x + 0.2, current, width=0.4, color=_ALARM if feature.windows else _COLOURS[feature.role],
        label="in drift" if feature.windows else "traffic",
    )  # fmt: skip
    names = [_tick(feature, feature.bins[place]) for place in drawn]
    if len(drawn) > _NAMED_BINS:
        ends = {0: names[0], len(drawn) - 1: names[-1], len(drawn) // 2: names[len(drawn) // 2]}
        axes.set_xticks(list(ends), list(ends.values()), fontsize=6.5)
    else:
        axes.set_xticks(x, names, fontsize=6.5)
    where = f" ({direction(feature.kind, feature.direction)})" if feature.direction else ""
    axes.set_title(f"{_plain(_shortened(name, _NAME_CHARACTERS))}{where}", fontsize=8.5, color=_INK, loc="left")
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.margins(y=0.3)
    axes.legend(loc="upper right", fontsize=6.5, frameon=False, ncols=2, handlelength=1, borderaxespad=0.1)
    _plain_axes(axes)


def _plain_axes(axes: "Axes") -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_QUIET)
    axes.tick_params(colors=_INK, labelsize=7.5, color=_QUIET)
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.6)
    axes.set_axisbelow(True)


def _save(figure: Any, path: Path) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix.lower().lstrip("."), facecolor="white")
    write_whole(path, picture.getvalue())


def _tick(feature: FeatureResult, name: str) -> str:
    """A bin's name where there is little room: an interval's upper end, three digits of a number."""
    if feature.kind == "numeric":
        _, found, high = name.rpartition(" to ")
        name = re.sub(r"-?[\d.]+(?:e[-+]?\d+)?$", lambda number: _three_digits(float(number[0])), high)
        name = f"to {name}" if found else name
    return _plain(_shortened(name, _BIN_CHARACTERS))


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"


def _shortened(name: str, characters: int) -> str:
    name = " ".join(name.split())
    return name if len(name) <= characters else name[: characters - 1] + "…"


def _plain(text: str) -> str:
    """A dollar would begin a formula."""
    return text.replace("$", r"\$")


def _number(evidence: float | None) -> float:
    return -np.inf if evidence is None else evidence
