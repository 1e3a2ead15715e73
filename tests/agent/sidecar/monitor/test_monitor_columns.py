"""Which column is which feature, whatever the client sends."""

from typing import Any

import numpy as np
import pytest
from monitor_samples import bins, exchange, houses, monitor, numbers, profile_of, series, state, texts
from pegel_agent.sidecar.monitor.columns import as_numbers, joined
from pegel_agent.sidecar.protocols import Inference, Undecodable
from pegel_agent.sidecar.protocols.tensors import flatten, unnamed


def two() -> Any:
    rng = np.random.default_rng(3)
    return profile_of({"left": rng.uniform(0, 1, 1000), "right": rng.uniform(5, 6, 1000)})


def interval(of: Any, feature: str) -> set[str]:
    return {name for name in bins(of, feature) if not name.startswith(("below", "above", "missing"))}


def test_columns_without_names_are_the_inputs_in_their_order() -> None:
    watched = monitor(two())
    watched.add(exchange(numbers([[0.5, 5.5]] * 4)), 0.0)
    assert interval(watched, "left")
    assert interval(watched, "right")


def test_columns_without_names_may_come_in_several_blocks() -> None:
    watched = monitor(two())
    watched.add(exchange([numbers([[0.5]]), numbers([[5.5]])]), 0.0)
    assert interval(watched, "left")
    assert interval(watched, "right")


def test_named_columns_may_come_in_any_order_and_with_others() -> None:
    watched = monitor(two())
    watched.add(exchange(numbers([[5.5, 77, 0.5]] * 3, ["right", "extra", "left"])), 0.0)
    assert interval(watched, "left")
    assert interval(watched, "right")
    assert all(name != "extra" for name, _, _ in series(watched)["ml_feature_rows_total"])


def test_a_named_feature_that_is_not_sent_is_missing() -> None:
    watched = monitor(two())
    watched.add(exchange(numbers([[5.5, 1]] * 3, ["right", "x"])), 0.0)
    assert bins(watched, "left") == {"missing": 3}


def test_numbers_and_text_in_two_named_blocks_find_their_features() -> None:
    watched = monitor(houses())
    watched.add(exchange([numbers([[30, 100]], ["age", "area"]), texts([["red"]], ["colour"])]), 0.0)
    assert bins(watched, "colour") == {"red": 1}
    assert interval(watched, "area")
    assert interval(watched, "age")


@pytest.mark.parametrize("width", [1, 2, 4, 20])
def test_another_number_of_columns_is_undecodable_and_changes_nothing(width: int) -> None:
    watched = monitor(houses())
    before = list(watched.families())
    with pytest.raises(Undecodable):
        watched.add(exchange(numbers(np.zeros((3, width)))), 0.0)
    assert list(watched.families()) == before
    assert state(watched).rows == 0


def test_names_of_another_model_are_undecodable() -> None:
    with pytest.raises(Undecodable, match="not the profile's"):
        monitor(houses()).add(exchange(numbers([[1, 2]], ["length", "width"])), 0.0)


def test_text_in_a_number_s_place_is_invalid_and_missing() -> None:
    watched = monitor(houses())
    watched.add(exchange([texts([["large"], [None], ["120"]], ["area"]), numbers([[3], [4], [5]], ["age"])]), 0.0)
    assert series(watched)["ml_feature_invalid_total"]["area", "not_a_number"] == 1
    assert bins(watched, "area").pop("missing") == 2
    assert sum(bins(watched, "area").values()) == 3


def test_a_row_that_mixes_numbers_and_text_has_its_numbers_back() -> None:
    rows = [[100, 30.5, "red"], [None, 12, "green"], [95.25, "old", None]]
    block = unnamed(flatten(rows, limit=10))
    assert block[0].values.dtype == object
    mixed = monitor(houses())
    mixed.add(Inference(None, 3, block, ()), 0.0)
    plain = monitor(houses())
    plain.add(
        exchange(
            [
                numbers([[100, 30.5], [np.nan, 12], [95.25, np.nan]], ["area", "age"]),
                texts([["red"], ["green"], [None]], ["colour"]),
            ]
        ),
        0.0,
    )
    for feature in ("area", "age", "colour"):
        assert bins(mixed, feature) == bins(plain, feature)
    assert series(mixed)["ml_feature_invalid_total"]["age", "not_a_number"] == 1
    assert series(mixed)["ml_feature_invalid_total"]["area", "not_a_number"] == 0


def test_numbers_are_the_text_of_a_category() -> None:
    watched = monitor(profile_of({"code": np.array(["7", "8"] * 50, dtype=object), "x": np.arange(100.0)}))
    watched.add(exchange(numbers([[7, 1], [8.0, 2], [9, 3], [np.nan, 4]])), 0.0)
    assert bins(watched, "code") == {"7": 1, "8": 1, "other": 1, "missing": 1}


def test_one_prediction_and_one_column_belong_together_whatever_the_name() -> None:
    for outputs in (numbers([[0.1]]), numbers([[0.1]], ["scores"]), numbers([[0.1]], ["price"])):
        watched = monitor(houses())
        watched.add(exchange(numbers([[100, 30, 5]]), outputs), 0.0)
        assert sum(bins(watched, "price").values()) == 1


def test_other_outputs_are_not_looked_at() -> None:
    for outputs in (numbers([[0.1, 0.2, 0.7]]), numbers([[1, 2]], ["a", "b"]), ()):
        watched = monitor(houses())
        watched.add(exchange(numbers([[100, 30, 5]]), outputs), 0.0)
        assert bins(watched, "price") == {}
        assert sum(bins(watched, "area").values()) == 1


def test_a_profile_of_predictions_alone_takes_any_inputs() -> None:
    watched = monitor(profile_of({"price": np.arange(100.0)}, {"price": "prediction"}))
    watched.add(exchange(texts([["a", "b"]]), numbers([[50]])), 0.0)
    assert sum(bins(watched, "price").values()) == 1


def test_hostile_shapes_do_not_grow_memory() -> None:
    watched = monitor(houses())
    for number in range(300):
        watched.add(exchange(numbers([[1, 2]], ["area", f"x{number}"])), 0.0)
        watched.add(exchange(numbers([[1, 2]], ["area", "y" * 100_000 + str(number)])), 0.0)
    kept = [name for shapes in watched._places for side in shapes for names, _, _ in side for name in names]
    assert 0 < len(kept) <= 64 * 2
    assert sum(map(len, kept)) < 10_000


def test_long_texts_do_not_wait_for_others() -> None:
    watched = monitor(profile_of({"note": np.array(["a", "b"] * 50, dtype=object)}))
    for _ in range(100):
        watched.add(exchange(texts([["z" * 100_000]])), 0.0)
        assert watched._waiting.bytes < 1 << 20
    assert bins(watched, "note") == {"other": 100}


def test_text_that_says_numbers_is_numbers_and_the_rest_is_counted() -> None:
    values, invalid = as_numbers(np.array(["1.5", None, "x", "-3"], dtype=object))
    assert np.array_equal(values, [1.5, np.nan, np.nan, -3.0], equal_nan=True)
    assert invalid == 1


def test_joined_parts_are_numbers_unless_one_holds_a_word() -> None:
    as_text = np.array(["1", None], dtype=object)
    assert np.array_equal(joined([as_text, np.array([2.0])]), [1.0, np.nan, 2.0], equal_nan=True)
    assert joined([as_text, np.array([2.0]), np.array(["x"], dtype=object)]).tolist() == ["1", None, "2", "x"]
