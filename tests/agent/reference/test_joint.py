"""Inputs that no longer go together are found, though each by itself is as ever; whatever the inputs, alone they are no
alarm."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from pegel_agent.reference import joint
from pegel_agent.reference.build import Roles, build_profile
from pegel_agent.reference.joint import directions_of
from pegel_agent.reference.profile import Profile, load, save
from pegel_agent.sidecar.monitor.windows import Watch
from pegel_agent.statistics.budget import Window
from pegel_agent.statistics.slots import FloatArray
from pegel_exporters.errors import UserError

Draw = Callable[[np.random.Generator, int], FloatArray]
MIXED = np.random.default_rng(3).normal(size=(2, 6))


def pair(correlation: float, *, inputs: int = 10) -> Draw:
    """Independent normal inputs but for the first two."""

    def draw(rng: np.random.Generator, rows: int) -> FloatArray:
        values = rng.normal(size=(rows, inputs))
        values[:, 1] = correlation * values[:, 0] + np.sqrt(1 - correlation**2) * values[:, 1]
        return values

    return draw


def factors(rng: np.random.Generator, rows: int) -> FloatArray:
    """Six inputs that two things stand behind."""
    found: FloatArray = rng.normal(size=(rows, 2)) @ MIXED + 0.4 * rng.normal(size=(rows, 6))
    return found


def heavy(rng: np.random.Generator, rows: int) -> FloatArray:
    found: FloatArray = rng.standard_cauchy((rows, 1)) + 0.3 * rng.standard_cauchy((rows, 6))
    return found


def gaps(rng: np.random.Generator, rows: int) -> FloatArray:
    values = factors(rng, rows)
    values[rng.random(values.shape) < 0.03] = np.nan
    return values


def columns(values: FloatArray) -> dict[str, FloatArray]:
    return {f"f{place}": values[:, place] for place in range(values.shape[1])}


def built(folder: Path, values: FloatArray, roles: Roles | None = None, *, timed: bool = False) -> Profile:
    table = columns(values)
    window = None
    if timed:
        table["time"] = 9.0 * np.arange(len(values), dtype=np.float64)
        window = Window(rows=200)
    pyarrow.parquet.write_table(pa.table(table), folder / "rows.parquet")
    roles = roles or Roles(time="time" if timed else None)
    return build_profile(
        folder / "rows.parquet", roles=roles, model_name="m", model_version="1", created=1.5, window=window
    )


def names(profile: Profile) -> list[str]:
    return [relation.feature.name for relation in profile.joint.relations] if profile.joint else []


def drifted_in(profile: Profile, draw: Draw, *, windows: int, seed: int) -> tuple[int | None, tuple[str, ...]]:
    """The first window of 500 rows in drift, and what drifts then."""
    watch, rng = Watch(profile, budget_windows=8640.0, tolerance=0.0), np.random.default_rng(seed)
    for window in range(1, windows + 1):
        watch.add(columns(draw(rng, 500)))
        verdict = watch.close_window()
        if verdict is not None and verdict.drifted:
            return window, tuple(feature.name for feature in verdict.features if feature.drifted)
    return None, ()


@pytest.mark.parametrize(("before", "after", "within"), [(0.8, 0.4, 1), (0.8, 0.7, 4), (0.95, 0.9, 1), (0.5, 0.3, 8)])
def test_a_pair_of_ten_inputs_that_goes_together_less_is_found_and_named(
    tmp_path: Path, before: float, after: float, within: int
) -> None:
    profile = built(tmp_path, pair(before)(np.random.default_rng(1), 10_000))
    window, found = drifted_in(profile, pair(after), windows=within, seed=2)
    assert window is not None
    assert found[0] in {"relation of f0 to f1", "relation of f1 to f0"}


def test_one_of_ten_equally_close_pairs_is_found(tmp_path: Path) -> None:
    def draw(rng: np.random.Generator, rows: int, first: float = 0.8) -> FloatArray:
        return np.hstack([pair(first, inputs=2)(rng, rows), *(pair(0.8, inputs=2)(rng, rows) for _ in range(9))])

    profile = built(tmp_path, draw(np.random.default_rng(1), 10_000))
    assert len(names(profile)) == 10
    assert drifted_in(profile, lambda rng, rows: draw(rng, rows, 0.7), windows=8, seed=2)[0] is not None


@pytest.mark.parametrize("draw", [pair(0.8), factors, heavy, gaps, lambda rng, rows: np.floor(factors(rng, rows))])
def test_rows_like_the_reference_s_raise_no_alarm(tmp_path: Path, draw: Draw) -> None:
    profile = built(tmp_path, draw(np.random.default_rng(1), 10_000))
    assert names(profile)
    assert drifted_in(profile, draw, windows=200, seed=2) == (None, ())


def test_a_small_reference_of_many_inputs_raises_no_alarm_either(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    mixed = rng.normal(size=(3, 30))

    def draw(rng: np.random.Generator, rows: int) -> FloatArray:
        found: FloatArray = rng.normal(size=(rows, 3)) @ mixed + rng.normal(size=(rows, 30))
        return found

    profile = built(tmp_path, draw(rng, 800))
    assert names(profile)
    assert drifted_in(profile, draw, windows=200, seed=2) == (None, ())


def test_inputs_that_do_not_go_together_have_no_relation(tmp_path: Path) -> None:
    assert built(tmp_path, np.random.default_rng(1).normal(size=(10_000, 10))).joint is None


def test_two_inputs_or_few_rows_have_no_relation(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    assert built(tmp_path, pair(0.9, inputs=2)(rng, 5_000)).joint is None
    assert built(tmp_path, pair(0.9)(rng, 300)).joint is None


def test_constants_copies_infinities_and_columns_that_add_up_are_survived(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    choice = np.eye(3)[rng.integers(0, 3, 2_000)]
    related = pair(0.9, inputs=3)(rng, 2_000)
    related[5, 2] = np.inf
    values = np.hstack([choice, np.full((2_000, 1), 7.0), related, related[:, [2]]])
    profile = built(tmp_path, values)
    assert names(profile)[0] in {"relation of f4 to f5", "relation of f5 to f4"}


def test_predictions_labels_and_text_are_in_no_relation(tmp_path: Path) -> None:
    values = factors(np.random.default_rng(1), 3_000)
    roles = Roles(labels=frozenset({"f0"}), predictions=frozenset({"f1"}), categorical=frozenset({"f2"}))
    profile = built(tmp_path, np.round(values), roles)
    assert profile.joint is not None
    assert set(profile.joint.inputs) <= {"f3", "f4", "f5"}


def test_a_relation_is_counted_by_the_rows_that_it_was_not_found_in(tmp_path: Path) -> None:
    profile = built(tmp_path, pair(0.8)(np.random.default_rng(1), 10_000))
    assert profile.joint is not None
    rows = sum(profile.joint.relations[0].feature.counts)
    assert 4_900 < rows < 5_100


def test_a_row_without_an_input_that_a_relation_needs_counts_as_missing(tmp_path: Path) -> None:
    profile = built(tmp_path, pair(0.8)(np.random.default_rng(1), 10_000))
    assert profile.joint is not None
    scores = directions_of(profile.joint)
    row = {name: np.zeros(1) for name in scores.inputs}
    (name,) = scores.names
    assert np.isfinite(scores.scores(row)[name]).all()
    assert np.isnan(scores.scores(row | {"f0": np.array([np.nan])})[name]).all()


def test_a_file_in_batches_has_the_relations_that_memory_would_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = factors(np.random.default_rng(1), 20_000)
    whole = built(tmp_path, values)
    monkeypatch.setattr("pegel_agent.reference.tables._BATCH_ROWS", 777)
    assert built(tmp_path, values) == whole


def test_csv_and_parquet_have_the_same_relations(tmp_path: Path) -> None:
    values = factors(np.random.default_rng(1), 5_000)
    profile = built(tmp_path, values)
    pyarrow.csv.write_csv(pa.table(columns(values)), tmp_path / "rows.csv")
    again = build_profile(tmp_path / "rows.csv", roles=Roles(), model_name="m", model_version="1", created=1.5)
    assert again.joint == profile.joint


def test_a_large_file_s_relations_come_from_an_even_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pegel_agent.reference.build._SAMPLE_ROWS", 4_000)
    monkeypatch.setattr(joint, "_MOST_VALUES", 20_000)
    rng = np.random.default_rng(1)
    profile = built(tmp_path, np.vstack([pair(0.0)(rng, 20_000), pair(0.9)(rng, 20_000)]))
    assert names(profile)
    assert drifted_in(profile, pair(0.45), windows=20, seed=2)[1] != ()


def test_rows_in_time_order_give_relations_a_design_effect(tmp_path: Path) -> None:
    profile = built(tmp_path, factors(np.random.default_rng(1), 20_000), timed=True)
    assert profile.joint is not None
    assert all(relation.feature.design_effects for relation in profile.joint.relations)


def test_a_profile_with_relations_comes_back_the_same_and_within_100_kb(tmp_path: Path) -> None:
    rng, day = np.random.default_rng(1), np.sin(2 * np.pi * np.arange(120_000) / 9_600)[:, None]
    factors = (rng.normal(size=(120_000, 5)) + day) @ rng.normal(size=(5, 50))
    profile = built(tmp_path, factors + rng.normal(size=(120_000, 50)) * (1 + day / 2), timed=True)
    assert all(feature.hours for feature in profile.watched)
    save(profile, tmp_path / "profile.json")
    assert load(tmp_path / "profile.json") == profile
    assert len(names(profile)) == joint.MAX_RELATIONS
    assert (tmp_path / "profile.json").stat().st_size <= 100_000


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"centres": [0.0]}, "a centre, a scale and loadings for each"),
        ({"relations": []}, "relations need inputs"),
        ({"scales": [0.0] * 6}, "must be above 0"),
        ({"inputs": ["x"] * 6}, "no numbers of"),
    ],
)
def test_relations_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    profile = msgspec.to_builtins(built(tmp_path, factors(np.random.default_rng(1), 5_000)))
    assert len(profile["joint"]["inputs"]) == 6
    profile["joint"] |= changes
    (tmp_path / "profile.json").write_bytes(msgspec.json.encode(profile))
    with pytest.raises(UserError, match=words):
        load(tmp_path / "profile.json")
