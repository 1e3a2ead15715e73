"""Bytes to Inference records: one file for each serving protocol, one function each."""

from pegel_agent.sidecar import paths
from pegel_agent.sidecar.protocols import cloudevents, oip, tfserving
from pegel_agent.sidecar.protocols.http import read_exchange
from pegel_agent.sidecar.protocols.records import Block, Exchange, Inference, Undecodable

__all__ = ["Block", "Exchange", "Inference", "Undecodable", "decode", "read_exchange"]

_DECODERS = {
    paths.TFSERVING: tfserving.decode,
    paths.OPEN_INFERENCE: oip.decode,
    paths.CLOUDEVENTS: cloudevents.decode,
}


def decode(protocol: str, exchange: Exchange) -> Inference:
    """The rows of an exchange in one of paths.PROTOCOLS. Raises Undecodable."""
    decoder = _DECODERS.get(protocol)
    if decoder is None:
        raise Undecodable("protocol")
    return decoder(exchange)
