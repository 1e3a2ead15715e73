"""What accuracy to expect of predictions whose labels have not come, from how sure the model was of them.

Confidence-based performance estimation (as NannyML has it; arXiv 2401.08348): the reference shows how often the model
was right at each score, so the scores of new rows tell how often it will be. It cannot see that scores have come to
mean something else (concept drift).
"""

from dataclasses import dataclass

import numpy as np

from pegel_agent.statistics.slots import IntArray


@dataclass(frozen=True, slots=True)
class Estimate:
    """An expected accuracy and its standard error, which is that of the reference's curve alone."""

    accuracy: float
    error: float


def expected_accuracy(rows: IntArray, reference_rows: IntArray, reference_right: IntArray) -> Estimate | None:
    """Accuracy to expect of rows by score bin (k,), from the reference's rows and right rows in these bins (k,).

    Linear in `rows`: a bin's rows are right as often as the reference's there were, with one row of the whole reference
    added, which decides where the bin has none. None where there are no rows, or no reference.
    """
    total, reference_total = int(rows.sum()), int(reference_rows.sum())
    if not total or not reference_total:
        return None
    overall = int(reference_right.sum()) / reference_total
    accuracy = (reference_right + overall) / (reference_rows + 1)
    shares = rows / total
    variance = accuracy * (1 - accuracy) / (reference_rows + 1)
    return Estimate(float(shares @ accuracy), float(np.sqrt(shares**2 @ variance)))
