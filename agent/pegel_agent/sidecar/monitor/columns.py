"""Which column of an exchange is which feature, and the rows that wait to be counted, feature by feature."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pegel_agent.reference.columns import as_numbers, as_texts
from pegel_agent.reference.profile import Profile, Role
from pegel_agent.reference.tokens import count_tokens
from pegel_agent.sidecar.protocols.records import Block, Inference, Undecodable

MAX_FEATURES = 500
MAX_NAME_CHARACTERS = 256

Column = NDArray[Any]
Shape = tuple[tuple[tuple[str, ...], str, int], ...]
"""What two exchanges must share to be counted together: names, kind and number of columns, block by block."""

_ONE_OF_MANY = re.compile(r"(.*)\[(\d{1,5})\]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a feature's values stand: in which block, and in which of its columns, None for all. With a padding the
    value is how many of them are tokens."""

    block: int
    column: int | None
    padding: int | None = None


@dataclass(frozen=True, slots=True)
class Places:
    """Where the features stand in exchanges of one shape; None for one that is missing there.

    Features that are in neither dictionary were not asked for or not answered: nothing is known about them.
    """

    inputs: dict[str, Place | None]
    predictions: dict[str, Place | None]


@dataclass(frozen=True, slots=True)
class Layout:
    """The features of a model by their names, in the reference's order; `tokens` has the padding of those that count
    a list."""

    inputs: tuple[str, ...]
    predictions: tuple[str, ...]
    tokens: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def by(cls, profile: Profile) -> "Layout":
        """The columns that a profile compares."""
        names: dict[Role, list[str]] = {"input": [], "prediction": []}
        for feature in profile.features:
            names[feature.role].append(feature.name)
        return cls(tuple(names["input"]), tuple(names["prediction"]), profile.tokens)

    def places(self, inputs: Shape, outputs: Shape) -> Places:
        """Where each feature stands in exchanges of these shapes.

        Columns without names are the features in their order, and where one feature and one column are all there is,
        they belong together. Raises Undecodable when the inputs are others.
        """
        found = _places(self.inputs, inputs, self.tokens) if self.inputs else {}
        if found is None:
            raise Undecodable("the columns are not the profile's")
        # Answers may hold more than predictions (or less): what does not fit is not looked at.
        return Places(found, _places(self.predictions, outputs, self.tokens) or {})


def layout_of(inference: Inference) -> Layout:
    """The features that an exchange shows, for a reference that is learned from traffic. Raises Undecodable."""
    if sum(block.values.shape[1] for block in (*inference.inputs, *inference.outputs)) > MAX_FEATURES:
        raise Undecodable(f"more than {MAX_FEATURES} columns")
    inputs = _names(inference.inputs, "f")
    predictions = _names(inference.outputs, "prediction")
    taken = set(inputs)
    predictions = tuple(f"prediction {name}" if name in taken else name for name in predictions)
    names = (*inputs, *predictions)
    if len(set(names)) < len(names):
        raise Undecodable("repeated name")
    if max(map(len, names), default=0) > MAX_NAME_CHARACTERS:
        raise Undecodable("a name is too long")
    return Layout(inputs, predictions)


def shape_of(blocks: tuple[Block, ...]) -> Shape:
    """The shape of one side of an exchange."""
    return tuple([(block.names, block.values.dtype.kind, block.values.shape[1]) for block in blocks])


class Waiting:
    """Rows that are not counted yet, in the order of their arrival."""

    def __init__(self) -> None:
        self._kept: list[tuple[Places, Inference]] = []
        self.rows = 0
        self.bytes = 0

    def add(self, places: Places, inference: Inference) -> None:
        """Keep an exchange's rows. Exchanges with the very same places must have the same shape."""
        self._kept.append((places, inference))
        self.rows += inference.rows
        for block in (*inference.inputs, *inference.outputs):
            self.bytes += block.values.nbytes
            if block.values.dtype == object:
                self.bytes += sum(map(len, filter(None, block.values.flat)))

    def columns(self) -> Iterator[dict[str, Column]]:
        """The rows as columns (rows,) by feature, and then forget them. A missing feature is a column of NaN."""
        kept, self._kept, self.rows, self.bytes = self._kept, [], 0, 0
        found = (_columns(list(same)) for _, same in groupby(kept, key=lambda one: id(one[0])))
        # Lists of another length are of another shape, and yet the same features.
        for _, alike in groupby(found, key=lambda one: [(name, values.dtype) for name, values in one.items()]):
            group = list(alike)
            yield {name: np.concatenate([one[name] for one in group]) for name in group[0]}


def _columns(alike: list[tuple[Places, Inference]]) -> dict[str, Column]:
    """The rows of exchanges with the same places as columns (rows,) by feature."""
    places, inferences = alike[0][0], [inference for _, inference in alike]
    rows = sum(inference.rows for inference in inferences)
    columns = _side(places.inputs, [inference.inputs for inference in inferences], rows)
    return columns | _side(places.predictions, [inference.outputs for inference in inferences], rows)


def joined(parts: list[Column]) -> Column:
    """One column (rows,) of several: numbers unless one of them holds text that says none."""
    as_floats = [as_numbers(part) if part.dtype == object else (part, 0) for part in parts]
    if not any(invalid for _, invalid in as_floats):
        return np.concatenate([numbers for numbers, _ in as_floats])
    return np.concatenate([part if part.dtype == object else as_texts(part) for part in parts])


def roles(layout: Layout) -> Iterator[tuple[str, Role]]:
    """Every feature and its role, in the reference's order."""
    for name in layout.inputs:
        yield name, "input"
    for name in layout.predictions:
        yield name, "prediction"


def _side(places: dict[str, Place | None], sides: list[tuple[Block, ...]], rows: int) -> dict[str, Column]:
    used = {place.block for place in places.values() if place is not None}
    blocks = {position: np.concatenate([side[position].values for side in sides]) for position in used}
    return {
        name: np.full(rows, np.nan) if place is None else _values(blocks[place.block], place)
        for name, place in places.items()
    }


def _values(block: Column, place: Place) -> Column:
    if place.padding is None:
        return block[:, place.column]
    return count_tokens(block if place.column is None else block[:, [place.column]], place.padding)


def _places(features: tuple[str, ...], shape: Shape, tokens: Mapping[str, int]) -> dict[str, Place | None] | None:
    """Where each feature stands on a side of this shape, None where it doesn't; None where no feature does."""
    blocks = [(names, block, width) for block, (names, _, width) in enumerate(shape)]
    unnamed = [(block, width) for names, block, width in blocks if not names]
    if len(features) == 1 == len(blocks) and features[0] in tokens and len(shape[0][0]) <= 1:
        return {features[0]: Place(0, None, tokens[features[0]])}
    if unnamed and not tokens.keys().isdisjoint(features):  # which of several lists it is can't be told
        return None
    if unnamed or len(features) == sum(width for _, _, width in blocks) == 1:
        places = [Place(block, column) for block, width in unnamed or [(0, 1)] for column in range(width)]
        return dict(zip(features, places, strict=True)) if len(places) == len(features) else None
    named = {
        name: Place(block, column) for names, block, width in blocks if len(names) == width
        for column, name in enumerate(names)
    }  # fmt: skip
    wide = {names[0]: (block, width) for names, block, width in blocks if len(names) < width}
    found = {name: _place(name, named, wide, tokens.get(name)) for name in features}
    return found if any(found.values()) else None


def _place(
    name: str, named: Mapping[str, Place], wide: Mapping[str, tuple[int, int]], padding: int | None
) -> Place | None:
    if name in named:
        return replace(named[name], padding=padding)
    if padding is not None:
        return Place(wide[name][0], None, padding) if name in wide else None
    one = _ONE_OF_MANY.fullmatch(name)
    block, width = wide.get(one[1], (0, 0)) if one else (0, 0)
    return Place(block, int(one[2])) if one and int(one[2]) < width else None


def _names(blocks: tuple[Block, ...], stem: str) -> tuple[str, ...]:
    width = sum(block.values.shape[1] for block in blocks)
    unnamed = iter(range(width))
    single = stem == "prediction" and width == 1
    return tuple(name for block in blocks for name in _names_of(block, unnamed, stem, single=single))


def _names_of(block: Block, unnamed: Iterator[int], stem: str, *, single: bool) -> tuple[str, ...]:
    width = block.values.shape[1]
    if not block.names:
        return tuple(stem if single else f"{stem}{next(unnamed)}" for _ in range(width))
    if len(block.names) == width:
        return block.names
    return tuple(f"{block.names[0]}[{column}]" for column in range(width))
