"""What the analyser is told when the forwarder starts it."""

import msgspec
from pegel_exporters.logs import Format


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
    label_horizon_seconds: float = 86_400.0
    """How old a prediction must be to be judged by its label, as labels of one kind may come before those of another.
    """
    memory_bytes: int = 96 << 20
    """What the analyser may have in memory: with the forwarder's 32 MiB it is the container's limit of 128 MiB."""
    category_key: str | None = None
    """The file with the key by which the profile's categories are named."""
    log_format: Format = "text"
