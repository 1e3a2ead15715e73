"""One labelled row as it is counted, and the counts of many."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from pegel_agent.reference.bins import NumericBins
from pegel_agent.reference.performance import Performance, number_of
from pegel_agent.sidecar.feedback.items import MAX_CHARACTERS, Rejected, Value
from pegel_agent.sidecar.feedback.store import Plain
from pegel_agent.statistics.quality import ErrorSums


class Scored(NamedTuple):
    """A row's score, its bin in the reference's curve, and whether what it is the probability of is `true`."""

    bin: int
    score: float
    true: bool


class Erred(NamedTuple):
    """A regression's error, the bin of its absolute value, and the label as its distance from the first one."""

    bin: int
    error: float
    label: float


class Row(NamedTuple):
    """A labelled row. `right`: predicted as labelled. `classes`: positions of the predicted and the actual class."""

    right: bool
    classes: tuple[int, int] | None = None
    scored: Scored | None = None
    erred: Erred | None = None


@dataclass(slots=True)
class Tally:
    """Counts of labelled rows, which add up."""

    rows: int = 0
    right: int = 0
    classes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Rows by predicted and actual class."""
    scored: Counter[tuple[int, bool]] = field(default_factory=Counter)
    """Rows by score bin, and whether what the score is the probability of was true."""
    score_sums: dict[int, float] = field(default_factory=dict)
    errors: Counter[int] = field(default_factory=Counter)
    """Rows by bin of the absolute error."""
    sums: ErrorSums = field(default=ErrorSums(0, 0.0, 0.0, 0.0, 0.0))

    def add(self, row: Row, times: int = 1) -> None:
        """Count a row; −1 times takes back one that was counted."""
        self.rows += times
        self.right += times * row.right
        if row.classes is not None:
            self.classes[row.classes] += times
        if row.scored is not None:
            position, score, true = row.scored
            self.scored[position, true] += times
            self.score_sums[position] = self.score_sums.get(position, 0.0) + times * score
        if row.erred is not None:
            position, error, label = row.erred
            self.errors[position] += times
            one = ErrorSums(1, abs(error), error * error, label, label * label)
            self.sums = _added(self.sums, one, times)

    def merge(self, other: "Tally") -> None:
        """Count all that another one has counted."""
        self.rows += other.rows
        self.right += other.right
        self.classes.update(other.classes)
        self.scored.update(other.scored)
        for position, total in other.score_sums.items():
            self.score_sums[position] = self.score_sums.get(position, 0.0) + total
        self.errors.update(other.errors)
        self.sums = _added(self.sums, other.sums)


class Judge:
    """What a model's labels and predictions say, by the performance of its reference; without one, whether they agree.

    Numbers and their texts are the same value, and so are true and 1. A class that the reference does not name counts
    as `other`, but is right only where the prediction is that very class.
    """

    def __init__(self, performance: Performance | None) -> None:
        self._performance = performance
        self._origin: float | None = None
        if performance is not None:
            self._classes = [plain(name) for name in performance.classes]
            self._places = {name: place for place, name in enumerate(self._classes)}
            self._others = len(performance.classes)

    def remembers(self, prediction: Value | None) -> bool:
        """Whether a prediction can be judged: it says something, in few characters, and a regression's is a number."""
        if prediction is None or (isinstance(prediction, str) and len(prediction) > MAX_CHARACTERS):
            return False
        if self._performance is None:
            return not (isinstance(prediction, float) and math.isnan(prediction))
        if self._performance.kind == "regression":
            return number_of(prediction) is not None
        if isinstance(prediction, str):
            return not prediction.isspace() and prediction != ""
        return isinstance(prediction, int) or math.isfinite(prediction)

    def check(self, label: Value, prediction: Value | None) -> None:
        """Raises Rejected for a label, or a prediction that is told, which is none of this model's."""
        told = [("label", label)] if prediction is None else [("label", label), ("prediction", prediction)]
        for field_name, value in told:
            if self.remembers(value):
                continue
            if self._performance is not None and self._performance.kind == "regression":
                raise Rejected(f"{field_name} must be a finite number: the model is a regression")
            raise Rejected(f"{field_name} names no class")

    def row(self, prediction: Plain, label: Plain, score: float | None) -> Row:
        """The row as it is counted, of a prediction and a label that passed `check`."""
        known = self._performance
        if known is None:
            return Row(agree(prediction, label))
        if known.errors is not None:
            return self._erred(prediction, label, known.errors.bins)
        predicted = prediction
        if len(self._classes) == 2 and prediction not in self._places and 0 <= prediction <= 1:
            predicted = self._classes[int(prediction >= 0.5)]
        cell = (self._places.get(predicted, self._others), self._places.get(label, self._others))
        right = predicted == label
        if known.scores is None:
            return Row(right, cell)
        if score is None and known.kind == "binary" and 0 < prediction < 1:
            score = prediction
        if score is None or not 0 <= score <= 1:
            return Row(right, cell)
        true = cell[1] == 1 if known.kind == "binary" else right
        return Row(right, cell, Scored(_bin(known.scores.bins, score), score, true))

    def _erred(self, predicted: float, actual: float, bins: NumericBins) -> Row:
        if self._origin is None:  # near the labels' mean, so that their variance survives the rounding
            self._origin = actual
        error = predicted - actual
        return Row(error == 0, erred=Erred(_bin(bins, abs(error)), error, actual - self._origin))


def agree(prediction: Plain, label: Plain) -> bool:
    """Whether a prediction says the label.

    A prediction between 0 and 1 for a label of 0 or 1 is a probability and says 1 from ½ on.
    """
    if label in (0.0, 1.0) and 0 < prediction < 1:
        return (prediction >= 0.5) == (label == 1.0)
    return prediction == label


def plain(value: Value) -> Plain:
    """Numbers, their texts and truth values as the number; another text, without the blanks around it, as its hash."""
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in ("true", "false"):
            return float(text.lower() == "true")
        number = number_of(text)
        return hash((text,)) if number is None else number
    try:
        return float(value)
    except OverflowError:
        return hash(str(value))


def _bin(bins: NumericBins, value: float) -> int:
    return int(bins.counts(np.array([value])).argmax())


def _added(sums: ErrorSums, more: ErrorSums, times: int = 1) -> ErrorSums:
    return ErrorSums(
        sums.rows + times * more.rows,
        sums.absolute + times * more.absolute,
        sums.squared + times * more.squared,
        sums.labels + times * more.labels,
        sums.labels_squared + times * more.labels_squared,
    )
