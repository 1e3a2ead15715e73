"""Peers that are gone and that no read would tell of: those that reset a connection after their last byte, and those
that have stopped acknowledging.
"""

import asyncio
import contextlib
import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

_TCP_INFO = struct.Struct("=24xI28xI84xI80xI")
"""Of struct tcp_info: tcpi_unacked, tcpi_last_ack_recv, tcpi_notsent_bytes, tcpi_snd_wnd."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a peer may acknowledge nothing while bytes for it wait.

    One that takes no more, but lives, says so when it is asked: by the kernel, with pauses of up to two minutes.
    """

    seconds: float = 60.0
    closed_window_seconds: float = 180.0

    def ended(self, sock: socket.socket) -> bool:
        """Whether the peer of this connection must be gone."""
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            unacknowledged, silent_ms, unsent, window = _TCP_INFO.unpack(info)
        except (OSError, struct.error):  # closed; a kernel before 5.4
            return False
        if not unacknowledged and not unsent:
            return False
        seconds = self.seconds if unacknowledged and window else self.closed_window_seconds
        return bool(silent_ms > seconds * 1000)


PATIENCE = Patience()


class Hangups:
    """Calls back when a watched connection breaks.

    The event loop doesn't listen to a socket of which nothing more is to be read, after the peer's last byte or while
    reading pauses; that the peer then resets it, or is found gone, shows only here.
    """

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._callbacks: dict[int, Callable[[], None]] = {}

    def watch(self, sock: socket.socket, callback: Callable[[], None]) -> None:
        """Call back once when the connection breaks, unless it is unwatched before."""
        if self._epoll is None:
            self._epoll = select.epoll()
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._tell)
        with contextlib.suppress(OSError):  # closed, or watched already
            self._epoll.register(sock.fileno(), 0)  # EPOLLERR and EPOLLHUP are always told
            self._callbacks[sock.fileno()] = callback

    def unwatch(self, number: int, callback: Callable[[], None]) -> None:
        """Forget the socket of this number, which was watched with this callback."""
        if self._callbacks.get(number) == callback:
            del self._callbacks[number]
            with contextlib.suppress(OSError):
                assert self._epoll is not None
                self._epoll.unregister(number)

    def _tell(self) -> None:
        assert self._epoll is not None
        for number, _ in self._epoll.poll(0):
            callback = self._callbacks.get(number)
            if callback is not None:
                self.unwatch(number, callback)
                callback()
