"""From a file with labels, predictions and scores to a sidecar that knows when its model is right less often."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pegel_agent.cli.main import pegel

from tests.agent.sidecar.tap.tap_process import Tap, tap, until

pytestmark = pytest.mark.integration

REFERENCE_ROWS = 4_000
Row = tuple[float, int, int, float]


def rows(count: int, seed: int, *, wrong: float = 0.0) -> list[Row]:
    """Feature, label, prediction and score of a model that is right as often as its scores say, but for `wrong`."""
    random = np.random.default_rng(seed)
    scores = random.beta(0.6, 0.6, count)
    labels = (random.random(count) < scores).astype(int)
    flipped = random.random(count) < wrong
    return [
        (float(feature), int(label ^ flip), int(score >= 0.5), float(score))
        for feature, label, score, flip in zip(random.normal(size=count), labels, scores, flipped, strict=True)
    ]


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profile")
    lines = ["size,churned,predicted,probability", *(",".join(map(str, row)) for row in rows(REFERENCE_ROWS, 1))]
    (folder / "reference.csv").write_text("\n".join(lines))
    command = (
        f"profile build {folder}/reference.csv -o {folder}/profile.json --label churned --prediction predicted "
        "--score probability --model-name churn"
    )
    result = CliRunner().invoke(pegel, command.split(), prog_name="pegel")
    assert result.exit_code == 0, result.output
    return folder / "profile.json"


@pytest.fixture
def sidecar(profile: Path) -> Iterator[Tap]:
    options = ("--profile", str(profile), "--window", "100", "--label-horizon", "0")
    with tap(None, *options, ready=True) as running:
        yield running


def send_labels(sidecar: Tap, labelled: list[Row]) -> None:
    for first in range(0, len(labelled), 500):
        items = [
            {"label": label, "prediction": prediction, "score": score}
            for _, label, prediction, score in labelled[first : first + 500]
        ]
        status, answer = sidecar.ask("/v1/feedback", "POST", json.dumps(items).encode())
        assert (status, json.loads(answer)["accepted"]) == (202, len(items))


def test_a_profile_knows_how_often_the_model_was_right_and_names_no_row(profile: Path) -> None:
    performance = json.loads(profile.read_text())["performance"]
    reference = rows(REFERENCE_ROWS, 1)
    assert performance["rows"] == REFERENCE_ROWS
    assert performance["right"] == sum(label == prediction for _, label, prediction, _ in reference)
    assert performance["classes"] == ["0", "1"]
    assert sum(performance["scores"]["rows"]) == REFERENCE_ROWS


def test_labels_are_counted_by_class_and_the_page_equals_what_was_sent(sidecar: Tap) -> None:
    labelled = rows(2_000, 2)
    send_labels(sidecar, labelled)
    confusion = {
        f'ml_confusion_total{{actual="{actual}",predicted="{predicted}"}}': float(
            sum((prediction, label) == (predicted, actual) for _, label, prediction, _ in labelled)
        )
        for predicted in (0, 1)
        for actual in (0, 1)
    }
    until(lambda: sum(sidecar.counts().get(name, 0.0) for name in confusion) == len(labelled))
    counts = sidecar.counts()
    assert {name: counts[name] for name in confusion} == confusion
    last = labelled[-500:]
    assert counts["ml_model_accuracy"] == pytest.approx(sum(row[1] == row[2] for row in last) / 500)
    brier = float(np.mean([(score - label) ** 2 for _, label, _, score in last]))
    assert counts['ml_model_quality{metric="brier"}'] == pytest.approx(brier, abs=0.01)
    assert counts["ml_accuracy_drop_detected"] == 0


def test_a_class_that_the_reference_does_not_have_makes_no_series(sidecar: Tap) -> None:
    items = [{"label": f"invented-{n}", "prediction": f"guessed-{n}"} for n in range(200)]
    sidecar.ask("/v1/feedback", "POST", json.dumps(items).encode())
    until(lambda: sidecar.counts().get('ml_confusion_total{actual="other",predicted="other"}') == 200)
    assert not re.search(r"invented|guessed", sidecar.ask("/metrics")[1].decode())


def test_a_model_that_is_wrong_more_often_is_found_and_one_that_is_not_is_left_in_peace(sidecar: Tap) -> None:
    send_labels(sidecar, rows(3_000, 3))
    until(lambda: sidecar.counts()['ml_labels_total{outcome="matched"}'] == 3_000)
    assert sidecar.counts()["ml_accuracy_drop_detected"] == 0
    send_labels(sidecar, rows(3_000, 4, wrong=0.2))
    until(lambda: sidecar.counts()["ml_accuracy_drop_detected"] == 1)
