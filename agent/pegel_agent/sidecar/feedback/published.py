"""The labels' part of the metrics page.

What too few labels say nothing about has no series; counters are there from the start, and their classes are those that
the profile names.
"""

from collections.abc import Iterator

import numpy as np
from pegel_exporters import catalogue as c
from pegel_exporters.exposition import Family, Histogram, LabelValues

from pegel_agent.reference.performance import Performance
from pegel_agent.sidecar.feedback.cohorts import MIN_LABELS
from pegel_agent.sidecar.feedback.labels import Labels
from pegel_agent.sidecar.feedback.rows import Tally
from pegel_agent.statistics import quality
from pegel_agent.statistics.slots import IntArray

_OUTCOMES = ("true_positive", "false_positive", "false_negative")


def families(labels: Labels, model: tuple[str, str], now: float) -> Iterator[Family]:
    """Everything about a model's labels; `model` has its name and version."""
    state = labels.state()
    if state.accuracy is not None and state.lower is not None and state.upper is not None:
        yield Family(c.MODEL_ACCURACY, {model: state.accuracy})
        yield Family(c.MODEL_ACCURACY_LOWER, {model: state.lower})
        yield Family(c.MODEL_ACCURACY_UPPER, {model: state.upper})
        yield Family(c.MODEL_ACCURACY_LABELS, {model: float(state.labels)})
    yield Family(c.MODEL_QUALITY_STATE, {(*model, name): float(name == state.state) for name in c.QUALITY_STATES})
    yield Family(c.LABELS, {(*model, outcome): float(count) for outcome, count in labels.outcomes.items()})
    yield Family(c.LABEL_DELAY, {model: Histogram(tuple(labels.delay_counts), labels.delay_sum)})
    yield Family(c.PREDICTIONS_DROPPED, {model: float(labels.dropped)})
    if labels.retention_seconds is not None:
        yield Family(c.PREDICTIONS_RETENTION, {model: labels.retention_seconds})
    coverage = labels.cohorts.coverage(now)
    if coverage is not None:
        yield Family(c.LABEL_COVERAGE, {model: coverage})
    estimate = labels.expected.estimate() if labels.expected is not None else None
    if estimate is not None:
        yield Family(c.MODEL_ACCURACY_ESTIMATED, {model: estimate.accuracy})
        yield Family(c.MODEL_ACCURACY_ESTIMATED_ERROR, {model: estimate.error})
    if labels.performance is not None:
        latest = labels.cohorts.latest()
        if state.state == "ok":
            found = qualities(latest, labels.performance)
            yield Family(c.MODEL_QUALITY, {(*model, name): value for name, value in found.items()})
        yield from _class_families(labels.cohorts.judged, labels.performance, model)
    if labels.drop is not None:
        verdict = labels.drop.verdict
        yield Family(c.ACCURACY_DROP_EVIDENCE, {model: verdict.evidence})
        yield Family(c.ACCURACY_DROP_EVIDENCE_LIMIT, {model: verdict.limit})
        yield Family(c.ACCURACY_DROP_DETECTED, {model: float(verdict.dropped)})


def qualities(tally: Tally, performance: Performance) -> dict[str, float]:
    """What the rows say beyond accuracy, by the name of the measure; one that they leave undefined is left out."""
    found: dict[str, float | None] = {}
    if performance.kind == "regression":
        found["mae"] = quality.mean_absolute_error(tally.sums)
        found["rmse"] = quality.root_mean_squared_error(tally.sums)
        found["r2"] = quality.r_squared(tally.sums)
    else:
        confusion = _confusion(tally, performance)
        if performance.kind == "binary":
            scores = quality.class_scores(confusion, 1)
        else:
            scores = quality.macro_scores(confusion, classes=len(performance.classes))
        found |= {"precision": scores.precision, "recall": scores.recall, "f1": scores.f1}
    if performance.scores is not None:
        found |= _score_qualities(tally, performance, len(performance.scores.rows))
    return {name: value for name, value in found.items() if value is not None}


def _score_qualities(tally: Tally, performance: Performance, size: int) -> dict[str, float | None]:
    false, true = (np.array([tally.scored[position, hit] for position in range(size)]) for hit in (False, True))
    rows = false + true
    if rows.sum() < MIN_LABELS:
        return {}
    means = np.array([tally.score_sums.get(position, 0.0) for position in range(size)]) / np.maximum(rows, 1)
    found = {"ece": quality.calibration_error(false, true, means)}
    if performance.kind == "binary":
        area = quality.roc_auc(false, true)
        found |= {"roc_auc": area.value if area else None, "brier": quality.brier(false, true, means)}
    return found


def _class_families(judged: Tally, performance: Performance, model: tuple[str, str]) -> Iterator[Family]:
    if performance.kind == "regression":
        return
    confusion, names = _confusion(judged, performance), performance.class_names
    samples: dict[LabelValues, float] = {}
    if not performance.more_classes:
        for place, predicted in enumerate(names):
            samples |= {
                (*model, predicted, actual): float(rows) for actual, rows in zip(names, confusion[place], strict=True)
            }
        yield Family(c.CONFUSION, samples)
        return
    for place, name in enumerate(names[:-1]):
        hits = confusion[place, place]
        counts = (hits, confusion[place].sum() - hits, confusion[:, place].sum() - hits)
        samples |= {(*model, name, outcome): float(rows) for outcome, rows in zip(_OUTCOMES, counts, strict=True)}
    yield Family(c.CLASS_OUTCOMES, samples)


def _confusion(tally: Tally, performance: Performance) -> IntArray:
    size = len(performance.class_names)
    found = np.zeros((size, size), dtype=np.int64)
    for cell, rows in tally.classes.items():
        found[cell] = rows
    return found
