"""Bytes between one client and the model, untouched and in both directions, with what happens to a connection:
half close, reset, back pressure. Nothing that goes wrong while following the exchanges reaches the traffic.
"""

import asyncio
import contextlib
import logging
import socket
import struct
import time
from collections.abc import Callable
from functools import partial
from typing import cast

from pegel_exporters.serving import Address

from pegel_agent.sidecar.tap.turns import Copying, Observer, Turns

log = logging.getLogger("pegel")

CONNECT_PAUSES_SECONDS = (0.05, 0.2)
"""How long to wait between tries to reach the model."""
FOLLOW_AFTER_SECONDS = 0.02
FOLLOW_AT_CHUNKS = 128
FOLLOW_AT_BYTES = 1 << 20
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_clock = time.monotonic


class Traffic:
    """All connections of the tap: what their exchanges are told to, and what they have moved.

    Exchanges are followed some milliseconds after their bytes have gone on, many chunks in one go: that costs less than
    half the time of following each chunk as it passes, because the code stays in the processor's caches. A go is small
    enough (half a millisecond) for the traffic not to notice.
    """

    def __init__(self, observer: Observer, *, refused: Callable[[], None], copying: Copying | None = None) -> None:
        self.observer = observer
        self.refused = refused
        self.copying = copying or Copying()
        self.open: set[ClientSide] = set()
        self.bytes_to_model = 0
        self.bytes_to_client = 0
        self._passed: list[tuple[Callable[[bytes, float], None], bytes, float]] = []
        self._passed_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

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

    def __init__(self, traffic: Traffic, turns: Turns) -> None:
        self.traffic = traffic
        self.turns = turns
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self.finished = False
        """Whether this side has sent its last byte."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        if self.other and self.other.transport and not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other and self.other.transport and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def eof_received(self) -> bool:
        self.finished = True
        other = self.other
        if other is None or other.transport is None:
            return True  # the model is not reached yet: the end is passed on with the early bytes
        if other.finished:
            other.transport.close()
            return False
        if not other.transport.is_closing():
            other.transport.write_eof()
        return True

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

    def __init__(self, client: "ClientSide") -> None:
        super().__init__(client.traffic, client.turns)
        self._client: ClientSide | None = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        client, self._client = self._client, None
        if client is not None:
            client.reached(self)

    def data_received(self, data: bytes) -> None:
        now = _clock()
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)
        self.traffic.bytes_to_client += len(data)
        self.traffic.passed(self.turns.response_bytes, data, now)

    def eof_received(self) -> bool:
        self.traffic.follow()
        self.turns.model_gone(_clock())
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.traffic.follow()
        self.turns.model_gone(_clock())
        self.close_other(exc)


class ClientSide(_Side):
    """The connection from a client; it opens the one to the model at `upstream`."""

    def __init__(self, traffic: Traffic, upstream: Address) -> None:
        super().__init__(traffic, Turns(traffic.observer, traffic.copying))
        self._upstream = upstream
        self._early: list[bytes] = []
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.traffic.open.add(self)
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def data_received(self, data: bytes) -> None:
        now = _clock()
        other = self.other
        if other is None or other.transport is None:
            # On uvloop pause_reading() has no effect before the first bytes.
            self._early.append(data)
            if self.transport is not None:
                self.transport.pause_reading()
            return
        other.transport.write(data)
        self.traffic.bytes_to_model += len(data)
        self.traffic.passed(self.turns.request_bytes, data, now)

    def eof_received(self) -> bool:
        self.turns.client_finished = True
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.traffic.open.discard(self)
        self.traffic.follow()
        self.turns.client_gone(_clock())
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        self.close_other(exc)

    def close_if_idle(self) -> None:
        """Close where no exchange is under way, nor can be: leave alone what is."""
        if self.other is None or self.transport is None:
            return  # the model is not reached yet, or is gone and this side is being closed
        if self.other.finished or (self.turns.following and self.turns.idle):
            self.transport.close()

    def reached(self, model: ModelSide) -> None:
        """The model has accepted: pass on what came early."""
        assert model.transport is not None
        if self.transport is None or self.transport.is_closing():
            model.transport.abort()
            return
        self.other, model.other = model, self
        self.transport.resume_reading()
        early, self._early = self._early, []
        for data in early:
            self.data_received(data)
        if self.finished:
            model.transport.write_eof()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        for pause in (*CONNECT_PAUSES_SECONDS, None):
            try:
                await loop.create_connection(partial(ModelSide, self), self._upstream.host, self._upstream.port)
                break
            except OSError:
                if pause is None:
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
