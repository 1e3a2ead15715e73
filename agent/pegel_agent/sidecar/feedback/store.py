"""Predictions kept for their labels, and rows with a label for its correction, in a fixed number of bytes.

Records of 45 bytes lie in a ring in the order in which they came; a table of slots finds one by its key. A million
objects of Python's would take ten times as much.
"""

from array import array
from collections.abc import Callable
from struct import Struct
from typing import NamedTuple

STORE_BYTES = 16 << 20
LABELLED, ALIAS, REUSED, AT_ONCE = 4, 8, 16, 32
_TEXTS = 3
"""Flags of a record: the first two say that the prediction, or the label, is the hash of a text."""

_RECORDS = tuple(Struct(f"<Bqd{prediction}f{label}d") for label in "dq" for prediction in "dq")
"""Flags, key, place, prediction, score, label, label's time; by whether prediction and label are numbers or hashes."""
_RECORD_BYTES = _RECORDS[0].size
_KEY = Struct("<q")
_KEY_AT = 1
_CHUNK_RECORDS = 1_024
_SLOT_BITS = 24
_SLOT_MASK = (1 << _SLOT_BITS) - 1
_KEY_BITS = (1 << 64 - _SLOT_BITS) - 1
"""An entry of the index is the lower part of a key, and where its record is; 0 is none."""
_ENTRY_BYTES = array("Q").itemsize

Plain = float | int
"""A prediction or label in a normal form: a number as float, a text as its hash, which is an int."""


class Kept(NamedTuple):
    """A prediction. `place` is the Unix time at which it was made; of a row that was judged at once (AT_ONCE) it says
    where it is counted. `score` is NaN where there is none. With LABELLED, `label` and its time `ts` hold. An ALIAS has
    the key of another record in place of a prediction."""

    flags: int
    key: int
    place: float
    prediction: Plain
    score: float
    label: Plain = 0.0
    ts: float = 0.0


class Predictions:
    """The latest predictions by key. `forget` is told of each that makes room for a new one."""

    def __init__(self, size_bytes: int, forget: Callable[[Kept], None]) -> None:
        entries = 1 << max(4, (size_bytes // 4 // _ENTRY_BYTES).bit_length() - 1)
        self._index = array("Q", bytes(entries * _ENTRY_BYTES))
        self._mask = entries - 1
        self.capacity = min((size_bytes - entries * _ENTRY_BYTES) // _RECORD_BYTES, entries * 3 // 4)
        self._chunks: list[bytearray] = []
        self._began: dict[int, float] = {}
        """When the first record of a chunk came."""
        self._forget = forget
        self._next = 0
        self.count = 0

    def get(self, key: int) -> Kept | None:
        """The prediction with this key."""
        at = self._find(key)
        entry = self._index[at]
        return self._read((entry & _SLOT_MASK) - 1) if entry else None

    def put(self, kept: Kept, now: float) -> None:
        """Keep a prediction, in the place of the one with its key if there is one; else the oldest makes room."""
        at = self._find(kept.key)
        if entry := self._index[at]:
            self._write((entry & _SLOT_MASK) - 1, kept)
            return
        if self.count == self.capacity:
            oldest = self._read(self._next)
            self._remove(oldest.key)
            self._forget(oldest)
            at = self._find(kept.key)
        else:
            self.count += 1
        self._index[at] = (kept.key & _KEY_BITS) << _SLOT_BITS | self._next + 1
        self._write(self._next, kept)
        if self._next % _CHUNK_RECORDS == 0:
            self._began[self._next // _CHUNK_RECORDS] = now
        self._next = (self._next + 1) % self.capacity

    @property
    def oldest(self) -> float | None:
        """When about the one came that makes room next; None without any."""
        chunk = -(-self._next // _CHUNK_RECORDS) if self.count == self.capacity else 0
        return self._began.get(chunk, self._began.get(0))

    @property
    def size_bytes(self) -> int:
        """What it takes in memory by now."""
        return len(self._index) * _ENTRY_BYTES + sum(map(len, self._chunks))

    def _find(self, key: int) -> int:
        """Where the key stands in the index, or where it would."""
        index, mask, wanted = self._index, self._mask, key & _KEY_BITS
        at = key & mask
        while entry := index[at]:
            if entry >> _SLOT_BITS == wanted and self._key((entry & _SLOT_MASK) - 1) == key:
                break
            at = (at + 1) & mask
        return at

    def _remove(self, key: int) -> None:
        """Take a key out of the index; those behind it move up, so that they are still found."""
        index, mask = self._index, self._mask
        free = at = self._find(key)
        while entry := index[at := (at + 1) & mask]:
            if (at - (entry >> _SLOT_BITS)) & mask >= (at - free) & mask:
                index[free] = entry
                free = at
        index[free] = 0

    def _key(self, slot: int) -> int:
        chunk, place = divmod(slot, _CHUNK_RECORDS)
        key: int = _KEY.unpack_from(self._chunks[chunk], place * _RECORD_BYTES + _KEY_AT)[0]
        return key

    def _read(self, slot: int) -> Kept:
        chunk, place = divmod(slot, _CHUNK_RECORDS)
        buffer, offset = self._chunks[chunk], place * _RECORD_BYTES
        flags, *rest = _RECORDS[buffer[offset] & _TEXTS].unpack_from(buffer, offset)
        return Kept(flags & ~_TEXTS, *rest)

    def _write(self, slot: int, kept: Kept) -> None:
        chunk, place = divmod(slot, _CHUNK_RECORDS)
        if chunk == len(self._chunks):  # memory that no prediction needs is not taken
            records = min(_CHUNK_RECORDS, self.capacity - slot)
            self._chunks.append(bytearray(records * _RECORD_BYTES))
        texts = isinstance(kept.prediction, int) | isinstance(kept.label, int) << 1
        _RECORDS[texts].pack_into(self._chunks[chunk], place * _RECORD_BYTES, kept.flags | texts, *kept[1:])
