"""Categories by a keyed hash: the same counts and verdicts as by their names, and none of them anywhere to read."""

import hashlib
import hmac
import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from pegel_agent.cli.main import pegel
from pegel_agent.reference.profile import Profile, load
from pegel_exporters.errors import UserError

from tests.agent.sidecar.tap.tap_process import Tap, model, predict, tap, until

CITIES = ("Ulm", "Köln", "Kiel")
SECRET = "correct horse battery staple"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "key").write_text(SECRET + "\n")
    (tmp_path / "other").write_text("another key that nobody used\n")
    (tmp_path / "train.csv").write_text(rows(1, 3_000))
    (tmp_path / "same.csv").write_text(rows(2, 1_000))
    (tmp_path / "moved.csv").write_text(rows(3, 1_000, shares=(0.2, 0.3, 0.5)))
    for name, options in (("plain", ()), ("hashed", ("--hash-categories", str(tmp_path / "key")))):
        done = invoke(
            "profile",
            "build",
            tmp_path / "train.csv",
            "-o",
            tmp_path / f"{name}.json",
            "--categorical",
            "zip",
            *options,
        )
        assert done.exit_code == 0, done.output
    return tmp_path


def rows(seed: int, size: int, shares: tuple[float, ...] = (0.5, 0.3, 0.2)) -> str:
    rng = np.random.default_rng(seed)
    columns = rng.normal(40, 10, size), rng.choice(CITIES, size, p=shares), rng.integers(10, 13, size)
    return "age,city,zip\n" + "".join(f"{a:.3f},{c},{z}\n" for a, c, z in zip(*columns, strict=True))


def invoke(*arguments: str | Path) -> Any:
    return CliRunner().invoke(pegel, [str(argument) for argument in arguments])


def hashed(category: str) -> str:
    return hmac.new(SECRET.encode(), category.encode(), hashlib.sha256).hexdigest()[:16]


def categories(profile: Profile) -> dict[str, int]:
    """Rows by category of all features."""
    return {
        category: rows
        for feature in profile.features
        for category, rows in zip(feature.categories, feature.counts, strict=False)
    }


def test_a_profile_names_categories_by_their_hmac_and_counts_as_without(folder: Path) -> None:
    found = categories(load(folder / "hashed.json"))
    assert found == {hashed(name): rows for name, rows in categories(load(folder / "plain.json")).items()}
    assert {hashed("Köln"), hashed("11")} <= found.keys()
    text = (folder / "hashed.json").read_text()
    assert not any(city in text for city in CITIES)
    assert SECRET not in text


@pytest.mark.parametrize(("data", "code"), [("same.csv", 0), ("moved.csv", 1)])
def test_a_check_with_the_key_says_what_it_says_of_the_names(folder: Path, data: str, code: int) -> None:
    plain = invoke("check", "--profile", folder / "plain.json", folder / data, "--output", "json")
    keyed = invoke(
        "check",
        "--profile",
        folder / "hashed.json",
        "--category-key",
        folder / "key",
        folder / data,
        "--output",
        "json",
    )
    assert (plain.exit_code, keyed.exit_code) == (code, code), keyed.output
    for feature in ("age", "city", "zip"):
        for measure in ("psi", "js", "p_value", "drifted"):
            of_names, of_hashes = (json.loads(done.stdout)["features"][feature][measure] for done in (plain, keyed))
            assert of_hashes == pytest.approx(of_names)


def test_a_backtest_with_the_key_says_what_it_says_of_the_names(folder: Path) -> None:
    told = "--profile", folder / "plain.json", folder / "moved.csv", "--output", "json"
    plain = json.loads(invoke("backtest", *told).stdout)
    keyed = json.loads(
        invoke("backtest", "--category-key", folder / "key", "--profile", folder / "hashed.json", *told[2:]).stdout
    )
    assert keyed["alarms"]
    assert keyed["alarms"] == plain["alarms"]
    # The detector goes through categories in the order of their names.
    assert keyed["features"]["city"]["evidence"] == pytest.approx(plain["features"]["city"]["evidence"], rel=0.01)


@pytest.mark.parametrize(
    ("profile", "key", "words"),
    [
        ("hashed.json", None, "are hashed; give --category-key"),
        ("hashed.json", "other", "is not the one that"),
        ("hashed.json", "nowhere", "cannot read the key"),
        ("plain.json", "key", "are not hashed; leave out --category-key"),
    ],
)
@pytest.mark.parametrize("command", ["check", "backtest", "sidecar"])
def test_a_profile_without_its_key_is_refused(
    folder: Path, command: str, profile: str, key: str | None, words: str
) -> None:
    data = () if command == "sidecar" else (folder / "same.csv",)
    keyed = () if key is None else ("--category-key", folder / key)
    done = invoke(command, "--profile", folder / profile, *keyed, *data)
    assert isinstance(done.exception, UserError)
    assert words in str(done.exception)
    assert SECRET not in str(done.exception)


def test_a_short_key_is_refused(folder: Path) -> None:
    (folder / "short").write_text("secret\n")
    done = invoke(
        "profile", "build", folder / "train.csv", "-o", folder / "p.json", "--hash-categories", folder / "short"
    )
    assert "fewer than 16 bytes" in str(done.exception)
    assert not (folder / "p.json").exists()


def bins(running: Tap) -> dict[tuple[str, str], float]:
    """Rows by feature and bin, of categories with rows."""
    found = (
        (key.partition("{")[2], rows)
        for key, rows in running.counts().items()
        if key.startswith("ml_feature_rows_total{") and rows
    )
    labels = ((dict(part.split("=", 1) for part in text.rstrip("}").split('",')), rows) for text, rows in found)
    return {(one["feature"].strip('"'), one["bin"].strip('"')): rows for one, rows in labels}


@pytest.fixture
def running(folder: Path) -> Iterator[Tap]:
    options = ("--profile", str(folder / "hashed.json"), "--category-key", str(folder / "key"))
    with model(predict) as upstream, tap(upstream, *options, ready=True) as started:
        yield started


@pytest.mark.integration
def test_a_sidecar_with_the_key_counts_categories_by_their_hashes_and_publishes_no_name(running: Tap) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)) as connection:
        for city, number in (("Köln", 11), ("Köln", 12), ("Rom", 99)):
            row = {"age": 40.0, "city": city, "zip": number}
            connection.request("POST", "/v1/models/m:predict", json.dumps({"instances": [row]}))
            connection.getresponse().read()
    until(lambda: running.copies()["analysed"] == 3)
    found = bins(running)
    assert found["city", hashed("Köln")] == 2
    assert found["city", "other"] == 1
    assert (found["zip", hashed("11")], found["zip", hashed("12")], found["zip", "other"]) == (1, 1, 1)
    for page in ("/metrics", "/", "/api/status"):
        text = running.ask(page)[1].decode()
        assert not any(city in text for city in (*CITIES, "Rom"))
