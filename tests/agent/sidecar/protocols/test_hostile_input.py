"""Whatever is sent, a decoder gives rows that keep its promises or raises Undecodable, its reason without a value."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pegel_agent.sidecar import paths
from pegel_agent.sidecar.protocols import Block, Undecodable, decode
from protocol_samples import exchange

SECRET = "6b1e7c"

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(2**63), 2**64])
    | st.floats()
    | st.text(max_size=4)
    | st.just(SECRET)
    | st.just({"b64": SECRET})
)
names = st.sampled_from(["a", "b", "a[0]", "b64", SECRET])
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=3),
    max_leaves=12,
)
datatypes = st.sampled_from(["FP32", "INT64", "BOOL", "BYTES", SECRET])
shapes = st.lists(st.integers(-1, 3) | st.just(2**70), max_size=3)
tensors = st.fixed_dictionaries({"name": names, "shape": shapes, "datatype": datatypes, "data": anything})
bodies = st.one_of(
    anything,
    st.fixed_dictionaries(
        {},
        optional={
            key: anything | st.lists(tensors, max_size=3)
            for key in ("id", "instances", "inputs", "predictions", "outputs")
        },
    ),
)
protocols = st.sampled_from(paths.PROTOCOLS)


def check(protocol: str, asked: Any, answered: Any) -> None:
    refusal = None
    try:
        inference = decode(protocol, exchange(asked, answered))
    except Undecodable as error:
        refusal = error
    if refusal is not None:
        assert SECRET not in str(refusal)
        assert refusal.__cause__ is None
        return
    assert inference.rows > 0
    for side in (inference.inputs, inference.outputs):
        names = [name for block in side for name in block.names]
        assert len(set(names)) == len(names)
        for block in side:
            check_block(block, inference.rows)


def check_block(block: Block, rows: int) -> None:
    assert block.values.ndim == 2
    assert block.values.shape[0] == rows
    assert block.values.shape[1] == len(block.names) or (len(block.names) < 2 and block.values.shape[1] > 0)
    if block.values.dtype != np.float64:
        texts = [cell for cell in block.values.ravel().tolist() if cell is not None]
        assert "".join(texts).encode().decode() == "".join(texts)


@given(protocols, bodies, bodies)
@settings(max_examples=400)
@example(paths.TFSERVING, {"instances": [{"a": 1, "b": "\ud800", "c": math.nan}]}, {"predictions": [1]})
def test_any_json_is_rows_or_undecodable(protocol: str, asked: Any, answered: Any) -> None:
    check(protocol, asked, answered)


@given(protocols, tensors, tensors)
@settings(max_examples=300)
def test_any_tensor_is_rows_or_undecodable(protocol: str, one: Any, other: Any) -> None:
    answer = {"outputs": [{"name": "y", "shape": [1], "datatype": "FP32", "data": [1]}]}
    check(protocol, {"inputs": [one]}, answer)
    check(protocol, {"inputs": [one, other]}, answer)


@given(st.lists(anything, min_size=1, max_size=4))
@settings(max_examples=400)
def test_any_instances_are_rows_or_undecodable(instances: list[Any]) -> None:
    answer = {"predictions": [0] * len(instances)}
    check(paths.TFSERVING, {"instances": instances}, answer)
    check(paths.TFSERVING, answer | {"instances": answer["predictions"]}, {"predictions": instances})


@given(protocols, st.binary(max_size=100), st.binary(max_size=100))
def test_any_bytes_are_undecodable(protocol: str, asked: bytes, answered: bytes) -> None:
    with pytest.raises(Undecodable):
        decode(protocol, exchange(asked, answered))


@given(st.data(), protocols)
def test_a_damaged_body_is_rows_or_undecodable(data: st.DataObject, protocol: str) -> None:
    tensor = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1, math.nan]}
    body = json.dumps(
        {"instances": [[1, math.nan]], "predictions": [1], "inputs": [tensor], "outputs": [tensor]}
    ).encode()
    at = data.draw(st.integers(0, len(body)))
    damaged = body[:at] + data.draw(st.binary(max_size=3)) + body[at + data.draw(st.integers(0, 8)) :]
    check(protocol, damaged, body)
    check(protocol, body, damaged)
