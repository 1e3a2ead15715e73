"""Results as text for a terminal: tables, histograms, sentences. Pure functions."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from pegel_agent.batch.check import CheckResult, FeatureResult
from pegel_agent.reference.detection import smallest_shift_of
from pegel_agent.reference.profile import Feature, Profile
from pegel_agent.statistics.dependence import MIN_BATCHES
from pegel_agent.statistics.slots import FloatArray

_LEVELS = " ▁▂▃▄▅▆▇█"
_COLUMNS = 20
_NAME_WIDTH = 32
_LARGE_SHIFT = 0.5
_LARGE_PSI = 0.25
"""What practice calls a large change: half a standard deviation of the mean, and its square."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> str:
    """Cells in columns that fit; the columns in `right` are numbers and end where their header does."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def short(name: str) -> str:
    """A name on one line, cut where it would push a table off the screen."""
    name = " ".join(name.split())
    return name if len(name) <= _NAME_WIDTH else name[: _NAME_WIDTH - 1] + "…"


def histogram(feature: Feature) -> str:
    """The reference as up to 20 bars, the tallest one full.

    Numbers go from the lowest edge to the highest in steps of one width, whole numbers one by one if there are few;
    categories have the most frequent first.
    """
    if feature.kind == "categorical":
        heights = np.sort(np.array(feature.counts[:-1], dtype=np.float64))[::-1][:_COLUMNS]
    else:
        heights = _even_heights(np.array(feature.edges), np.array(feature.counts[1:-2], dtype=np.float64))
    full = heights.max(initial=0.0)
    return "".join(_LEVELS[int(np.ceil(height / full * 8))] for height in heights) if full else ""


def _even_heights(edges: FloatArray, rows: FloatArray) -> FloatArray:
    """Rows in 20 columns of one width, as if an interval's rows (k,) lay evenly between its edges (k + 1,)."""
    if edges[0] == edges[-1]:
        return np.array([rows.sum()])
    if edges[-1] - edges[0] < _COLUMNS and all(float(edge).is_integer() for edge in edges):
        return _even_heights_of_integers(edges, rows)
    grid = np.linspace(edges[0], edges[-1], _COLUMNS + 1)
    heights = np.zeros(_COLUMNS)
    for low, high, count in zip(edges, edges[1:], rows, strict=False):
        if low == high:
            heights[min(np.searchsorted(grid, low, side="right") - 1, _COLUMNS - 1)] += count
        else:
            overlap = np.clip(np.minimum(grid[1:], high) - np.maximum(grid[:-1], low), 0, None)
            heights += count * overlap / (high - low)
    return heights


def _even_heights_of_integers(edges: FloatArray, rows: FloatArray) -> FloatArray:
    """Rows at each whole number from the lowest edge to the highest, an interval's rows spread over those in it."""
    heights = np.zeros(int(edges[-1] - edges[0]) + 1)
    for position, (low, high, count) in enumerate(zip(edges, edges[1:], rows, strict=False)):
        first = low if position == 0 or low == high else low + 1
        heights[int(first - edges[0]) : int(high - edges[0]) + 1] += count / (high - first + 1)
    return heights


def what_it_can_show(profile: Profile) -> str:
    """A sentence on the smallest shift that a reference of this size can show."""
    shift = smallest_shift_of(profile)
    return f"the smallest shift of a mean that it can show is {shift:.2g} standard deviations"


def order_note(profile: Profile) -> str:
    """Sentences on what is known of the order of the reference's rows, and what follows."""
    order = profile.order
    if order is None:
        return (
            "the rows have no time order: a design effect of 1 is assumed, so rows that resemble their neighbours, or "
            "hours that differ, can raise false alarms; give --time"
        )
    window = f"{order.window} rows" if order.window.isdigit() else order.window
    if order.state == "unknown":
        return (
            f"the rows fill {order.windows} windows of {window}, which is too few to tell how much they resemble their "
            f"neighbours: no evidence is ever called drift; give {MIN_BATCHES} windows or more"
        )
    most = max(profile.watched, key=lambda feature: feature.reference.largest_effect)
    by_hour = sum(bool(feature.hours) for feature in profile.watched)
    return (
        f"measured in {order.windows:,} windows of {window}: design effects up to {most.reference.largest_effect:.3g} "
        f"({short(most.name)}), the hours of the day differ in {by_hour} of {len(profile.watched)} features"
    )


def reference_warning(profile: Profile) -> str:
    """What a small reference can't show, empty where it is large enough."""
    shift = smallest_shift_of(profile)
    if shift <= _LARGE_SHIFT:
        return ""
    return (
        f"with only {_rows(profile.rows)}, it can't show a mean that moves by less than {shift:.1f} standard deviations"
    )


def batch_warning(result: CheckResult, *, psi_floor: float) -> str:
    """What a small batch can't show, empty where it is large enough or `psi_floor` is what hides it."""
    limit = max(feature.psi_limit for feature in result.features.values())
    if limit <= max(_LARGE_PSI, psi_floor):
        return ""
    rows = _rows(min(result.rows, result.reference_rows))
    return f"with only {rows}, a change with a PSI below {limit:.2g} can pass unseen, and {_LARGE_PSI} is a large one"


def _rows(rows: int) -> str:
    return f"{rows:,} row{'s' * (rows != 1)}"


def profile_text(profile: Profile) -> str:
    """A profile for people: what it is of, and a line for each feature."""
    model = " ".join(word for word in ("of", profile.model_name, profile.model_version) if word)
    made = datetime.fromtimestamp(profile.created, UTC).strftime("%Y-%m-%d %H:%M UTC")
    head = (
        f"Profile {profile.hash}{f' {model}' if profile.model_name else ''}, made {made} from {profile.rows:,} rows;\n"
        f"{what_it_can_show(profile)};\n{order_note(profile)}.\n\n"
    )
    rows = [
        (
            short(f.name),
            f.kind if f.padding is None else "tokens",
            f.role,
            str(len(f.counts)),
            _effect(f, profile),
            f"{f.counts[-1] / sum(f.counts):.1%}",
            *_range(f),
        )
        for f in profile.watched
    ]
    header = ("FEATURE", "KIND", "ROLE", "BINS", "DEFF", "MISSING", "FROM", "HISTOGRAM", "TO")
    return head + table(header, rows, right=frozenset({3, 4, 5, 6}))


def _effect(feature: Feature, profile: Profile) -> str:
    """The largest design effect, with a mark where the hours of the day are told apart."""
    if profile.order is None or profile.order.state == "unknown":
        return "-"
    return f"{feature.reference.largest_effect:.2g}{' by hour' if feature.hours else ''}"


def _range(feature: Feature) -> tuple[str, str, str]:
    """What stands left of the histogram, the histogram, and what stands right of it."""
    if feature.kind == "numeric":
        return f"{feature.edges[0]:g}", histogram(feature).ljust(_COLUMNS), f"{feature.edges[-1]:g}"
    common = sorted(zip(feature.counts, feature.bins.names, strict=True), reverse=True)
    names = [short(name) for _, name in common]
    return "", histogram(feature).ljust(_COLUMNS), ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def check_text(result: CheckResult, *, data: str) -> str:
    """A verdict for people: a line for each feature, what drifted first, and a last line that says it all."""
    ordered = sorted(result.features.items(), key=lambda item: (not item[1].drifted, item[1].p_value))
    rows = [
        (
            short(name),
            (f.direction or "yes") if f.drifted else "-",
            f"{f.psi:.4f}",
            f"{f.psi_limit:.4f}",
            f"{f.js:.4f}",
            f"{f.ks:.4f}" if f.ks is not None else "-",
            f"{f.p_value:.1e}",
            _moved(f) if f.drifted else "",
        )
        for name, f in ordered
    ]
    header = ("FEATURE", "DRIFT", "PSI", "LIMIT", "JS", "KS", "P", "MOVED MOST")
    drifted = [short(name) for name, f in ordered if f.drifted]
    verdict = f"drift in {len(drifted)} of {len(rows)} features: {', '.join(drifted)}" if drifted else "no drift"
    size = f"{data}: {_rows(result.rows)} against {result.reference_rows:,}, alpha {result.alpha:g}"
    return f"{table(header, rows, right=frozenset({2, 3, 4, 5, 6}))}\n\n{size}: {verdict}"


def _moved(feature: FeatureResult) -> str:
    bin_ = feature.moved[0]
    return f"{short(bin_.bin)}: {bin_.reference:.2%} to {bin_.batch:.2%}"
