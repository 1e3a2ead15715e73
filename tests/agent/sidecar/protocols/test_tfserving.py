"""Rows and columns of TensorFlow Serving's REST API (KServe V1) become blocks."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pegel_agent.sidecar.paths import TFSERVING
from pegel_agent.sidecar.protocols import Block, Inference, Undecodable, decode, tfserving
from pegel_agent.sidecar.protocols.tensors import MAX_COLUMNS, MAX_ROWS, MAX_WIDTH, flatten, unnamed
from protocol_samples import exchange


def inference(asked: Any, answered: Any, **headers: str) -> Inference:
    return decode(TFSERVING, exchange(asked, answered, **headers))


def inputs(instances: list[Any]) -> tuple[Block, ...]:
    return inference({"instances": instances}, {"predictions": [0] * len(instances)}).inputs


def read(blocks: tuple[Block, ...]) -> list[tuple[tuple[str, ...], str, list[Any]]]:
    """Blocks in a form that can be compared; a missing number reads None."""
    return [
        (
            block.names,
            str(block.values.dtype),
            [[None if cell != cell else cell for cell in row] for row in block.values.tolist()],
        )
        for block in blocks
    ]


def test_rows_of_numbers_are_one_matrix() -> None:
    read_back = inference({"instances": [[1, 2.5], [3, 4]]}, {"predictions": [[0.1, 0.9], [0.4, 0.6]]})
    assert (read_back.rows, read_back.request_id) == (2, None)
    assert read(read_back.inputs) == [((), "float64", [[1.0, 2.5], [3.0, 4.0]])]
    assert read(read_back.outputs) == [((), "float64", [[0.1, 0.9], [0.4, 0.6]])]


def test_scalars_are_one_column() -> None:
    assert read(inputs([1, 2, 3])) == [((), "float64", [[1.0], [2.0], [3.0]])]


def test_deeper_tensors_are_flattened_row_by_row() -> None:
    assert read(inputs([[[1, 2], [3, 4]], [[5, 6], [7, 8]]])) == [((), "float64", [[1, 2, 3, 4], [5, 6, 7, 8]])]


def test_named_features_become_a_block_of_numbers_and_a_block_of_text() -> None:
    rows = [{"age": 31, "city": "Kiel", "paid": True}, {"paid": False, "city": None, "age": None}]
    assert read(inputs(rows)) == [
        (("age",), "float64", [[31.0], [None]]),
        (("city", "paid"), "object", [["Kiel", "true"], [None, "false"]]),
    ]


def test_a_named_list_widens_and_a_list_of_one_keeps_the_name() -> None:
    rows = [{"a": [1, 2], "b": [3], "c": ["x", 1]}, {"a": [4, 5], "b": [6], "c": ["y", 2]}]
    assert read(inputs(rows)) == [
        (("a",), "float64", [[1, 2], [4, 5]]),
        (("b", "c[1]"), "float64", [[3, 1], [6, 2]]),
        (("c[0]",), "object", [["x"], ["y"]]),
    ]


def test_a_name_that_a_row_lacks_is_missing_there() -> None:
    assert read(inputs([{"a": 1, "b": 2}, {"b": 3}])) == [(("a", "b"), "float64", [[1.0, 2.0], [None, 3.0]])]


def test_a_single_named_tensor_drops_its_name() -> None:
    by_row = inference({"instances": [{"x": [1, 2]}]}, {"predictions": [{"y": 3}]})
    by_column = inference({"inputs": {"x": [[1, 2]]}}, {"outputs": {"y": [3]}})
    assert read(by_row.inputs) == read(by_column.inputs) == [((), "float64", [[1.0, 2.0]])]
    assert read(by_row.outputs) == read(by_column.outputs) == [((), "float64", [[3.0]])]


def test_columns_say_the_same_as_rows() -> None:
    by_column = inference({"inputs": {"a": [1, 2], "b": [[3, 4], [5, 6]]}}, {"outputs": [0, 1]})
    by_row = inference({"instances": [{"a": 1, "b": [3, 4]}, {"a": 2, "b": [5, 6]}]}, {"predictions": [0, 1]})
    assert read(by_column.inputs) == read(by_row.inputs)
    assert read(by_column.outputs) == read(by_row.outputs)
    assert by_column.rows == by_row.rows == 2


def test_numbers_among_text_are_written_as_short_as_can_be() -> None:
    mixed = [5, 5.0, 0.1, -1e300, 2**53 + 1, True, None, math.nan, "five"]
    texts = ["5", "5", "0.1", "-1e+300", "9007199254740993", "true", None, None, "five"]
    assert read(inputs([{"a": value, "b": 0} for value in mixed]))[1] == (("a",), "object", [[text] for text in texts])


def test_a_tensor_with_numbers_and_text_is_text_so_that_columns_keep_their_places() -> None:
    assert read(inputs([[1.5, "red"], [2, None]])) == [((), "object", [["1.5", "red"], ["2", None]])]


def test_binary_values_are_left_out() -> None:
    picture = {"b64": "aGk="}
    assert inputs([picture, picture]) == ()
    assert read(inputs([{"picture": picture, "size": 1}, {"picture": None, "size": 2}])) == [
        (("size",), "float64", [[1.0], [2.0]])
    ]
    assert inference({"inputs": {"a": [picture], "b": [[picture]]}}, {"outputs": [1]}).rows == 1


def test_nan_and_infinity_are_read() -> None:
    body = b'{"instances": [[NaN, Infinity, -Infinity, null], [1, 2, 3, 4]]}'
    block = inference(body, b'{"predictions": [NaN, 1]}').inputs[0]
    np.testing.assert_array_equal(block.values, [[math.nan, math.inf, -math.inf, math.nan], [1, 2, 3, 4]])


def test_the_signature_name_says_nothing() -> None:
    asked = {"signature_name": "serving_default", "instances": [[1]]}
    assert inference(asked, {"predictions": [1]}).rows == 1


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        ({"id": "a"}, {"ce_id": "b", "x_request_id": "c"}, "a"),
        ({}, {"ce_id": "b", "x_request_id": "c"}, "b"),
        ({"id": ""}, {"x_request_id": "c"}, "c"),
        ({"id": 7}, {}, None),
        ({"id": "a" * 257}, {"ce_id": "b"}, "b"),
    ],
)
def test_the_id_is_the_bodys_then_ce_ids_then_x_request_ids(
    body: dict[str, Any], headers: dict[str, str], expected: str | None
) -> None:
    assert inference(body | {"instances": [1]}, {"predictions": [1]}, **headers).request_id == expected


REFUSED: dict[str, tuple[Any, Any]] = {
    "no rows": ({"instances": []}, {"predictions": []}),
    "rows without columns": ({"instances": [[], []]}, {"predictions": [1, 1]}),
    "rows without names": ({"instances": [{}]}, {"predictions": [1]}),
    "no columns": ({"inputs": {}}, {"outputs": [1]}),
    "one value without rows": ({"inputs": 1}, {"outputs": 1}),
    "a named value without rows": ({"inputs": {"a": 1, "b": [1]}}, {"outputs": [1]}),
    "rows of two lengths": ({"instances": [[1, 2], [3]]}, {"predictions": [1, 1]}),
    "rows of as many numbers in another shape": (
        {"instances": [[[1, 2], [3]], [[4], [5, 6]]]},
        {"predictions": [1, 1]},
    ),
    "a row that is no list": ({"instances": [[1], 2]}, {"predictions": [1, 1]}),
    "a row that is no object": ({"instances": [{"a": 1}, [2]]}, {"predictions": [1, 1]}),
    "a list among numbers": ({"instances": [1, [2]]}, {"predictions": [1, 1]}),
    "an object among numbers": ({"instances": [[1, {"a": 1}]]}, {"predictions": [1]}),
    "columns of two lengths": ({"inputs": {"a": [1], "b": [1, 2]}}, {"outputs": [1]}),
    "two columns of one name": ({"instances": [{"a": [1, 2], "a[0]": 3}]}, {"predictions": [1]}),
    "too many columns": ({"instances": [[0] * (MAX_WIDTH + 1)]}, {"predictions": [1]}),
    "too many named columns": ({"instances": [{"a": [0] * (MAX_WIDTH + 1), "b": 1}]}, {"predictions": [1]}),
    "too many rows": ({"instances": [0] * (MAX_ROWS + 1)}, {"predictions": [0] * (MAX_ROWS + 1)}),
    "rows that each bring a name": (
        {"instances": [{f"n{i % 900}": 1} for i in range(2000)]},
        {"predictions": [0] * 2000},
    ),
    "an answer with other rows": ({"instances": [1, 2]}, {"predictions": [1]}),
    "an answer that is an error": ({"instances": [1]}, {"error": "no"}),
    "no object": ([1], {"predictions": [1]}),
    "no body": (b"", {"predictions": [1]}),
    "two documents": (b'{"instances": [1]}{}', {"predictions": [1]}),
    "invalid UTF-8": (b'{"instances": ["\xff"]}', {"predictions": [1]}),
    "invalid UTF-8 where NaN is": (b'{"instances": [{"a": NaN, "b": "\xff"}]}', {"predictions": [1]}),
    "half a surrogate pair where NaN is": (b'{"instances": [{"a": NaN, "b": "\\ud800"}]}', {"predictions": [1]}),
    "a number beyond float64": (b'{"instances": [1e400]}', {"predictions": [1]}),
    "an integer beyond float64": ({"instances": [10**400, 1]}, {"predictions": [1, 1]}),
    "an integer of a million digits": (b'{"instances": [' + b"9" * 1_000_000 + b"]}", {"predictions": [1]}),
    "a million lists": (b'{"instances": ' + b"[" * 1_000_000, {"predictions": [1]}),
    "a million lists where NaN is": (b'{"a": NaN, "instances": ' + b"[" * 1_000_000, {"predictions": [1]}),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused(what: str) -> None:
    with pytest.raises(Undecodable):
        inference(*REFUSED[what])


@pytest.mark.parametrize("status", [199, 301, 400, 503])
def test_rows_that_the_model_did_not_accept_are_not_its_data(status: int) -> None:
    with pytest.raises(Undecodable, match="status"):
        tfserving.decode(exchange({"instances": [1]}, {"predictions": [1]}, status=status))


def test_of_a_repeated_key_the_last_value_counts() -> None:
    assert read(inference(b'{"instances": [1], "instances": [2]}', {"predictions": [1]}).inputs)[0][2] == [[2.0]]


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**400), 10**400)


@given(st.integers(0, 3).flatmap(lambda width: st.lists(st.lists(numbers, min_size=width, max_size=3), max_size=4)))
def test_the_short_way_for_lists_of_numbers_says_what_the_long_way_says(rows: list[list[float]]) -> None:
    def long_way() -> Block:
        return unnamed(flatten(json.loads(json.dumps(rows)), limit=MAX_COLUMNS))[0]

    try:
        short = inputs(rows)[0]
    except Undecodable:
        with pytest.raises((Undecodable, IndexError)):
            long_way()
        return
    np.testing.assert_array_equal(short.values, long_way().values)


@given(
    st.lists(st.sampled_from("abcd"), unique=True, min_size=2).flatmap(
        lambda names: st.lists(st.tuples(*[st.floats() | st.none() for _ in names]), min_size=1).map(
            lambda rows: [dict(zip(names, row, strict=True)) for row in rows]
        )
    )
)
def test_the_short_way_for_named_numbers_says_what_the_long_way_says(rows: list[dict[str, float | None]]) -> None:
    short = inputs(rows)
    # A first row in another order takes the long way.
    first = dict(reversed(rows[0].items()))
    long = inputs([first, *rows])
    order = [long[0].names.index(name) for name in short[0].names]
    np.testing.assert_array_equal(short[0].values, long[0].values[1:, order])
