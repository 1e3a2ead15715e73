"""Series as a scrape of Pegel's targets leaves them, and their values over some days, a value a minute."""

from collections.abc import Mapping

from pegel_exporters.catalogue import Metric

MINUTES = 30 * 60
EVENT = MINUTES - 40
"""When what is an event, rather than a state, happens."""


def sample(metric: Metric | str, place: Mapping[str, str], own: Mapping[str, str]) -> str:
    """A series with the labels of its target's `place` and with its own, which must be those of the catalogue."""
    if isinstance(metric, Metric):
        assert set(own) == set(metric.labels), metric.name
    labels = ",".join(f'{name}="{value}"' for name, value in {**place, **own}.items())
    return f"{metric.name if isinstance(metric, Metric) else metric}{{{labels}}}"


def lasting(value: float) -> str:
    return f"{value:g}+0x{MINUTES}"


def counting(each: float) -> str:
    return f"0+{each:g}x{MINUTES}"


def then(before: float, after: float, at: int = EVENT) -> str:
    return f"{before:g}+0x{at - 1} {after:g}+0x{MINUTES - at}"


def until(value: float, at: int = EVENT) -> str:
    return f"{value:g}+0x{at - 1} stale"
