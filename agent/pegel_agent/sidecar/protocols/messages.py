"""What the JSON protocols share: reading a body, refusing an error, finding the request's id."""

import json
import re
from itertools import islice
from typing import TypeVar

import msgspec

from pegel_agent.sidecar.protocols.records import Exchange, Undecodable

MAX_ID_CHARACTERS = 256

T = TypeVar("T")

_LARGE_EXPONENT = re.compile(rb"[eE][+-]?0*[1-9]\d")
_MAX_LARGE_EXPONENTS = 64


def is_costly(body: bytes) -> bool:
    """Whether many of a body's numbers have an exponent of 10 or more.

    Where such a number is near the ends of what float64 holds, or halfway between two of them, msgspec takes up to
    16 µs, hundreds of times what any other number does. json takes a quarter of one for each.
    """
    if body.count(b"e") + body.count(b"E") <= _MAX_LARGE_EXPONENTS:
        return False
    return next(islice(_LARGE_EXPONENT.finditer(body), _MAX_LARGE_EXPONENTS, None), None) is not None


def parse(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The body as the decoder's type. NaN and Infinity tokens are read; of a repeated key the last value counts.

    Raises Undecodable.
    """
    try:
        if not is_costly(body):
            return decoder.decode(body)
    except msgspec.ValidationError:
        raise Undecodable("not the protocol's JSON") from None
    except msgspec.DecodeError:
        if b"NaN" not in body and b"Infinity" not in body:
            raise Undecodable("malformed JSON") from None
    except (UnicodeDecodeError, RecursionError):
        raise Undecodable("malformed JSON") from None
    try:
        value = json.loads(body.decode())
        if b"\\u" in body:  # Python reads half a surrogate pair, which no metric could be written with
            msgspec.json.encode(value)
        return msgspec.convert(value, decoder.type)
    except (ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        raise Undecodable("malformed JSON") from None


def require_success(exchange: Exchange) -> None:
    """Raises Undecodable unless the status is 2xx: rows that a model refused are not its data."""
    if not 200 <= exchange.status < 300:
        raise Undecodable("status")


def request_id(exchange: Exchange, asked_id: object, answered_id: object) -> str | None:
    """The first usable id: in the bodies, then Ce-Id, then X-Request-Id; the request's before the answer's.

    Only a request's Ce-Id comes before the id in the answer's body, which servers make up where there was none in the
    request's. An id above MAX_ID_CHARACTERS is not used: ids are kept until their labels come.
    """
    asked, answered = exchange.request_headers, exchange.response_headers
    for candidate in (
        asked_id,
        asked.get("ce-id"),
        answered_id,
        answered.get("ce-id"),
        asked.get("x-request-id"),
        answered.get("x-request-id"),
    ):
        if isinstance(candidate, str) and 0 < len(candidate) <= MAX_ID_CHARACTERS:
            return candidate
    return None


def client_id(exchange: Exchange) -> str | None:
    """The X-Request-Id that the client sent, where usable: a name it knows the request by, also where a server made up
    another one in its answer."""
    sent = exchange.request_headers.get("x-request-id", "")
    return sent if 0 < len(sent) <= MAX_ID_CHARACTERS else None
