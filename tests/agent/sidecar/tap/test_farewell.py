"""What an answer's head becomes when its client is told that the connection ends."""

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pegel_agent.sidecar.tap.farewell import with_farewell

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: 2\r\n"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (OK + LENGTH + b"\r\nok", OK + b"Connection: close\r\n" + LENGTH + b"\r\nok"),
        (OK + b"\r\n", OK + b"Connection: close\r\n\r\n"),
        (b"HTTP/1.1 204\r\n\r\n", b"HTTP/1.1 204\r\nConnection: close\r\n\r\n"),
        (b"HTTP/1.1 500 Oh no: \xe9\r\n\r\nx", b"HTTP/1.1 500 Oh no: \xe9\r\nConnection: close\r\n\r\nx"),
        (OK + LENGTH + b"connection:Keep-Alive \r\n\r\nok", OK + LENGTH + b"Connection: close\r\n\r\nok"),
        (OK + b"Connection: keep-alive\r\n" + LENGTH + b"\r\nok", OK + b"Connection: close\r\n" + LENGTH + b"\r\nok"),
        (OK + b"X: Connection: keep-alive\r\n\r\n", OK + b"Connection: close\r\nX: Connection: keep-alive\r\n\r\n"),
        (OK + b"Connection: close\r\n\r\n", OK + b"Connection: close\r\n\r\n"),
        (OK + b"\r\nConnection: keep-alive\r\n\r\n", OK + b"Connection: close\r\n\r\nConnection: keep-alive\r\n\r\n"),
    ],
)
def test_an_answer_says_once_that_it_is_the_last(answer: bytes, told: bytes) -> None:
    assert with_farewell(answer) == told


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK",
        OK + LENGTH + b"\r",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"\r\n" + OK + b"\r\n",
        OK + b"Connection: upgrade\r\n\r\n",
        OK + b"Connection: keep-alive, upgrade\r\n\r\n",
        OK + b"Connection: keep-alive\r\nConnection: X-Hop\r\n\r\n",
        OK + b"Connection : keep-alive\r\n\r\n",
        OK + b"X: a\r\n folded\r\n\r\n",
        OK + b"X: a\nConnection: keep-alive\r\n\r\n",
        OK + b"X: a\0\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        b"HTTP/1.1 200 OK\n\n",
        b"\x16\x03\x01\r\n\r\n",
    ],
)
def test_a_head_in_doubt_stays_as_it_is(answer: bytes) -> None:
    assert with_farewell(answer) is None


class _Read:
    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.strip()))

    def on_body(self, body: bytes) -> None:
        self.body += body


def _read(answer: bytes) -> _Read:
    read = _Read()
    httptools.HttpResponseParser(read).feed_data(answer)
    return read


NAMES = st.from_regex(rb"\AX-[A-Za-z0-9]{1,8}\Z") | st.sampled_from([b"Server", b"Date", b"Keep-Alive", b"Connection"])
VALUES = st.sampled_from([b"keep-alive", b"close", b"a, b", b"", b"x: y", b"timeout=5"])


@given(st.lists(st.tuples(NAMES, VALUES), max_size=5), st.binary(max_size=50))
def test_body_and_all_other_headers_are_untouched(headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    answer = OK + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body
    told = with_farewell(answer)
    if told is None:
        assert any(name.lower() == b"connection" for name, _ in headers)
        return
    before, after = _read(answer), _read(told)
    assert after.body == before.body == body
    assert [value for name, value in after.headers if name == b"connection"] == [b"close"]
    assert [header for header in after.headers if header[0] != b"connection"] == [
        header for header in before.headers if header[0] != b"connection"
    ]
