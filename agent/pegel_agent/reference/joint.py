"""Relations between numeric inputs, watched like features of their own.

A relation is what an input has left once the other inputs have explained it: the residual of a linear regression. Where
inputs go together it hardly varies; when they no longer do, its spread changes at once, though each input by itself
looks as ever. Residuals lie where the components of small variance do, and unlike these each has an input to be named
after, also where several relations are equally close. Values are clipped at four standard deviations, so that no
outlier rules.
"""

import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pegel_agent.reference.profile import Feature, Joint, Relation
from pegel_agent.statistics.slots import FloatArray

MAX_RELATIONS = 10
MIN_INPUTS = 3
_MIN_ROWS = 200
_ROWS_PER_INPUT = 10
_MOST_VALUES = 4_000_000
_MOST_MISSING = 0.05
_TRIMMED = (0.01, 0.99)
_CLIP = 4.0
_MOST_UNEXPLAINED = 0.8
"""The share of an input's variance that the others leave unexplained: one near 1 tells of no relation."""
_ALIKE = 0.5
_ZERO = 1e-6
_UNEXPLAINED = 0.01
_DIGITS = 6
_LOADING_DIGITS = 4
_OTHERS_NAMED = 2
_NAMED_FROM = 0.4
_NAME_LENGTH = 60

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Directions:
    """Relations by `names`, of inputs with their `centres` and `scales` (inputs,): the row of `loadings`
    (relations, inputs) says how much of each standardised input is in one, in units of its standard deviation."""

    names: tuple[str, ...]
    inputs: tuple[str, ...]
    centres: FloatArray
    scales: FloatArray
    loadings: FloatArray

    def scores(self, columns: Columns) -> dict[str, FloatArray]:
        """Each relation's values (rows,) from the inputs' numbers (rows,): NaN where one that it needs is missing."""
        standard = _standardised(np.stack([columns[name] for name in self.inputs]), self.centres, self.scales)
        missing = np.isnan(standard)
        standard[missing] = 0.0
        # Not through BLAS, which sets aside more memory than the analyser may have.
        scores = np.einsum("ir,ci->cr", standard, self.loadings)
        if missing.any():
            needed = (self.loadings != 0).astype(np.float64)
            scores[np.einsum("ir,ci->cr", missing.astype(np.float64), needed) > 0] = np.nan
        # What is equal but for the last digit must not fall on both sides of an edge.
        scores = np.round(scores, _DIGITS) + 0.0
        return dict(zip(self.names, scores, strict=True))

    def joint(self, features: tuple[Feature, ...]) -> Joint:
        """As a profile has them, with a feature for each."""
        relations = (
            Relation(feature, tuple(loadings.tolist()))
            for feature, loadings in zip(features, self.loadings, strict=True)
        )
        return Joint(self.inputs, tuple(self.centres.tolist()), tuple(self.scales.tolist()), tuple(relations))


def directions_of(joint: Joint) -> Directions:
    """A profile's relations, to score rows by."""
    return Directions(
        tuple(relation.feature.name for relation in joint.relations),
        joint.inputs,
        np.array(joint.centres),
        np.array(joint.scales),
        np.array([relation.loadings for relation in joint.relations]),
    )


def sample_step(rows: int, inputs: int) -> int:
    """Every which of so many rows is enough to find relations by, for matrices that fit in 32 MB."""
    return max(1, math.ceil(rows * inputs / _MOST_VALUES))


def find_relations(columns: Columns, *, taken: AbstractSet[str]) -> Directions | None:
    """Up to ten relations, the closest first, under names that are not `taken`; None where there are none.

    `columns` (rows,) are the inputs of rows that the relations will not be counted by: what varies least in some rows
    varies more in the next ones. An input that is missing in more than a row of twenty, or hardly varies, is in no
    relation.
    """
    names = [name for name, values in columns.items() if np.isnan(values).mean() <= _MOST_MISSING]
    if len(names) < MIN_INPUTS:
        return None
    values = np.stack([columns[name] for name in names])
    values = values[:, ~np.isnan(values).any(axis=0)]
    rows = values.shape[1]
    if rows < max(_MIN_ROWS, _ROWS_PER_INPUT * len(names)):
        return None
    centres, scales = _location_and_scale(values)
    varies = np.isfinite(scales) & (scales > _ZERO * np.abs(centres))
    if varies.sum() < MIN_INPUTS:
        return None
    names = [name for name, kept in zip(names, varies, strict=True) if kept]
    centres, scales = centres[varies], scales[varies]
    standard = _standardised(values[varies], centres, scales)
    spread = standard.std(axis=1)
    unit = (standard - standard.mean(axis=1, keepdims=True)) / spread[:, None]
    precision = _inverse(unit @ unit.T / rows)
    unexplained = 1 / np.diag(precision)
    chosen = _unlike(precision, unexplained < _MOST_UNEXPLAINED * (1 - len(names) / rows))
    if not chosen:
        return None
    weights = np.array([_sparse(precision[at] * unexplained[at], float(unexplained[at])) for at in chosen])
    loadings = weights / spread / np.sqrt(unexplained[chosen])[:, None]
    inputs = np.abs(loadings).max(axis=0) > 0
    return Directions(
        _names(weights, chosen, names, taken),
        tuple(name for name, used in zip(names, inputs, strict=True) if used),
        centres[inputs],
        scales[inputs],
        np.array([_rounded(row, float(np.abs(row).max()), _LOADING_DIGITS) for row in loadings])[:, inputs],
    )


def _location_and_scale(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation (inputs,) of values (inputs, rows) without their extremes, rounded."""
    low, high = np.quantile(values, _TRIMMED, axis=1, keepdims=True, method="inverted_cdf")
    with np.errstate(invalid="ignore", over="ignore"):
        trimmed = np.clip(values, low, high)
        scales = trimmed.std(axis=1)
        centres = trimmed.mean(axis=1)
    return (
        np.array([float(_rounded(np.array([c]), s, _DIGITS)[0]) for c, s in zip(centres, scales, strict=True)]),
        np.array([float(f"{scale:.{_DIGITS}g}") for scale in scales]),
    )


def _standardised(values: FloatArray, centres: FloatArray, scales: FloatArray) -> FloatArray:
    """Values (inputs, rows), in single precision first, as bins compare: a file and a request then have the same."""
    with np.errstate(over="ignore"):
        standard = values.astype(np.float32).astype(np.float64)
    standard -= centres[:, None]
    standard /= scales[:, None]
    np.minimum(standard, _CLIP, out=standard)
    np.maximum(standard, -_CLIP, out=standard)
    return standard


def _inverse(correlations: FloatArray) -> FloatArray:
    """The inverse (inputs, inputs), but for what is numerically no variance at all, as where inputs add up to 1."""
    variances, vectors = np.linalg.eigh(correlations)
    kept = variances > _ZERO
    inverse: FloatArray = vectors[:, kept] / variances[kept] @ vectors[:, kept].T
    return inverse


def _unlike(precision: FloatArray, related: NDArray[np.bool_]) -> list[int]:
    """The `related` inputs whose residuals to watch, the best explained first: not one whose residual goes with that of
    one before it, as the other's of a pair does."""
    size = np.sqrt(np.diag(precision))
    alike = (precision / size / size[:, None]) ** 2 >= _ALIKE
    chosen: list[int] = []
    for at in np.argsort(-size).tolist():
        if related[at] and not alike[at, chosen].any() and len(chosen) < MAX_RELATIONS:
            chosen.append(at)
    return chosen


def _sparse(weights: FloatArray, variance: float) -> FloatArray:
    """A combination (inputs,) of this variance without the inputs that add next to nothing to it."""
    order = np.argsort(np.abs(weights))
    kept = weights.copy()
    kept[order[np.cumsum(weights[order] ** 2) <= _UNEXPLAINED * variance]] = 0.0
    return kept


def _rounded(values: FloatArray, scale: float, digits: int) -> FloatArray:
    """Values to so many digits of the scale."""
    if not (math.isfinite(scale) and scale > 0):
        return values
    return np.round(values, digits - 1 - math.floor(math.log10(scale)))


def free_name(name: str, taken: AbstractSet[str]) -> str:
    """The name, with a number if it is taken."""
    alike = (name if number == 1 else f"{name} ({number})" for number in range(1, 2 + len(taken)))
    return next(one for one in alike if one not in taken)


def _names(weights: FloatArray, subjects: list[int], inputs: list[str], taken: AbstractSet[str]) -> tuple[str, ...]:
    """`relation of a to b and c` for each subject a by the largest weights (relations, inputs), numbered if need be."""
    found: list[str] = []
    for subject, row in zip(subjects, np.abs(weights), strict=True):
        others = row.copy()
        others[subject] = 0.0
        strongest = np.argsort(-others)[:_OTHERS_NAMED]
        named = [inputs[at][:_NAME_LENGTH] for at in strongest if others[at] >= _NAMED_FROM * others.max()]
        name = f"relation of {inputs[subject][:_NAME_LENGTH]} to {' and '.join(named)}"
        found.append(free_name(name, taken | set(found)))
    return tuple(found)
