"""Carries copies of whole exchanges to the analyser, or sheds them: never part of one, and never a byte of traffic."""

import asyncio
import time
from collections import deque
from typing import cast

from pegel_agent.sidecar import frames
from pegel_agent.sidecar.paths import OTHER, PROTOCOLS
from pegel_agent.sidecar.tap.counters import Counters, Tally
from pegel_agent.sidecar.tap.served import OWN
from pegel_agent.sidecar.tap.turns import Exchange

MAX_WAITING_BYTES = 2 << 20
"""What may wait for a slow analyser; an exchange beyond that is shed."""
_BATCH_BYTES = 256 << 10
_BATCH_SECONDS = 0.05
_PROTOCOL_NUMBERS = {protocol: number for number, protocol in enumerate(PROTOCOLS)}


class Courier(asyncio.Protocol):
    """The connection to the analyser, while there is one. Every exchange offered is counted once: analysed or
    undecodable as the analyser acknowledges it, else shed."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._transport: asyncio.Transport | None = None
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._flush: asyncio.TimerHandle | None = None
        self._unacknowledged: deque[Tally] = deque()
        """Where what becomes of the exchanges that the analyser has is counted, in their order."""
        self._acknowledgement = b""
        self.heard = 0.0
        """When the analyser last said something, on the monotonic clock."""
        # Wall-clock times of exchanges are told from one pair of readings.
        self._epoch = time.time() - time.monotonic()

    def ended(self, exchange: Exchange, outcome: str) -> None:
        """Offer an exchange that is over."""
        self._counters.ended(exchange, outcome)
        protocol = exchange.protocol
        if protocol is None or protocol is OTHER or not exchange.status:
            return
        tally: Tally = exchange.tally
        now = tally.now
        if now.owner is None:
            return
        if exchange.request is None:
            now.shed += 1
            return
        self.offer(
            protocol, exchange.status, exchange.request, exchange.response, tally,
            began=exchange.started, took=exchange.ended - exchange.started,
        )  # fmt: skip

    def offer(
        self,
        protocol: str,
        status: int,
        request: list[bytes],
        response: list[bytes],
        tally: Tally,
        *,
        began: float,
        took: float,
    ) -> None:
        """Offer the parts of a request and of its answer, which began at this time of the monotonic clock.

        They are the tally's owner's, and what becomes of them is counted there.
        """
        if self._transport is None or self._batch_bytes + self._transport.get_write_buffer_size() > MAX_WAITING_BYTES:
            tally.now.shed += 1
            return
        name = (tally.owner or OWN).encode()
        asked, answered = b"".join(request), b"".join(response)
        header = frames.HEADER.pack(
            len(asked), len(answered), _PROTOCOL_NUMBERS[protocol], len(name), status, self._epoch + began, took
        )
        self._batch += (header, name, asked, answered)
        self._batch_bytes += len(asked) + len(answered)
        self._unacknowledged.append(tally)
        if self._batch_bytes > _BATCH_BYTES:
            self.flush()
        elif self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(_BATCH_SECONDS, self.flush)

    def flush(self) -> None:
        """Send what waits."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if self._transport is not None and self._batch:
            self._transport.write(b"".join(self._batch))
        self._batch.clear()
        self._batch_bytes = 0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._acknowledgement = b""
        self.heard = time.monotonic()
        self._counters.analyser_up = True

    def data_received(self, data: bytes) -> None:
        self.heard = time.monotonic()
        data = self._acknowledgement + data
        at, size = 0, frames.ACKNOWLEDGEMENT.size
        while len(data) - at >= size:
            exchanges, name = frames.ACKNOWLEDGEMENT.unpack_from(data, at)
            middle = at + size + exchanges
            if len(data) < middle + name:
                break
            for outcome in data[at + size : middle]:
                self._unacknowledged.popleft().now.copied(outcome)
            at = middle + name
            if name:
                self._counters.found(data[middle:at].decode())
        self._acknowledgement = data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._counters.analyser_up = False
        for tally in self._unacknowledged:
            tally.now.shed += 1
        self._unacknowledged.clear()
        self.flush()
