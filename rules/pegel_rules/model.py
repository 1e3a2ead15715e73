"""What a rule file is made of, and what may be set."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pegel_exporters.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an installation may change about the rules. Raises UserError for a value that makes no sense.

    `accuracy_threshold`: the share of right predictions below which a model without a threshold of its own warns.
    `time_scale` multiplies every `for`, range, offset and interval: a demo can't wait for an hour.
    """

    accuracy_threshold: float = 0.85
    time_scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.accuracy_threshold <= 1:
            raise UserError(f"the accuracy threshold is a share above 0 and up to 1, not {self.accuracy_threshold:g}")
        if not 0 < self.time_scale < math.inf:
            raise UserError(f"the time scale is a factor above 0, not {self.time_scale:g}")

    def seconds(self, seconds: float) -> int:
        """Seconds on this scale: whole ones, and at least one."""
        return max(1, round(seconds * self.time_scale))

    def duration(self, seconds: float) -> str:
        """`seconds` as Prometheus writes them (`1h30m`)."""
        left = self.seconds(seconds)
        text = ""
        for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
            count, left = divmod(left, size)
            text += f"{count}{unit}" if count else ""
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A recording rule."""

    name: str
    expr: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alerting rule. `wait` is its `for`, `keep` its `keep_firing_for`: how long it goes on after its expression has
    ended, for faults that last longer than what shows them. Summary and description are Prometheus templates."""

    name: str
    expr: str
    wait: str
    severity: Literal["critical", "warning", "info"]
    summary: str
    description: str
    keep: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rules that Prometheus evaluates together, in this order. `name` is also the file's.

    `interval` is how often; None is as often as Prometheus is set to.
    """

    name: str
    rules: tuple[Record | Alert, ...]
    interval: str | None = None
