"""Columns in memory against a profile's features: counting rows, and learning a feature.

A column is an array (rows,): float64 with NaN for missing, or objects that are str with None for missing.
"""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pegel_agent.reference.bins import CategoryBins, NumericBins, category_bins, numeric_bins
from pegel_agent.reference.profile import Feature, Role
from pegel_agent.statistics.slots import IntArray

Column = NDArray[Any]
Bins = NumericBins | CategoryBins


def count_columns(feature: Feature, values: Column) -> tuple[IntArray, int]:
    """Rows per bin (k,) of a column, and how many of its values were of the wrong kind.

    A text in a numeric feature is invalid and counted as missing, so that the counts add up to the rows. A number in
    a categorical feature is its shortest text: `12` for 12.0.
    """
    return count_values(feature.bins, values)


def learn_feature(name: str, role: Role, values: Column) -> Feature | None:
    """A feature with bins and counts from a reference's column, categorical if it holds text; None without a value."""
    bins: Bins | None
    if values.dtype == object:
        rows = Counter(value for value in values.tolist() if value is not None)
        bins = category_bins(rows) if rows else None
    else:
        bins = numeric_bins(values)
    return None if bins is None else feature_of(name, role, bins, count_values(bins, values)[0])


def count_values(bins: Bins, values: Column) -> tuple[IntArray, int]:
    """`count_columns` for bins that are no feature yet."""
    if isinstance(bins, CategoryBins):
        return bins.counts(values if values.dtype == object else as_texts(values)), 0
    if values.dtype == object:
        invalid = sum(value is not None for value in values.tolist())
        return bins.counts(np.full(len(values), np.nan)), invalid
    return bins.counts(values), 0


def feature_of(name: str, role: Role, bins: Bins, counts: IntArray) -> Feature:
    """A profile's feature from its bins and the reference's counts (k,). Raises ValueError where they don't fit."""
    rows = tuple(map(int, counts))
    if isinstance(bins, CategoryBins):
        return Feature(name=name, kind="categorical", role=role, counts=rows, categories=bins.categories)
    return Feature(name=name, kind="numeric", role=role, counts=rows, edges=bins.edges)


def as_texts(values: Column) -> Column:
    """Numbers (rows,) as their shortest texts, None for NaN: `12` for 12.0."""
    distinct, position = np.unique(values, return_inverse=True)
    texts = np.array([_shortest(float(value)) for value in distinct.tolist()], dtype=object)
    found: Column = texts[position] if len(texts) else np.empty(0, dtype=object)
    return found


def _shortest(value: float) -> str | None:
    return None if np.isnan(value) else repr(value).removesuffix(".0")
