"""What Pegel would have said over recorded traffic: a file's rows in windows, through the sidecar's detector.

The evidence is the sidecar's on the same rows in the same windows. Only the alarm line differs: nothing else may raise
an alarm here, so that what the file holds gets the whole budget.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import msgspec
import numpy as np
from pegel_exporters.errors import UserError

from pegel_agent.reference import tables
from pegel_agent.reference.columns import Column, alike, count
from pegel_agent.reference.computed import Computed
from pegel_agent.reference.detection import detector_for, is_judged, stratum_of
from pegel_agent.reference.keys import CategoryKey
from pegel_agent.reference.profile import Order, Profile, Role
from pegel_agent.reference.times import times_of
from pegel_agent.statistics.budget import Window
from pegel_agent.statistics.detector import Detector, FeatureVerdict
from pegel_agent.statistics.slots import FloatArray, IntArray


class Alarm(msgspec.Struct, frozen=True):
    """Drift that begins: in which window (the first is 1), when that window ended, and what drifts, strongest first."""

    window: int
    time: datetime | None
    features: tuple[str, ...]


class DriftedFeature(msgspec.Struct, frozen=True):
    """A feature in drift, and the detector's word for where it went."""

    name: str
    direction: str


class WindowResult(msgspec.Struct, frozen=True):
    """One window after it closed. `evidence` is log10 by role; None where there is none at all."""

    window: int
    time: datetime | None
    rows: int
    evidence: dict[Role, float | None]
    state: Literal["", "drift", "alarm"]
    drifted: tuple[DriftedFeature, ...]


class FeatureResult(msgspec.Struct, frozen=True):
    """One feature over the file.

    `evidence` is the highest, log10; `windows` how many it was in drift, `direction` where it went. `bins`, `reference`
    and `current` (shares) have the same length; `current` is of the windows in drift, or of all where there is none.
    """

    kind: Literal["numeric", "categorical"]
    role: Role
    evidence: float | None
    windows: int
    direction: str
    invalid: int
    bins: tuple[str, ...]
    reference: tuple[float, ...]
    current: tuple[float, ...]


class BacktestResult(msgspec.Struct, frozen=True):
    """A file's verdict. `limit` is log10; `reference` the profile's hash.

    `rows_left_over` did not fill a window; `unseen` are the profile's predictions that the file doesn't have. `order`
    is how the reference's design effects were found; where they are unknown nothing is called drift.
    """

    windows: int
    alarms: tuple[Alarm, ...]
    features: dict[str, FeatureResult]
    rows: int
    rows_left_over: int
    reference: str
    window: str
    budget_windows: float
    limit: float
    unseen: tuple[str, ...]
    order: Order | None
    judged: bool
    history: tuple[WindowResult, ...]


def backtest(
    profile: Profile,
    path: Path,
    *,
    window: Window,
    budget_windows: float,
    time: str | None = None,
    tolerance: float = 0.0,
    key: CategoryKey | None = None,
    progress: tables.Progress | None = None,
) -> BacktestResult:
    """Run a file's rows through the detector, a batch at a time.

    `time` names the column of the rows' times, which windows of time need; these begin at whole multiples of their
    length since 1970. A window without rows is none. Rows are in order of time; one that comes late counts in the open
    window, as in the sidecar. Values of the wrong kind count as missing. Raises UserError for a file or profile that
    can't be used, and rows that are more than a window late.
    """
    names = tables.column_names(path)
    held, unseen = _held(profile, path, names)
    if time is not None and time not in names:
        raise UserError(f"{path} has no column {time!r}; it has {', '.join(names)}")
    run = _Run(held, window=window, budget_windows=budget_windows, tolerance=tolerance)
    features = tuple(feature.name for feature in held.features)
    by_name = {feature.name: feature for feature in held.features}
    computed = Computed.by(held)
    texts = frozenset(feature.name for feature in held.features if feature.kind == "categorical")
    asked = features if time is None else tuple(dict.fromkeys((*features, time)))
    rows = 0
    for batch in tables.read(path, asked, text=texts, tokens=held.tokens, progress=progress):
        times = None if time is None else times_of(path, time, batch[time], after=rows)
        size = len(batch[features[0]])
        try:
            columns = {name: alike(by_name[name], batch[name], key) for name in features}
            numbers = {name: columns[name] for name in features if name not in texts}
            run.add(columns | computed.of({**batch, **numbers}), size, times)
        except _TooLate as late:
            raise UserError(
                f"{path}: row {rows + 1 + late.position:,} is more than a window earlier than the rows before it;"
                f" sort the file by {time!r}"
            ) from None
        rows += size
    if not rows:
        raise UserError(f"{path} has no rows")
    if window.rows is None:
        run.close()
    if not run.history:
        raise UserError(
            f"{path} has {rows:,} row{'s' * (rows != 1)}, and a window takes {window.rows:,}; give a smaller --window"
        )
    return BacktestResult(
        windows=len(run.history),
        alarms=tuple(run.alarms),
        features={feature.name: run.result(feature.name) for feature in held.watched},
        rows=rows,
        rows_left_over=run.rows,
        reference=profile.hash,
        window=str(window),
        budget_windows=budget_windows,
        limit=run.limit,
        unseen=unseen,
        order=profile.order,
        judged=is_judged(profile),
        history=tuple(run.history),
    )


def _held(profile: Profile, path: Path, names: tuple[str, ...]) -> tuple[Profile, tuple[str, ...]]:
    """The profile with the features that the file has, and the predictions that it doesn't have. Raises UserError."""
    for feature in profile.features:
        if feature.role == "input" and feature.name not in names:
            raise UserError(f"{path} has no column {feature.name!r}, which the profile has; it has {', '.join(names)}")
    kept = tuple(feature for feature in profile.features if feature.name in names)
    if not kept:
        raise UserError(f"{path} has none of the profile's columns; it has {', '.join(names)}")
    unseen = tuple(feature.name for feature in profile.features if feature.name not in names)
    return msgspec.structs.replace(profile, features=kept), unseen


class _TooLate(Exception):
    """The row at `position` of a batch is earlier than the window before its own."""

    def __init__(self, position: int) -> None:
        self.position = position


@dataclass(slots=True)
class _Process:
    """The features of one role, which share one evidence process."""

    detector: Detector
    names: tuple[str, ...]
    drifted: bool = False


@dataclass(slots=True)
class _Watched:
    """What is kept of a feature: counts (k,) of the open window, of windows in drift, and of all."""

    bins: int
    open: IntArray = field(init=False)
    drifted: IntArray = field(init=False)
    total: IntArray = field(init=False)
    invalid: int = 0
    windows: int = 0
    evidence: float = -np.inf
    direction: str = ""

    def __post_init__(self) -> None:
        self.open, self.drifted, self.total = (np.zeros(self.bins, dtype=np.int64) for _ in range(3))

    def close(self) -> IntArray:
        counts, self.open = self.open, np.zeros(self.bins, dtype=np.int64)
        self.total += counts
        return counts

    def note(self, verdict: FeatureVerdict, counts: IntArray) -> None:
        if verdict.evidence >= self.evidence:
            self.evidence = verdict.evidence
            self.direction = verdict.direction or self.direction
        if verdict.drifted:
            self.windows += 1
            self.drifted += counts


class _Run:
    """Windows that open and close as rows come."""

    def __init__(self, profile: Profile, *, window: Window, budget_windows: float, tolerance: float) -> None:
        self.history: list[WindowResult] = []
        self.alarms: list[Alarm] = []
        self.rows = 0
        """Of the open window."""
        self._profile = profile
        self._window = window
        self._features = {feature.name: feature for feature in profile.watched}
        self._watched = {name: _Watched(len(feature.counts)) for name, feature in self._features.items()}
        self._began: float | None = None
        self._times: tuple[float, float] | None = None
        """Of the open window's earliest and latest row."""
        self._before = -np.inf
        """When the window before the open one began."""
        by_role = {role: profile.of_role(role) for role in get_args(Role)}
        held = {role: part for role, part in by_role.items() if part is not None}
        self.limit = float(np.log10(budget_windows * len(held)))
        try:
            self._processes = {
                role: _Process(
                    detector_for(part, windows=budget_windows * len(held), tolerance=tolerance),
                    tuple(feature.name for feature in part.watched),
                )
                for role, part in held.items()
            }
        except (ArithmeticError, LookupError, ValueError) as error:
            raise UserError(
                f"the profile cannot be watched; build it anew with pegel profile build ({error})"
            ) from error

    def add(self, columns: Mapping[str, Column], rows: int, times: FloatArray | None) -> None:
        """Take in columns (rows,) and their times (rows,). Raises _TooLate."""
        pieces = self._by_rows(rows) if self._window.rows is not None else self._by_time(times)
        for start, end in pieces:
            if times is not None:
                self._check_order(times, start, end)
                self._see(times[start:end])
            for name, values in columns.items():
                counts, invalid = count(self._features[name], values[start:end])
                self._watched[name].open += counts
                self._watched[name].invalid += invalid
            self.rows += end - start
            if self.rows == self._window.rows:
                self.close()

    def _see(self, times: FloatArray) -> None:
        earliest, latest = float(times.min()), float(times.max())
        if self._times is not None:
            earliest, latest = min(earliest, self._times[0]), max(latest, self._times[1])
        self._times = earliest, latest
        if self._began is None:
            self._began = float(times[0])

    def _by_rows(self, rows: int) -> Iterator[tuple[int, int]]:
        """Cuts a batch so that no piece reaches beyond the window that is open when it comes."""
        assert self._window.rows is not None
        start = 0
        while start < rows:
            end = min(rows, start + self._window.rows - self.rows)
            yield start, end
            start = end

    def _by_time(self, times: FloatArray | None) -> Iterator[tuple[int, int]]:
        """Cuts a batch where a row belongs to a later window, which closes the open one."""
        assert times is not None
        assert self._window.seconds is not None
        length = self._window.seconds
        number = np.floor(times / length)
        if self._began is not None:
            number[0] = max(number[0], round(self._began / length))
        reached = np.maximum.accumulate(number)
        cuts = [0, *(np.flatnonzero(np.diff(reached)) + 1).tolist(), len(times)]
        for start, end in pairwise(cuts):
            began = float(reached[start] * length)
            if self._began is not None and began > self._began:
                self.close()
            self._began, self._before = began, began - length
            yield start, end

    def _check_order(self, times: FloatArray, start: int, end: int) -> None:
        late = times[start:end] < self._before
        if late.any():
            raise _TooLate(start + int(late.argmax()))

    def close(self) -> None:
        """End the open window, if it has rows."""
        if not self.rows:
            return
        number = len(self.history) + 1
        # As in the sidecar the middle of the rows decides, not of the window.
        stratum = stratum_of(self._profile, None if self._times is None else sum(self._times) / 2)
        ended = None if self._times is None else self._times[1]
        if self._window.seconds is not None and self._began is not None:
            ended = self._began + self._window.seconds
        time = None if ended is None else datetime.fromtimestamp(ended, UTC)
        evidence: dict[Role, float | None] = {}
        drifted: list[FeatureVerdict] = []
        began: list[str] = []
        for role, process in self._processes.items():
            counts = {name: self._watched[name].close() for name in process.names}
            verdict = process.detector.observe(counts, stratum)
            evidence[role] = verdict.evidence if np.isfinite(verdict.evidence) else None
            for feature in verdict.features:
                self._watched[feature.name].note(feature, counts[feature.name])
            if verdict.drifted:
                found = [feature for feature in verdict.features if feature.drifted] or list(verdict.features[:1])
                drifted += found
                began += [] if process.drifted else [feature.name for feature in found]
            process.drifted = verdict.drifted
        if began:
            self.alarms.append(Alarm(number, time, tuple(began)))
        lasting = any(process.drifted for process in self._processes.values())
        self.history.append(
            WindowResult(
                number, time, self.rows, evidence, "alarm" if began else "drift" if lasting else "",
                tuple(DriftedFeature(feature.name, feature.direction) for feature in drifted),
            )
        )  # fmt: skip
        if self._window.rows is not None and self._began is not None:
            self._before = self._began
        self._began, self._times, self.rows = None, None, 0

    def result(self, name: str) -> FeatureResult:
        """What became of a feature."""
        feature, watched = self._features[name], self._watched[name]
        counts = watched.drifted if watched.windows else watched.total
        return FeatureResult(
            kind=feature.kind,
            role=feature.role,
            evidence=watched.evidence if np.isfinite(watched.evidence) else None,
            windows=watched.windows,
            direction=watched.direction if watched.windows else "",
            invalid=watched.invalid,
            bins=feature.bins.names,
            reference=tuple(feature.shares.shares.tolist()),
            current=tuple((counts / counts.sum()).tolist()),
        )
