"""What passes from the forwarder to the analyser, and back, over one stream socket.

An exchange is one frame: this header, the request's bytes, the answer's bytes. Back come acknowledgements: how many
exchanges were analysed and how many could not be decoded since the last one. What an operator asks of the analyser is
relayed over a second socket, with the forwarder's own counts in a header.
"""

import struct

import msgspec

EXCHANGE_SOCKET = "exchanges.sock"
HTTP_SOCKET = "analyser.sock"

HEADER = struct.Struct("<IIBxHdd")
"""Bytes of the request, bytes of the answer, protocol (its place in paths.PROTOCOLS), status, Unix time at which the
request began, seconds it took."""

ACKNOWLEDGEMENT = struct.Struct("<II")
"""Exchanges analysed and exchanges that could not be decoded since the last acknowledgement."""

ACKNOWLEDGE_EVERY_SECONDS = 0.25

PROFILE_PATH = "/v1/profile"
TAP_STATE_HEADER = "pegel-tap"
"""The header that carries a TapState as JSON."""


class TapState(msgspec.Struct, frozen=True):
    """The forwarder's exact counts. Durations are in seconds; None without requests.

    `refused` counts connections for which the model at `upstream` could not be reached; they are errors too.
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
