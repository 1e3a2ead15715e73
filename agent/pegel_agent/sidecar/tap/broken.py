"""Whether a connection whose framing broke may be followed again.

A request that could not be read is answered all the same, and an answer that could not be read ends some time. Only
when both are over for certain, and the client then begins a request, is it known again which bytes are whose. Where
there is doubt the connection is never followed again.
"""

import re

_QUIET_SECONDS = 0.5
"""An answer whose end its header doesn't tell is over when nothing more has come for so long."""
_MAX_HEAD_BYTES = 8 << 10
_REQUEST_LINE = re.compile(
    rb"(?:\r\n)*(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|TRACE) [^\x00-\x20\x7f]+ HTTP/1\.[01]\r\n"
)
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r\n]")
_HEAD_ENDS = re.compile(rb"\n\r?\n")
_FRAMING = re.compile(rb"\n((?:content-length|transfer-encoding)[^\r\n]*)", re.IGNORECASE)
_UNSAID = re.compile(rb"\n[ \t]|\n(?:content-length|transfer-encoding)[^:]|\r[^\n]|\0", re.IGNORECASE)
"""What not everybody reads alike: folded lines, a space before the colon, a CR alone, NUL."""
_LAST_CHUNK = b"\n0\r\n\r\n"
_HEAD, _LENGTH, _CHUNKS, _UNSURE, _NEVER = range(5)


class _Message:
    """Finds the end of a message from its first bytes on, as far as its header tells."""

    __slots__ = ("_left", "_tail", "end", "head")

    def __init__(self) -> None:
        self.head = b""
        self.end = _HEAD
        """Where it is: after the header, which is not complete, so many bytes, the last chunk, who knows, or the
        connection's."""
        self._left = 0
        self._tail = b""

    def goes_on(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-len(_LAST_CHUNK) :]
        if self.end == _LENGTH:
            self._left -= len(data)
        elif self.end == _HEAD:
            self.head += data
            if len(self.head) > _MAX_HEAD_BYTES and not _HEAD_ENDS.search(self.head[:_MAX_HEAD_BYTES]):
                self.ends(_NEVER)

    @property
    def header(self) -> bytes:
        """The header with its end; empty while it is not complete."""
        end = _HEAD_ENDS.search(self.head)
        return self.head[: end.end()] if end else b""

    def ends(self, how: int, length: int = 0) -> None:
        """The header is complete and says so."""
        self._left = length - (len(self.head) - len(self.header))
        self.end = how
        self.head = b""

    @property
    def is_over(self) -> bool:
        return self._left == 0 if self.end == _LENGTH else self.end == _CHUNKS and self._tail == _LAST_CHUNK


class BrokenExchange:
    """The only request under way, by this method, and its answer, of which one could not be read.

    >>> broken = BrokenExchange(b"POST")
    >>> broken.answers(b"HTTP/1.1 200 OK\\r\\nX[a]: 1\\r\\nContent-Length: 2\\r\\n\\r\\n{", 1.0)
    >>> broken.is_over(1.1)
    False
    >>> broken.answers(b"}", 1.2)
    >>> broken.is_over(1.2)
    True
    """

    __slots__ = ("_answer", "_heard", "_method", "_request")

    def __init__(self, method: bytes, request: bytes | None = None, *, answer_is_known: bool = True) -> None:
        """`request` are its bytes so far, None where it is complete; the answer's are known from the first one on."""
        self._method = method
        self._heard = 0.0
        self._answer = _Message()
        if not answer_is_known:
            self._answer.end = _UNSURE
        self._request: _Message | None = None
        if request is not None:
            self._request = _Message()
            self.asks(request)

    def asks(self, data: bytes) -> None:
        """More bytes of the client's: the request goes on, or is another one's beginning, and then all is in doubt."""
        request = self._request
        if request is None or request.is_over or self._answer.end != _HEAD:
            self._answer.end = _NEVER
            return
        request.goes_on(data)
        if request.end == _HEAD and (header := request.header):
            request.ends(*_framing(header) or (_LENGTH, 0))

    def answers(self, data: bytes, now: float) -> None:
        """More bytes of the model's."""
        self._heard = now
        answer = self._answer
        answer.goes_on(data)
        while answer.end == _HEAD and (header := answer.header):
            line = _STATUS_LINE.match(header)
            status = int(line[1]) if line else 0
            if 100 <= status < 200 and status != 101:  # an interim answer
                answer.head = answer.head[len(header) :]
            elif status < 200 or self._method == b"CONNECT":
                answer.ends(_NEVER)
            elif self._method == b"HEAD" or status in (204, 304):
                answer.ends(_LENGTH, 0)
            else:
                answer.ends(*_framing(header) or (_NEVER, 0))

    def is_over(self, now: float) -> bool:
        """Whether both are complete; or the model says no more, where its header doesn't tell how much it says."""
        if self._request is not None and not self._request.is_over:
            return False
        answer = self._answer
        return answer.is_over or (answer.end == _UNSURE and now - self._heard >= _QUIET_SECONDS)


def begins_a_request(data: bytes) -> bool:
    """Whether bytes begin with the whole first line of a request that HTTP knows."""
    return _REQUEST_LINE.match(data) is not None


def _framing(header: bytes) -> tuple[int, int] | None:
    """How a message ends by its header, and its length where it has one; None where the header says nothing of it."""
    said = {b"".join(field.lower().split()) for field in _FRAMING.findall(header)}
    if not said:
        return None
    name, _, value = said.pop().partition(b":")
    if said or _UNSAID.search(header):
        return _UNSURE, 0
    if name == b"content-length" and value.isdigit() and len(value) < 19:
        return _LENGTH, int(value)
    return (_CHUNKS if (name, value) == (b"transfer-encoding", b"chunked") else _UNSURE), 0
