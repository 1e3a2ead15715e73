"""Tensors of the Open Inference Protocol become blocks."""

from typing import Any

import pytest
from pegel_agent.sidecar.paths import OPEN_INFERENCE, OTHER
from pegel_agent.sidecar.protocols import Inference, Undecodable, decode
from pegel_agent.sidecar.protocols.tensors import MAX_COLUMNS, MAX_ROWS, MAX_WIDTH
from protocol_samples import exchange


def tensor(data: Any, shape: list[Any], datatype: str = "FP64", name: str = "x") -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def inference(tensors: list[Any], rows: int, **headers: str) -> Inference:
    answered = {"model_name": "m", "outputs": [tensor([1] * rows, [rows, 1], "INT64", "predict")]}
    return decode(OPEN_INFERENCE, exchange({"inputs": tensors}, answered, **headers))


def read(result: Inference) -> list[tuple[tuple[str, ...], str, list[Any]]]:
    return [(block.names, str(block.values.dtype), block.values.tolist()) for block in result.inputs]


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]], [[[1], [2], [3]], [[4], [5], [6]]]])
def test_one_tensor_is_a_matrix_without_names_flat_or_nested(data: list[Any]) -> None:
    result = inference([tensor(data, [2, 3])], 2)
    assert result.rows == 2
    assert read(result) == [((), "float64", [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])]
    assert (result.outputs[0].names, result.outputs[0].values.tolist()) == ((), [[1.0], [1.0]])


def test_dimensions_after_the_first_are_columns() -> None:
    assert read(inference([tensor(list(range(8)), [2, 2, 2])], 2))[0][2] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_several_tensors_are_named_columns() -> None:
    tensors = [
        tensor([31, 44], [2, 1], "INT64", "age"),
        tensor(["Kiel", None], [2], "BYTES", "city"),
        tensor([True, False], [2, 1], "BOOL", "paid"),
        tensor([0.1, 0.2, 0.3, 0.4], [2, 2], "FP32", "place"),
    ]
    assert read(inference(tensors, 2)) == [
        (("place",), "float64", [[0.1, 0.2], [0.3, 0.4]]),
        (("age",), "float64", [[31.0], [44.0]]),
        (("city", "paid"), "object", [["Kiel", "true"], [None, "false"]]),
    ]


def test_truth_may_be_written_as_a_number() -> None:
    assert read(inference([tensor([1, 0], [2], "BOOL")], 2)) == [((), "object", [["true"], ["false"]])]


def test_null_is_missing() -> None:
    values = inference([tensor([1, None], [2])], 2).inputs[0].values
    assert values[0, 0] == 1.0
    assert values[1, 0] != values[1, 0]


@pytest.mark.parametrize(
    ("asked", "answered", "headers", "expected"),
    [
        ({"id": "a"}, {"id": "b"}, {"ce_id": "c"}, "a"),
        ({}, {"id": "b"}, {"ce_id": "c"}, "c"),
        ({}, {"id": "b"}, {"x_request_id": "d"}, "b"),
        ({}, {"id": None}, {"ce_id": "c", "x_request_id": "d"}, "c"),
        ({}, {}, {"x_request_id": "d"}, "d"),
        ({}, {}, {}, None),
    ],
)
def test_an_id_that_the_client_chose_comes_before_one_that_the_server_made_up(
    asked: dict[str, Any], answered: dict[str, Any], headers: dict[str, str], expected: str | None
) -> None:
    sent = exchange(asked | {"inputs": [tensor([1], [1])]}, answered | {"outputs": [tensor([1], [1])]}, **headers)
    assert decode(OPEN_INFERENCE, sent).request_id == expected


REFUSED: dict[str, tuple[Any, int]] = {
    "no tensors": ([], 1),
    "a tensor without dimensions": ([tensor([1], [])], 1),
    "no rows": ([tensor([], [0])], 0),
    "no columns": ([tensor([], [1, 0])], 1),
    "a negative dimension": ([tensor([1], [-1])], 1),
    "two negative dimensions": ([tensor([1], [1, -1, -1])], 1),
    "a dimension that is no integer": ([tensor([1], [1.5])], 1),
    "fewer values than the shape says": ([tensor([1, 2, 3], [2, 2])], 2),
    "more values than the shape says": ([tensor([1, 2, 3], [2])], 2),
    "ragged lists": ([tensor([[1, 2, 3], [4]], [2, 2])], 2),
    "tensors of different rows": ([tensor([1], [1]), tensor([1, 2], [2], name="y")], 1),
    "two tensors of one name": ([tensor([1], [1]), tensor([1], [1])], 1),
    "text in a tensor of numbers": ([tensor(["1"], [1])], 1),
    "truth in a tensor of numbers": ([tensor([True], [1])], 1),
    "numbers in a tensor of text": ([tensor([1], [1], "BYTES")], 1),
    "an object in a tensor": ([tensor([{"b64": ""}], [1], "BYTES")], 1),
    "an unknown datatype": ([tensor([1], [1], "FP128")], 1),
    "data that is no list": ([tensor(1, [1])], 1),
    "a tensor that is no object": ([[1]], 1),
    "a tensor in binary": ([{"name": "x", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}}], 1),
    "too many columns": ([tensor([0] * (MAX_WIDTH + 1), [1, MAX_WIDTH + 1])], 1),
    "too many tensors": ([tensor([0], [1], name=str(i)) for i in range(MAX_COLUMNS + 1)], 1),
    "too many rows": ([tensor([0] * (MAX_ROWS + 1), [MAX_ROWS + 1])], MAX_ROWS + 1),
    "a shape beyond all memory": ([tensor([1], [1, 2**40, 2**40])], 1),
    "a hundred dimensions": ([tensor([1], [1] * 100)], 1),
    "an answer with other rows": ([tensor([1, 2], [2])], 1),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused(what: str) -> None:
    with pytest.raises(Undecodable):
        inference(*REFUSED[what])


def test_the_binary_extension_is_refused_by_its_header() -> None:
    with pytest.raises(Undecodable, match="binary"):
        inference([tensor([1], [1])], 1, inference_header_content_length="90")


def test_a_protocol_that_is_not_decoded_is_refused() -> None:
    with pytest.raises(Undecodable, match="protocol"):
        decode(OTHER, exchange({}, {}))
