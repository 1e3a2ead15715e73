"""Nested JSON lists to blocks: the shape is checked, deeper tensors become one row of columns each."""

from collections.abc import Iterable, Set
from itertools import chain
from types import NoneType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pegel_agent.sidecar.protocols.records import Block, Undecodable

MAX_ROWS = 10_000
MAX_COLUMNS = 1_000
"""That have a name of their own."""
MAX_WIDTH = 8_192
"""Scalars that one tensor has in a row: tokens, mostly."""

NUMBERS = frozenset({float, int, NoneType})
"""Types whose cells make a column of numbers. `bool` is not among them: true is a category."""

_BINARY = frozenset({dict, NoneType})
_TRUTHS = frozenset({bool, NoneType})
_TEXTS = frozenset({str, NoneType})


class Tensor(NamedTuple):
    """Scalars row after row, how many a row has, and the types that occur among them."""

    values: list[Any]
    width: int
    kinds: Set[type]


def flatten(items: list[Any], *, limit: int) -> Tensor:
    """Equally shaped items as a tensor, one row each.

    Raises Undecodable when the shapes differ, a list is empty or an item has more than `limit` scalars.
    """
    width = 1
    while type(items[0]) is list:
        length = len(items[0])
        width *= length
        if width > limit:
            raise Undecodable("too many columns")
        if length == 0:
            raise Undecodable("empty")
        if set(map(type, items)) != {list} or set(map(len, items)) != {length}:
            raise Undecodable("ragged")
        items = list(chain.from_iterable(items))
    return Tensor(items, width, set(map(type, items)))


def check_rows(rows: int) -> None:
    """Raises Undecodable unless there are rows, and not too many."""
    if rows < 1:
        raise Undecodable("empty")
    if rows > MAX_ROWS:
        raise Undecodable("too many rows")


def matrix(rows: list[list[float]]) -> Block:
    """What `flatten` and `unnamed` make of at least one row, where the decoder has seen to the types."""
    width = len(rows[0])
    if width > MAX_WIDTH:
        raise Undecodable("too many columns")
    if width == 0:
        raise Undecodable("empty")
    if set(map(len, rows)) != {width}:
        raise Undecodable("ragged")
    values = np.fromiter(chain.from_iterable(rows), np.float64, width * len(rows))
    return Block((), values.reshape(-1, width))


def unnamed(tensor: Tensor) -> tuple[Block, ...]:
    """A tensor as a block without names; nothing when it is binary.

    A tensor has one type: with numbers and text in it, all of it is text. Raises Undecodable.
    """
    if tensor.kinds <= NUMBERS:
        return (Block((), _numbers(tensor.values).reshape(-1, tensor.width)),)
    if _is_binary(tensor.kinds, tensor.values):
        return ()
    return (Block((), _texts(tensor.values).reshape(-1, tensor.width)),)


def named(tensors: Iterable[tuple[str, Tensor]], *, rows: int) -> tuple[Block, ...]:
    """Named tensors: those of one column as at most one block of numbers and one of text, wider ones as one each.

    A wider one of several types is as many columns, name[0], name[1] and so on, each of its own type. Binary columns
    are left out. Raises Undecodable.
    """
    names: tuple[list[str], list[str]] = ([], [])
    cells: tuple[list[Any], list[Any]] = ([], [])
    blocks = []
    narrow = []
    for name, tensor in tensors:
        # One cell of another type must not make new texts of all the others.
        if tensor.width == 1 or not any(tensor.kinds <= alike for alike in (NUMBERS, _TRUTHS, _TEXTS)):
            narrow.append((name, tensor))
        else:
            blocks += [Block((name,), block.values) for block in unnamed(tensor)]
    for name, column, kinds in _columns(narrow):
        side = 0 if kinds <= NUMBERS else 1
        if side == 1 and _is_binary(kinds, column):
            continue
        names[side].append(name)
        cells[side].extend(column)
    every = [*names[0], *names[1], *(block.names[0] for block in blocks)]
    if len(every) > MAX_COLUMNS:
        raise Undecodable("too many columns")
    wide = {block.names[0] for block in blocks}
    if len(set(every)) != len(every) or any(name.rpartition("[")[0] in wide for name in every if name.endswith("]")):
        raise Undecodable("repeated name")
    if names[0]:
        blocks.append(Block(tuple(names[0]), _numbers(cells[0]).reshape(-1, rows).T))
    if names[1]:
        blocks.append(Block(tuple(names[1]), _texts(cells[1]).reshape(-1, rows).T))
    return tuple(blocks)


def is_binary(value: Any) -> bool:
    """Whether a JSON value is TF Serving's way to write bytes."""
    return type(value) is dict and value.keys() == {"b64"}


def _columns(tensors: Iterable[tuple[str, Tensor]]) -> Iterable[tuple[str, list[Any], Set[type]]]:
    for name, (values, width, kinds) in tensors:
        if width == 1:
            yield name, values, kinds
            continue
        for index in range(width):
            column = values[index::width]
            yield f"{name}[{index}]", column, kinds if kinds <= NUMBERS else set(map(type, column))


def _is_binary(kinds: Set[type], values: list[Any]) -> bool:
    if list in kinds:
        raise Undecodable("ragged")
    if dict not in kinds:
        return False
    if not (kinds <= _BINARY and all(value is None or is_binary(value) for value in values)):
        raise Undecodable("wrong type")
    return True


def _numbers(values: list[Any]) -> NDArray[np.float64]:
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:
        raise Undecodable("number out of range") from None


def _texts(values: list[Any]) -> NDArray[Any]:
    texts = np.empty(len(values), dtype=object)
    texts[:] = [
        value if type(value) is str
        else None if value is None or value != value  # noqa: PLR0124 - NaN
        else repr(value).removesuffix(".0") if type(value) is not bool
        else "true" if value
        else "false"
        for value in values
    ]  # fmt: skip
    return texts
