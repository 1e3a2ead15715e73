"""What KServe's payload logger tells of an exchange: its bodies, and not the path that would name their protocol."""

from pegel_agent.sidecar.protocols import oip, tfserving
from pegel_agent.sidecar.protocols.records import Exchange, Inference, Undecodable

_ONLY_OPEN_INFERENCE = b'"datatype"'
_ONLY_TFSERVING = b'"instances"'


def decode(exchange: Exchange) -> Inference:
    """The rows of one call, in V2 where its tensors name their `datatype`, else in V1. Raises Undecodable."""
    if _ONLY_OPEN_INFERENCE not in exchange.request:
        return tfserving.decode(exchange)
    try:
        return oip.decode(exchange)
    except Undecodable:
        # Either word may also be the name of a feature.
        if _ONLY_TFSERVING not in exchange.request:
            raise
    return tfserving.decode(exchange)
