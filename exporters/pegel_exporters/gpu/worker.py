"""The worker process that holds NVML, seen from the exporter: asked for readings, killed when it hangs.

NVML calls run in the driver and can block for ever when it dies, which no thread survives. A process can be
killed, and a new one finds whatever driver is there by then.
"""

import asyncio
import contextlib
import os
import sys
import time

from pegel_exporters.gpu.readings import DriverUnavailableError, Node

START_SECONDS = 60.0
"""How long a new worker may take for its first readings: without persistence mode the driver loads only then."""
REOPEN_SECONDS = 60.0
"""How long a worker is kept that cannot read one of its GPUs: one that was reset is found only by a new one."""
_KILL_SECONDS = 2.0
_LINE_BYTES = 1 << 20


class Worker:
    """Readings through a worker process, started when first asked for and again after each failure."""

    def __init__(self, *, timeout: float) -> None:
        """`timeout` is how long, in seconds, one round of readings may take."""
        self._timeout = timeout
        self._process: asyncio.subprocess.Process | None = None
        self._started = 0.0

    async def read(self) -> Node:
        """One reading of every GPU. Raises DriverUnavailableError, after which the next call starts anew."""
        timeout = self._timeout
        if self._process is None:
            timeout = max(timeout, START_SECONDS)
            self._started = time.monotonic()
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "pegel_exporters.gpu.devices", str(os.getpid()),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_LINE_BYTES,
            )  # fmt: skip
        try:
            async with asyncio.timeout(timeout):
                node = Node.from_json(await _ask(self._process))
        except TimeoutError:
            await self.close()
            raise unanswered(timeout) from None
        except DriverUnavailableError:
            await self.close()
            raise
        if any(gpu.error for gpu in node.gpus) and time.monotonic() - self._started > REOPEN_SECONDS:
            await self.close()
        return node

    async def close(self) -> None:
        """End the worker process, if there is one. One that the kernel holds is left to it."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KILL_SECONDS):
                await process.wait()


def unanswered(seconds: float) -> DriverUnavailableError:
    """What is told of a driver that hangs, after so long."""
    return DriverUnavailableError(f"the driver did not answer within {seconds:g} seconds")


async def _ask(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdin
    assert process.stdout
    with contextlib.suppress(ConnectionError):
        process.stdin.write(b"\n")
        await process.stdin.drain()
    line = await process.stdout.readline()
    if not line.endswith(b"\n"):
        raise DriverUnavailableError(f"the process that reads the driver ended with status {await process.wait()}")
    return line
