"""A profile comes back as it was saved, and a file that is none is refused in one line."""

import re
from pathlib import Path

import pytest
from pegel_agent.reference.profile import FORMAT, Feature, Profile, load, save
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
    path.write_text(path.read_text().replace('"categories": [\n', '"categories": ["Bonn", \n'))
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
