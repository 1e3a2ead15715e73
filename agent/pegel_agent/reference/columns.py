"""Columns in memory against a profile's features: counting rows, and learning a feature.

A column is an array (rows,): float64 with NaN for missing, or objects that are str with None for missing.
"""

import math
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pegel_agent.reference.bins import CategoryBins, NumericBins, category_bins, numeric_bins
from pegel_agent.reference.keys import CategoryKey
from pegel_agent.reference.profile import Feature, Role
from pegel_agent.statistics.slots import IntArray

Column = NDArray[Any]
Bins = NumericBins | CategoryBins

_TRUTHS = {"0": "false", "1": "true"}


def count_columns(feature: Feature, values: Column) -> tuple[IntArray, int]:
    """Rows per bin (k,) of a column, and how many of its values were of the wrong kind.

    A text in a numeric feature is invalid and counted as missing, so that the counts add up to the rows. A number in
    a categorical feature is its shortest text: `12` for 12.0.
    """
    return count_values(feature.bins, values)


def count(feature: Feature, values: Column) -> tuple[IntArray, int]:
    """Rows per bin (k,) of a column (rows,), and how many of its values were of the wrong kind, which count as missing.

    Text that says a number is that number where the feature is numeric.
    """
    if feature.kind == "numeric" and values.dtype == object:
        numbers, invalid = as_numbers(values)
        return count_columns(feature, numbers)[0], invalid
    return count_columns(feature, values)


def learn_feature(name: str, role: Role, values: Column) -> Feature | None:
    """A feature with bins and counts from a reference's column, categorical if it holds text.

    None without a value, and for text without a category that ten rows share. Where it is a near thing which categories
    are named, half of the rows decide, and the others are counted: categories chosen for being frequent in the very
    rows that are counted would seem more frequent than they are, and the next rows would look like drift.
    """
    bins: Bins | None
    if values.dtype == object:
        half = in_first_half(0, len(values))
        bins, chosen = choose_categories(categories_of(values), categories_of(values[half]))
        values = values[~half] if chosen else values
    else:
        bins = numeric_bins(values)
    return None if bins is None else feature_of(name, role, bins, count_values(bins, values)[0])


def categories_of(values: Column) -> Counter[str]:
    """Rows by category of a column of texts."""
    return Counter(text for text in values.tolist() if text is not None)


def in_first_half(first: int, rows: int, step: int = 1) -> NDArray[np.bool_]:
    """A fixed choice (rows,) of about half of the rows from number `first` on, or of every `step`-th of them, without a
    period that rows could share.

    Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4): the top bit of the number times 2³²/φ.
    """
    numbers = np.arange(first, first + rows * step, step, dtype=np.uint64)
    half: NDArray[np.bool_] = (numbers * np.uint64(2_654_435_769) & np.uint64(0x8000_0000)) == 0
    return half


def choose_categories(rows: Counter[str], half: Counter[str]) -> tuple[CategoryBins | None, bool]:
    """Bins for a reference's categories from all rows, or from `half` of them where the choice is a near thing.

    It is not where the least frequent named category is four standard deviations above the most frequent other one.
    The flag says that half was used, so that only the other half may be counted.
    """
    bins = category_bins(rows)
    if bins is not None:
        named = frozenset(bins.categories)
        others = max((count for name, count in rows.items() if name not in named), default=0)
        if min(rows[name] for name in named) > others + 4 * math.sqrt(others):
            return bins, False
    return category_bins(half), True


def count_values(bins: Bins, values: Column) -> tuple[IntArray, int]:
    """`count_columns` for bins that are no feature yet."""
    if isinstance(bins, NumericBins) and values.dtype != object:
        return bins.counts(values), 0
    positions, invalid = positions_of(bins, values)
    return np.bincount(positions, minlength=len(bins.slots)).astype(np.int64), invalid


def positions_of(bins: Bins, values: Column) -> tuple[IntArray, int]:
    """The bin (rows,) of each value of a column, and how many values were of the wrong kind."""
    if isinstance(bins, CategoryBins):
        return bins.positions(values if values.dtype == object else as_texts(values)), 0
    if values.dtype == object:
        invalid = sum(value is not None for value in values.tolist())
        return bins.positions(np.full(len(values), np.nan)), invalid
    return bins.positions(values), 0


def feature_of(name: str, role: Role, bins: Bins, counts: IntArray, *, padding: int | None = None) -> Feature:
    """A profile's feature from its bins and the reference's counts (k,). Raises ValueError where they don't fit."""
    rows = tuple(map(int, counts))
    if isinstance(bins, CategoryBins):
        return Feature(name=name, kind="categorical", role=role, counts=rows, categories=bins.categories)
    return Feature(name=name, kind="numeric", role=role, counts=rows, edges=bins.edges, padding=padding)


def alike(feature: Feature, values: Column, key: CategoryKey | None = None) -> Column:
    """A column (rows,) as the feature's reference has it: categories under the names that they have by the key, and
    truth values as 0 and 1 where that is what the reference has, or the other way about.

    One and the same column is of truth values in one file, and of 0 and 1 in the next.
    """
    if feature.kind == "numeric":
        return _zeros_and_ones(values) if values.dtype == object and set(feature.edges) <= {0.0, 1.0} else values
    if 1 <= len(feature.categories) <= len(_TRUTHS):
        named = {key.name_of(text) if key is not None else text for text in _TRUTHS.values()}
        if named.issuperset(feature.categories):
            texts = values if values.dtype == object else as_texts(values)
            values = np.array([_TRUTHS.get(text, text) for text in texts.tolist()], dtype=object)
    return hidden(values, key)


def _zeros_and_ones(values: Column) -> Column:
    numbers = {text: float(number) for number, text in _TRUTHS.items()} | {number: float(number) for number in _TRUTHS}
    texts = values.tolist()
    if not (numbers.keys() | {None}).issuperset(texts):
        return values
    return np.array([numbers.get(text, math.nan) for text in texts], dtype=np.float64)


def hidden(values: Column, key: CategoryKey | None) -> Column:
    """A column of categories (rows,) under the names that they have by the key, if there is one."""
    if key is None:
        return values
    texts = (values if values.dtype == object else as_texts(values)).tolist()
    names = {text: None if text is None else key.name_of(text) for text in set(texts)}
    found: Column = np.array([names[text] for text in texts], dtype=object)
    return found


def as_numbers(values: Column) -> tuple[Column, int]:
    """A column of text (rows,) as numbers, and how many of its texts say none; they are NaN then, as None is.

    A row that mixes numbers and text comes as text, its numbers too.
    """
    try:
        numbers: Column = values.astype(np.float64)
    except ValueError:
        return _as_numbers_one_by_one(values)
    return numbers, 0


def as_texts(values: Column) -> Column:
    """Numbers (rows,) as their shortest texts, None for NaN: `12` for 12.0."""
    distinct, position = np.unique(values, return_inverse=True)
    texts = np.array([_shortest(float(value)) for value in distinct.tolist()], dtype=object)
    found: Column = texts[position] if len(texts) else np.empty(0, dtype=object)
    return found


def _shortest(value: float) -> str | None:
    return None if np.isnan(value) else repr(value).removesuffix(".0")


def _as_numbers_one_by_one(values: Column) -> tuple[Column, int]:
    numbers: Column = np.full(len(values), np.nan)
    invalid = 0
    wrong: set[str] = set()  # to be refused takes ten times as long as to be found in here
    for row, text in enumerate(values.tolist()):
        if text is None:
            continue
        if text not in wrong:
            try:
                numbers[row] = float(text)
                continue
            except ValueError:
                wrong.add(text)
        invalid += 1
    return numbers, invalid
