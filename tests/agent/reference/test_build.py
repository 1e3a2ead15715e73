"""A profile is built from a file of any size, and raises no alarm on data like its own."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from pegel_agent.reference import build
from pegel_agent.reference.build import Roles, build_profile
from pegel_agent.reference.columns import Column, count_columns, learn_feature
from pegel_agent.reference.profile import Profile
from pegel_agent.statistics.detector import Detector, Settings
from pegel_exporters.errors import UserError


def built(path: Path, **roles: set[str]) -> Profile:
    named = Roles(**{role: frozenset(columns) for role, columns in roles.items()})
    return build_profile(path, roles=named, model_name="houses", model_version="3", created=1.5)


def written(folder: Path, text: str) -> Path:
    path = folder / "data.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def houses(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "rooms": rng.integers(0, 6, 1_000),
            "city": rng.choice(["Ulm", "Köln"], 1_000),
            "area": rng.normal(80, 20, 1_000),
            "postcode": rng.choice([1067, 50667], 1_000),
            "price": rng.normal(size=1_000),
            "empty": pa.nulls(1_000),
            "predicted": rng.normal(size=1_000),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "houses.parquet")
    return tmp_path / "houses.parquet"


def test_features_are_the_columns_in_their_order_with_their_roles(houses: Path) -> None:
    profile = built(houses, labels={"price"}, predictions={"predicted"}, categorical={"postcode"})
    assert [(f.name, f.kind, f.role) for f in profile.features] == [
        ("rooms", "numeric", "input"),
        ("city", "categorical", "input"),
        ("area", "numeric", "input"),
        ("postcode", "categorical", "input"),
        ("predicted", "numeric", "prediction"),
    ]
    assert (profile.rows, profile.model_name, profile.model_version, profile.created) == (1_000, "houses", "3", 1.5)
    assert profile.features[3].categories == ("1067", "50667")
    assert all(sum(f.counts) == 1_000 for f in profile.features)


def test_csv_and_parquet_give_the_same_profile(tmp_path: Path, houses: Path) -> None:
    table = pyarrow.parquet.read_table(houses)
    header = ",".join(table.column_names)
    rows = (",".join("" if value is None else str(value) for value in row.values()) for row in table.to_pylist())
    csv = written(tmp_path, "\n".join((header, *rows)))
    assert built(csv, categorical={"postcode"}).hash == built(houses, categorical={"postcode"}).hash


def test_a_file_of_many_batches_has_the_bins_that_memory_would_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_SAMPLE_ROWS", 10_000)
    values = np.random.default_rng(1).normal(size=300_000)
    pyarrow.parquet.write_table(pa.table({"x": values}), tmp_path / "large.parquet")
    feature = built(tmp_path / "large.parquet").features[0]
    in_memory = learn_feature("x", "input", values)
    assert in_memory is not None
    assert sum(feature.counts) == 300_000
    assert feature.edges[1:-1] == pytest.approx(in_memory.edges[1:-1], abs=0.06)
    assert np.array(feature.counts[1:-2]) / 300_000 == pytest.approx(0.05, abs=0.005)


def test_more_categories_than_memory_holds_leave_the_frequent_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_TRACKED_CATEGORIES", 1_000)
    names = np.array([f"user {i}" for i in range(200_000)], dtype=object)
    names[::10] = "guest"
    pyarrow.parquet.write_table(pa.table({"who": names}), tmp_path / "large.parquet")
    feature = built(tmp_path / "large.parquet").features[0]
    assert (feature.categories, feature.counts) == (("guest",), (20_000, 180_000, 0))


def test_a_column_of_text_that_no_ten_rows_share_gets_no_feature(tmp_path: Path) -> None:
    rows = "".join(f'u{i},{i % 7},"{i},5"\n' for i in range(100))
    assert [feature.name for feature in built(written(tmp_path, f"id,x,price\n{rows}")).features] == ["x"]


def test_a_german_csv_gives_the_profile_of_its_english_twin(tmp_path: Path) -> None:
    values = np.random.default_rng(3).normal(50, 5, 500).round(3).tolist()
    english = built(written(tmp_path, "x,n\n" + "".join(f"{value},{value // 1:.0f}\n" for value in values)))
    german = written(tmp_path, "x;n\n" + "".join(f"{value};{value // 1:.0f}\n" for value in values).replace(".", ","))
    assert built(german).features == english.features


def test_no_rare_value_is_named_in_a_profile(tmp_path: Path) -> None:
    path = written(tmp_path, "who,n\n" + "guest,1\n" * 30 + "Erika Mustermann,271828\n" * 9)
    profile = built(path)
    assert "Erika" not in repr(profile)
    assert "271828" not in repr(profile)
    assert profile.features[0].counts == (30, 9, 0)


@pytest.mark.parametrize(
    ("text", "roles", "words"),
    [
        ("a,b\n", {}, "has no rows"),
        ("a\n\n\n", {}, "has no rows"),
        ("a,b\n,\n,\n", {}, "no column to profile"),
        ("id\n" + "".join(f"u{i}\n" for i in range(50)), {}, "no column to profile"),
        ("a,b\n1,2\n", {"labels": {"c"}}, "has no column 'c'; it has a, b"),
        ("a\n1\n", {"ignored": {"a"}}, "no column left"),
        ("a,b\n1,2\n", {"labels": {"a"}, "predictions": {"a"}}, "'a' can't be left out and be a prediction"),
    ],
)
def test_data_that_can_not_be_profiled_is_refused(
    tmp_path: Path, text: str, roles: dict[str, set[str]], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        built(written(tmp_path, text), **roles)


def test_a_column_that_turns_from_numbers_to_text_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = written(tmp_path, "code\n" + "12345\n" * 2_000_000 + "A12\n")
    with pytest.raises(UserError, match="'code' has numbers and text; mend it, or pass --categorical code"):
        built(path)
    assert built(path, categorical={"code"}).features[0].categories == ("12345",)


@pytest.mark.parametrize("exponent", [1.05, 1.3, 2.0])
@pytest.mark.parametrize("rows", [500, 10_000])
def test_a_long_tail_of_categories_raises_no_alarm(exponent: float, rows: int) -> None:
    rng = np.random.default_rng(6)

    def draw(size: int) -> Column:
        return np.array([f"c{rank}" for rank in rng.zipf(exponent, size)], dtype=object)

    feature = learn_feature("word", "input", draw(rows))
    assert feature is not None
    detector = Detector({"word": feature.reference}, Settings(8640))
    assert not any(detector.observe({"word": count_columns(feature, draw(500))[0]}).drifted for _ in range(200))


def test_a_new_category_in_a_hundred_is_found_within_a_few_windows() -> None:
    rng = np.random.default_rng(7)
    cities = np.array(["Ulm", "Köln", "Berlin"], dtype=object)
    feature = learn_feature("city", "input", rng.choice(cities, 10_000))
    assert feature is not None
    detector = Detector({"city": feature.reference}, Settings(8640))
    verdicts = []
    for _ in range(4):
        window = rng.choice(cities, 500)
        window[:5] = "Atlantis"
        verdicts.append(detector.observe({"city": count_columns(feature, window)[0]}))
    assert verdicts[-1].drifted
    assert verdicts[-1].features[0].direction == "new"
