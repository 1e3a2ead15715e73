"""How well a model did on its reference: what later labels are compared with.

Counts only, and nothing that tells of one person: a class is named only where at least ten rows share it, and scores
and errors are counted in the bins that features have.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from pegel_exporters.errors import UserError

from pegel_agent.reference.bins import SHARED_BY, CategoryBins, NumericBins, numeric_bins
from pegel_agent.statistics.slots import FloatArray

MAX_CLASSES = 20
_SAMPLE_ROWS = 200_000
_TRACKED_PAIRS = 100_000

Kind = Literal["binary", "multiclass", "regression"]
Column = NDArray[Any]
"""As in columns.py: numbers with NaN for missing, or texts with None."""


class Curve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often the model was right by score: `rows` and `right` are (len(edges) + 2,), the bins of NumericBins."""

    edges: tuple[float, ...]
    rows: tuple[int, ...]
    right: tuple[int, ...]

    @property
    def bins(self) -> NumericBins:
        """Where a score falls."""
        return NumericBins(self.edges)

    def __post_init__(self) -> None:
        _check_bins("scores", self.edges, self.rows)
        if len(self.right) != len(self.rows) or any(
            not 0 <= right <= rows for right, rows in zip(self.right, self.rows, strict=False)
        ):
            raise ValueError("scores: each bin has from 0 to all of its rows right")


class Errors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A regression's absolute errors: `rows` are (len(edges) + 2,), the bins of NumericBins."""

    edges: tuple[float, ...]
    rows: tuple[int, ...]

    @property
    def bins(self) -> NumericBins:
        """Where an absolute error falls."""
        return NumericBins(self.edges)

    def __post_init__(self) -> None:
        _check_bins("errors", self.edges, self.rows)


class Performance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of the reference rows that have a label and a prediction: `rows`, and how many were predicted `right`.

    `classes` are up to 20 that at least ten rows share each; of a binary model there are two, the positive one last.
    `confusion` is (classes + 1, classes + 1), by predicted and then actual class, with all other classes last. `scores`
    are how sure the model was: a binary model's probability of the positive class, else that of the predicted class. A
    regression has `errors`, and no classes; its `right` rows are those without an error.
    """

    kind: Kind
    rows: int
    right: int
    classes: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    scores: Curve | None = None
    errors: Errors | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """A label value for each class, and one for all others."""
        return CategoryBins(self.classes).names[:-1]

    @property
    def more_classes(self) -> bool:
        """Whether the reference has so many classes that some are not named."""
        return len(self.classes) == MAX_CLASSES and any(row[-1] for row in self.confusion)

    def __post_init__(self) -> None:
        if not 0 <= self.right <= self.rows or not self.rows:
            raise ValueError(f"performance: {self.right} of {self.rows} rows right")
        if self.kind == "regression":
            if self.errors is None or self.classes or self.confusion or self.scores:
                raise ValueError("performance: a regression has errors, and neither classes nor scores")
            return
        size = len(self.classes) + 1
        if self.errors is not None or len(set(self.classes)) + 1 < size or size > MAX_CLASSES + 1:
            raise ValueError(f"performance: classes differ, are up to {MAX_CLASSES} and have no errors")
        if self.kind == "binary" and size != 3:
            raise ValueError("performance: a binary model has two classes")
        if len(self.confusion) != size or any(len(row) != size or min(row) < 0 for row in self.confusion):
            raise ValueError(f"performance: confusion has {size} times {size} counts")
        if sum(map(sum, self.confusion)) != self.rows:
            raise ValueError(f"performance: confusion does not count {self.rows} rows")


def class_name(value: str | float | None) -> str | None:
    """The class that a value names; None for None, an empty text, NaN and infinities, which name none.

    Numbers, their texts and truth values are the same class: `1` for 1, 1.0, "1.0" and true.
    """
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in ("true", "false"):
            return "1" if text.lower() == "true" else "0"
        number = number_of(text)
        return (text or None) if number is None else _shortest(number)
    if value is None or not math.isfinite(value):
        return None
    return _shortest(float(value))


def number_of(value: str | float | None) -> float | None:
    """The finite number that a value is or spells; None for truth values, too."""
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


class PerformanceCollector:
    """Takes in a reference's batches in their order and makes its `Performance` of them.

    `kind` is found out from the values where it is not told: labels and predictions that are numbers make a regression,
    unless the labels are 0 and 1 and the predictions lie between, or both are the same whole numbers.
    """

    def __init__(self, label: str, prediction: str, score: str | None = None, *, kind: Kind | None = None) -> None:
        self._label, self._prediction, self._score = label, prediction, score
        self._kind = kind
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._rows = self._right = 0
        self._sample = _EvenSample()
        self._score_sums: defaultdict[str, float] = defaultdict(float)
        self._all_pairs = self._numbers = True
        self._between = self._fractions = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that batches must have."""
        return tuple(dict.fromkeys(name for name in (self._label, self._prediction, self._score) if name is not None))

    def add(self, batch: Mapping[str, Column]) -> None:
        """Take in a batch: columns (rows,) by name."""
        pairs = list(zip(_names(batch[self._prediction]), _names(batch[self._label]), strict=True))
        both = np.array([None not in pair for pair in pairs], dtype=bool)
        if not both.any():
            return
        predicted, actual = zip(
            *((one, other) for one, other in pairs if one is not None and other is not None), strict=True
        )
        labels, predictions = (_numbers(batch[name])[both] for name in (self._label, self._prediction))
        self._numbers = self._numbers and not (np.isnan(labels).any() or np.isnan(predictions).any())
        between = (predictions > 0) & (predictions < 1)
        self._between = self._between or bool(between.any())
        self._fractions = self._fractions or bool((predictions[~between] % 1 != 0).any())
        predicted = tuple(
            str(int(number >= 0.5)) if inside else name
            for name, number, inside in zip(predicted, predictions.tolist(), between.tolist(), strict=True)
        )
        right = np.array([one == other for one, other in zip(predicted, actual, strict=True)])
        scores = predictions if self._score is None else _numbers(batch[self._score])[both]
        if self._score is not None and bool(((scores < 0) | (scores > 1)).any()):
            raise UserError(f"column {self._score!r} has scores outside 0 to 1; a score is a probability")
        self._rows += len(actual)
        self._right += int(right.sum())
        self._sample.add(np.column_stack((scores, right, np.abs(predictions - labels))))
        self._count(predicted, actual, scores)

    def result(self) -> Performance | None:
        """The reference's performance; None where fewer than ten rows have both a label and a prediction."""
        if self._rows < SHARED_BY:
            return None
        kind = self._kind or self._found_kind()
        if kind == "regression":
            return self._regression()
        classes = self._classes()
        # A class that few rows share has no name, and with one name there is no other to tell it from.
        binary = len(classes) == 2 and {actual for _, actual in self._pairs} <= set(classes) and kind != "multiclass"
        place = {name: position for position, name in enumerate(classes)}
        confusion = np.zeros((len(classes) + 1, len(classes) + 1), dtype=np.int64)
        for (predicted, actual), rows in self._pairs.items():
            confusion[place.get(predicted, len(classes)), place.get(actual, len(classes))] += rows
        confusion[-1, -1] += self._rows - confusion.sum()  # pairs that were too many to keep
        return Performance(
            kind="binary" if binary else "multiclass",
            rows=self._rows,
            right=self._right,
            classes=classes,
            confusion=tuple(tuple(row) for row in confusion.tolist()),
            scores=self._curve() if self._score is not None or (binary and self._between) else None,
        )

    def _count(self, predicted: Sequence[str], actual: Sequence[str], scores: FloatArray) -> None:
        self._pairs.update(zip(predicted, actual, strict=True))
        if len(self._pairs) > _TRACKED_PAIRS:  # numbers, or names that are no classes
            self._pairs = Counter(dict(self._pairs.most_common(_TRACKED_PAIRS // 2)))
            self._all_pairs = False
        known = ~np.isnan(scores)
        if self._all_pairs and self._score is not None:
            for name, score in zip(actual, np.where(known, scores, 0.0).tolist(), strict=True):
                self._score_sums[name] += score

    def _found_kind(self) -> Kind:
        labels = {actual for _, actual in self._pairs}
        if not self._numbers:
            return "binary" if len(labels) == 2 else "multiclass"
        if labels <= {"0", "1"} and not self._fractions and {name for name, _ in self._pairs} <= {"0", "1"}:
            return "binary"
        whole = not self._between and not self._fractions and self._all_pairs
        return "multiclass" if whole and {name for name, _ in self._pairs} <= labels else "regression"

    def _classes(self) -> tuple[str, ...]:
        """Up to 20 names that ten rows share, numbers first; of two the positive one last."""
        rows: Counter[str] = Counter()
        for (predicted, actual), count in self._pairs.items():
            for name in {predicted, actual}:
                rows[name] += count
        shared = sorted((-count, name) for name, count in rows.items() if count >= SHARED_BY)[:MAX_CLASSES]
        classes = tuple(sorted((name for _, name in shared), key=_order))
        if len(classes) == 2 and classes != ("0", "1") and self._mean_score(classes[0]) > self._mean_score(classes[1]):
            return classes[::-1]
        return classes

    def _mean_score(self, name: str) -> float:
        rows = sum(count for (_, actual), count in self._pairs.items() if actual == name)
        return self._score_sums[name] / rows if rows else 0.0

    def _curve(self) -> Curve | None:
        sample = self._sample.rows()
        scores, right = sample[:, 0], sample[:, 1] == 1
        bins = numeric_bins(scores)
        if bins is None:
            return None
        return Curve(bins.edges, tuple(bins.counts(scores).tolist()), tuple(bins.counts(scores[right]).tolist()))

    def _regression(self) -> Performance | None:
        errors = self._sample.rows()[:, 2]
        errors = errors[np.isfinite(errors)]
        bins = numeric_bins(errors) if len(errors) >= SHARED_BY else None
        if bins is None:
            return None
        counted = Errors(bins.edges, tuple(bins.counts(errors).tolist()))
        return Performance(kind="regression", rows=self._rows, right=self._right, errors=counted)


class _EvenSample:
    """Every so many-th row of all, up to 400,000."""

    def __init__(self) -> None:
        self._parts: list[FloatArray] = []
        self._seen, self._stride = 0, 1

    def add(self, rows: FloatArray) -> None:
        self._parts.append(rows[-self._seen % self._stride :: self._stride])
        self._seen += len(rows)
        while self._seen // self._stride > 2 * _SAMPLE_ROWS:
            self._parts = [self.rows()[::2]]
            self._stride *= 2

    def rows(self) -> FloatArray:
        return np.concatenate(self._parts) if self._parts else np.empty((0, 3))


def _names(values: Column) -> list[str | None]:
    values_list: list[Any] = values.tolist()
    named = {value: class_name(value) for value in set(values_list) if value == value}  # noqa: PLR0124 (NaN)
    return [named.get(value) for value in values_list]


def _numbers(values: Column) -> FloatArray:
    if values.dtype != object:
        return values.astype(np.float64)
    found = [number_of(value) for value in values.tolist()]
    return np.array([math.nan if number is None else number for number in found], dtype=np.float64)


def _order(name: str) -> tuple[bool, float, str]:
    number = number_of(name)
    return (number is None, number or 0.0, name)


def _shortest(number: float) -> str:
    return repr(number + 0.0).removesuffix(".0")  # there is no class -0


def _check_bins(what: str, edges: tuple[float, ...], rows: tuple[int, ...]) -> None:
    if len(edges) < 2 or list(edges) != sorted(edges):
        raise ValueError(f"performance: the edges of {what} must be two or more and ascend")
    if len(rows) != len(edges) + 2 or min(rows) < 0 or not sum(rows):
        raise ValueError(f"performance: {what} have {len(rows)} counts for {len(edges) + 2} bins")
