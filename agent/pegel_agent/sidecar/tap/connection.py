"""Bytes between one client and the model, untouched and in both directions, with what happens to a connection:
half close, reset, back pressure, a peer that is gone without a word, the end of the tap itself. Nothing that goes wrong
while following the exchanges reaches the traffic.
"""

import asyncio
import contextlib
import errno
import fcntl
import logging
import math
import os
import socket
import struct
import termios
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import cast

from pegel_exporters.keepalive import KEEPALIVE, Keepalive
from pegel_exporters.seldom import Seldom
from pegel_exporters.serving import Address

from pegel_agent.sidecar.tap import http2
from pegel_agent.sidecar.tap.farewell import with_farewell
from pegel_agent.sidecar.tap.peers import PATIENCE, Hangups, Patience
from pegel_agent.sidecar.tap.turns import Copying, Observer, Turns

log = logging.getLogger("pegel")

CONNECT_PAUSES_SECONDS = (0.05, 0.2)
"""How long to wait between tries to reach the model."""
FOLLOW_AFTER_SECONDS = 0.02
FOLLOW_AT_CHUNKS = 128
FOLLOW_AT_BYTES = 1 << 20
ASK_IN_SECONDS = 10
"""Each peer's acknowledgements are looked at once in this time."""
_ASK_AT_LEAST = 64
_NO_DESCRIPTORS = tuple(map(os.strerror, (errno.EMFILE, errno.ENFILE)))
_HTTP2 = http2.PREFACE[:14]
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_clock = time.monotonic


class Traffic:
    """All connections of the tap: what their exchanges are told to, and what they have moved.

    Exchanges are followed some milliseconds after their bytes have gone on, many chunks in one go: that costs less than
    half the time of following each chunk as it passes, because the code stays in the processor's caches. A go is small
    enough (half a millisecond) for the traffic not to notice.

    `refused` is called for a client's connection that the model did not accept, `crowded_out` for one that more than
    `most` clients, or a shortage of file descriptors, left no room for.
    """

    def __init__(
        self,
        observer: Observer,
        *,
        refused: Callable[[], None],
        crowded_out: Callable[[], None] = lambda: None,
        most: float = math.inf,
        keepalive: Keepalive = KEEPALIVE,
        patience: Patience = PATIENCE,
        copying: Copying | None = None,
    ) -> None:
        self.observer = observer
        self.refused = refused
        self.keepalive = keepalive
        self.hangups = Hangups()
        self.unread: set[_Side] = set()
        """Sides of which nothing more is read, for less than a second or so: most are closed or read again by then."""
        self.leaving = False
        """Whether clients are told that their connections end."""
        self._crowded_out = crowded_out
        self._most = most
        self._crowd = Seldom(self._say)
        self._patience = patience
        self._to_ask: deque[ClientSide] = deque()
        self.copying = copying or Copying()
        self.open: set[ClientSide] = set()
        self.bytes_to_model = 0
        self.bytes_to_client = 0
        self._passed: list[tuple[Callable[[bytes, float], None], bytes, float]] = []
        self._passed_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def full(self) -> bool:
        """Whether there are as many clients as there may be."""
        return len(self.open) >= self._most

    def crowd_out(self) -> None:
        """A client's connection is reset for want of file descriptors."""
        self._crowded_out()
        self._crowd.happened()

    def _say(self, times: int) -> None:
        log.warning(
            "file descriptors are used up: %d new client connections were reset, which the model never saw; there is"
            " room for %g, of two each, beside what the admin port needs; raise the limit of open files (ulimit -n)",
            times, self._most,
        )  # fmt: skip

    def leave(self) -> None:
        """From now on tell clients that their connections end, where that is possible, and where it can be done at
        once, do it."""
        self.leaving = True
        for side in self.open:
            side.say_farewell()

    def tick(self) -> None:
        """A second has passed. Resets connections to peers that must be gone, looking at some at a time."""
        unread, self.unread = self.unread, set()
        for half in unread:
            half.watch()
        if not self._to_ask:
            self._to_ask.extend(self.open)
        left = max(_ASK_AT_LEAST, len(self.open) // ASK_IN_SECONDS)
        while self._to_ask and left:
            side = self._to_ask.popleft()
            if side not in self.open:
                continue
            left -= 1
            for each in (side, side.other):
                if each is not None and each.silent_too_long(self._patience):
                    each.broken()

    def passed(self, follow: Callable[[bytes, float], None], data: bytes, now: float) -> None:
        """Bytes went by at `now`; `follow` will hear of them in the order of these calls."""
        self._passed.append((follow, data, now))
        self._passed_bytes += len(data)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FOLLOW_AFTER_SECONDS, self.follow)
        elif len(self._passed) >= FOLLOW_AT_CHUNKS or self._passed_bytes > FOLLOW_AT_BYTES:
            self.follow()

    def follow(self) -> None:
        """Follow what has gone by."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        passed, self._passed = self._passed, []
        self._passed_bytes = 0
        for follow, data, now in passed:
            try:
                follow(data, now)
            except Exception:
                log.exception("following an exchange failed; its bytes were forwarded")


class _Side(asyncio.Protocol):
    """What both sides of a connection have in common: the other side, and how closing passes over."""

    # Thousands may be open.
    __slots__ = ("_watched", "finished", "heard", "other", "streams", "told", "traffic", "transport", "turns")

    def __init__(self, traffic: Traffic, turns: Turns) -> None:
        self.traffic = traffic
        self.turns = turns
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self.finished = False
        """Whether this side has sent its last byte."""
        self.heard = _clock()
        """When this side last said something."""
        self.streams: http2.Streams | None = None
        self.told = False
        """Whether the client was told that its connection ends."""
        self._watched = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        if self.other and self.other.transport and not self.other.transport.is_closing():
            self.other.transport.pause_reading()
            self.other.paused()

    def resume_writing(self) -> None:
        if self.other and self.other.transport and not self.other.transport.is_closing():
            self.other.transport.resume_reading()
            self.other.resumed()

    def paused(self) -> None:
        """Nothing more is read from this side for the time being."""

    def resumed(self) -> None:
        """This side is read from again."""

    def eof_received(self) -> bool:
        self.finished = True
        other = self.other
        if other is None or other.transport is None:
            self.traffic.unread.add(self)
            return True  # the model is not reached yet: the end is passed on with the early bytes
        if other.finished:
            other.transport.close()
            return False
        self.traffic.unread.add(self)
        if not other.transport.is_closing():
            other.transport.write_eof()
        return True

    def watch(self) -> None:
        """Nothing is read from this side: hear of its breaking all the same."""
        if self.transport is not None and not self._watched:
            sock = self.transport.get_extra_info("socket")
            self._watched = sock.fileno()
            self.traffic.hangups.watch(sock, self.broken)

    def unwatch(self) -> None:
        """This side is read from again, or closed."""
        self.traffic.unread.discard(self)
        if self._watched:
            self.traffic.hangups.unwatch(self._watched, self.broken)
            self._watched = 0

    def gone(self) -> None:
        """Nothing more comes from this side: what that means to exchanges that are under way."""

    def broken(self) -> None:
        """The peer has reset the connection, or is gone, and no read has told."""
        self._watched = 0
        self.gone()
        self.close_other(ConnectionResetError())
        if self.transport is not None:
            reset(self.transport)

    def silent_too_long(self, patience: Patience) -> bool:
        """Whether the peer must be gone, as it acknowledges nothing."""
        transport = self.transport
        return transport is not None and patience.ended(transport.get_extra_info("socket"))

    def close_other(self, exc: Exception | None) -> None:
        """Pass the end of this side on: a reset as a reset, so that a truncated answer never looks complete."""
        other, self.other = self.other, None
        if other is None:
            return
        other.other = None
        if other.transport is not None and not other.transport.is_closing():
            if exc is None:
                other.transport.close()
            else:
                reset(other.transport)


class ModelSide(_Side):
    """The connection to the model."""

    __slots__ = ("_client",)

    def __init__(self, client: "ClientSide") -> None:
        super().__init__(client.traffic, client.turns)
        self._client: ClientSide | None = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        with contextlib.suppress(OSError):  # the model has closed already
            self.traffic.keepalive.on_descriptor(transport.get_extra_info("socket").fileno())
        client, self._client = self._client, None
        if client is not None:
            client.reached(self)

    def data_received(self, data: bytes) -> None:
        self.heard = now = _clock()
        client = self.other
        if client is not None and client.transport is not None:
            if self.streams is None and not self.traffic.leaving:
                client.transport.write(data)
            else:
                client.transport.write(self._with_farewell(client, data))
        self.traffic.bytes_to_client += len(data)
        self.traffic.passed(self.turns.response_bytes, data, now)

    def eof_received(self) -> bool:
        self.gone()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.unwatch()
        self.gone()
        self.close_other(exc)

    def gone(self) -> None:
        self.traffic.follow()
        self.turns.model_gone(_clock())

    def _with_farewell(self, client: _Side, data: bytes) -> bytes:
        """The bytes as the client gets them: while the tap is leaving it is told so, where there is a place for it."""
        if self.streams is not None:
            self.streams.from_model(data)
            if not self.traffic.leaving or client.told or not self.streams.between_answers:
                return data
            client.told = True
            return data + http2.GOAWAY
        self.traffic.follow()
        if not self.turns.answer_is_next:
            return data
        told = with_farewell(data)
        client.told = told is not None
        return data if told is None else told


class ClientSide(_Side):
    """The connection from a client; it opens the one to the model at `upstream`."""

    __slots__ = ("_began", "_connecting", "_early", "_upstream")

    def __init__(self, traffic: Traffic, upstream: Address) -> None:
        super().__init__(traffic, Turns(traffic.observer, traffic.copying))
        self._upstream = upstream
        self._early: list[bytes] = []
        self._connecting: asyncio.Task[None] | None = None
        self._began = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.traffic.full:
            self.traffic.crowd_out()
            reset(cast(asyncio.Transport, transport))
            return
        self.traffic.open.add(self)
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def data_received(self, data: bytes) -> None:
        self.heard = now = _clock()
        other = self.other
        if other is None or other.transport is None:
            # On uvloop pause_reading() has no effect before the first bytes.
            self._early.append(data)
            if self.transport is not None:
                self.transport.pause_reading()
                self.traffic.unread.add(self)
            return
        if self._began:
            if self.streams is not None:
                self.streams.from_client(data)
        else:
            self._begin(data, other)
        other.transport.write(data)
        self.traffic.bytes_to_model += len(data)
        self.traffic.passed(self.turns.request_bytes, data, now)

    def eof_received(self) -> bool:
        self.turns.client_finished = True
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.unwatch()
        self.traffic.open.discard(self)
        self.gone()
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        self.close_other(exc)

    def gone(self) -> None:
        self.traffic.follow()
        self.turns.client_gone(_clock())

    def paused(self) -> None:
        self.traffic.unread.add(self)

    def resumed(self) -> None:
        if not self.finished:
            self.unwatch()

    def say_farewell(self) -> None:
        """Ask a client of HTTP/2 for no more requests, if a frame may come here; else it is asked after an answer."""
        if self.transport is None or self.streams is None or not self.streams.between_answers:
            return
        if not self.told and not self.transport.is_closing():
            self.told = True
            self.transport.write(http2.GOAWAY)

    def close_if_done(self, *, quiet_seconds: float, unread_seconds: float, told: bool) -> None:
        """Close where no exchange is under way: leave alone what is, or what was a moment ago.

        `quiet_seconds`: how long nothing must have been said. Where exchanges can't be followed, one may be under way
        if the client spoke last; then it takes `unread_seconds`. `told`: only if the client knows that it ends.
        """
        model = self.other
        if model is None or self.transport is None or self.transport.is_closing():
            return  # the model is not reached yet, or is gone and this side is being closed
        if model.finished:
            self.transport.close()
            return
        if told and not self.told:
            return
        wait = quiet_seconds
        if self.streams is not None:
            idle = self.streams.idle
        elif self.turns.following:
            idle = self.turns.idle
        else:
            idle = True
            wait = quiet_seconds if model.heard >= self.heard else unread_seconds
        if idle and _clock() - max(self.heard, model.heard) >= wait and not self._bytes_wait():
            self.transport.close()

    def reached(self, model: ModelSide) -> None:
        """The model has accepted: pass on what came early."""
        assert model.transport is not None
        if self.transport is None or self.transport.is_closing():
            model.transport.abort()
            return
        self.other, model.other = model, self
        self.transport.resume_reading()
        self.resumed()
        early, self._early = self._early, []
        for data in early:
            self.data_received(data)
        if self.finished:
            model.transport.write_eof()

    def _begin(self, data: bytes, model: _Side) -> None:
        """The connection's first bytes, which tell HTTP/2."""
        self._began = True
        if data.startswith(_HTTP2):
            self.streams = model.streams = http2.Streams()
            self.streams.from_client(data)

    def _bytes_wait(self) -> bool:
        """Whether the client has said something that was not read yet."""
        assert self.transport is not None
        with contextlib.suppress(OSError):
            waiting = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.FIONREAD, bytes(4))
            return waiting != bytes(4)
        return False

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        for pause in (*CONNECT_PAUSES_SECONDS, None):
            try:
                await loop.create_connection(partial(ModelSide, self), self._upstream.host, self._upstream.port)
                break
            except OSError as error:
                if pause is None:
                    if any(words in str(error) for words in _NO_DESCRIPTORS):
                        self.traffic.crowd_out()
                    else:
                        self.traffic.refused()
                    if self.transport is not None:
                        reset(self.transport)
                    return
                await asyncio.sleep(pause)
        self._connecting = None


def reset(transport: asyncio.Transport) -> None:
    """Close with RST instead of FIN."""
    with contextlib.suppress(OSError):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
