"""TensorFlow Serving's REST API (predict), which KServe calls V1: rows in `instances` or columns in `inputs`."""

from itertools import chain
from typing import Any

import msgspec

from pegel_agent.sidecar.protocols.messages import is_costly, parse, request_id, require_success
from pegel_agent.sidecar.protocols.records import Block, Exchange, Inference, Undecodable
from pegel_agent.sidecar.protocols.tensors import (
    MAX_COLUMNS,
    MAX_WIDTH,
    NUMBERS,
    Tensor,
    check_rows,
    flatten,
    is_binary,
    matrix,
    named,
    unnamed,
)

_MAX_NAMED_CELLS = 1_000_000


class _Request(msgspec.Struct):
    id: Any = None
    instances: Any = None
    inputs: Any = None


class _Matrix(msgspec.Struct):
    instances: list[list[float]]
    id: Any = None


class _Answer(msgspec.Struct):
    id: Any = None
    predictions: Any = None
    outputs: Any = None


_REQUEST = msgspec.json.Decoder(_Request)
_MATRIX = msgspec.json.Decoder(_Matrix)
_ANSWER = msgspec.json.Decoder(_Answer)


def decode(exchange: Exchange) -> Inference:
    """The rows of one predict call. A single named tensor drops its name. Raises Undecodable."""
    require_success(exchange)
    asked_id, rows, inputs = _asked(exchange.request)
    answered = parse(exchange.response, _ANSWER)
    answered_rows, outputs = _side(by_row=answered.predictions, by_column=answered.outputs)
    if answered_rows != rows:
        raise Undecodable("the answer has other rows")
    return Inference(request_id(exchange, asked_id, answered.id), rows, inputs, outputs)


def _asked(body: bytes) -> tuple[Any, int, tuple[Block, ...]]:
    numbers = _matrix(body)
    if numbers is None:
        asked = parse(body, _REQUEST)
        return asked.id, *_side(by_row=asked.instances, by_column=asked.inputs)
    check_rows(len(numbers.instances))
    return numbers.id, len(numbers.instances), (matrix(numbers.instances),)


def _matrix(body: bytes) -> _Matrix | None:
    """A list of lists of numbers, as most requests are: to expect it saves looking at every type again."""
    if is_costly(body):
        return None
    try:
        return _MATRIX.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _side(*, by_row: Any, by_column: Any) -> tuple[int, tuple[Block, ...]]:
    if type(by_row) is list:
        check_rows(len(by_row))
        if type(by_row[0]) is dict and not is_binary(by_row[0]):
            return len(by_row), _named_rows(by_row)
        return len(by_row), _tensor(by_row)
    if by_row is None and type(by_column) is list:
        check_rows(len(by_column))
        return len(by_column), _tensor(by_column)
    if by_row is None and type(by_column) is dict:
        return _named_columns(by_column)
    raise Undecodable("no rows")


def _tensor(items: list[Any]) -> tuple[Block, ...]:
    return unnamed(flatten(items, limit=MAX_WIDTH))


def _named_rows(rows: list[Any]) -> tuple[Block, ...]:
    """Rows as dictionaries; a name that some rows lack is missing there."""
    if set(map(type, rows)) != {dict}:
        raise Undecodable("ragged")
    names = list(dict.fromkeys(chain.from_iterable(rows)))
    if not names:
        raise Undecodable("empty")
    # Rows that each bring names of their own would make a matrix far larger than the body.
    if len(names) > MAX_COLUMNS or len(names) * len(rows) > _MAX_NAMED_CELLS:
        raise Undecodable("too many columns")
    if len(names) == 1:
        return _tensor([row.get(names[0]) for row in rows])
    plain = _plain_rows(names, rows)
    if plain is not None:
        return (plain,)
    return named(((name, flatten([row.get(name) for row in rows], limit=MAX_WIDTH)) for name in names), rows=len(rows))


def _plain_rows(names: list[str], rows: list[Any]) -> Block | None:
    """The common case at a third of the time: every row has the same numbers in the same order."""
    if any(list(row) != names for row in rows):
        return None
    values = list(chain.from_iterable(map(dict.values, rows)))
    tensor = Tensor(values, len(names), set(map(type, values)))
    return Block(tuple(names), unnamed(tensor)[0].values) if tensor.kinds <= NUMBERS else None


def _named_columns(columns: dict[str, Any]) -> tuple[int, tuple[Block, ...]]:
    if not columns or len(columns) > MAX_COLUMNS:
        raise Undecodable("too many columns" if columns else "empty")
    tensors = list(columns.values())
    if set(map(type, tensors)) != {list}:
        raise Undecodable("wrong type")
    rows = len(tensors[0])
    check_rows(rows)
    if set(map(len, tensors)) != {rows}:
        raise Undecodable("ragged")
    if len(tensors) == 1:
        return rows, _tensor(tensors[0])
    return rows, named(((name, flatten(items, limit=MAX_WIDTH)) for name, items in columns.items()), rows=rows)
