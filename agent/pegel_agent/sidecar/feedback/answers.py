"""What an exchange's answer predicts, row by row, and how sure of it the model was."""

from typing import cast

import numpy as np

from pegel_agent.sidecar.feedback.items import Value
from pegel_agent.sidecar.protocols.records import Inference
from pegel_agent.statistics.slots import FloatArray

_ROUNDING = 0.01


def predictions_of(inference: Inference) -> list[Value | None]:
    """One prediction a row: the only column, or the position of the largest of several numbers; else none.

    A row without a prediction has None or NaN.
    """
    if len(inference.outputs) != 1:
        return []
    values = inference.outputs[0].values
    if values.shape[1] == 1:
        return cast(list[Value | None], values[:, 0].tolist())
    if values.dtype.kind != "f":
        return []
    largest = values.argmax(axis=1)
    known = ~np.isnan(values).any(axis=1)
    return [place if whole else None for place, whole in zip(largest.tolist(), known.tolist(), strict=True)]


def scores_of(inference: Inference, *, binary: bool) -> FloatArray:
    """The score of each row (rows,), NaN where the answer has none.

    Of a binary model the probability of its positive class: the only column where it lies between 0 and 1, or the
    second of two; else the largest of the probabilities of all classes, which add up to 1.
    """
    missing = np.full(inference.rows, np.nan)
    if len(inference.outputs) != 1:
        return missing
    values = inference.outputs[0].values
    if values.dtype.kind != "f":
        return missing
    if values.shape[1] == 1:
        only: FloatArray = values[:, 0]
        return np.where((only > 0) & (only < 1), only, np.nan) if binary else missing
    probabilities = (values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1) < _ROUNDING)
    score: FloatArray = values[:, 1] if binary and values.shape[1] == 2 else values.max(axis=1)
    return np.where(probabilities, np.minimum(score, 1.0), np.nan)
