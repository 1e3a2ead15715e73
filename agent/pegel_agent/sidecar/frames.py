"""What passes from the forwarder to the analyser, and back, over one stream socket.

An exchange is one frame: this header, whose it may be, the request's bytes, the answer's bytes. Back come
acknowledgements: what became of each exchange since the last one, in their order, and under which name the model is
served, once that is known. What an operator asks of the analyser is relayed over a second socket, with the forwarder's
own counts in a header.
"""

import struct

import msgspec

from pegel_agent.sidecar.blindness import DECODING

EXCHANGE_SOCKET = "exchanges.sock"
HTTP_SOCKET = "analyser.sock"

HEADER = struct.Struct("<IIBBHdd")
"""Bytes of the request, bytes of the answer, protocol (its place in paths.PROTOCOLS), bytes of the name, status, Unix
time at which the request began, seconds it took. The name is empty where the exchange is the model's for certain, else
it is the one under which the model is served if this exchange is of it."""
MAX_NAME_BYTES = 255

ACKNOWLEDGEMENT = struct.Struct("<IB")
"""How many outcomes follow, a byte for each exchange, and then how many bytes of the name under which the model is
served; 0 when it is not known, or was told before."""
ANALYSED, OTHER_MODEL = range(2)
UNDECODABLE = {reason: code for code, reason in enumerate(DECODING, 2)}
"""What became of an exchange: by one of blindness.DECODING where it could not be decoded."""
REASONS = {code: reason for reason, code in UNDECODABLE.items()}

ACKNOWLEDGE_EVERY_SECONDS = 0.25

PROFILE_PATH = "/v1/profile"
TAP_STATE_HEADER = "pegel-tap"
"""The header that carries a TapState as JSON."""


class TapState(msgspec.Struct, frozen=True):
    """The forwarder's exact counts. Durations are in seconds; None without requests.

    `refused` counts connections for which the model at `upstream` could not be reached; they are errors too.
    `served` are the names that the model's own requests have: those that were given, or the one that was found
    (`served_found`). Requests for other models are counted in `other_model_requests` and nowhere else.
    """

    requests: int = 0
    requests_per_second: float = 0.0
    errors: int = 0
    in_flight: int = 0
    connections: int = 0
    analysed: int = 0
    shed: int = 0
    undecodable: int = 0
    analyser_restarts: int = 0
    p50_seconds: float | None = None
    p95_seconds: float | None = None
    p99_seconds: float | None = None
    refused: int = 0
    refused_last_minute: int = 0
    upstream: str = ""
    served: tuple[str, ...] = ()
    served_found: bool = False
    other_model_requests: int = 0
    unfollowed: dict[str, int] = {}
    """Connections that could be followed no longer, by reason."""
    undecodable_reasons: dict[str, int] = {}
    unwatched_seconds: int = 0
