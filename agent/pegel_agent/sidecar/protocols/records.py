"""What the protocols make of an exchange: rows of inputs and outputs, whatever the wire said."""

from collections.abc import Mapping
from typing import Any

import msgspec
from numpy.typing import NDArray

# Records hold no cycles, so the garbage collector need not follow them: three of them are made for every exchange.


class Undecodable(Exception):
    """The exchange is not what its protocol says; the message is for a log and never holds a value from it."""


class Exchange(msgspec.Struct, frozen=True, gc=False):
    """One request and its answer; header names in lower case, bodies after transfer and content decoding."""

    target: str
    request_headers: Mapping[str, str]
    request: bytes
    status: int
    response_headers: Mapping[str, str]
    response: bytes


class Block(msgspec.Struct, frozen=True, gc=False):
    """Columns of one kind: `values` (rows, columns).

    Either float64 with NaN for missing, or objects that are str with None for missing. `names` has one name for each
    column, or one for all, which then are name[0], name[1] and so on. It is empty where the protocol gives none: the
    columns then are the model's features in their order.
    """

    names: tuple[str, ...]
    values: NDArray[Any]


class Inference(msgspec.Struct, frozen=True, gc=False):
    """The rows of one exchange. All blocks of a side have `rows` rows."""

    request_id: str | None
    rows: int
    inputs: tuple[Block, ...]
    outputs: tuple[Block, ...]
