"""Bodies freed of gzip or deflate, within bounds."""

import zlib

GZIP = frozenset({"gzip", "x-gzip"})
DEFLATE = "deflate"
_MAX_RATIO = 200
_ALWAYS_BYTES = 256 << 10
"""However small the body is, it may become as large as that."""


class CannotInflateError(Exception):
    """The body is not what its coding says, or becomes too large; the message holds nothing of it."""


class TooLargeError(CannotInflateError):
    """There is more in it than is wanted."""


def inflate(body: bytes, coding: str, max_bytes: int) -> bytes:
    """A body without its content coding, of `max_bytes` at most, nor of more than 256 KiB and 200 times what it was.

    Decompression stops there. Raises CannotInflateError.
    """
    if coding in GZIP:
        window = 16 + zlib.MAX_WBITS
    elif coding == DEFLATE:
        # The standard means zlib's format; some senders mean the bare one. Zlib's first two bytes are a multiple of 31.
        is_zlib = len(body) > 1 and body[0] & 15 == 8 and int.from_bytes(body[:2]) % 31 == 0
        window = zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS
    else:
        raise CannotInflateError("content coding")
    most = min(max_bytes, max(_ALWAYS_BYTES, _MAX_RATIO * len(body)))
    decompressor = zlib.decompressobj(window)
    try:
        # One byte more than allowed tells a body that is too large from one that just fits.
        plain = decompressor.decompress(body, most + 1)
    except zlib.error:
        raise CannotInflateError("malformed compression") from None
    if len(plain) > most:
        raise TooLargeError("body too large")
    if not decompressor.eof or decompressor.unused_data:
        raise CannotInflateError("malformed compression")
    return plain
