"""Free text is counted, never kept: in a profile, a batch and the sidecar alike."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pegel_agent.batch.backtest import backtest
from pegel_agent.batch.check import check_file, count_file
from pegel_agent.reference.build import Roles, build_profile
from pegel_agent.reference.keys import CategoryKey
from pegel_agent.reference.profile import Profile, load, save
from pegel_agent.reference.texts import CHARACTERS, looks_like_text, measures_of
from pegel_agent.sidecar.monitor.windows import Watch
from pegel_agent.statistics.budget import Window
from pegel_exporters.errors import UserError

WORDS = np.array(["der", "Zug", "kam", "heute", "wieder", "zu", "spät", "und", "niemand", "sagte", "etwas", "Grund"])
NAMES = ["comment", "length of comment", "words of comment", "non-letters of comment"]
Columns = dict[str, np.ndarray]


def texts(*values: str | None) -> np.ndarray:
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def reviews(seed: int, rows: int, *, words: int = 12, ending: str = "", missing: float = 0.0) -> Columns:
    rng = np.random.default_rng(seed)
    found = []
    for size in rng.poisson(words, rows):
        found.append(" ".join([*rng.choice(WORDS, size), str(rng.integers(1_000_000))]) + ending)
    comments = texts(*found)
    comments[rng.random(rows) < missing] = None
    return {"stars": rng.integers(1, 6, rows).astype(float), "comment": comments}


def parquet(folder: Path, columns: Columns) -> Path:
    path = folder / f"{len(list(folder.iterdir()))}.parquet"
    pq.write_table(pa.table({name: pa.array(values.tolist()) for name, values in columns.items()}), path)
    return path


def built(path: Path, key: CategoryKey | None = None, **roles: frozenset[str]) -> Profile:
    return build_profile(path, roles=Roles(**roles), model_name="m", model_version="1", created=0.0, key=key)


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    return built(parquet(tmp_path, reviews(1, 5_000)))


@pytest.mark.parametrize(
    ("text", "length", "words", "non_letters"),
    [
        ("zu spät", 7, 2, 0.0),
        ("", 0, 0, None),
        (" \n\t", 3, 0, None),
        ("4 of 8!", 7, 3, 3 / 5),
        ("a_b", 3, 1, 1 / 3),
        ("電車が遅れた", 6, 1, 0.0),
        ("👍👍", 2, 1, 1.0),
        ("x" * 10_000_000, CHARACTERS, 1, 0.0),
        (None, None, None, None),
    ],
)
def test_a_text_is_its_characters_its_words_and_what_is_no_letter(
    text: str | None, length: float | None, words: float | None, non_letters: float | None
) -> None:
    found = [of[0] for of in measures_of(texts(text))]
    assert [None if np.isnan(one) else one for one in found] == [
        length, words, None if non_letters is None else pytest.approx(non_letters),
    ]  # fmt: skip


def test_numbers_among_texts_are_the_texts_that_say_them() -> None:
    assert [of.tolist() for of in measures_of(np.array([12.0]))] == [[2.0], [1.0], [1.0]]


def test_sentences_are_text_and_names_are_not() -> None:
    assert looks_like_text(reviews(2, 300)["comment"])
    assert not looks_like_text(texts(*["Bad Homburg", "Ulm", None] * 100))
    assert not looks_like_text(texts(None, None))


def test_a_profile_counts_free_text_and_holds_no_word_of_it(tmp_path: Path, profile: Profile) -> None:
    save(profile, tmp_path / "profile.json")
    assert [feature.name for feature in profile.watched][1:5] == NAMES
    assert profile.features[1].counts == (5_000, 0)
    written = (tmp_path / "profile.json").read_text()
    assert not [word for word in WORDS if word in json.dumps(json.loads(written), ensure_ascii=False).split('"')]
    assert load(tmp_path / "profile.json") == profile


def test_the_same_rows_are_the_same_counts_in_a_file_and_in_the_sidecar(tmp_path: Path, profile: Profile) -> None:
    columns = reviews(3, 700, missing=0.1)
    counts, _ = count_file(profile, parquet(tmp_path, columns))
    watch = Watch(profile, budget_windows=1_000.0, tolerance=0.0)
    for part in (slice(0, 1), slice(1, 300), slice(300, 700)):
        watch.add({name: values[part] for name, values in columns.items()})
    for name in ("stars", *NAMES):
        assert watch.features[name].total.tolist() == counts[name].tolist()
    assert counts["comment"][-1] == counts["length of comment"][-1] > 0, "missing is missing in both"


def test_texts_that_grow_or_fill_with_markup_are_drift_and_others_are_not(tmp_path: Path, profile: Profile) -> None:
    def drifted(columns: Columns) -> set[str]:
        result = check_file(profile, parquet(tmp_path, columns), alpha=0.001)
        return {name for name, feature in result.features.items() if feature.drifted}

    assert drifted(reviews(4, 2_000)) == set()
    assert {"length of comment", "words of comment"} <= drifted(reviews(5, 2_000, words=16))
    assert "non-letters of comment" in drifted(reviews(6, 2_000, ending=" <br/><br/>"))
    assert {"comment", "length of comment"} <= drifted(reviews(7, 2_000, missing=0.05))


def test_a_backtest_sees_texts_that_grow(tmp_path: Path, profile: Profile) -> None:
    before, after = reviews(8, 4_000), reviews(9, 4_000, words=16)
    columns = {name: np.concatenate([before[name], after[name]]) for name in before}
    result = backtest(
        profile, parquet(tmp_path, columns), window=Window(rows=500), budget_windows=8640.0, tolerance=0.0
    )
    assert [alarm.window for alarm in result.alarms] in ([9], [10])
    assert {"length of comment", "words of comment"} & set(result.alarms[0].features)


def test_what_is_text_can_be_said(tmp_path: Path) -> None:
    cities = texts(*np.random.default_rng(1).choice(["Ulm", "Köln"], 1_000))
    path = parquet(tmp_path, {"n": np.arange(1_000.0), "city": cities, "comment": reviews(1, 1_000)["comment"]})
    assert [text.column for text in built(path).texts] == ["comment"]
    assert [text.column for text in built(path, texts=frozenset({"city"})).texts] == ["city", "comment"]
    assert built(path, categorical=frozenset({"comment"})).texts == ()
    with pytest.raises(UserError, match="can't be categorical and text"):
        built(path, categorical=frozenset({"city"}), texts=frozenset({"city"}))
    empty = parquet(tmp_path, {"n": np.arange(100.0), "note": texts(*[None] * 100)})
    with pytest.raises(UserError, match="'note' has no text to count"):
        built(empty, texts=frozenset({"note"}))


def test_a_prediction_that_is_text_is_watched_as_a_prediction(tmp_path: Path) -> None:
    path = parquet(tmp_path, reviews(1, 2_000))
    profile = built(path, predictions=frozenset({"comment"}))
    assert {feature.role for text in profile.texts for feature in text.features} == {"prediction"}
    answers = profile.of_role("prediction")
    assert answers is not None
    assert [feature.name for feature in answers.watched] == NAMES


def test_with_hashed_categories_texts_are_measured_before_they_are_hashed(tmp_path: Path) -> None:
    key = CategoryKey(b"k" * 32)
    path = parquet(tmp_path, reviews(1, 2_000))
    profile = built(path, key)
    watch = Watch(profile, budget_windows=1_000.0, tolerance=0.0, key=key)
    watch.add(reviews(2, 500))
    counts, _ = count_file(profile, parquet(tmp_path, reviews(2, 500)), key=key)
    assert watch.features["length of comment"].total.tolist() == counts["length of comment"].tolist()
    assert built(path).texts[0].features[0].edges == profile.texts[0].features[0].edges


def test_a_profile_without_the_columns_of_its_texts_is_refused(tmp_path: Path, profile: Profile) -> None:
    save(profile, tmp_path / "profile.json")
    document = json.loads((tmp_path / "profile.json").read_text())
    document["texts"][0]["column"] = "stars"
    (tmp_path / "profile.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="a text is of a column that the profile has no texts of"):
        load(tmp_path / "profile.json")


def test_sentences_after_many_short_texts_are_text_too_and_nothing_of_them_is_named(tmp_path: Path) -> None:
    late = reviews(1, 2_800, words=6)["comment"]
    column = np.concatenate([texts(*["Maria Huber"] * 20, *(f"a{number}" for number in range(180))), late])
    profile = built(parquet(tmp_path, {"n": np.arange(3_000.0), "comment": column}))
    assert [text.column for text in profile.texts] == ["comment"]
    assert profile.features[1].categories == ()


def test_names_of_what_is_counted_are_nobody_elses(tmp_path: Path) -> None:
    comments = reviews(1, 1_000)["comment"]
    path = parquet(tmp_path, {"c": comments, "c (2)": comments[::-1], "length of c": np.arange(1_000.0)})
    names = [feature.name for feature in built(path).watched]
    assert len(set(names)) == len(names) == 9
