"""The bytes of one HTTP/1.1 request and its answer, as they went over the wire, to their bodies.

llhttp (through httptools) checks the grammar and takes the transfer coding off. It is not asked for the headers: a
call into Python for each costs more than the parsing, and in a head whose grammar was checked the few that are needed
can simply be searched for.
"""

import re

import httptools

from pegel_agent.sidecar.compression import CannotInflateError, inflate
from pegel_agent.sidecar.protocols.records import Exchange, Undecodable

_KEPT = re.compile(rb"\r\n(content-encoding|transfer-encoding|inference-header-content-length|ce-id|x-request-id):")
_HEAD_END = b"\r\n\r\n"


def read_exchange(request: bytes, response: bytes, *, max_body_bytes: int) -> Exchange:
    """Read exactly one request and its answer, which may come after interim (1xx) answers.

    Bodies are freed of chunks and of gzip or deflate. Of the headers only those are kept that a protocol asks for;
    where one is repeated the first counts. Raises Undecodable when either message is malformed, cut short or followed
    by more, has another coding, or has a body above `max_body_bytes` (before or after decompression, which stops
    there).
    """
    asked = _Message()
    request = request.lstrip(b"\r\n")
    try:
        httptools.HttpRequestParser(asked).feed_data(request)
    except httptools.HttpParserUpgrade as upgrade:
        # Some clients offer HTTP/2 on every request; the answer shows that the offer was not taken up.
        asked.body = [request[upgrade.args[0] :]]
        if _declared_length(request) != len(asked.body[0]):
            raise Undecodable("upgrade") from None
    except httptools.HttpParserError:
        raise Undecodable("malformed request") from None
    if asked.ended != 1 or asked.begun != 1:
        raise Undecodable("not one whole request")
    request_headers = _headers(request)

    answered = _Message()
    response = _without_interim(response)
    parser = httptools.HttpResponseParser(answered)
    try:
        parser.feed_data(response)
    except httptools.HttpParserUpgrade:
        raise Undecodable("upgrade") from None
    except httptools.HttpParserError:
        raise Undecodable("malformed response") from None
    response_headers = _headers(response)
    if answered.begun != 1 or not (answered.ended == 1 or _ends_by_close(response, response_headers)):
        raise Undecodable("not one whole response")

    return Exchange(
        target=asked.target.decode("latin-1"),
        request_headers=request_headers,
        request=_body(asked.body, request_headers, max_body_bytes),
        status=parser.get_status_code(),
        response_headers=response_headers,
        response=_body(answered.body, response_headers, max_body_bytes),
    )


class _Message:
    """What the parser calls for one message."""

    def __init__(self) -> None:
        self.target = b""
        self.body: list[bytes] = []
        self.begun = 0
        self.ended = 0

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        self.ended += 1


def _headers(message: bytes) -> dict[str, str]:
    """The kept headers of a message whose grammar the parser has accepted."""
    head = message[: message.find(_HEAD_END) + 2]
    headers: dict[str, str] = {}
    for match in _KEPT.finditer(head.lower()):
        start = match.end()
        value = head[start : head.find(b"\r\n", start)].strip(b" \t").decode("latin-1")
        headers.setdefault(match[1].decode(), value)
    return headers


def _declared_length(message: bytes) -> int | None:
    head = message[: message.find(_HEAD_END) + 2].lower()
    _, found, rest = head.partition(b"\r\ncontent-length:")
    digits = rest.partition(b"\r\n")[0].strip(b" \t")
    return int(digits) if found and len(digits) < 20 and digits.isdigit() else None


def _without_interim(response: bytes) -> bytes:
    while response.startswith((b"HTTP/1.1 100", b"HTTP/1.1 102", b"HTTP/1.1 103")):
        end = response.find(_HEAD_END)
        if end < 0:
            raise Undecodable("not one whole response")
        response = response[end + len(_HEAD_END) :]
    return response


def _ends_by_close(response: bytes, headers: dict[str, str]) -> bool:
    return _HEAD_END in response and "transfer-encoding" not in headers and _declared_length(response) is None


def _body(parts: list[bytes], headers: dict[str, str], max_body_bytes: int) -> bytes:
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    if len(body) > max_body_bytes:
        raise Undecodable("body too large")
    if headers.get("transfer-encoding", "chunked").lower() != "chunked":
        raise Undecodable("transfer coding")
    coding = headers.get("content-encoding", "identity").lower()
    if coding == "identity":
        return body
    try:
        return inflate(body, coding, max_body_bytes)
    except CannotInflateError as reason:
        raise Undecodable(str(reason)) from None
