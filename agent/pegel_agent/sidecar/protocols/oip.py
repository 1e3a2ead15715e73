"""The Open Inference Protocol in JSON (KServe V2, Triton, MLServer): named tensors with a shape and a type."""

from types import NoneType
from typing import Any

import msgspec

from pegel_agent.sidecar.protocols.messages import parse, request_id, require_success
from pegel_agent.sidecar.protocols.records import Block, Exchange, Inference, Undecodable
from pegel_agent.sidecar.protocols.tensors import (
    MAX_COLUMNS,
    MAX_WIDTH,
    NUMBERS,
    Tensor,
    check_rows,
    flatten,
    named,
    unnamed,
)

_MAX_DIMENSIONS = 16
_NUMERIC = frozenset(
    {"FP16", "FP32", "FP64", "BF16", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"}
)
_BOOLEAN = frozenset({bool, int, NoneType})
_TEXT = frozenset({str, NoneType})
_BINARY_HEADER = "inference-header-content-length"


class _Sent(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class _Request(msgspec.Struct):
    inputs: list[_Sent]
    id: str | None = None


class _Answer(msgspec.Struct):
    outputs: list[_Sent]
    id: str | None = None


_REQUEST = msgspec.json.Decoder(_Request)
_ANSWER = msgspec.json.Decoder(_Answer)


def decode(exchange: Exchange) -> Inference:
    """The rows of one infer call: the first dimension of each tensor. A single tensor drops its name.

    Raises Undecodable, also for the binary extension.
    """
    require_success(exchange)
    if _BINARY_HEADER in exchange.request_headers or _BINARY_HEADER in exchange.response_headers:
        raise Undecodable("binary")
    asked = parse(exchange.request, _REQUEST)
    answered = parse(exchange.response, _ANSWER)
    rows, inputs = _side(asked.inputs)
    answered_rows, outputs = _side(answered.outputs)
    if answered_rows != rows:
        raise Undecodable("the answer has other rows")
    return Inference(request_id(exchange, asked.id, answered.id), rows, inputs, outputs)


def _side(tensors: list[_Sent]) -> tuple[int, tuple[Block, ...]]:
    if not tensors or not tensors[0].shape:
        raise Undecodable("no rows")
    if len(tensors) > MAX_COLUMNS:
        raise Undecodable("too many columns")
    rows = tensors[0].shape[0]
    check_rows(rows)
    if len(tensors) == 1:
        return rows, unnamed(_tensor(tensors[0], rows))
    return rows, named(((tensor.name, _tensor(tensor, rows)) for tensor in tensors), rows=rows)


def _tensor(sent: _Sent, rows: int) -> Tensor:
    """What was sent, with as many scalars as its shape says and of the type that it says."""
    width = _width(sent.shape, rows)
    values, count, kinds = flatten([sent.data], limit=rows * width)
    if count != rows * width:
        raise Undecodable("data and shape differ")
    if (sent.datatype in _NUMERIC and kinds <= NUMBERS) or (sent.datatype == "BYTES" and kinds <= _TEXT):
        return Tensor(values, width, kinds)
    if sent.datatype == "BOOL" and kinds <= _BOOLEAN:
        truths = [None if value is None else bool(value) for value in values]
        return Tensor(truths, width, set(map(type, truths)))
    raise Undecodable("data and datatype differ")


def _width(shape: list[int], rows: int) -> int:
    if not 1 <= len(shape) <= _MAX_DIMENSIONS or shape[0] != rows:
        raise Undecodable("ragged")
    width = 1
    for length in shape[1:]:
        width *= length
        if length < 1:
            raise Undecodable("empty")
        if width > MAX_WIDTH:
            raise Undecodable("too many columns")
    return width
