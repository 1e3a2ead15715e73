"""Labels joined to predictions, and how often they agree."""

import math
from bisect import bisect_left
from collections import OrderedDict
from itertools import islice
from typing import Annotated, Literal, NamedTuple

import msgspec
from pegel_exporters.catalogue import JUDGED_LABELS, LABEL_DELAY_BUCKETS_SECONDS
from pegel_exporters.errors import UserError

from pegel_agent.sidecar.monitor.state import AccuracyState
from pegel_agent.statistics.intervals import wilson

MAX_ITEMS = 1_000
MIN_LABELS = 50
EARLY_SECONDS = 600.0
MAX_CHARACTERS = 256
"""Of an id, a label or a prediction: all of them are kept for a while."""
_MAX_LISTS = 10 * MAX_ITEMS
_MAX_PREDICTIONS = 20_000
_MAX_JUDGED = 10_000
_MAX_EARLY = 5_000
_MAX_HISTORY = 240

Value = str | int | float | bool
Outcome = Literal["matched", "duplicate", "unmatched", "rejected", "early"]


_Text = Annotated[str, msgspec.Meta(max_length=MAX_CHARACTERS)]
_Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Item(msgspec.Struct, frozen=True):
    """One label. With `prediction` nothing is joined; else `id` and `row` name the prediction.

    A label without `row` is that of row 0, also where the request had several rows.

    `ts` is the label's Unix time, by default when it came.
    """

    label: _Text | _Whole | float | bool
    id: _Text | _Whole | None = None
    row: _Whole = 0
    model_name: str | None = None
    model_version: str | None = None
    prediction: _Text | _Whole | float | bool | None = None
    score: float | None = None
    ts: float | None = None


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of the items of one call.

    Each is in one of the numbers: `accepted` are joined to their predictions; `waiting` have an id that was not seen
    yet and count as unmatched later if it never is. `reason` says of the first rejected one what is wrong.
    """

    accepted: int
    waiting: int
    duplicate: int
    unmatched: int
    rejected: int
    reason: str | None = None


class _Rejected(Exception):
    """The item is no label of this model; the message says why and holds no value of it."""


_EXPECTED = {
    "label": f"a text of up to {MAX_CHARACTERS} characters, a number, true or false",
    "prediction": f"a text of up to {MAX_CHARACTERS} characters, a number, true or false",
    "id": f"a text of up to {MAX_CHARACTERS} characters or a whole number",
    "row": "a whole number",
    "model_name": "a text",
    "model_version": "a text",
    "score": "a number",
    "ts": "a Unix time in seconds",
}
_Key = tuple[str | None, int]


class _Judged(NamedTuple):
    right: bool
    prediction: Value
    ts: float


class Labels:
    """One model's labels. Times are Unix times, told by the caller."""

    def __init__(self, model_name: str, model_version: str) -> None:
        self._model = (model_name, model_version)
        self._predictions: OrderedDict[_Key, tuple[float, Value]] = OrderedDict()
        self._early: OrderedDict[_Key, tuple[float, Item]] = OrderedDict()
        self._judged: OrderedDict[_Key, _Judged] = OrderedDict()
        self._nameless = 0
        self._history: list[tuple[float, float, float, float]] = []
        self._history_every = 1.0
        self.outcomes = {"matched": 0, "duplicate": 0, "unmatched": 0, "rejected": 0}
        self.delay_counts = [0] * (len(LABEL_DELAY_BUCKETS_SECONDS) + 1)
        self.delay_sum = 0.0

    def predicted(self, request_id: str, row: int, prediction: Value | None, at: float) -> None:
        """Remember a prediction for its label; a label that came before it is judged now.

        One that says nothing (None, NaN) or is a long text is not remembered: its label will be unmatched.
        """
        if (
            prediction is None
            or (type(prediction) is float and math.isnan(prediction))
            or (type(prediction) is str and len(prediction) > MAX_CHARACTERS)
        ):
            return
        key = (request_id, row)
        if self._early:
            early = self._early.pop(key, None)
            if early is not None:
                self._delayed(0.0)
                self._count(key, early[1], prediction, early[0])
                self.outcomes["matched"] += 1
                return
        self._predictions[key] = (at, prediction)
        if len(self._predictions) > _MAX_PREDICTIONS:
            self._predictions.popitem(last=False)

    def take(self, items: list[object], now: float) -> Answer:
        """Judge the items of one call; each is an Item or not, which only rejects it."""
        found = {"early": 0, **dict.fromkeys(self.outcomes, 0)}
        reason = None
        for place, raw in enumerate(items):
            try:
                outcome = self._judge(raw, now)
            except _Rejected as why:
                outcome, reason = "rejected", reason or f"item {place}: {why}"
            found[outcome] += 1
            if outcome != "early":  # counted when its prediction comes, or when it is given up
                self.outcomes[outcome] += 1
        return Answer(
            found["matched"], found["early"], found["duplicate"], found["unmatched"], found["rejected"], reason
        )

    def tick(self, now: float) -> None:
        """Give up on labels that waited too long for their prediction, and note how accuracy stands."""
        while self._early and next(iter(self._early.values()))[0] < now - EARLY_SECONDS:
            self._early.popitem(last=False)
            self.outcomes["unmatched"] += 1
        if not self._history or now - self._history[-1][0] >= self._history_every:
            state = self.state()
            if state.accuracy is not None and state.lower is not None and state.upper is not None:
                self._history.append((now, state.accuracy, state.lower, state.upper))
        if len(self._history) > _MAX_HISTORY:
            # Half as dense from here on: the curve reaches back to the beginning in the same number of points.
            del self._history[1::2]
            self._history_every *= 2

    def state(self) -> AccuracyState:
        """Accuracy over the latest labelled rows."""
        latest = [judged.right for judged in islice(reversed(self._judged.values()), JUDGED_LABELS)]
        labels, right = len(latest), sum(latest)
        if labels < MIN_LABELS:
            return AccuracyState("insufficient", labels, None, None, None, tuple(self._history))
        lower, upper = wilson(right, labels)
        return AccuracyState("ok", labels, right / labels, lower, upper, tuple(self._history))

    def _judge(self, raw: object, now: float) -> Outcome:
        item = _item(raw)
        if (item.model_name or self._model[0], item.model_version or self._model[1]) != self._model:
            raise _Rejected("model_name or model_version is another one's")
        if item.id is not None:
            return self._judge_row((str(item.id), item.row), item, now)
        if item.prediction is None:
            raise _Rejected("neither id nor prediction")
        self._nameless += 1
        self._count((None, self._nameless), item, item.prediction, now)
        return "matched"

    def _judge_row(self, key: _Key, item: Item, now: float) -> Outcome:
        judged = self._judged.get(key)
        if judged is not None:
            # The last word on a row counts, but it is one row.
            if _when(item, now) > judged.ts:
                self._count(key, item, judged.prediction if item.prediction is None else item.prediction, now)
            return "duplicate"
        if item.prediction is not None:
            self._count(key, item, item.prediction, now)
            return "matched"
        known = self._predictions.pop(key, None)
        if known is not None:
            self._delayed(max(0.0, now - known[0]))
            self._count(key, item, known[1], now)
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

    def _count(self, key: _Key, item: Item, prediction: Value, now: float) -> None:
        self._judged[key] = _Judged(agree(prediction, item.label), prediction, _when(item, now))
        if len(self._judged) > _MAX_JUDGED:
            self._judged.popitem(last=False)

    def _delayed(self, seconds: float) -> None:
        self.delay_counts[bisect_left(LABEL_DELAY_BUCKETS_SECONDS, seconds)] += 1
        self.delay_sum += seconds


def agree(prediction: Value, label: Value) -> bool:
    """Whether a prediction says the label.

    Numbers and their texts are the same value. A prediction between 0 and 1 for a label of 0 or 1 is a probability and
    says 1 from ½ on.
    """
    predicted, true = _plain(prediction), _plain(label)
    if isinstance(predicted, float) and true in (0.0, 1.0) and 0.0 < predicted < 1.0:
        return (predicted >= 0.5) == (true == 1.0)
    return predicted == true


def items_of(body: bytes) -> list[object]:
    """The items of a JSON array or of one JSON object a line. Raises UserError, which never quotes the body."""
    too_many = UserError(f"at most {MAX_ITEMS} labels in one call")
    if body.count(b"[") + body.count(b"{") > _MAX_LISTS:  # in memory each is many times larger
        raise too_many
    try:
        if body.lstrip()[:1] == b"[":
            items = msgspec.json.decode(body, type=list[object])
        else:
            items = msgspec.json.Decoder().decode_lines(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UserError("expected a JSON array of labels, or one JSON object a line") from None
    if len(items) > MAX_ITEMS:
        raise too_many
    return items


def _item(raw: object) -> Item:
    """Raises _Rejected."""
    if not isinstance(raw, dict):
        raise _Rejected("not a JSON object")
    if raw.get("label") is None:
        raise _Rejected("no label")
    try:
        return msgspec.convert(raw, Item)
    except msgspec.ValidationError as error:
        # The place is a field's name of ours: `… - at `$.row``.
        field = str(error).rpartition("$.")[2].rstrip("`")
        raise _Rejected(f"{field} must be {_EXPECTED[field]}" if field in _EXPECTED else "no label's form") from None


def _when(item: Item, came: float) -> float:
    return came if item.ts is None else item.ts


def _plain(value: Value) -> float | str:
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.lower() in ("true", "false"):
        return float(text.lower() == "true")
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text
