"""A profile comes back as it was saved, and a file that is none is refused in one line."""

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
from pegel_agent.reference.profile import FORMAT, Feature, Order, Profile, load, packed, save, unpacked
from pegel_exporters.errors import UserError

AGE = Feature("age", "numeric", "input", counts=(1, 5, 5, 1, 0), edges=(10.0, 20.0, 30.0))
CITY = Feature("city", "categorical", "input", counts=(10, 1, 1), categories=("Ulm",))
PROFILE = Profile(FORMAT, 1.5, "houses", "3", 12, (AGE, CITY))


def test_a_profile_round_trips(tmp_path: Path) -> None:
    save(PROFILE, tmp_path / "profile.json")
    loaded = load(tmp_path / "profile.json")
    assert loaded == PROFILE
    assert loaded.hash == PROFILE.hash
    assert [path.name for path in tmp_path.iterdir()] == ["profile.json"]


SEASONAL = msgspec.structs.replace(
    AGE,
    design_effects={"up": 2.5, "down": 2.4},
    heterogeneity=0.01,
    hours=packed(np.random.default_rng(0).integers(1, 70_000, (24, 5))),
)


def test_what_is_known_of_its_order_round_trips_and_leaves_the_hash_alone(tmp_path: Path) -> None:
    profile = msgspec.structs.replace(PROFILE, features=(SEASONAL, CITY), order=Order("300s", 2016, "measured"))
    save(profile, tmp_path / "profile.json")
    loaded = load(tmp_path / "profile.json")
    assert loaded == profile
    assert loaded.hash == PROFILE.hash, "the bins and their counts are the same series"
    by_hour = np.random.default_rng(0).integers(1, 70_000, (24, 5))
    assert (unpacked(loaded.features[0].hours, 5) == by_hour).all()
    assert len(loaded.features[0].reference.strata) == 96


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hours": b"nonsense"}, "the rows by hour cannot be read"),
        ({"hours": packed(np.ones((24, 4), dtype=np.int64))}, "the rows by hour are not those of 5 bins"),
        ({"hours": packed(np.zeros((24, 5), dtype=np.int64))}, "an hour of the day has no rows"),
        ({"design_effects": {"up": 0.5}}, "design effects must be 1 or more"),
        ({"heterogeneity": -1.0}, "the heterogeneity must be 0 or more"),
    ],
)
def test_what_is_known_of_its_order_is_checked(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        msgspec.convert(msgspec.to_builtins(AGE) | changes, Feature)


def test_fifty_features_with_hours_of_their_own_fit_a_profile_of_100_kb(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    hour, rank = np.arange(24)[:, None], np.arange(23)
    shares = np.exp(-0.5 * ((rank - 11 - 4 * np.sin(2 * np.pi * hour / 24)) / 4) ** 2)
    features = tuple(
        Feature(
            f"feature number {i}", "numeric", "input", tuple(rng.integers(9_000, 99_000, 23).tolist()),
            tuple(np.sort(rng.normal(0, 1, 21)).round(6).tolist()),
            design_effects=dict.fromkeys(("up", "down", "wider", "narrower", "tails", "missing"), 1.23),
            heterogeneity=0.0123,
            hours=packed(rng.poisson(40_000 * shares / shares.sum(axis=1, keepdims=True))),
        )
        for i in range(50)
    )  # fmt: skip
    save(Profile(FORMAT, 1.5, "m", "1", 10**6 * 24, features), tmp_path / "profile.json")
    assert (tmp_path / "profile.json").stat().st_size <= 100_000


def test_the_hash_tells_other_bins_apart() -> None:
    other = Profile(FORMAT, 1.5, "houses", "3", 12, (CITY,))
    assert other.hash != PROFILE.hash
    assert len(other.hash) == 8


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "truncated"),
        ("{}", "missing required field"),
        ('{"format": "pegel-profile/9", "shards": []}', "unknown format 'pegel-profile/9'"),
        ("[1]", "object"),
        ("\x00\xff", "malformed"),
    ],
)
def test_a_foreign_file_is_refused_with_its_name(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "foreign.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=words) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_counts_that_do_not_fit_the_bins_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    save(PROFILE, path)
    path.write_text(path.read_text().replace('"categories": [', '"categories": ["Bonn", '))
    with pytest.raises(UserError, match="3 counts for 4 bins"):
        load(path)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("rows", "-1", "rows must be 1 or more, and not -1"),
        ("rows", "0", "rows must be 1 or more"),
        ("rows", "11", "feature 'age' counts 12 rows of 11"),
        ("created", "1e300", "created must be a Unix time"),
        ("created", "-1", "created must be a Unix time"),
    ],
)
def test_a_profile_that_contradicts_itself_is_refused(tmp_path: Path, field: str, value: str, words: str) -> None:
    path = tmp_path / "profile.json"
    save(PROFILE, path)
    path.write_text(re.sub(f'"{field}": [0-9.]+', f'"{field}": {value}', path.read_text()))
    with pytest.raises(UserError, match=words):
        load(path)


def test_an_old_profile_with_a_feature_without_categories_is_read(tmp_path: Path) -> None:
    old = Profile(FORMAT, 1.5, "houses", "3", 12, (AGE, Feature("id", "categorical", "input", counts=(12, 0))))
    save(old, tmp_path / "profile.json")
    assert load(tmp_path / "profile.json") == old


def test_a_missing_profile_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.json"):
        load(tmp_path / "nowhere.json")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write"):
        save(PROFILE, tmp_path / "no" / "profile.json")
