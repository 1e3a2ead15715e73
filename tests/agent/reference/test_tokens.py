"""How many tokens a row has: the same in a file, a backtest and the sidecar, whatever the padding and its width."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from pegel_agent.batch.backtest import backtest
from pegel_agent.batch.check import check_file, count_file
from pegel_agent.cli.main import pegel
from pegel_agent.reference import tables
from pegel_agent.reference.build import Roles, build_profile
from pegel_agent.reference.profile import Profile, load, save
from pegel_agent.reference.tokens import count_tokens
from pegel_agent.sidecar import paths
from pegel_agent.sidecar.monitor.columns import Layout, Waiting, shape_of
from pegel_agent.sidecar.monitor.model import Monitor, MonitorSettings
from pegel_agent.sidecar.protocols import Exchange, Inference, Undecodable, decode
from pegel_agent.statistics.budget import Window
from pegel_exporters.errors import UserError

MASKS = [[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 1]]
SHOWN = [3, 1, 0, 4, 2]


def lengths(seed: int, rows: int, mean: float = 40.0) -> list[int]:
    return np.random.default_rng(seed).poisson(mean, rows).clip(1, 200).tolist()


def ragged(sizes: list[int], padding: int | None = None) -> list[list[int]]:
    """Token ids row by row, none of which is the padding; filled up with it to the longest where there is one."""
    rng = np.random.default_rng(len(sizes))
    ids = [rng.integers(1_000, 30_000, size).tolist() for size in sizes]
    return ids if padding is None else [row + [padding] * (max(sizes) - len(row)) for row in ids]


def parquet(folder: Path, ids: pa.Array, **more: object) -> Path:
    path = folder / f"{len(list(folder.iterdir()))}.parquet"
    pq.write_table(pa.table({"ids": ids, **more}), path)
    return path


def built(path: Path, **tokens: int) -> Profile:
    return build_profile(path, roles=Roles(tokens=tokens), model_name="m", model_version="1", created=0.0)


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    return built(parquet(tmp_path, pa.array(ragged(lengths(1, 5_000)))), ids=0)


def test_tokens_are_what_is_neither_padding_nor_missing() -> None:
    assert count_tokens(np.array(MASKS, dtype=float), 0).tolist() == SHOWN
    assert count_tokens(np.array([[7, 50256, np.nan], [50256, 50256, 50256]]), 50256).tolist() == [1, 0]
    truths = np.where(np.array(MASKS) == 1, "true", "false").astype(object)
    assert count_tokens(truths, 0).tolist() == SHOWN
    assert count_tokens(truths, 1).tolist() == [4 - shown for shown in SHOWN], "a mask of padding has true there"
    assert count_tokens(np.array([["12", "0", None]], dtype=object), 0).tolist() == [1]
    np.testing.assert_array_equal(count_tokens(np.array([[np.nan], [0.0], [7.0]]), 0), [np.nan, 0, 1])
    np.testing.assert_array_equal(count_tokens(np.array([[None], ["a"]], dtype=object), 0), [np.nan, 1])


@pytest.mark.parametrize(
    "column",
    [
        pa.array(MASKS),
        pa.array(MASKS, pa.large_list(pa.int32())),
        pa.array(MASKS, pa.list_(pa.uint8(), 4)),
        pa.array([[bool(one) for one in row] for row in MASKS]),
        pa.array([[1, 1, 1], [1, None, 0], [], [1] * 4, [0, 1, 0, 1, 0, 0]]),
        pa.chunked_array([pa.array(MASKS[:2]), pa.array(MASKS[2:])]),
        pa.array([[2**63 + one if one else 0 for one in row] for row in MASKS], pa.list_(pa.uint64())),
    ],
    ids=["lists", "large lists", "lists of one size", "truth values", "ragged", "chunks", "64 bits without a sign"],
)
def test_lists_of_a_file_are_counted(tmp_path: Path, column: pa.Array) -> None:
    (batch,) = tables.read(parquet(tmp_path, column), ("ids",), tokens={"ids": 0})
    assert batch["ids"].tolist() == SHOWN


def test_a_slice_and_a_missing_list(tmp_path: Path) -> None:
    (batch,) = tables.read(parquet(tmp_path, pa.array([[9], *MASKS, None]).slice(1)), ("ids",), tokens={"ids": 0})
    np.testing.assert_array_equal(batch["ids"], [*SHOWN, np.nan])


def test_lists_of_one_size_may_be_missing_and_a_padding_that_none_can_have_fills_none_up(tmp_path: Path) -> None:
    path = parquet(tmp_path, pa.array([MASKS[0], None, MASKS[3]], pa.list_(pa.uint8(), 4)))
    for padding, counts in ((0, [3, np.nan, 4]), (-100, [4, np.nan, 4]), (1, [1, np.nan, 0])):
        (batch,) = tables.read(path, ("ids",), tokens={"ids": padding})
        np.testing.assert_array_equal(batch["ids"], counts)
    (batch,) = tables.read(parquet(tmp_path, pa.nulls(3)), ("ids",), tokens={"ids": 0})
    assert np.isnan(batch["ids"]).all()


def test_long_lists_come_in_small_batches(tmp_path: Path) -> None:
    rows = np.ones((3_000, 1_024), dtype=np.int8)
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 1_024)
    sizes = [len(batch["ids"]) for batch in tables.read(parquet(tmp_path, column), ("ids",), tokens={"ids": 0})]
    assert max(sizes) == 1_024
    assert sum(sizes) == 3_000


@pytest.mark.parametrize(
    "column", [pa.array([1.0, 2.0]), pa.array([[0.5]]), pa.array([["a"]]), pa.array([[[1]]]), pa.array(["1 2"])]
)
def test_what_holds_no_tokens_is_refused(tmp_path: Path, column: pa.Array) -> None:
    with pytest.raises(UserError, match="tokens are counted in lists of whole numbers"):
        built(parquet(tmp_path, column), ids=0)


def test_lists_that_nobody_named_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="build the profile with --tokens ids to count it"):
        built(parquet(tmp_path, pa.array(MASKS)))


def test_what_has_another_role_has_no_tokens(tmp_path: Path) -> None:
    path = parquet(tmp_path, pa.array(MASKS), stars=pa.array([1.0] * 5))
    for roles, words in (
        (Roles(tokens={"ids": 0}, texts=frozenset({"ids"})), "can't be tokens and be categorical or text"),
        (Roles(tokens={"ids": 0}, ignored=frozenset({"ids"})), "can't be left out and be"),
        (Roles(tokens={"words": 0}), "has no column 'words'"),
    ):
        with pytest.raises(UserError, match=words):
            build_profile(path, roles=roles, model_name="m", model_version="1", created=0.0)


def test_a_profile_counts_tokens_and_holds_none(tmp_path: Path, profile: Profile) -> None:
    save(profile, tmp_path / "profile.json")
    assert load(tmp_path / "profile.json") == profile
    (feature,) = profile.features
    assert (feature.name, feature.kind, feature.padding) == ("ids", "numeric", 0)
    assert feature.edges[-1] < 100, "the edges are of lengths, not of ids"


def monitor(profile: Profile) -> Monitor:
    return Monitor(MonitorSettings("m", "1", Window(rows=500), 8640.0), profile, 0.0)


def counted(watched: Monitor) -> Iterator[float]:
    """Rows by bin of the only input."""
    for family in watched.families():
        if family.metric.name == "ml_feature_rows_total":
            yield from (rows for labels, rows in family.samples.items() if "ids" in labels)


def sent(protocol: str, asked: object, answered: object) -> Inference:
    return decode(protocol, Exchange("/", {}, json.dumps(asked).encode(), 200, {}, json.dumps(answered).encode()))


def in_instances(ids: list[list[int]]) -> Inference:
    rows = [{"ids": row, "mask": [int(one != 0) for one in row]} for row in ids]
    return sent(paths.TFSERVING, {"instances": rows}, {"predictions": [0.5] * len(ids)})


def alone(ids: list[list[int]]) -> Inference:
    return sent(paths.TFSERVING, {"instances": ids}, {"predictions": [0.5] * len(ids)})


def in_columns(ids: list[list[int]]) -> Inference:
    return sent(paths.TFSERVING, {"inputs": {"ids": ids, "other": ids}}, {"outputs": [0.5] * len(ids)})


def in_tensors(ids: list[list[int]]) -> Inference:
    tensors = [
        {"name": name, "shape": [len(ids), len(ids[0])], "datatype": "INT64", "data": ids} for name in ("other", "ids")
    ]
    answer = {"name": "y", "shape": [len(ids)], "datatype": "FP32", "data": [0.5] * len(ids)}
    return sent(paths.OPEN_INFERENCE, {"inputs": tensors}, {"outputs": [answer]})


@pytest.mark.parametrize("wire", [in_instances, alone, in_columns, in_tensors])
def test_the_same_rows_are_the_same_counts_in_a_file_and_in_the_sidecar(
    tmp_path: Path, profile: Profile, wire: Callable[[list[list[int]]], Inference]
) -> None:
    sizes = [1, *lengths(3, 399)]
    counts, _ = count_file(profile, parquet(tmp_path, pa.array(ragged(sizes))))
    watched = monitor(profile)
    for first in (0, 1, 100):
        part = sizes[first : {0: 1, 1: 100, 100: 400}[first]]
        watched.add(wire(ragged(part, padding=0)), 0.0)
    assert list(counted(watched)) == counts["ids"].tolist()


def test_padding_is_what_the_profile_says(tmp_path: Path) -> None:
    sizes = lengths(4, 3_000)
    padded = parquet(tmp_path, pa.array(ragged(sizes, padding=50256)))
    assert (
        built(padded, ids=50256).features[0].counts
        == built(parquet(tmp_path, pa.array(ragged(sizes))), ids=50256).features[0].counts
    )
    assert len(set(built(padded, ids=0).features[0].edges)) == 1, "without it all rows are equally long"


def test_names_of_another_model_s_tensors_are_missing(profile: Profile, tmp_path: Path) -> None:
    two = built(parquet(tmp_path, pa.array(MASKS * 20), stars=pa.array(np.arange(100.0))), ids=0)
    watched = monitor(two)
    watched.add(sent(paths.TFSERVING, {"instances": [{"stars": 3, "mask": [1, 1]}]}, {"predictions": [1]}), 0.0)
    assert sum(counted(watched)) == 1 == list(counted(watched))[-1], "ids are missing"


def test_a_list_alone_is_not_taken_for_several_features(tmp_path: Path) -> None:
    two = build_profile(
        parquet(tmp_path, pa.array(MASKS * 20), mask=pa.array(MASKS * 20)),
        roles=Roles(tokens={"ids": 0, "mask": 0}), model_name="m", model_version="1", created=0.0,
    )  # fmt: skip
    with pytest.raises(Undecodable, match="not the profile's"):
        monitor(two).add(sent(paths.TFSERVING, {"instances": [[101, 102]]}, {"predictions": [1]}), 0.0)


def test_lists_of_any_length_are_counted_together(profile: Profile) -> None:
    waiting, layout = Waiting(), Layout.by(profile)
    for size in (3, 9, 2, 5):
        inference = alone(ragged([size, 1], padding=0))
        waiting.add(layout.places(shape_of(inference.inputs), shape_of(inference.outputs)), inference)
    (columns,) = waiting.columns()
    assert columns["ids"].tolist() == [3, 1, 9, 1, 2, 1, 5, 1]


def test_longer_texts_are_drift_and_others_are_not(tmp_path: Path, profile: Profile) -> None:
    def drifted(mean: float) -> bool:
        path = parquet(tmp_path, pa.array(ragged(lengths(int(mean), 2_000, mean))))
        return check_file(profile, path, alpha=0.001).drift

    assert not drifted(40.0)
    assert drifted(43.0)
    path = parquet(tmp_path, pa.array(ragged(lengths(8, 4_000) + lengths(9, 4_000, 43.0), padding=0)))
    result = backtest(profile, path, window=Window(rows=500), budget_windows=8640.0, tolerance=0.0)
    assert [(alarm.window > 8, alarm.features) for alarm in result.alarms] == [(True, ("ids",))]


def test_a_model_s_own_tokens_are_a_prediction(tmp_path: Path) -> None:
    path = parquet(tmp_path, pa.array(ragged(lengths(1, 1_000))), stars=pa.array(np.arange(1_000.0)))
    roles = Roles(predictions=frozenset({"ids"}), tokens={"ids": 0})
    profile = build_profile(path, roles=roles, model_name="m", model_version="1", created=0.0)
    assert {feature.name: feature.role for feature in profile.features} == {"stars": "input", "ids": "prediction"}


def test_the_command_takes_columns_with_and_without_a_padding(tmp_path: Path) -> None:
    path = parquet(tmp_path, pa.array(ragged(lengths(1, 500), padding=2)), **{"a=b": pa.array(MASKS * 100)})

    def build(*tokens: str) -> str:
        options = [word for one in tokens for word in ("--tokens", one)]
        done = CliRunner().invoke(pegel, ["profile", "build", str(path), "-o", str(tmp_path / "p.json"), *options])
        return str(done.exception or "")

    assert not build("ids=2", "a=b=0")
    paddings = {one["name"]: one["padding"] for one in json.loads((tmp_path / "p.json").read_text())["features"]}
    assert paddings == {"ids": 2, "a=b": 0}
    assert build("ids=2", "ids=0") == "--tokens: column 'ids' is given twice"
    assert build("ids=two") == "--tokens ids=two: 'two' is no whole number of 64 bits"
    assert build(f"ids={2**63}") == f"--tokens ids={2**63}: '{2**63}' is no whole number of 64 bits"


def test_a_profile_whose_tokens_are_categories_is_refused(tmp_path: Path, profile: Profile) -> None:
    save(profile, tmp_path / "profile.json")
    document = json.loads((tmp_path / "profile.json").read_text())
    feature = document["features"][0]
    document["features"][0] = {
        "name": "ids", "kind": "categorical", "role": "input", "padding": 0,
        "categories": ["a"], "counts": [feature["counts"][1], 0, 0],
    }  # fmt: skip
    (tmp_path / "profile.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="a count of tokens must be numeric"):
        load(tmp_path / "profile.json")
