"""Accuracy without labels is the accuracy that labels show later."""

import numpy as np
import pytest
from pegel_agent.statistics.estimation import expected_accuracy
from pegel_agent.statistics.slots import FloatArray, IntArray

EDGES = np.linspace(0.05, 0.95, 19)


def counts(scores: FloatArray) -> IntArray:
    return np.bincount(np.searchsorted(EDGES, scores), minlength=20)


def rows(rng: np.random.Generator, n: int, shift: float = 0.0) -> tuple[FloatArray, IntArray]:
    """Scores of a model that is surer of itself than it should be, and whether it was right."""
    logits = rng.normal(shift, 1.5, n)
    truth = rng.random(n) < 1 / (1 + np.exp(-0.7 * logits))
    scores = 1 / (1 + np.exp(-logits))
    return scores, (scores >= 0.5) == truth


@pytest.mark.parametrize("shift", [-2.0, 0.0, 0.5, 2.0])
def test_the_estimate_is_what_labels_show_also_where_the_data_has_drifted(shift: float) -> None:
    rng = np.random.default_rng(3)
    reference, right = rows(rng, 20_000)
    scores, realised = rows(rng, 50_000, shift)
    estimate = expected_accuracy(counts(scores), counts(reference), counts(reference[right]))
    assert estimate is not None
    assert estimate.accuracy == pytest.approx(realised.mean(), abs=0.01)
    assert estimate.error < 0.006
    naive = np.maximum(scores, 1 - scores).mean()
    assert abs(naive - realised.mean()) > 0.03, "the scores as they are would not do"


def test_the_estimate_is_nannymls_on_the_same_rows() -> None:
    """What NannyML 0.13.1's CBPE(metrics=["accuracy"]) says of these rows, reference and all."""
    nannyml = {-2.0: 0.7842, -0.5: 0.6880, 0.0: 0.6789, 0.5: 0.6828, 1.0: 0.7087, 2.0: 0.7815}
    rng = np.random.default_rng(3)
    reference, right = rows(rng, 20_000)
    for shift, theirs in nannyml.items():
        scores, realised = rows(rng, 5_000, shift)
        estimate = expected_accuracy(counts(scores), counts(reference), counts(reference[right]))
        assert estimate is not None
        assert estimate.accuracy == pytest.approx(theirs, abs=0.01)
        assert abs(estimate.accuracy - realised.mean()) < 0.015


def test_its_error_is_that_of_the_references_size() -> None:
    rng = np.random.default_rng(4)
    scores, _ = rows(rng, 2_000, 0.5)
    estimates = []
    for _ in range(300):
        reference, right = rows(rng, 500)
        estimate = expected_accuracy(counts(scores), counts(reference), counts(reference[right]))
        assert estimate is not None
        estimates.append((estimate.accuracy, estimate.error))
    spread = float(np.std([accuracy for accuracy, _ in estimates]))
    assert float(np.mean([error for _, error in estimates])) == pytest.approx(spread, rel=0.2)


def test_scores_that_the_reference_never_had_get_its_accuracy_and_all_its_doubt() -> None:
    estimate = expected_accuracy(np.array([0, 0, 7]), np.array([40, 60, 0]), np.array([30, 50, 0]))
    assert estimate is not None
    assert estimate.accuracy == pytest.approx(0.8)
    assert estimate.error == pytest.approx(0.4)


def test_without_rows_or_reference_there_is_no_estimate() -> None:
    some, none = np.array([3, 4]), np.array([0, 0])
    assert expected_accuracy(none, some, some) is None
    assert expected_accuracy(some, none, none) is None
