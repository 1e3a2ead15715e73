"""What the analyser is told when the forwarder starts it."""

import msgspec


class AnalyserSettings(msgspec.Struct, frozen=True):
    """`window_seconds` or `window_rows` is set, the other None. `budget_windows`: windows between false alarms.

    `tolerance` is the χ² of drift that the user calls harmless; `socket_folder` holds the two sockets of frames.py.
    """

    model_name: str
    model_version: str
    profile: str | None
    window_seconds: float | None
    window_rows: int | None
    budget_windows: float
    socket_folder: str = ""
    tolerance: float = 0.0
    memory_bytes: int = 96 << 20
    """What the analyser may have in memory: with the forwarder's 32 MiB it is the container's limit of 128 MiB."""
