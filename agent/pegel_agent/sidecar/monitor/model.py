"""One model watched: exchanges and the passing of time in; counts, verdicts, metrics and the page's state out.

Not safe for threads. Times are Unix times and are told by the caller.
"""

import logging
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec
from pegel_exporters import catalogue as c
from pegel_exporters.exposition import Family, LabelValues

from pegel_agent.reference.keys import CategoryKey
from pegel_agent.reference.profile import Feature, Profile
from pegel_agent.sidecar.frames import TapState
from pegel_agent.sidecar.monitor.columns import Layout, Places, Shape, Waiting, layout_of, roles, shape_of
from pegel_agent.sidecar.monitor.learning import MIN_ROWS, MIN_WINDOWS, Learning
from pegel_agent.sidecar.monitor.state import (
    AccuracyState,
    EvidencePoint,
    FeatureState,
    ModelState,
    ReferenceState,
)
from pegel_agent.sidecar.monitor.windows import Watch, WatchedFeature
from pegel_agent.sidecar.protocols.records import Inference, Undecodable
from pegel_agent.statistics.budget import Window, parse_window, share_of
from pegel_agent.statistics.detector import FeatureVerdict, Verdict

log = logging.getLogger("pegel")

COUNT_AFTER_ROWS = 1024
COUNT_AFTER_BYTES = 1 << 20
_HISTORY = 500
_MAX_SHAPES = 64
_MAX_SHAPE_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """`budget_windows`: windows between false alarms of any kind. `tolerance`: the χ² of drift called harmless. `key`:
    by which the profile's categories are named, if they are."""

    model_name: str
    model_version: str
    window: Window
    budget_windows: float
    tolerance: float = 0.0
    key: CategoryKey | None = None
    learn_rows: int = MIN_ROWS
    learn_windows: int = MIN_WINDOWS


class Monitor:
    """Rows are counted in batches, and when someone asks; a window of rows ends with the exchange that fills it.

    Raises ArithmeticError, LookupError or ValueError for a profile that cannot be watched.
    """

    def __init__(self, settings: MonitorSettings, profile: Profile | None, now: float) -> None:
        self._settings = settings
        self._since = now
        self._window_began = now
        self._waiting = Waiting()
        self._layout: Layout | None = None
        self._places: dict[tuple[Shape, Shape], Places] = {}
        self._learning: Learning | None = None
        self._fitting = 0
        self._watch: Watch | None = None
        self._source: Literal["profile", "learned"] = "learned" if profile is None else "profile"
        self._rows = 0
        self._window_rows = 0
        self._window_times: tuple[float, float] | None = None
        """When the open window's first and last rows came."""
        self._row_at = now
        self._windows = 0
        self._history: deque[EvidencePoint] = deque(maxlen=_HISTORY)
        self._drifted_since: float | None = None
        if profile is not None:
            self._layout = Layout.by(profile)
            self._watch = self._watching(profile)
            if profile.order is not None and parse_window(profile.order.window) != settings.window:
                log.warning(
                    "the profile's design effects are of windows of %s, and these are of %s;"
                    " build it with --window as it is here",
                    parse_window(profile.order.window), settings.window,
                )  # fmt: skip
        else:
            log.info(
                "learning the reference from traffic, which takes %d rows and %d windows of %s, empty ones apart;"
                " to watch from the start, give a --profile",
                settings.learn_rows, settings.learn_windows, settings.window,
            )  # fmt: skip

    def add(self, inference: Inference, now: float) -> None:
        """Take in the rows of one exchange. Raises Undecodable when its columns are not the model's."""
        places = self._places_in(inference)
        self._waiting.add(places, inference)
        self._rows += inference.rows
        self._window_rows += inference.rows
        first, last = self._window_times or (now, now)
        self._window_times = min(first, now), max(last, now)
        self._row_at = now
        if self._settings.window.rows is not None and self._window_rows >= self._settings.window.rows:
            self._close_window(now)
        elif self._waiting.rows >= COUNT_AFTER_ROWS or self._waiting.bytes >= COUNT_AFTER_BYTES:
            self._count()

    def tick(self, now: float) -> None:
        """Time passes: end a window of time that is over."""
        length = self._settings.window.seconds
        self._window_began = min(self._window_began, now)  # a clock set back must not make a window of hours
        if length is not None and now >= self._window_began + length:
            self._window_began += length * math.floor((now - self._window_began) / length)
            self._close_window(now)

    def _places_in(self, inference: Inference) -> Places:
        """Where the features stand in an exchange. Raises Undecodable."""
        shapes = shape_of(inference.inputs), shape_of(inference.outputs)
        places = self._places.get(shapes)
        if places is None:
            try:
                places = self._layout_for(inference).places(*shapes)
            except Undecodable:
                self._fitting -= 1
                raise
            self._remember(shapes, places)
        self._fitting += 1
        return places

    def _layout_for(self, inference: Inference) -> Layout:
        """The model's layout. While it is learned, one that most exchanges do not fit gives way to theirs."""
        if self._layout is None or (self._learning is not None and self._fitting <= 0):
            layout = layout_of(inference)
            if layout != self._layout:
                self._layout, self._fitting = layout, 0
                self._places.clear()
                self._waiting = Waiting()
                self._learning = self._learning_of(layout)
        return self._layout

    def _remember(self, shapes: tuple[Shape, Shape], places: Places) -> None:
        """Look places up next time. Names come from requests, so neither their number nor their length may grow."""
        if sum(len(name) for side in shapes for names, _, _ in side for name in names) <= _MAX_SHAPE_CHARACTERS:
            if len(self._places) >= _MAX_SHAPES:
                self._places.clear()
            self._places[shapes] = places

    def _count(self) -> None:
        for columns in self._waiting.columns():
            if self._watch is not None:
                self._watch.add(columns, self._row_at)
            elif self._learning is not None:
                self._learning.add(columns)

    def _close_window(self, now: float) -> None:
        self._count()
        self._window_rows = 0
        if self._watch is None:
            if self._learning is not None:
                self._learning.close_window()
                profile = self._learning.profile(
                    model_name=self._settings.model_name, model_version=self._settings.model_version, now=now
                )
                if profile is not None:
                    self._learned(profile, self._learning)
            return
        first, last = self._window_times or (now, now)
        self._window_times = None
        verdict = self._watch.close_window((first + last) / 2)
        self._windows += 1
        drifted = _drifted(verdict)
        self._history.append(EvidencePoint(now, _evidence(verdict), drifted))
        if drifted != (self._drifted_since is not None):
            self._drifted_since = now if drifted else None

    def _learned(self, profile: Profile, learning: Learning) -> None:
        """Watch with what can be watched of a learned reference; with none of it, learn again."""
        self._learning = None
        kept = tuple(feature for feature in profile.features if self._can_watch(profile, feature))
        columns = len(list(roles(learning.layout)))
        if kept:
            self._watch = self._watching(msgspec.structs.replace(profile, features=kept))
            log.info(
                "the reference is learned from %d rows in %d windows: %d of %d columns are watched%s",
                profile.rows, learning.windows, len(kept), columns,
                ", the others show no value that ten rows share" if len(kept) < columns else "",
            )  # fmt: skip
        else:
            log.warning("none of %d columns can be watched: learning begins again", columns)
            self._learning = self._learning_of(learning.layout)

    def _can_watch(self, profile: Profile, feature: Feature) -> bool:
        """Whether a feature that traffic has shown can be watched: what comes in must not end the watch of others."""
        try:
            self._watching(msgspec.structs.replace(profile, features=(feature,)))
        except (ArithmeticError, LookupError, ValueError):
            return False
        return True

    def _watching(self, profile: Profile) -> Watch:
        settings = self._settings
        return Watch(profile, budget_windows=settings.budget_windows, tolerance=settings.tolerance, key=settings.key)

    def _learning_of(self, layout: Layout) -> Learning:
        settings = self._settings
        return Learning(
            layout, window=settings.window, min_rows=settings.learn_rows, min_windows=settings.learn_windows
        )

    @property
    def profile(self) -> Profile | None:
        """The reference that the model is watched by, given or learned; None while it is learned."""
        return self._watch.profile if self._watch else None

    @property
    def _limit(self) -> float:
        """log10 of the evidence at which the data are called drifted."""
        return math.log10(share_of(self._settings.budget_windows, "data_drift"))

    # What is published

    def families(self) -> Iterator[Family]:
        """The monitor's part of the page.

        A learned reference names features after requests, so none of its features has a series of its own. By one whose
        design effects are unknown nothing is judged: what alerts rest on is absent, and only features have evidence.
        """
        self._count()
        model = (self._settings.model_name, self._settings.model_version)
        watch = self._watch
        yield Family(c.INFERENCE_ROWS, {model: float(self._rows)})
        yield Family(c.REFERENCE_READY, {model: float(watch is not None)})
        if watch is None or watch.judged:
            yield Family(c.DRIFT_EVIDENCE_LIMIT, {model: self._limit})
        if watch is None:
            return
        yield Family(c.REFERENCE_INFO, {(*model, watch.profile.hash, self._source): 1.0})
        yield Family(c.REFERENCE_CREATED, {model: watch.profile.created})
        if watch.judged:
            yield from _judgements(model, watch)
        if self._source == "profile":
            yield from _feature_families(model, watch)

    def state(self, *, now: float, tap: TapState, accuracy: AccuracyState) -> ModelState:
        """What the status page shows, with what the forwarder and the labels know."""
        self._count()
        watch, settings = self._watch, self._settings
        verdict = watch.verdict if watch else None
        return ModelState(
            model_name=settings.model_name,
            model_version=settings.model_version,
            since=self._since,
            now=now,
            rows=self._rows,
            windows=self._windows,
            window=str(settings.window),
            evidence=_evidence(verdict),
            evidence_limit=self._limit,
            drifted=_drifted(verdict),
            drifted_since=self._drifted_since,
            score=verdict.score if verdict else 0.0,
            features=_feature_states(watch, learned=self._source == "learned") if watch else (),
            history=tuple(self._history),
            accuracy=accuracy,
            reference=self._reference_state(),
            tap=tap,
            prediction_evidence=_evidence(watch.prediction_verdict) if watch else None,
            prediction_drifted=watch is not None and _drifted(watch.prediction_verdict),
        )

    def _reference_state(self) -> ReferenceState:
        if self._watch is not None:
            profile = self._watch.profile
            order = profile.order
            return ReferenceState(
                self._source, profile.hash, profile.created, profile.rows, profile.rows,
                dependence=order.state if order else "assumed", order_windows=order.windows if order else 0,
                smallest_shift=self._watch.smallest_shift,
            )  # fmt: skip
        rows, windows = (self._learning.rows, self._learning.windows) if self._learning else (0, 0)
        settings = self._settings
        return ReferenceState("learning", "", None, rows, settings.learn_rows, windows, settings.learn_windows)


def _judgements(model: tuple[str, str], watch: Watch) -> Iterator[Family]:
    data, predictions = watch.verdict, watch.prediction_verdict
    if "input" in watch.roles:
        yield Family(c.DRIFT_EVIDENCE, {model: data.evidence if data else -math.inf})
        yield Family(c.DATA_DRIFT_SCORE, {model: data.score if data else 0.0})
        yield Family(c.DATA_DRIFT_DETECTED, {model: float(_drifted(data))})
    if "prediction" in watch.roles:
        yield Family(c.PREDICTION_DRIFT_EVIDENCE, {model: predictions.evidence if predictions else -math.inf})
        yield Family(c.PREDICTION_DRIFT_DETECTED, {model: float(_drifted(predictions))})


def _feature_families(model: tuple[str, str], watch: Watch) -> Iterator[Family]:
    rows: dict[LabelValues, float] = {}
    reference_rows: dict[LabelValues, float] = {}
    foreseen: dict[LabelValues, float] = {}
    heterogeneity: dict[LabelValues, float] = {}
    invalid: dict[LabelValues, float] = {}
    drift: dict[LabelValues, float] = {}
    limits: dict[LabelValues, float] = {}
    evidence: dict[LabelValues, float] = {}
    for name, watched in watch.features.items():
        for label, total, share in zip(
            watched.names, watched.total.tolist(), watched.reference.shares.tolist(), strict=True
        ):
            rows[(*model, name, label, watch.profile.hash)] = float(total)
            reference_rows[(*model, name, label, watch.profile.hash)] = share * watched.reference.rows
        if watched.expected.strata:
            heterogeneity[*model, name] = watched.expected.heterogeneity
            for label, expected in zip(watched.names, watched.foreseen.tolist(), strict=True):
                foreseen[*model, name, label, watch.profile.hash] = expected
        invalid[(*model, name, "not_a_number")] = float(watched.invalid)
        if watched.distances is not None:
            for measure in ("psi", "js", "ks", "tvd", "rank_wasserstein"):
                value = getattr(watched.distances, measure)
                if value is not None:
                    drift[(*model, name, measure)] = value
            limits[(*model, name)] = watched.distances.psi_limit
    for name, verdict in watch.verdicts().items():
        evidence[(*model, name)] = verdict.evidence
    yield Family(c.FEATURE_ROWS, rows)
    yield Family(c.FEATURE_REFERENCE_ROWS, reference_rows)
    if foreseen:
        yield Family(c.FEATURE_EXPECTED_ROWS, foreseen)
        yield Family(c.FEATURE_HETEROGENEITY, heterogeneity)
    yield Family(c.FEATURE_INVALID, invalid)
    yield Family(c.FEATURE_DRIFT, drift)
    yield Family(c.FEATURE_DRIFT_LIMIT, limits)
    yield Family(c.FEATURE_DRIFT_EVIDENCE, evidence)
    if watch.judged:
        effects: dict[LabelValues, float] = {
            (*model, name): watched.expected.largest_effect for name, watched in watch.features.items()
        }
        yield Family(c.DRIFT_DESIGN_EFFECT, effects)


def _feature_states(watch: Watch, *, learned: bool) -> tuple[FeatureState, ...]:
    """Strongest evidence first. A learned reference's categories came from requests and stay unnamed: ten rows that
    share one need not be ten people's."""
    verdicts = watch.verdicts()
    strongest_first = [*verdicts, *(name for name in watch.features if name not in verdicts)]
    states = (_feature_state(name, watch.features[name], verdicts.get(name)) for name in strongest_first)
    return tuple(_without_names(state) if learned and state.kind == "categorical" else state for state in states)


def _without_names(state: FeatureState) -> FeatureState:
    categories = len(state.bins) - 2  # before other and missing
    numbered = (*(f"category {number}" for number in range(1, categories + 1)), *state.bins[categories:])
    return msgspec.structs.replace(state, bins=numbered)


def _feature_state(name: str, watched: WatchedFeature, verdict: FeatureVerdict | None) -> FeatureState:
    distances = watched.distances
    return FeatureState(
        name=name,
        kind=watched.feature.kind,
        role=watched.feature.role,
        bins=watched.names,
        reference=tuple(watched.reference.shares.tolist()),
        current=tuple(watched.current().tolist()),
        rows=watched.rows(),
        evidence=_finite(verdict.evidence) if verdict else None,
        drifted=verdict is not None and verdict.drifted,
        direction=verdict.direction if verdict else "",
        psi=distances.psi if distances else None,
        psi_limit=distances.psi_limit if distances else None,
        js=distances.js if distances else None,
        ks=distances.ks if distances else None,
        design_effect=watched.expected.largest_effect,
        by_hour=bool(watched.expected.strata),
    )


def _drifted(verdict: Verdict | None) -> bool:
    return verdict is not None and verdict.drifted


def _evidence(verdict: Verdict | None) -> float | None:
    return _finite(verdict.evidence) if verdict else None


def _finite(evidence: float) -> float | None:
    """No evidence at all is −∞ in Prometheus, which JSON cannot write."""
    return evidence if math.isfinite(evidence) else None
