"""Keeps the analyser running: starts it, starts it again when it ends, ends it when it has fallen silent."""

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from pegel_agent.sidecar import frames
from pegel_agent.sidecar.settings import AnalyserSettings
from pegel_agent.sidecar.tap.counters import Counters
from pegel_agent.sidecar.tap.courier import Courier

log = logging.getLogger("pegel")

REFUSED = 2
"""The analyser's exit code for settings that cannot work."""
_START_SECONDS = 60.0
_PAUSES_SECONDS = (0.2, 1.0, 5.0, 15.0, 30.0)
_STEADY_SECONDS = 60.0
# One thread: the analyser has no use for more, and each costs memory.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}


async def keep_running(
    settings: AnalyserSettings,
    courier: Courier,
    counters: Counters,
    refused: Callable[[], None],
    *,
    silence_seconds: float,
) -> None:
    """Run the analyser until cancelled; then it is ended too. `refused` is called when it says at its first start that
    its settings are wrong."""
    failures = 0
    while True:
        started = time.monotonic()
        code = await _run_once(settings, courier, silence_seconds)
        if code == REFUSED and not counters.restarts:
            refused()
            return
        failures = 0 if time.monotonic() - started > _STEADY_SECONDS else failures + 1
        pause = _PAUSES_SECONDS[min(failures, len(_PAUSES_SECONDS)) - 1] if failures else 0.0
        counters.restarts += 1
        log.warning("the analyser ended with code %s; starting it again in %g s", code, pause)
        await asyncio.sleep(pause)


async def _run_once(settings: AnalyserSettings, courier: Courier, silence_seconds: float) -> int | None:
    """Start the analyser, stay until it has ended or is ended for its silence; its exit code, None if none came up."""
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pegel_agent.sidecar.analyser", msgspec.json.encode(settings).decode(),
            stdin=asyncio.subprocess.PIPE, env={**os.environ, **_ENVIRONMENT},
        )  # fmt: skip
    except OSError as error:  # no memory or no process to be had
        log.warning("the analyser cannot be started: %s", error)
        return None
    try:
        await _attend(process, Path(settings.socket_folder), courier, silence_seconds)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    return process.returncode


async def _attend(process: asyncio.subprocess.Process, folder: Path, courier: Courier, silence_seconds: float) -> None:
    """Connect to the analyser and return when it has ended or fallen silent."""
    ended = asyncio.ensure_future(process.wait())
    transport = None
    try:
        transport = await _connect(ended, folder, courier)
        while transport is not None and not ended.done():
            await asyncio.wait((ended,), timeout=1.0)
            if transport.is_closing() or time.monotonic() - courier.heard > silence_seconds:
                log.warning("the analyser does not answer")
                return
    finally:
        ended.cancel()
        if transport is not None:
            transport.abort()


async def _connect(ended: "asyncio.Future[int]", folder: Path, courier: Courier) -> asyncio.Transport | None:
    loop = asyncio.get_running_loop()
    give_up = time.monotonic() + _START_SECONDS
    while not ended.done() and time.monotonic() < give_up:
        with contextlib.suppress(OSError):
            transport, _ = await loop.create_unix_connection(lambda: courier, str(folder / frames.EXCHANGE_SOCKET))
            return transport
        await asyncio.wait((ended,), timeout=0.05)
    return None
