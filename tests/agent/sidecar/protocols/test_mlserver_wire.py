"""Bytes from a real MLServer: what was sent is what is read."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pegel_agent.reference.tokens import count_tokens
from pegel_agent.sidecar import paths
from pegel_agent.sidecar.protocols import Exchange, Undecodable, decode, read_exchange

from tests.modelservers import FOLDER, mlserver, train_wine

pytestmark = pytest.mark.integration

ROWS = np.random.default_rng(11).normal(50.0, 20.0, size=(4, 13)).round(3)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with mlserver(train_wine(tmp_path_factory.mktemp("model")), "wine") as port:
        yield port


def record(port: int, body: dict[str, Any], *headers: str, model: str = "wine") -> Exchange:
    """One exchange over a plain socket, read as a tap would see it."""
    encoded = json.dumps(body).encode()
    lines = [
        f"POST /v2/models/{model}/infer HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/json",
        f"Content-Length: {len(encoded)}",
        "Connection: close",
        *headers,
    ]
    request = "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + encoded
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        response = b"".join(iter(lambda: connection.recv(65536), b""))
    return read_exchange(request, response, max_body_bytes=1 << 20)


def tensor(name: str, values: np.ndarray[Any, Any], data: list[Any] | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "shape": list(values.shape),
        "datatype": "FP64",
        "data": values.ravel().tolist() if data is None else data,
    }


def test_a_flat_tensor_and_its_classes(port: int) -> None:
    exchange = record(port, {"id": "order-7", "inputs": [tensor("x", ROWS)]})
    inference = decode(paths.OPEN_INFERENCE, exchange)
    assert (inference.request_id, inference.rows) == ("order-7", 4)
    np.testing.assert_array_equal(inference.inputs[0].values, ROWS)
    assert inference.outputs[0].values.ravel().tolist() == json.loads(exchange.response)["outputs"][0]["data"]
    assert set(inference.outputs[0].values.ravel()) <= {0.0, 1.0, 2.0}


def test_a_nested_tensor(port: int) -> None:
    inference = decode(paths.OPEN_INFERENCE, record(port, {"inputs": [tensor("x", ROWS, ROWS.tolist())]}))
    np.testing.assert_array_equal(inference.inputs[0].values, ROWS)


def test_named_columns(port: int) -> None:
    columns = [tensor(f"f{i}", ROWS[:, i : i + 1]) for i in range(13)]
    body = {"parameters": {"content_type": "pd"}, "inputs": columns}
    inference = decode(paths.OPEN_INFERENCE, record(port, body))
    assert inference.inputs[0].names == tuple(f"f{i}" for i in range(13))
    np.testing.assert_array_equal(inference.inputs[0].values, ROWS)


def test_the_server_gives_an_id_to_a_request_without_one(port: int) -> None:
    exchange = record(port, {"inputs": [tensor("x", ROWS)]})
    assert decode(paths.OPEN_INFERENCE, exchange).request_id == json.loads(exchange.response)["id"]


def test_classes_and_probabilities_in_a_compressed_answer(port: int) -> None:
    many = np.tile(ROWS, (50, 1))
    body = {"inputs": [tensor("x", many)], "outputs": [{"name": "predict"}, {"name": "predict_proba"}]}
    exchange = record(port, body, "Accept-Encoding: gzip")
    assert exchange.response_headers["content-encoding"] == "gzip"
    inference = decode(paths.OPEN_INFERENCE, exchange)
    outputs = {block.names: block.values for block in inference.outputs}
    assert {names: values.shape for names, values in outputs.items()} == {
        ("predict",): (200, 1), ("predict_proba",): (200, 3),
    }  # fmt: skip
    probabilities = outputs["predict_proba",]
    np.testing.assert_array_equal(outputs["predict",][:, 0], probabilities.argmax(axis=1))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)


def test_rows_that_the_server_refused_are_undecodable(port: int) -> None:
    exchange = record(port, {"inputs": [tensor("x", ROWS[:, :5])]})
    assert exchange.status >= 400
    with pytest.raises(Undecodable, match="status"):
        decode(paths.OPEN_INFERENCE, exchange)


@pytest.mark.parametrize("datatype", ["INT64", "BOOL"])
def test_tokens_are_counted_as_the_model_counts_them(datatype: str) -> None:
    sizes = [3, 7, 1, 900]
    mask = np.arange(900) < np.array(sizes)[:, None]
    ids = np.where(mask, 1_234, 0)
    body = {
        "inputs": [
            tensor("input_ids", ids) | {"datatype": "INT64"},
            tensor("attention_mask", mask if datatype == "BOOL" else mask.astype(int)) | {"datatype": datatype},
        ]
    }
    with mlserver(FOLDER, "reviews", implementation="counting_model.CountingModel") as port:
        inference = decode(paths.OPEN_INFERENCE, record(port, body, model="reviews"))
    sent = {block.names: block.values for block in inference.inputs}
    for name in ("input_ids", "attention_mask"):
        assert count_tokens(sent[name,], 0).tolist() == sizes == inference.outputs[0].values[:, 0].tolist()
