"""Bytes from the wire become the two bodies that were sent, whatever the framing, or are refused."""

import contextlib
import gzip
import tracemalloc
import zlib

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pegel_agent.sidecar.protocols import Exchange, Undecodable, read_exchange
from pegel_agent.sidecar.protocols.http import _headers

TARGET = b"/v1/models/m:predict"
REQUEST = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: m\r\nContent-Length: 3\r\n\r\nask"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer"


def read(request: bytes = REQUEST, response: bytes = RESPONSE, limit: int = 1000) -> Exchange:
    return read_exchange(request, response, max_body_bytes=limit)


def framed(start: bytes, body: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([start, *headers, b"Content-Length: %d" % len(body), b"", body])


def chunked(start: bytes, chunks: list[bytes], *headers: bytes) -> bytes:
    parts = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])
    return b"\r\n".join([start, *headers, b"Transfer-Encoding: chunked", b"", parts])


POST = b"POST " + TARGET + b" HTTP/1.1"
OK = b"HTTP/1.1 200 OK"


def test_an_exchange_gives_its_bodies_target_and_status() -> None:
    exchange = read()
    assert exchange == Exchange("/v1/models/m:predict", {}, b"ask", 200, {}, b"answer")


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1), st.lists(st.binary(min_size=1, max_size=50)))
def test_chunks_are_joined(asked: list[bytes], answered: list[bytes]) -> None:
    exchange = read(chunked(POST, asked), chunked(OK, answered), limit=100_000)
    assert (exchange.request, exchange.response) == (b"".join(asked), b"".join(answered))


@given(st.binary(max_size=500), st.binary(max_size=500))
def test_any_framing_and_coding_of_the_same_bodies_gives_the_same_exchange(asked: bytes, answered: bytes) -> None:
    plain = read(framed(POST, asked), framed(OK, answered))
    assert (plain.request, plain.response) == (asked, answered)
    raw = zlib.compressobj(wbits=-15)
    bare = raw.compress(answered) + raw.flush()
    for request, response in [
        (chunked(POST, [asked] if asked else []), chunked(OK, [answered] if answered else [])),
        (framed(POST, gzip.compress(asked), b"content-encoding: GZIP"), framed(OK, bare, b"Content-Encoding: deflate")),
        (framed(POST, asked), framed(OK, zlib.compress(answered), b"Content-Encoding: deflate")),
        (framed(POST, asked), OK + b"\r\nConnection: close\r\n\r\n" + answered),
    ]:
        exchange = read(request, response)
        assert (exchange.request, exchange.response) == (asked, answered)


def test_only_the_headers_that_a_protocol_asks_for_are_kept() -> None:
    request = framed(POST, b"{}", b"Authorization: Bearer secret", b"CE-Id: \t7 ", b"X-Request-ID:")
    assert read(request).request_headers == {"ce-id": "7", "x-request-id": ""}


def test_a_header_in_the_body_is_not_a_header() -> None:
    assert read(framed(POST, b"{\r\nce-id: 7\r\n\r\n}")).request_headers == {}


def test_interim_answers_come_before_the_answer() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nCe-Id: no\r\nLink: </a>\r\n\r\n"
    request = framed(POST, b"ask", b"Expect: 100-continue")
    exchange = read(request, b"HTTP/1.1 100 Continue\r\n\r\n" + hints + RESPONSE)
    assert (exchange.status, exchange.response, exchange.response_headers) == (200, b"answer", {})


def test_an_offer_of_http_2_that_was_not_taken_up_is_an_ordinary_request() -> None:
    offer = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAA")
    assert read(framed(POST, b"ask", *offer)).request == b"ask"
    with pytest.raises(Undecodable, match="upgrade"):
        read(framed(POST, b"ask", *offer)[:-1])


REFUSED = {
    "a request that is cut short": (REQUEST[:-1], RESPONSE),
    "an answer that is cut short": (REQUEST, RESPONSE[:-1]),
    "chunks without their end": (REQUEST, chunked(OK, [b"answer"])[:-5]),
    "a head without its end": (REQUEST, b"HTTP/1.1 200 OK\r\nDate: today\r\n"),
    "an interim answer alone": (REQUEST, b"HTTP/1.1 100 Continue\r\n\r\n"),
    "two requests": (REQUEST + REQUEST, RESPONSE),
    "two answers": (REQUEST, RESPONSE + RESPONSE),
    "the start of another answer": (REQUEST, RESPONSE + b"H"),
    "an upgrade": (REQUEST, b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nbytes"),
    "an answer that is not HTTP": (REQUEST, b"ICY 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "no bytes": (b"", b""),
    "a length and chunks": (REQUEST, chunked(OK, [b"answer"], b"Content-Length: 6")),
    "another transfer coding": (REQUEST, OK + b"\r\nTransfer-Encoding: gzip\r\n\r\nanswer"),
    "another content coding": (framed(POST, b"ask", b"Content-Encoding: br"), RESPONSE),
    "two content codings": (framed(POST, b"ask", b"Content-Encoding: gzip, gzip"), RESPONSE),
    "gzip that is none": (framed(POST, b"ask", b"Content-Encoding: gzip"), RESPONSE),
    "gzip that is cut short": (framed(POST, gzip.compress(b"ask")[:-1], b"Content-Encoding: gzip"), RESPONSE),
    "gzip with more after it": (framed(POST, gzip.compress(b"ask") + b"!", b"Content-Encoding: gzip"), RESPONSE),
    "a header folded over two lines": (framed(POST, b"ask", b"Ce-Id: 1\r\n 2"), RESPONSE),
    "bare line feeds": (REQUEST.replace(b"\r\n", b"\n"), RESPONSE),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused(what: str) -> None:
    with pytest.raises(Undecodable):
        read(*REFUSED[what])


def test_a_small_body_becomes_no_hundreds_of_times_larger() -> None:
    def sent(size: int) -> bytes:
        return framed(POST, gzip.compress(bytes(size)), b"Content-Encoding: gzip")

    assert len(read(sent(256 << 10), limit=1 << 20).request) == 256 << 10
    with pytest.raises(Undecodable, match="body too large"):
        read(sent(1 << 20), limit=1 << 20)


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_a_body_may_be_as_large_as_the_limit_and_no_larger(coding: str) -> None:
    def asked(size: int) -> bytes:
        body = bytes(size)
        return framed(POST, gzip.compress(body) if coding == "gzip" else body, f"Content-Encoding: {coding}".encode())

    assert read(asked(1000)).request == bytes(1000)
    with pytest.raises(Undecodable, match="body too large"):
        read(asked(1001))


def test_a_compression_bomb_is_not_unpacked() -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    tracemalloc.start()
    try:
        with pytest.raises(Undecodable, match="body too large"):
            read(framed(POST, bomb, b"Content-Encoding: gzip"), limit=len(bomb))
        assert tracemalloc.get_traced_memory()[1] < 8 * len(bomb)
    finally:
        tracemalloc.stop()


class Listener:
    """All headers as httptools reports them, names in lower case; the first of a name counts."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.setdefault(name.decode().lower(), value.strip(b" \t").decode("latin-1"))


names = st.one_of(
    st.sampled_from(
        ["Ce-Id", "ce-id", "X-Request-Id", "Content-Encoding", "Inference-Header-Content-Length", "XCe-Id"]
    ),
    st.from_regex(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}", fullmatch=True),
)
values = st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=20)
heads = st.lists(
    st.tuples(names, st.sampled_from([":", ": ", ":\t", " :", ""]), values, st.sampled_from(["\r\n", "\n"]))
)


@given(heads, st.binary(max_size=30))
def test_headers_are_those_that_the_parser_reports(lines: list[tuple[str, str, str, str]], body: bytes) -> None:
    head = "".join("".join(line) for line in lines).encode("latin-1")
    message = POST + b"\r\n" + head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    listener = Listener()
    try:
        httptools.HttpRequestParser(listener).feed_data(message)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return
    kept = _headers(message)
    assert kept == {name: value for name, value in listener.headers.items() if name in kept}
    assert {"ce-id", "x-request-id", "content-encoding"} & listener.headers.keys() <= kept.keys()


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_refused(request_bytes: bytes, response_bytes: bytes) -> None:
    for request in (request_bytes, REQUEST):
        for response in (response_bytes, RESPONSE + response_bytes, OK + b"\r\n" + response_bytes):
            with contextlib.suppress(Undecodable):
                read(request, response)


@given(st.data())
def test_a_damaged_exchange_is_read_or_refused(data: st.DataObject) -> None:
    request = framed(POST, gzip.compress(b"ask"), b"Content-Encoding: gzip", b"Ce-Id: 1")
    response = chunked(OK, [b"an", b"swer"])
    for message in (request, response):
        at = data.draw(st.integers(0, len(message)))
        cut = data.draw(st.integers(0, 20))
        damaged = message[:at] + data.draw(st.binary(max_size=4)) + message[at + cut :]
        with contextlib.suppress(Undecodable):
            read(damaged if message is request else request, damaged if message is response else response)
