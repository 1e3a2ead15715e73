"""Labels joined to predictions, how often they agree, and whether they agree less than they did on the reference."""

import logging
import math
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from ctypes import c_float
from typing import Literal

import msgspec
from pegel_exporters.catalogue import LABEL_DELAY_BUCKETS_SECONDS

from pegel_agent.reference.performance import Performance
from pegel_agent.sidecar.feedback.cohorts import MIN_LABELS, Cohorts
from pegel_agent.sidecar.feedback.items import Answer, Item, Rejected, Value, item_of
from pegel_agent.sidecar.feedback.reasons import reason_text
from pegel_agent.sidecar.feedback.rows import Judge, plain
from pegel_agent.sidecar.feedback.store import ALIAS, AT_ONCE, LABELLED, REUSED, STORE_BYTES, Kept, Predictions
from pegel_agent.sidecar.feedback.watch import DropWatch, ExpectedAccuracy
from pegel_agent.sidecar.monitor.state import AccuracyState, UnknownAccuracy
from pegel_agent.statistics.budget import Window
from pegel_agent.statistics.intervals import wilson

log = logging.getLogger("pegel")

EARLY_SECONDS = 600.0
HORIZON_SECONDS = 86_400.0
"""A day: where labels come once a night, those of a day are there together."""
_WINDOW = Window(seconds=300.0)
_FUTURE_SECONDS = 60.0
_LOG_EVERY_SECONDS = 3_600.0
_MIN_SPAN_SECONDS = 60.0
_NO_TIME = -math.inf
_MAX_EARLY = 5_000
_MAX_HISTORY = 240

Outcome = Literal["matched", "duplicate", "unmatched", "rejected", "early"]


class Labels:
    """One model's labels. Times are Unix times, told by the caller.

    Rows wait `horizon_seconds` for all labels of their time before they are judged. With the reference's `performance`
    a drop of accuracy is watched for; `budget_windows` is the model's whole budget. Predictions are kept in
    `store_bytes`. Ids are not kept, only their hashes, which another process would not make again.
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
        store_bytes: int = STORE_BYTES,
    ) -> None:
        self.performance = performance
        self._model = (model_name, model_version)
        self._judge = Judge(performance)
        self.drop = DropWatch(performance, window, budget_windows) if performance is not None else None
        self.cohorts = Cohorts(horizon_seconds, self._withdraw)
        self.expected = ExpectedAccuracy(performance.scores) if performance is not None and performance.scores else None
        self._predictions = Predictions(store_bytes, self._forget)
        self._now = 0.0
        self._early: OrderedDict[int, tuple[float, Item]] = OrderedDict()
        self._history: list[tuple[float, float, float, float]] = []
        self._history_every = 1.0
        self._logged: dict[str, float] = {}
        self._was_unknown = False
        self.outcomes = {"matched": 0, "duplicate": 0, "unmatched": 0, "rejected": 0}
        self.dropped = 0
        """Predictions that made room for others before they had a label, and were as old as the horizon."""
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
        remembered: its label will be unmatched. Two predictions of one id that differ can't be told apart: a label for
        them is unmatched, too.
        """
        if prediction is None or not self._judge.remembers(prediction):
            return
        self._now = max(self._now, at)
        first = hash(request_id)
        key, value = hash((first, row)), plain(prediction)
        kept = Kept(0, key, at, value, math.nan if score is None else c_float(score).value)
        earlier = self._predictions.get(key)
        if earlier is not None and not earlier.flags & ALIAS:
            if earlier.prediction == value and not earlier.flags & (LABELLED | REUSED):
                return  # the same request, sent again
            self.cohorts.predicted(value, kept.score, at, first, reused=True)
            if not earlier.flags & LABELLED:
                if not earlier.flags & REUSED:
                    self.cohorts.reused(earlier.place)
                self._predictions.put(earlier._replace(flags=earlier.flags | REUSED), at)
                return
        else:
            self.cohorts.predicted(value, kept.score, at, first)
        keys = [key]
        if other_id is not None and other_id != request_id:
            keys.append(hash((hash(other_id), row)))
        for early in [self._early.pop(one, None) for one in keys] if self._early else ():
            if early is not None:
                came, item = early
                self._delayed(0.0)
                self._join(kept, item, came)
                self.outcomes["matched"] += 1
                break
        else:
            self._predictions.put(kept, at)
        if len(keys) > 1:
            self._put_alias(keys[1], key, at)

    def _put_alias(self, alias: int, key: int, at: float) -> None:
        """Let a prediction be found by another key, unless that is one of another prediction, too."""
        earlier = self._predictions.get(alias)
        if earlier is None:
            self._predictions.put(Kept(ALIAS, alias, at, key, math.nan), at)
        elif earlier.flags & ALIAS and earlier.prediction != key:
            self._predictions.put(earlier._replace(flags=ALIAS | REUSED), at)

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
        self._now = now
        self.cohorts.tick(now)
        if self.drop is not None:
            self.drop.tick(self.cohorts.fair, now)
        state = self.state()
        self._log(state.unknown, now)
        due = not self._history or now - self._history[-1][0] >= self._history_every
        if due and state.accuracy is not None and state.lower is not None and state.upper is not None:
            self._history.append((now, state.accuracy, state.lower, state.upper))
        if len(self._history) > _MAX_HISTORY:
            # Half as dense from here on: the curve reaches back to the beginning in the same number of points.
            del self._history[1::2]
            self._history_every *= 2

    def state(self) -> AccuracyState:
        """Accuracy over the latest judged rows; a regression has a state and no accuracy. As of the last tick."""
        latest = self.cohorts.latest()
        unknown = self._unknown()
        labels, accuracy, lower, upper = latest.rows, None, None, None
        state: Literal["ok", "immature", "insufficient", "unknown"] = "ok"
        if unknown is not None:
            state = "unknown"
        if unknown is not None or latest.rows < MIN_LABELS:
            labels += self.cohorts.waiting
        if unknown is None and latest.rows < MIN_LABELS:
            state = "immature" if labels >= MIN_LABELS else "insufficient"
        regression = self.performance is not None and self.performance.kind == "regression"
        if state == "ok" and not regression:
            accuracy, (lower, upper) = latest.right / latest.rows, wilson(latest.right, latest.rows)
        return AccuracyState(
            state, labels, accuracy, lower, upper,
            () if regression else tuple(self._history),
            unknown=unknown,
            coverage=self.cohorts.coverage(self._now),
            horizon_seconds=self.cohorts.horizon_seconds,
            retention_seconds=self.retention_seconds,
        )  # fmt: skip

    @property
    def retention_seconds(self) -> float | None:
        """How long predictions are kept at the rate seen: that of the time of all that are kept. None without any."""
        oldest = self._predictions.oldest
        span = 0.0 if oldest is None else self._now - oldest
        if span < _MIN_SPAN_SECONDS or self._predictions.count < MIN_LABELS:
            return None
        return span * self._predictions.capacity / self._predictions.count

    def _unknown(self) -> UnknownAccuracy | None:
        refusal = self.cohorts.refusal
        if refusal is None:
            return None
        text = reason_text(refusal, self.cohorts.horizon_seconds, self._predictions.capacity, self.retention_seconds)
        return UnknownAccuracy(refusal.why, refusal.since, text, refusal.coverage, refusal.usual)

    def _log(self, unknown: UnknownAccuracy | None, now: float) -> None:
        """A line when accuracy becomes unknown and when it is known again, one an hour for each reason at most."""
        if unknown is not None and now - self._logged.get(unknown.reason, -math.inf) >= _LOG_EVERY_SECONDS:
            self._logged[unknown.reason] = now
            self._was_unknown = True
            log.warning("accuracy is unknown: %s", unknown.text)
        elif unknown is None and self._was_unknown:
            self._was_unknown = False
            log.info("accuracy is known again: labels are a fair sample of the predictions")

    def _withdraw(self) -> None:
        if self.drop is not None:
            self.drop.reset()

    def _forget(self, kept: Kept) -> None:
        if not kept.flags & (LABELLED | ALIAS | REUSED):
            self.dropped += self.cohorts.forgotten(kept.place, self._now)

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
        row = self._judge.row(plain(item.prediction), plain(item.label), item.score)
        self.cohorts.add(row, item.predicted_ts, now)
        return "matched"

    def _take_named(self, item: Item, now: float) -> Outcome:
        key = hash((hash(str(item.id)), item.row))
        known = self._predictions.get(key)
        if known is not None and known.flags & ALIAS and not known.flags & REUSED:
            key = int(known.prediction)
            known = self._predictions.get(key)
        if known is not None and known.flags & LABELLED:
            # The last word on a row counts, but it is one row.
            if _when(item, now) > known.ts:
                self._correct(known, item, now)
            return "duplicate"
        if known is not None and known.flags & REUSED and item.prediction is None:
            return "unmatched"  # nobody can tell which of the predictions it is the label of
        if known is not None and not known.flags & REUSED:
            if item.prediction is None:
                self._delayed(max(0.0, now - known.place))
            self._join(known, item, now)
            return "matched"
        if item.prediction is not None:
            self._count_own(key, item, now)
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

    def _join(self, known: Kept, item: Item, came: float) -> None:
        """Count a row for the first time; what the item itself tells of the prediction comes first."""
        self.cohorts.labelled(known.prediction, known.score, known.place, item.id)
        if item.prediction is not None:
            score = math.nan if item.score is None else item.score
            known = known._replace(prediction=plain(item.prediction), score=score)
        elif item.score is not None:
            known = known._replace(score=item.score)
        self._count(known, item, came, joined=True)

    def _count_own(self, key: int, item: Item, now: float) -> None:
        """Count a row that brings its prediction, which is kept in case the label is corrected."""
        if item.prediction is None:
            return
        at = _NO_TIME if item.predicted_ts is None else item.predicted_ts
        score = math.nan if item.score is None else item.score
        self._count(Kept(0, key, at, plain(item.prediction), score), item, now, joined=False)

    def _count(self, known: Kept, item: Item, came: float, *, joined: bool) -> None:
        label = plain(item.label)
        row = self._judge.row(known.prediction, label, None if math.isnan(known.score) else known.score)
        at = None if known.place == _NO_TIME else known.place
        chunk = self.cohorts.add(row, at, came, joined=joined)
        flags = known.flags | LABELLED
        if chunk is not None:
            flags, known = flags | AT_ONCE, known._replace(place=float(chunk))
        self._predictions.put(known._replace(flags=flags, label=label, ts=_when(item, came)), came)

    def _correct(self, known: Kept, item: Item, now: float) -> None:
        tally = (
            self.cohorts.tally_of(None, int(known.place))
            if known.flags & AT_ONCE
            else self.cohorts.tally_of(known.place, None)
        )
        before = self._judge.row(known.prediction, known.label, None if math.isnan(known.score) else known.score)
        if item.prediction is not None:
            score = math.nan if item.score is None else item.score
            known = known._replace(prediction=plain(item.prediction), score=score)
        known = known._replace(label=plain(item.label), ts=_when(item, now))
        if tally is not None:
            tally.add(before, -1)
            tally.add(self._judge.row(known.prediction, known.label, None if math.isnan(known.score) else known.score))
        self._predictions.put(known, now)

    def _delayed(self, seconds: float) -> None:
        self.delay_counts[bisect_left(LABEL_DELAY_BUCKETS_SECONDS, seconds)] += 1
        self.delay_sum += seconds


def _when(item: Item, came: float) -> float:
    return came if item.ts is None else item.ts
