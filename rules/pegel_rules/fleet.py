"""Drift in the rows of all replicas together, over windows from an hour to a week.

Each replica counts its rows per feature and bin; added up here, they show drift that is too small, or spread over too
many replicas, for any of them to see. A feature's PSI in a window is compared with the limit that it exceeds by chance
only as often as the model's budget of false alarms allows.

Names: `bin`, `feature` and `model` say what a series is of; p are a window's shares and q the reference's; a window
that has too few rows for its limit to be right has no series at all. Where a reference tells the hours of the day
apart, q are the shares that it expected of the window's own rows, so that an afternoon is compared with afternoons.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pegel_exporters.catalogue import (
    DRIFT_DESIGN_EFFECT,
    FEATURE_DRIFT,
    FEATURE_DRIFT_LIMIT,
    FEATURE_EXPECTED_ROWS,
    FEATURE_HETEROGENEITY,
    FEATURE_REFERENCE_ROWS,
    FEATURE_ROWS,
    INFERENCE_ROWS,
)

from pegel_rules.model import Alert, Group, Record, Settings
from pegel_rules.promql import (
    BY_MODEL,
    MODEL_LABELS,
    MODEL_WORDS,
    of_each_replica,
    recorded,
    resolved_threshold,
    threshold_of_models,
)
from pegel_rules.thresholds import FLEET_ALERT

FEATURE_LABELS = f"{MODEL_LABELS}, feature, reference"
BIN_LABELS = f"{FEATURE_LABELS}, bin"
BY_FEATURE, BY_BIN = f"by ({FEATURE_LABELS})", f"by ({BIN_LABELS})"

FIVE_MINUTES = recorded(FEATURE_ROWS, "increase5m", level="bin")
HOURS = recorded(FEATURE_ROWS, "increase1h", level="bin")
EXPECTED_FIVE_MINUTES = recorded(FEATURE_EXPECTED_ROWS, "increase5m", level="bin")
EXPECTED_HOURS = recorded(FEATURE_EXPECTED_ROWS, "increase1h", level="bin")
SHARES = recorded(FEATURE_ROWS, "share", level="bin")
ROWS = recorded(FEATURE_ROWS, "sum", level="feature")
REFERENCE_SHARES = recorded(FEATURE_REFERENCE_ROWS, "share", level="bin")
REFERENCE_ROWS = recorded(FEATURE_REFERENCE_ROWS, "sum", level="feature")
BINS = recorded(FEATURE_REFERENCE_ROWS, "count", level="feature")
MEASURES = {name: recorded(FEATURE_DRIFT, name, level="feature") for name in ("psi", "js", "tvd", "chi2")}
LIMIT = recorded(FEATURE_DRIFT_LIMIT, "psi", level="feature")
SCRAPES = recorded(INFERENCE_ROWS, "scrape_factor")
FEATURES = recorded(FEATURE_DRIFT_LIMIT, "features_per_false_alarm")
LEVEL = recorded(FEATURE_DRIFT_LIMIT, "y")
QUANTILE = recorded(FEATURE_DRIFT_LIMIT, "z")
_EVERY_BIN = f"max {BY_BIN} ({FEATURE_REFERENCE_ROWS.name})"

STEP_SECONDS = 300
BUDGET_DAYS = 30
SHARE_OF_BUDGET = 1 / 4
"""Of a model's false alarms; the others are for its replicas' data drift, prediction drift and accuracy drop."""
LOOKS_PER_WINDOW = 30
"""To how many independent looks the overlapping ones of one window amount at most."""
ROWS_PER_BIN = 20
"""Fewer, and PSI exceeds its limit more often than the limit says."""
COVERED = 0.98
"""Of a window's rows must have been expected. Replicas without that counter, as of an older version, expect none of
theirs, and then there is nothing to compare with."""
END = 0.8
"""Of the limit: where an alert that fires ends. Below it chance takes the strongest of all features now and then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The latest so many hours. `source` and `expected` hold rows in pieces of five minutes or of an hour, all within
    `range`."""

    name: str
    hours: int
    source: str
    expected: str

    @property
    def range_seconds(self) -> int:
        """Long enough for the oldest piece and too short for the one before it, wherever in a piece the hour begins."""
        return self.hours * 3_600 - 60


WINDOWS = (
    Window(name="1h", hours=1, source=FIVE_MINUTES, expected=EXPECTED_FIVE_MINUTES),
    Window(name="6h", hours=6, source=HOURS, expected=EXPECTED_HOURS),
    Window(name="1d", hours=24, source=HOURS, expected=EXPECTED_HOURS),
    Window(name="7d", hours=168, source=HOURS, expected=EXPECTED_HOURS),
)


def group(settings: Settings) -> Group:
    """Every rule reads what those before it have just recorded, so one group holds them all.

    Its interval is the length of the pieces: at any other they would overlap, or miss rows.
    """
    return Group(
        name="pegel-drift-fleet",
        interval=settings.duration(STEP_SECONDS),
        rules=(
            *_pieces(settings),
            *_reference(),
            *_budget(),
            *(rule for window in WINDOWS for rule in _window(window, settings)),
            *_measures(),
            *(_limit(window, settings) for window in WINDOWS),
            _alert(settings),
        ),
    )


def _pieces(settings: Settings) -> Iterator[Record]:
    """Rows per bin over all replicas: a week is added up from hours, because its raw counters would be far too many."""
    step, hour = settings.duration(STEP_SECONDS), settings.seconds(3_600)
    for counter, five_minutes, hours in (
        (FEATURE_ROWS, FIVE_MINUTES, HOURS),
        (FEATURE_EXPECTED_ROWS, EXPECTED_FIVE_MINUTES, EXPECTED_HOURS),
    ):
        yield Record(
            name=five_minutes, expr=f"sum {BY_BIN} ({of_each_replica(BIN_LABELS, f'increase({counter.name}[{step}])')})"
        )
        yield Record(
            name=hours,
            # Once an hour: hours that overlap would count rows twice.
            expr=f"""\
sum_over_time({five_minutes}[{settings.duration(3_540)}])
and on () vector(time() % {hour}) < {settings.seconds(STEP_SECONDS)}""",
        )
    # increase() sees the rows between the first and the last of s scrapes and takes them for those of s intervals
    # instead of s - 1, so the shares vary as those of fewer rows do.
    yield Record(
        name=SCRAPES,
        expr=f"1 / (1 - 1 / avg {BY_MODEL} (count_over_time({INFERENCE_ROWS.name}[{step}]) > 1))",
    )


def _reference() -> Iterator[Record]:
    """m and k."""
    yield Record(name=REFERENCE_ROWS, expr=f"sum {BY_FEATURE} ({_EVERY_BIN})")
    yield Record(name=BINS, expr=f"count {BY_FEATURE} ({_EVERY_BIN}) > 1")


def _budget() -> Iterator[Record]:
    """z, which the standard normal distribution exceeds with the probability α of one look at a feature in a window.

    The budget allows B false alarms in T = 30 days. Each of the windows takes an equal part, for F features and
    N = 30·T/W looks at a window of length W. With y = −2·ln α − ln 2π, sqrt(y − ln(y − ln y)) is above the upper
    quantile of α, by less than 0.05 for any α up to 1/500.
    """
    features = f"count {BY_MODEL} ({BINS})"
    yield resolved_threshold(features, alert=FLEET_ALERT)
    yield Record(name=FEATURES, expr=f"{features} / ({threshold_of_models(FLEET_ALERT)} * {SHARE_OF_BUDGET:g})")
    for window in WINDOWS:
        looks = len(WINDOWS) * LOOKS_PER_WINDOW * BUDGET_DAYS * 24 / window.hours
        yield Record(
            name=LEVEL,
            expr=f"2 * ln({looks:.12g} * {FEATURES}) - {math.log(2 * math.pi):.12g}",
            labels={"window": window.name},
        )
    yield Record(name=QUANTILE, expr=f"sqrt({LEVEL} - ln({LEVEL} - ln({LEVEL})))")


def _window(window: Window, settings: Settings) -> Iterator[Record]:
    """n, p and q of a window, p with half a row more in each bin, so that no logarithm meets a zero."""
    counts = f"sum_over_time({window.source}[{settings.duration(window.range_seconds)}])"
    expected = f"sum_over_time({window.expected}[{settings.duration(window.range_seconds)}])"
    yield Record(
        name=ROWS,
        expr=f"sum {BY_FEATURE} ({counts}) >= {ROWS_PER_BIN} * {BINS}",
        labels={"window": window.name},
    )
    rows = f"({_of(ROWS, window)} + ignoring (window) 0.5 * {BINS})"
    yield Record(
        name=SHARES,
        expr=f"({counts} + 0.5) / ignoring (bin) group_left () {rows}",
        labels={"window": window.name},
    )
    yield Record(
        name=REFERENCE_SHARES,
        expr=f"""\
{expected} / ignoring (bin) group_left ()
  (sum {BY_FEATURE} ({expected}) > {COVERED} * sum {BY_FEATURE} ({counts}))
or
(
  {_EVERY_BIN} / ignoring (bin) group_left () {REFERENCE_ROWS}
  unless on ({FEATURE_LABELS}) {FEATURE_EXPECTED_ROWS.name}
)""",
        labels={"window": window.name},
    )


def _measures() -> Iterator[Record]:
    """The sidecar's own, of all windows at once. JS is the distance, to base 2."""
    p, q = SHARES, REFERENCE_SHARES
    middle = f"({p} + {q}) / 2"
    entropy = f"{q} * ln({q})"
    by = f"by ({FEATURE_LABELS}, window)"
    yield Record(name=MEASURES["psi"], expr=f"sum {by} (({p} - {q}) * ln({p} / {q}))")
    yield Record(
        name=MEASURES["js"],
        # Rounding may leave less than nothing.
        expr=f"""\
sqrt(clamp_min(
  sum {by} (
    ({p} * ln({p}) + {entropy}) / 2
    - {middle} * ln({middle})
  ),
  0
) / {math.log(2):.12g})""",
    )
    yield Record(name=MEASURES["tvd"], expr=f"sum {by} (abs({p} - {q})) / 2")
    yield Record(name=MEASURES["chi2"], expr=f"sum {by} (({p} - {q}) ^ 2 / {q})")


def _limit(window: Window, settings: Settings) -> Record:
    """PSI's limit: (deff_n/n + deff_m/m) times χ²'s upper quantile for k − 1 degrees of freedom.

    The quantile is Wilson and Hilferty's (1931), at most a fifth too high. A feature whose design effect is unknown has
    no limit, and so no alarm. Where hours are told apart, m is as many hours' part of the reference, and χ² by which
    they differ from day to day is added; norms add, squares don't.
    """
    of_model = "ignoring (feature, reference, window) group_left ()"
    scrapes = f"avg_over_time({SCRAPES}[{settings.duration(window.range_seconds)}])"
    variance = f"2 / (9 * ({BINS} - 1))"
    reference = REFERENCE_ROWS
    if window.hours < 24:
        by_hour = f"count {BY_FEATURE} ({FEATURE_EXPECTED_ROWS.name})"
        reference = f"({REFERENCE_ROWS} * {window.hours} / 24 and {by_hour} or {REFERENCE_ROWS})"
    of_feature = f"max by ({MODEL_LABELS}, feature)"
    limit = f"""\
(1 / {_of(ROWS, window)} * {of_model} {scrapes} + ignoring (window) 1 / {reference})
* ignoring (reference) group_left () {of_feature} ({DRIFT_DESIGN_EFFECT.name})
* ({BINS} - 1)
* (
  1 - {variance}
  + sqrt({variance}) * {of_model} {_of(QUANTILE, window)}
) ^ 3"""
    differing = f"sqrt({of_feature} ({FEATURE_HETEROGENEITY.name}))"
    return Record(
        name=LIMIT,
        expr=f"""\
(sqrt({limit}) + ignoring (reference) group_left () {differing}) ^ 2
or
{limit}""",
        labels={"window": window.name},
    )


def _of(name: str, window: Window) -> str:
    return f'{name}{{window="{window.name}"}}'


def _alert(settings: Settings) -> Alert:
    strongest = f"max {BY_MODEL} ({MEASURES['psi']} / {LIMIT})"
    of_model = "cluster=%q,namespace=%q,model_name=%q,model_version=%q"
    feature = (
        f"{{{{ with printf `topk(1, {MEASURES['psi']}{{{of_model}}} / {LIMIT}{{{of_model}}})` "
        f"{' '.join(2 * ['$labels.cluster $labels.namespace $labels.model_name $labels.model_version'])} | query }}}}"
        " The strongest feature is {{ . | first | label `feature` }}, over {{ . | first | label `window` }}.{{ end }}"
    )
    # The last evaluation's state is exactly one interval old, at the edge of what a plain selector sees.
    fired = (
        f'last_over_time(ALERTS{{alertname="{FLEET_ALERT}",alertstate="firing"}}'
        f"[{settings.duration(STEP_SECONDS + 60)}])"
    )
    return Alert(
        name=FLEET_ALERT,
        expr=f"""\
{strongest} > 1
or
{strongest} > {END}
  and on ({MODEL_LABELS}) {fired}""",
        # The windows have waited already.
        wait="0s",
        severity="critical",
        summary="The rows of all the model's replicas together have drifted from its reference",
        description=(
            f"The rows of all replicas of {MODEL_WORDS} no longer look like the reference: PSI is "
            f'{{{{ $value | printf "%.1f" }}}} times the limit that it stays below without drift.{feature}'
        ),
    )
