"""Peers that went without a word: a node without power, a route that is no more. The kernel asks after them."""

import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keepalive:
    """When a peer that says nothing is asked whether it is there, and when it counts as gone.

    After `idle_seconds` of silence it is asked every `interval_seconds`; without an answer to `probes` of these the
    connection breaks. One that owes the acknowledgement of bytes for `user_timeout_seconds` breaks too, also when it
    answers but takes no more; 0 leaves that to the kernel's own patience of a quarter of an hour.
    """

    idle_seconds: int = 30
    interval_seconds: int = 10
    probes: int = 3
    user_timeout_seconds: int = 0

    def on_descriptor(self, number: int) -> None:
        """As `on`, for a connection that an event loop holds. What uvloop gives as its socket takes ten times as long
        for each option."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, number)  # the family doesn't matter to options
        try:
            self.on(sock)
        finally:
            sock.detach()

    def on(self, sock: socket.socket) -> None:
        """Ask the peer of this TCP connection; of a listening socket, the peers of all that it accepts."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, self.idle_seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, self.interval_seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, self.probes)
        if self.user_timeout_seconds:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self.user_timeout_seconds * 1000)


KEEPALIVE = Keepalive()
