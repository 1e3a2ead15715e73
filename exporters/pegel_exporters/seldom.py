"""What may happen thousands of times a second is logged once a minute."""

import asyncio
from collections.abc import Callable

_GATHER_SECONDS = 0.5
_EVERY_SECONDS = 60.0


class Seldom:
    """Calls `say` with how often something has happened: half a second after the first time, so that the number means
    something, then once a minute at most. Needs a running event loop.
    """

    def __init__(self, say: Callable[[int], None]) -> None:
        self._say = say
        self._unsaid = 0
        self._timer: asyncio.TimerHandle | None = None

    def happened(self) -> None:
        """Once more."""
        self._unsaid += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._tell)

    def _tell(self) -> None:
        self._timer = None
        if self._unsaid:
            self._say(self._unsaid)
            self._unsaid = 0
            self._timer = asyncio.get_running_loop().call_later(_EVERY_SECONDS, self._tell)
