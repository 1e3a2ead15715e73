"""What a client posts: labels as JSON, and the answer that says what became of them."""

from typing import Annotated, Any

import msgspec
from pegel_exporters.errors import UserError

MAX_ITEMS = 1_000
MAX_CHARACTERS = 256
"""Of an id, a label or a prediction: labels and predictions are kept for a while."""
_MAX_LISTS = 10 * MAX_ITEMS

Value = str | int | float | bool

_Text = Annotated[str, msgspec.Meta(max_length=MAX_CHARACTERS)]
_Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Item(msgspec.Struct, frozen=True):
    """One label. With `prediction` nothing is joined; else `id` and `row` name the prediction.

    A label without `row` is that of row 0, also where the request had several rows.

    `score` is how sure the model was: the probability of the positive class where there are two, else that of the
    predicted class. `ts` is the label's Unix time, by default when it came. `predicted_ts` is that of the prediction,
    for an item that brings its own; without it the label is judged at once.
    """

    label: _Text | _Whole | float | bool
    id: _Text | _Whole | None = None
    row: _Whole = 0
    model_name: str | None = None
    model_version: str | None = None
    prediction: _Text | _Whole | float | bool | None = None
    score: float | None = None
    ts: float | None = None
    predicted_ts: float | None = None


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


class Rejected(Exception):
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
    "predicted_ts": "a Unix time in seconds",
}


def items_of(body: bytes) -> list[object]:
    """The items of a JSON array or of one JSON object a line. Raises UserError, which never quotes the body."""
    too_many = UserError(f"at most {MAX_ITEMS} labels in one call")
    if body.count(b"[") + body.count(b"{") > _MAX_LISTS:  # in memory each is many times larger
        raise too_many
    items: list[Any]
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


def item_of(raw: object) -> Item:
    """Raises Rejected."""
    if not isinstance(raw, dict):
        raise Rejected("not a JSON object")
    if raw.get("label") is None:
        raise Rejected("no label")
    try:
        return msgspec.convert(raw, Item)
    except msgspec.ValidationError as error:
        # The place is a field's name of ours: `… - at `$.row``.
        field = str(error).rpartition("$.")[2].rstrip("`")
        raise Rejected(f"{field} must be {_EXPECTED[field]}" if field in _EXPECTED else "no label's form") from None
