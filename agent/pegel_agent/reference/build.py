"""A profile from a file of reference rows, in two passes: where the bins lie, then how many rows fall in each."""

from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pegel_exporters.errors import UserError

from pegel_agent.reference import tables
from pegel_agent.reference.bins import SHARED_BY, CategoryBins, NumericBins, numeric_bins
from pegel_agent.reference.columns import (
    Bins,
    Column,
    categories_of,
    choose_categories,
    feature_of,
    hidden,
    in_first_half,
    positions_of,
)
from pegel_agent.reference.computed import Computed
from pegel_agent.reference.joint import MIN_INPUTS, Directions, find_relations, free_name, sample_step
from pegel_agent.reference.keys import CategoryKey
from pegel_agent.reference.order import RowOrder, in_order, order_of
from pegel_agent.reference.performance import PerformanceCollector
from pegel_agent.reference.profile import FORMAT, MEASURES, Profile, Text
from pegel_agent.reference.texts import looks_like_text, measures_of
from pegel_agent.reference.times import times_of
from pegel_agent.statistics.budget import Window
from pegel_agent.statistics.slots import FloatArray

_SAMPLE_ROWS = 200_000
_TRACKED_CATEGORIES = 200_000
_MIXED_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Roles:
    """What the columns of a file are: those that are no inputs, and those to take as categories or as free text. `time`
    has the rows' times, where their order matters."""

    labels: frozenset[str] = frozenset()
    predictions: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()
    categorical: frozenset[str] = frozenset()
    time: str | None = None
    texts: frozenset[str] = frozenset()
    tokens: Mapping[str, int] = field(default_factory=dict)
    """The padding of columns whose rows are lists of tokens."""

    @property
    def left_out(self) -> frozenset[str]:
        """The columns that are profiled as nothing."""
        return self.labels | self.ignored | ({self.time} if self.time is not None else set())

    def columns(self, path: Path) -> tuple[str, ...]:
        """The file's columns that get a feature, in its order. Raises UserError where a role doesn't fit the file."""
        names = tables.column_names(path)
        listed = self.tokens.keys()
        for name in sorted(self.left_out | self.predictions | self.categorical | self.texts | listed):
            if name not in names:
                raise UserError(f"{path} has no column {name!r}; it has {', '.join(names)}")
        for name in sorted(self.left_out & (self.predictions | self.categorical | self.texts | listed)):
            raise UserError(f"column {name!r} can't be left out and be a prediction, categorical, text or tokens")
        for name in sorted(self.texts & self.categorical):
            raise UserError(f"column {name!r} can't be categorical and text")
        for name in sorted(listed & (self.categorical | self.texts)):
            raise UserError(f"column {name!r} can't be tokens and be categorical or text")
        kept = tuple(name for name in names if name not in self.left_out)
        if not kept:
            raise UserError(f"{path} has no column left to profile")
        return kept


@dataclass(slots=True)
class _Seen:
    """What the first pass keeps of a column: an even sample of its numbers, or its categories with their rows."""

    sample: list[FloatArray] = field(default_factory=list)
    categories: Counter[str] = field(default_factory=Counter)
    half: Counter[str] = field(default_factory=Counter)
    """Categories of half of the rows."""
    chosen: bool = False
    """Whether only the other rows may be counted."""
    numeric: bool = False
    text: bool = False
    measures: list[tuple[FloatArray, ...]] = field(default_factory=list)
    """Of an even sample of its texts, while they are sentences."""

    def measure(self, values: Column, *, first: int, stride: int) -> None:
        """Keep what can be counted of every `stride`-th text of the file."""
        self.measures.append(measures_of(values[-first % stride :: stride]))

    def add(self, values: Column, *, first: int, stride: int) -> None:
        """Take in a batch whose first row is the file's row `first`, and keep every `stride`-th number of the file."""
        if values.dtype == object:
            self.categories = _tracked(self.categories, categories_of(values))
            self.half = _tracked(self.half, categories_of(values[in_first_half(first, len(values))]))
            self.text = bool(self.categories)
        else:
            self.numeric = self.numeric or bool(np.isfinite(values).any())
            self.sample.append(values[-first % stride :: stride])

    @property
    def mixed(self) -> bool:
        """Whether nearly all of its texts are numbers, so that the others are mistakes more likely than names."""
        numbers = sum(rows for text, rows in self.categories.items() if tables.is_number(text))
        return _MIXED_SHARE * self.categories.total() <= numbers < self.categories.total()

    def thin(self) -> None:
        """Keep every second number."""
        self.sample = [np.concatenate(self.sample)[::2]] if self.sample else []
        if self.measures:
            self.measures = [tuple(of[::2] for of in self.measured)]

    @property
    def measured(self) -> tuple[FloatArray, ...]:
        """The texts' measures (rows,)."""
        return tuple(np.concatenate(parts) for parts in zip(*self.measures, strict=True))

    @property
    def free(self) -> bool:
        """Whether its texts are sentences, most of which hardly another row shares."""
        shared = sum(rows for rows in self.categories.values() if rows >= SHARED_BY)
        return bool(self.measures) and 2 * shared < self.categories.total()

    def bins(self) -> Bins | None:
        """The column's bins; None without a number or a text that ten rows share."""
        if self.text:
            bins, self.chosen = choose_categories(self.categories, self.half)
            return bins
        return numeric_bins(np.concatenate(self.sample)) if self.numeric else None


def build_profile(
    path: Path,
    *,
    roles: Roles,
    model_name: str,
    model_version: str,
    created: float,
    window: Window | None = None,
    performance: PerformanceCollector | None = None,
    key: CategoryKey | None = None,
    progress: tables.Progress | None = None,
) -> Profile:
    """Read the file twice and return its profile, with the model's performance where a collector for it is given.

    Features are in the order of the columns; a column without a number or a text that ten rows share gets none. With a
    time column, rows are also counted in the `window`s that the sidecar will have. With a `key` categories are named by
    it; the classes of `performance` keep their names. Raises UserError for a file or
    column that can't be profiled.
    """
    columns = roles.columns(path)
    tell = progress or (lambda _: None)
    order = RowOrder(window) if window is not None and roles.time is not None else None
    seen, rows, stride = _first_pass(
        path, columns, roles=roles, order=order, performance=performance, key=key,
        progress=lambda share: tell(share / 2),
    )  # fmt: skip
    if not rows:
        raise UserError(f"{path} has no rows")
    texts = _texts(seen, roles)
    found = {name: CategoryBins(()) if name in texts else column.bins() for name, column in seen.items()}
    bins = {name: of for name, of in found.items() if of is not None}
    of_texts = {measure: of for measures in texts.values() for measure, of in measures.items()}
    if not bins:
        raise UserError(f"{path} has no column to profile: none has a number, or a text that ten rows share")
    relations, of_relations = _relations(seen, bins, roles, stride=stride, taken=seen.keys() | of_texts.keys())
    halved = frozenset(name for name, column in seen.items() if column.chosen) | of_relations.keys()
    laid = bins | of_texts | of_relations
    numbers = order.finish(sum(len(of.slots) for of in laid.values())) if order else np.zeros(0, dtype=np.int64)
    computed = Computed(relations, {column: tuple(measures) for column, measures in texts.items()})
    counted = _Counted(tuple(bins), laid, computed, halved, len(numbers))
    _second_pass(path, counted, roles=roles, order=order, key=key, progress=lambda share: tell(0.5 + share / 2))
    answers = roles.predictions | {name for column in texts.keys() & roles.predictions for name in texts[column]}
    features = [
        feature_of(
            name, "prediction" if name in answers else "input", of, counted.rows[name],
            padding=roles.tokens.get(name),
        )
        for name, of in laid.items()
    ]  # fmt: skip
    if order is not None:
        middles = counted.times / counted.window_rows
        features = [in_order(one, counted.windows[one.name].astype(np.int64), numbers, middles) for one in features]
    by_name = {feature.name: feature for feature in features}
    return Profile(
        FORMAT,
        created,
        model_name,
        model_version,
        rows,
        tuple(features[: len(bins)]),
        order_of(len(numbers), window) if order is not None and window is not None else None,
        performance.result() if performance is not None else None,
        key.check if key is not None else "",
        relations.joint(tuple(by_name[name] for name in of_relations)) if relations is not None else None,
        tuple(Text(column, tuple(by_name[name] for name in measures)) for column, measures in texts.items()),
    )


def _texts(seen: Mapping[str, _Seen], roles: Roles) -> dict[str, dict[str, Bins]]:
    """The columns of free text, with the bins of what is counted of each by the name of that feature.

    Raises UserError for one that was said to be text and holds none.
    """
    found: dict[str, dict[str, Bins]] = {}
    taken = set(seen)
    for column, one in seen.items():
        if column in roles.categorical or not (column in roles.texts or one.free):
            continue
        laid = [numeric_bins(values) for values in one.measured] if one.measures else [None]
        measures = {free_name(f"{what} of {column}", taken): of for what, of in zip(MEASURES, laid, strict=False)}
        taken |= measures.keys()
        bins: dict[str, Bins] = {name: of for name, of in measures.items() if of is not None}
        if len(bins) == len(MEASURES):
            found[column] = bins
        elif column in roles.texts:
            raise UserError(f"column {column!r} has no text to count: none of its rows has a word in it")
    return found


def _relations(
    seen: Mapping[str, _Seen], bins: Mapping[str, Bins], roles: Roles, *, stride: int, taken: AbstractSet[str]
) -> tuple[Directions | None, dict[str, Bins]]:
    """Relations between the inputs that are numbers, found in one half of the rows, and their bins in the other."""
    inputs = [name for name, of in bins.items() if isinstance(of, NumericBins) and name not in roles.predictions]
    if len(inputs) < MIN_INPUTS:
        return None, {}
    step = sample_step(sum(map(len, seen[inputs[0]].sample)), len(inputs))
    sample = {name: np.concatenate(seen[name].sample)[::step] for name in inputs}
    first = in_first_half(0, len(sample[inputs[0]]), step * stride)
    found = find_relations({name: values[first] for name, values in sample.items()}, taken=taken)
    if found is None:
        return None, {}
    scores = found.scores({name: sample[name][~first] for name in found.inputs})
    laid = {name: numeric_bins(values) for name, values in scores.items()}
    of_relations: dict[str, Bins] = {name: of for name, of in laid.items() if of is not None}
    return (found, of_relations) if len(of_relations) == len(scores) else (None, {})


def _first_pass(
    path: Path,
    columns: tuple[str, ...],
    *,
    roles: Roles,
    order: RowOrder | None,
    performance: PerformanceCollector | None,
    key: CategoryKey | None,
    progress: tables.Progress,
) -> tuple[dict[str, _Seen], int, int]:
    """What was seen of each column, how many rows there are, and that every which of them is in the samples."""
    seen = {name: _Seen() for name in columns}
    rows, stride = 0, 1
    asked = dict.fromkeys((*_asked(columns, roles, order), *(performance.columns if performance is not None else ())))
    texts = roles.categorical | roles.texts
    for batch in tables.read(path, tuple(asked), text=texts, tokens=roles.tokens, progress=progress):
        if performance is not None:
            performance.add(batch)
        for name, column in seen.items():
            values = batch[name]
            if name in roles.texts or (values.dtype == object and looks_like_text(values)):
                column.measure(values, first=rows, stride=stride)
            column.add(hidden(values, key) if values.dtype == object else values, first=rows, stride=stride)
            if column.numeric and column.text:
                raise _mixed(path, name)
        if order is not None:
            order.see(_times(path, batch, roles, rows))
        rows += len(batch[columns[0]])
        while rows // stride > 2 * _SAMPLE_ROWS:
            stride *= 2
            for column in seen.values():
                column.thin()
    for name, column in seen.items():
        if column.mixed and name not in roles.categorical:
            raise _mixed(path, name)
    return seen, rows, stride


def _mixed(path: Path, name: str) -> UserError:
    return UserError(f"{path}: column {name!r} has numbers and text; mend it, or pass --categorical {name}")


class _Counted:
    """What the second pass counts: rows (k,) by feature, and rows (windows, k) with the windows' times."""

    def __init__(
        self,
        columns: tuple[str, ...],
        bins: Mapping[str, Bins],
        computed: Computed,
        halved: AbstractSet[str],
        windows: int,
    ) -> None:
        self.columns = columns
        self.computed = computed
        self.halved = halved
        """Features of which one half of the rows decided what to count, so that the other is counted."""
        self.bins = bins
        self.rows = {name: np.zeros(len(of.slots), dtype=np.int64) for name, of in self.bins.items()}
        self.windows = {name: np.zeros((windows, len(of.slots)), dtype=np.int32) for name, of in self.bins.items()}
        self.times = np.zeros(windows)
        self.window_rows = np.zeros(windows, dtype=np.int64)


def _second_pass(
    path: Path,
    counted: _Counted,
    *,
    roles: Roles,
    order: RowOrder | None,
    key: CategoryKey | None,
    progress: tables.Progress,
) -> None:
    names = counted.columns
    texts = frozenset(name for name in names if isinstance(counted.bins[name], CategoryBins))
    first = 0
    asked = _asked(names, roles, order)
    for batch in tables.read(path, asked, text=texts, tokens=roles.tokens, progress=progress):
        rows = len(batch[names[0]])
        windows = None
        if order is not None:
            times = _times(path, batch, roles, first)
            windows = order.windows_of(first, times)
            kept = windows >= 0
            np.add.at(counted.times, windows[kept], times[kept])
            np.add.at(counted.window_rows, windows[kept], 1)
        computed = counted.computed.of(batch)
        half = ~in_first_half(first, rows)
        for name, of in counted.bins.items():
            values = computed[name] if name in computed else batch[name]
            positions, _ = positions_of(of, hidden(values, key) if isinstance(of, CategoryBins) else values)
            chosen = positions[half] if name in counted.halved else positions
            counted.rows[name] += np.bincount(chosen, minlength=len(of.slots))
            if windows is not None:
                np.add.at(counted.windows[name], (windows[kept], positions[kept]), 1)
        first += rows


def _asked(columns: tuple[str, ...], roles: Roles, order: RowOrder | None) -> tuple[str, ...]:
    return columns if order is None or roles.time is None else (*columns, roles.time)


def _times(path: Path, batch: Mapping[str, Column], roles: Roles, before: int) -> FloatArray:
    assert roles.time is not None
    return times_of(path, roles.time, batch[roles.time], after=before)


def _tracked(rows: Counter[str], more: Counter[str]) -> Counter[str]:
    """Rows by category, together. Ten rows make a bin: what is still rare after so many others is forgotten."""
    rows.update(more)
    return rows if len(rows) <= _TRACKED_CATEGORIES else Counter(dict(rows.most_common(_TRACKED_CATEGORIES // 2)))
