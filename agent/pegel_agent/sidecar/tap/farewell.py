"""Tells a client that its connection ends: `Connection: close` in the head of an HTTP/1.1 answer.

Nothing else in the tap changes a byte. Where anything about the head is in doubt it stays as it is.
"""

import re

_END = b"\r\n\r\n"
_START = re.compile(rb"HTTP/1\.1 [2-5][0-9]{2}(?: [^\r\n\0]*)?\r\n")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*)")
_CLOSE = b"Connection: close"


def with_farewell(data: bytes) -> bytes | None:
    """The bytes that begin an answer, with `Connection: close`. They may say so already; None when they stay as they
    are and say nothing of the kind.

    >>> with_farewell(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
    b'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: 0\\r\\n\\r\\n'
    """
    start = _START.match(data)
    end = data.find(_END)
    if start is None or end < 0:
        return None
    lines = data[start.end() : end].split(b"\r\n") if end > start.end() else []
    said = []
    for number, line in enumerate(lines):
        field = _FIELD.fullmatch(line)
        if field is None:  # folded, or nothing that HTTP knows
            return None
        if field[1].lower() == b"connection":
            said.append((number, field[2].strip().lower()))
    if not said:
        return data[: start.end()] + _CLOSE + b"\r\n" + data[start.end() :]
    if said == [(said[0][0], b"close")]:
        return data
    if said == [(said[0][0], b"keep-alive")]:
        lines[said[0][0]] = _CLOSE
        return data[: start.end()] + b"\r\n".join(lines) + data[end:]
    return None
