"""What a connection's end needs to know of HTTP/2: which streams are open, and where a frame may be put in between.

Frames are only walked, nothing in them is read (RFC 9113, section 4).
"""

from collections.abc import Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GOAWAY = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x7f\xff\xff\xff\x00\x00\x00\x00"
"""No new streams, please; those that are open will be answered."""
MAX_OPEN = 10_000
_HEAD_BYTES = 9
_DATA, _HEADERS, _RST_STREAM, _PUSH_PROMISE, _CONTINUATION = 0, 1, 3, 5, 9
_END_STREAM, _END_HEADERS = 1, 4
_STREAM = 0x7FFF_FFFF


class _Frames:
    """One direction's frames. `skip`: how many bytes come before the first."""

    __slots__ = ("_head", "_in_headers", "_skip", "seen")

    def __init__(self, skip: int = 0) -> None:
        self._skip = skip
        self._head = b""
        self._in_headers = False
        self.seen = False

    @property
    def between(self) -> bool:
        """Whether the last byte ended a frame after which another may come, of whatever kind and stream."""
        return self.seen and not self._skip and not self._head and not self._in_headers

    def walk(self, data: bytes) -> Iterator[tuple[int, int, int]]:
        """Type, flags and stream of each frame that begins in these bytes."""
        at, size = 0, len(data)
        while at < size:
            if self._skip:
                step = min(self._skip, size - at)
                self._skip -= step
                at += step
                continue
            step = min(_HEAD_BYTES - len(self._head), size - at)
            self._head += data[at : at + step]
            at += step
            if len(self._head) == _HEAD_BYTES:
                head, self._head = self._head, b""
                self._skip = int.from_bytes(head[:3], "big")
                self.seen = True
                kind, flags = head[3], head[4]
                if kind in (_HEADERS, _PUSH_PROMISE, _CONTINUATION):
                    self._in_headers = not flags & _END_HEADERS
                yield kind, flags, int.from_bytes(head[5:], "big") & _STREAM


class Streams:
    """The streams of one connection, from its first byte on."""

    __slots__ = ("_client", "_last", "_model", "_open")

    def __init__(self) -> None:
        self._client = _Frames(len(PREFACE))
        self._model = _Frames()
        self._open: set[int] = set()
        self._last = 0

    @property
    def idle(self) -> bool:
        """Whether nothing that was asked is unanswered."""
        return not self._open

    @property
    def between_answers(self) -> bool:
        """Whether a frame of ours may follow the model's last byte."""
        return self._model.between

    def from_client(self, data: bytes) -> None:
        """Bytes from the client."""
        for kind, _, stream in self._client.walk(data):
            if kind == _HEADERS and stream > self._last and len(self._open) < MAX_OPEN:
                self._last = stream
                self._open.add(stream)
            elif kind == _RST_STREAM:
                self._open.discard(stream)

    def from_model(self, data: bytes) -> None:
        """Bytes from the model."""
        for kind, flags, stream in self._model.walk(data):
            if kind == _RST_STREAM or (kind in (_DATA, _HEADERS) and flags & _END_STREAM):
                self._open.discard(stream)
