"""Labels joined to predictions, how often they agree, and whether they agree less than they did on the reference."""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec
from pegel_exporters.catalogue import LABEL_DELAY_BUCKETS_SECONDS

from pegel_agent.reference.performance import Performance
from pegel_agent.sidecar.feedback.cohorts import Cohorts
from pegel_agent.sidecar.feedback.items import Answer, Item, Rejected, Value, item_of
from pegel_agent.sidecar.feedback.rows import Judge, Row, Tally
from pegel_agent.sidecar.feedback.watch import DropWatch, ExpectedAccuracy
from pegel_agent.sidecar.monitor.state import AccuracyState
from pegel_agent.statistics.budget import Window
from pegel_agent.statistics.intervals import wilson

MIN_LABELS = 50
EARLY_SECONDS = 600.0
HORIZON_SECONDS = 86_400.0
"""A day: where labels come once a night, those of a day are there together."""
_WINDOW = Window(seconds=300.0)
_FUTURE_SECONDS = 60.0
_MAX_PREDICTIONS = 20_000
_MAX_LABELLED = 10_000
_MAX_EARLY = 5_000
_MAX_HISTORY = 240

Outcome = Literal["matched", "duplicate", "unmatched", "rejected", "early"]


class _Predicted(NamedTuple):
    at: float
    prediction: Value
    score: float | None


class _Labelled(NamedTuple):
    """A row that has a label, and where it is counted, in case the label is corrected."""

    prediction: Value
    score: float | None
    ts: float
    row: Row
    counted_in: Tally


class Labels:
    """One model's labels. Times are Unix times, told by the caller.

    With the reference's `performance` rows wait `horizon_seconds` for all labels of their time before they are judged,
    and a drop of accuracy is watched for; `budget_windows` is the model's whole budget. Without one each label is
    judged at once. Ids are not kept, only their hashes, which another process would not make again.
    """

    def __init__(
        self,
        model_name: str,
        model_version: str,
        performance: Performance | None = None,
        *,
        window: Window = _WINDOW,
        budget_windows: float = 8_640.0,
        horizon_seconds: float = HORIZON_SECONDS,
    ) -> None:
        self.performance = performance
        self._model = (model_name, model_version)
        self._judge = Judge(performance)
        self.cohorts = Cohorts(horizon_seconds if performance is not None else 0.0)
        self.drop = DropWatch(performance, window, budget_windows) if performance is not None else None
        self.expected = ExpectedAccuracy(performance.scores) if performance is not None and performance.scores else None
        self._predictions: OrderedDict[int, _Predicted] = OrderedDict()
        self._other_ids: OrderedDict[int, int] = OrderedDict()
        self._early: OrderedDict[int, tuple[float, Item]] = OrderedDict()
        self._labelled: OrderedDict[int, _Labelled] = OrderedDict()
        self._history: list[tuple[float, float, float, float]] = []
        self._history_every = 1.0
        self.outcomes = {"matched": 0, "duplicate": 0, "unmatched": 0, "rejected": 0}
        self.delay_counts = [0] * (len(LABEL_DELAY_BUCKETS_SECONDS) + 1)
        self.delay_sum = 0.0

    def predicted(
        self,
        request_id: str,
        row: int,
        prediction: Value | None,
        at: float,
        *,
        score: float | None = None,
        other_id: str | None = None,
    ) -> None:
        """Remember a prediction for its label, which may name the request by its other id, too.

        A label that came before it is judged now. A prediction that says nothing (None, NaN) or is a long text is not
        remembered: its label will be unmatched.
        """
        if prediction is None or not self._judge.remembers(prediction):
            return
        first = hash(request_id)
        keys = [hash((first, row))]
        if other_id is not None and other_id != request_id:
            other = hash(other_id)
            keys.append(hash((other, row)))
            self._other_ids[other] = first
            if len(self._other_ids) > _MAX_PREDICTIONS:
                self._other_ids.popitem(last=False)
        self.cohorts.predicted(at)
        known = _Predicted(at, prediction, score)
        for early in [self._early.pop(key, None) for key in keys] if self._early else ():
            if early is not None:
                came, item = early
                self._delayed(0.0)
                self.cohorts.labelled(at)
                self._count(keys[0], item, known, came)
                self.outcomes["matched"] += 1
                return
        self._predictions[keys[0]] = known
        if len(self._predictions) > _MAX_PREDICTIONS:
            self._predictions.popitem(last=False)

    def take(self, items: Sequence[object], now: float) -> Answer:
        """Judge the items of one call; each is an Item or not, which only rejects it."""
        found = {"early": 0, **dict.fromkeys(self.outcomes, 0)}
        reason = None
        for place, raw in enumerate(items):
            try:
                outcome = self._take(raw, now)
            except Rejected as why:
                outcome, reason = "rejected", reason or f"item {place}: {why}"
            found[outcome] += 1
            if outcome != "early":  # counted when its prediction comes, or when it is given up
                self.outcomes[outcome] += 1
        return Answer(
            found["matched"], found["early"], found["duplicate"], found["unmatched"], found["rejected"], reason
        )

    def tick(self, now: float) -> None:
        """Judge what has become old enough, give up on labels that waited too long for their prediction, and note how
        accuracy stands."""
        while self._early and next(iter(self._early.values()))[0] < now - EARLY_SECONDS:
            self._early.popitem(last=False)
            self.outcomes["unmatched"] += 1
        self.cohorts.tick(now)
        if self.drop is not None:
            self.drop.tick(self.cohorts.judged, now)
        if not self._history or now - self._history[-1][0] >= self._history_every:
            state = self.state()
            if state.accuracy is not None and state.lower is not None and state.upper is not None:
                self._history.append((now, state.accuracy, state.lower, state.upper))
        if len(self._history) > _MAX_HISTORY:
            # Half as dense from here on: the curve reaches back to the beginning in the same number of points.
            del self._history[1::2]
            self._history_every *= 2

    def state(self) -> AccuracyState:
        """Accuracy over the latest judged rows; a regression has a state and no accuracy."""
        latest = self.cohorts.latest()
        if latest.rows < MIN_LABELS:
            waiting = self.cohorts.waiting
            late = latest.rows + waiting >= MIN_LABELS
            state: Literal["immature", "insufficient"] = "immature" if late else "insufficient"
            return AccuracyState(state, latest.rows + waiting, None, None, None, tuple(self._history))
        if self.performance is not None and self.performance.kind == "regression":
            return AccuracyState("ok", latest.rows, None, None, None, ())
        lower, upper = wilson(latest.right, latest.rows)
        return AccuracyState("ok", latest.rows, latest.right / latest.rows, lower, upper, tuple(self._history))

    def _take(self, raw: object, now: float) -> Outcome:
        item = item_of(raw)
        if (item.model_name or self._model[0], item.model_version or self._model[1]) != self._model:
            raise Rejected("model_name or model_version is another one's")
        if item.predicted_ts is not None and item.predicted_ts > now + _FUTURE_SECONDS:
            raise Rejected("predicted_ts must be a Unix time in seconds that is past")
        self._judge.check(item.label, item.prediction)
        if item.id is not None:
            return self._take_named(item, now)
        if item.prediction is None:
            raise Rejected("neither id nor prediction")
        self.cohorts.add(self._judge.row(item.prediction, item.label, item.score), item.predicted_ts, now)
        return "matched"

    def _take_named(self, item: Item, now: float) -> Outcome:
        named = hash(str(item.id))
        key = hash((self._other_ids.get(named, named), item.row))
        labelled = self._labelled.get(key)
        if labelled is not None:
            # The last word on a row counts, but it is one row.
            if _when(item, now) > labelled.ts:
                self._correct(key, labelled, item, now)
            return "duplicate"
        known = self._predictions.pop(key, None)
        if known is not None and item.prediction is None:
            self._delayed(max(0.0, now - known.at))
        if known is not None:
            self.cohorts.labelled(known.at)
        if known is not None or item.prediction is not None:
            self._count(key, item, known, now)
            return "matched"
        waiting = self._early.get(key)
        if waiting is not None:
            if _when(item, now) > _when(waiting[1], waiting[0]):
                self._early[key] = (waiting[0], msgspec.structs.replace(item, ts=_when(item, now)))
            return "duplicate"
        if len(self._early) >= _MAX_EARLY:  # the one that has waited longest makes room
            self._early.popitem(last=False)
            self.outcomes["unmatched"] += 1
        self._early[key] = (now, item)
        return "early"

    def _count(self, key: int, item: Item, known: _Predicted | None, now: float) -> None:
        """Count a labelled row for the first time; what the item itself tells of the prediction comes first."""
        prediction = item.prediction
        score = item.score
        if prediction is None and known is not None:
            prediction, score = known.prediction, known.score if item.score is None else item.score
        if prediction is None:
            return
        at = known.at if known is not None else item.predicted_ts
        row = self._judge.row(prediction, item.label, score)
        counted_in = self.cohorts.add(row, at, now)
        self._labelled[key] = _Labelled(prediction, score, _when(item, now), row, counted_in)
        if len(self._labelled) > _MAX_LABELLED:
            self._labelled.popitem(last=False)

    def _correct(self, key: int, labelled: _Labelled, item: Item, now: float) -> None:
        prediction, score = labelled.prediction, labelled.score
        if item.prediction is not None:
            prediction, score = item.prediction, item.score
        row = self._judge.row(prediction, item.label, score)
        labelled.counted_in.add(labelled.row, -1)
        labelled.counted_in.add(row)
        self._labelled[key] = _Labelled(prediction, score, _when(item, now), row, labelled.counted_in)

    def _delayed(self, seconds: float) -> None:
        self.delay_counts[bisect_left(LABEL_DELAY_BUCKETS_SECONDS, seconds)] += 1
        self.delay_sum += seconds


def _when(item: Item, came: float) -> float:
    return came if item.ts is None else item.ts
