"""How log lines are written, in every process of Pegel alike."""

import logging
import sys
from typing import Literal

Format = Literal["text", "json"]


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        import json  # noqa: PLC0415 - only where asked for: the forwarder has little memory

        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def set_up(log_format: Format) -> None:
    """Log to standard error in this format, one line per event."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _JsonLines() if log_format == "json" else logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def log_format() -> Format:
    """The format that this process logs in: the one for processes that it starts."""
    handlers = logging.getLogger().handlers
    return "json" if any(isinstance(handler.formatter, _JsonLines) for handler in handlers) else "text"
