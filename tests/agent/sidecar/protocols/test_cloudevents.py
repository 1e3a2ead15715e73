"""Exchanges without a path: the bodies' form says in which protocol they are."""

from typing import Any

import pytest
from pegel_agent.sidecar.paths import CLOUDEVENTS, OPEN_INFERENCE, TFSERVING
from pegel_agent.sidecar.protocols import Exchange, Undecodable, decode
from protocol_samples import exchange

TENSOR = {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 2.0]}
V1 = exchange({"instances": [[1.0, 2.0]]}, {"predictions": [1]}, ce_id="a")
V2 = exchange({"inputs": [TENSOR]}, {"outputs": [TENSOR], "id": "made up"}, ce_id="a")


def said(protocol: str, of: Exchange) -> tuple[Any, ...]:
    inference = decode(protocol, of)
    sides = [[(block.names, block.values.tolist()) for block in side] for side in (inference.inputs, inference.outputs)]
    return inference.request_id, inference.rows, *sides


@pytest.mark.parametrize(
    ("protocol", "of"),
    [
        (TFSERVING, V1),
        (TFSERVING, exchange({"inputs": {"a": [1], "b": [2]}}, {"outputs": [1]})),
        (TFSERVING, exchange({"instances": [{"datatype": "INT8", "b": 2}]}, {"predictions": [1]})),
        (OPEN_INFERENCE, V2),
        (OPEN_INFERENCE, exchange({"inputs": [TENSOR | {"name": "instances"}]}, {"outputs": [TENSOR]})),
    ],
    ids=["V1", "V1 in columns", "V1 with a feature named datatype", "V2", "V2 with a tensor named instances"],
)
def test_a_body_is_read_in_the_protocol_of_its_form(protocol: str, of: Exchange) -> None:
    assert said(CLOUDEVENTS, of) == said(protocol, of)


@pytest.mark.parametrize("of", [V1, V2], ids=["V1", "V2"])
def test_the_events_id_is_the_requests(of: Exchange) -> None:
    assert decode(CLOUDEVENTS, of).request_id == "a"


@pytest.mark.parametrize(
    "asked", [b"", b"{", b"[]", {"inputs": [TENSOR | {"shape": [3]}]}, {"inputs": [TENSOR | {"datatype": "?"}]}, {}]
)
def test_any_other_body_is_undecodable(asked: Any) -> None:
    with pytest.raises(Undecodable):
        decode(CLOUDEVENTS, exchange(asked, {"outputs": [TENSOR], "predictions": [1]}))
