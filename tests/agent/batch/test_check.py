"""A batch in a file is tested against a profile, and one that can't be is refused in one line."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from pegel_agent.batch.check import CheckResult, basis, check_file
from pegel_agent.batch.text import check_text
from pegel_agent.reference.build import Roles, build_profile
from pegel_agent.reference.columns import learn_feature
from pegel_agent.reference.profile import FORMAT, Order, Profile, packed
from pegel_agent.statistics.budget import Window
from pegel_exporters.errors import UserError

CITIES = np.array(["Ulm", "Köln", "Berlin"], dtype=object)


def columns(seed: int, rows: int, *, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(40 + 10 * shift, 10, rows), rng.choice(CITIES, rows)


@pytest.fixture
def profile() -> Profile:
    age, city = columns(1, 10_000)
    features = (learn_feature("age", "input", age), learn_feature("city", "prediction", city))
    return Profile(FORMAT, 0.0, "m", "1", 10_000, tuple(f for f in features if f is not None))


def csv(folder: Path, age: np.ndarray, city: np.ndarray) -> Path:
    path = folder / "batch.csv"
    rows = (f"{a},{c},extra" for a, c in zip(age, city, strict=True))
    path.write_text("\n".join(("age,city,note", *rows)), encoding="utf-8")
    return path


def test_a_batch_like_the_reference_has_no_drift(tmp_path: Path, profile: Profile) -> None:
    result = check_file(profile, csv(tmp_path, *columns(2, 2_000)), alpha=0.001)
    assert (result.drift, result.score, result.rows, result.reference_rows) == (False, 0, 2_000, 10_000)
    assert [f.direction for f in result.features.values()] == ["", ""]
    assert check_text(result, data="batch.csv").endswith("no drift")


def test_a_drifted_batch_names_its_feature_direction_and_bins(tmp_path: Path, profile: Profile) -> None:
    result = check_file(profile, csv(tmp_path, *columns(3, 2_000, shift=0.5)), alpha=0.001)
    age, city = result.features["age"], result.features["city"]
    assert (result.drift, result.score) == (True, 0.5)
    assert (age.drifted, age.direction, city.drifted) == (True, "up", False)
    assert (city.kind, city.role, city.ks) == ("categorical", "prediction", None)
    top = age.moved[0]
    assert top.bin == profile.features[0].bins.names[-3], "the highest interval"
    assert top.batch > 2 * top.reference
    text = check_text(result, data="batch.csv")
    assert text.splitlines()[1].split()[:2] == ["age", "up"]
    assert text.endswith("drift in 1 of 2 features: age")


def test_the_verdict_is_the_one_that_memory_would_give(tmp_path: Path, profile: Profile) -> None:
    age, city = columns(4, 150_000)
    whole = check_file(profile, csv(tmp_path, age, city), alpha=0.001)
    assert whole.rows == 150_000
    learned = learn_feature("age", "input", age)
    assert learned is not None
    expected = np.array(profile.features[0].bins.counts(age))
    moved = whole.features["age"].moved[0]
    position = profile.features[0].bins.names.index(moved.bin)
    assert moved.batch == pytest.approx(expected[position] / 150_000)


def test_a_category_that_looks_like_a_number_is_compared_as_text(tmp_path: Path) -> None:
    floors = np.array(["1", "2"] * 500, dtype=object)
    floor = learn_feature("floor", "input", floors)
    assert floor is not None
    path = tmp_path / "batch.csv"
    path.write_text("floor\n" + "1.0\n2\n" * 300, encoding="utf-8")
    result = check_file(Profile(FORMAT, 0.0, "", "", 1_000, (floor,)), path, alpha=0.001)
    assert not result.drift
    assert result.features["floor"].tvd == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("age,town\n1,Ulm\n", "has no column 'city', which the profile has; it has age, town"),
        ("age,city\n", "has no rows"),
        ("", "Empty CSV"),
        ("age,city\n1,Ulm\n2,Ulm,3\n", "Row #3"),
        ("age,city\n1,Ulm\n,Ulm\nold,Ulm\n", "column 'age' has text in row 3, where the profile has numbers"),
    ],
)
def test_a_csv_that_does_not_fit_the_profile_is_refused_in_one_line(
    tmp_path: Path, profile: Profile, text: str, words: str
) -> None:
    path = tmp_path / "batch.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=words) as caught:
        check_file(profile, path, alpha=0.001)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_result_is_json_that_comes_back(tmp_path: Path, profile: Profile) -> None:
    result = check_file(profile, csv(tmp_path, *columns(5, 500, shift=1.0)), alpha=0.001)
    assert msgspec.json.decode(msgspec.json.encode(result), type=CheckResult) == result


@pytest.mark.parametrize(
    ("order", "said", "words"),
    [
        (None, "assumed", "the profile's rows had no time order: rows count as independent"),
        (Order("300s", 7, "unknown"), "unknown", "too few windows to tell how much rows resemble their neighbours"),
        (Order("300s", 99, "measured"), "measured", "by the profile's design effects, up to 19 (age)"),
    ],
)
def test_a_result_says_whether_rows_were_taken_to_be_independent(
    tmp_path: Path, profile: Profile, order: Order | None, said: str, words: str
) -> None:
    age, city = profile.features
    if said == "measured":
        age = msgspec.structs.replace(age, design_effects={"up": 19.0, "down": 19.0, "missing": 1.0})
    known = msgspec.structs.replace(profile, order=order, features=(age, city))
    moved = csv(tmp_path, *columns(6, 500, shift=0.3))
    result = check_file(known, moved, alpha=0.001)
    assert (result.design_effects, result.by_hour) == (said, "")
    assert words in basis(result)
    assert result.drift == (said != "measured"), "19 rows alike show nothing of so small a shift"
    assert result.features["age"].design_effect == (19 if said == "measured" else 1)


def test_a_profile_that_tells_hours_apart_asks_for_whole_days(tmp_path: Path, profile: Profile) -> None:
    age, city = profile.features
    by_hour = np.tile(np.array(age.counts), (24, 1)) + 1
    age = msgspec.structs.replace(age, hours=packed(by_hour), design_effects={"up": 1.5})
    known = msgspec.structs.replace(profile, order=Order("300s", 99, "measured"), features=(age, city))
    result = check_file(known, csv(tmp_path, *columns(7, 500)), alpha=0.001)
    assert result.by_hour == "no_time"
    assert "a batch that isn't of whole days can look like drift" in basis(result)


def test_rows_with_times_are_compared_with_their_own_hours(tmp_path: Path) -> None:
    """The mean swings by one standard deviation over the day; a batch is two hours of the afternoon."""

    def rows(seed: int, at: np.ndarray, shift: float = 0.0) -> Path:
        load = np.random.default_rng(seed).normal(np.sin(2 * np.pi * at / 86_400) + shift)
        path = tmp_path / f"{seed}.csv"
        np.savetxt(path, np.column_stack([at, load]), delimiter=",", header="at,load", comments="", fmt="%.4f")
        return path

    days, afternoon = np.arange(0, 5 * 86_400, 4.0), np.arange(14.2 * 3_600, 16.2 * 3_600, 4.0)
    roles, window = Roles(time="at"), Window(seconds=3_600)
    profile = build_profile(rows(1, days), roles=roles, window=window, model_name="", model_version="", created=0.0)
    assert any(feature.hours for feature in profile.features)
    assert check_file(profile, rows(2, afternoon), alpha=0.001).drift
    same = check_file(profile, rows(3, afternoon), alpha=0.001, time="at")
    assert (same.drift, same.by_hour) == (False, "compared")
    moved = check_file(profile, rows(4, afternoon, 0.3), alpha=0.001, time="at")
    assert moved.features["load"].direction == "up"
    with pytest.raises(UserError, match="no column 'when'; it has at, load"):
        check_file(profile, rows(5, afternoon), alpha=0.001, time="when")


def test_a_relation_that_breaks_is_drift_though_every_column_is_as_it_was(tmp_path: Path) -> None:
    def pairs(seed: int, rows: int, correlation: float) -> Path:
        rng = np.random.default_rng(seed)
        path = tmp_path / f"{seed}.csv"
        z = rng.normal(size=(rows, 3))
        z[:, 1] = correlation * z[:, 0] + np.sqrt(1 - correlation**2) * z[:, 1]
        np.savetxt(path, z, delimiter=",", header="a,b,c", comments="", fmt="%.4f")
        return path

    built = build_profile(pairs(1, 10_000, 0.9), roles=Roles(), model_name="", model_version="", created=0.0)
    same = check_file(built, pairs(2, 2_000, 0.9), alpha=0.001)
    assert not same.drift
    broken = check_file(built, pairs(3, 2_000, 0.6), alpha=0.001)
    ((name, found),) = ((name, found) for name, found in broken.features.items() if found.drifted)
    assert name.startswith("relation of ")
    assert found.direction == "wider"
