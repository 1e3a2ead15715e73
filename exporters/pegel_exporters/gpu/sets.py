"""The sets of metric names that a page may have. Pure."""

from collections.abc import Iterable
from typing import Literal

from pegel_exporters.exposition import Family
from pegel_exporters.gpu import dcgm
from pegel_exporters.gpu.metrics import Fleet, legacy, native

MetricSet = Literal["native", "legacy", "dcgm"]
METRIC_SETS: tuple[MetricSet, ...] = ("native", "legacy", "dcgm")
DEFAULT_SETS: tuple[MetricSet, ...] = ("native", "legacy")


def families(
    fleet: Fleet, sets: Iterable[MetricSet] = DEFAULT_SETS, *, hostname: str = "", accounts: Iterable[Family] = ()
) -> tuple[Family, ...]:
    """The families of the sets asked for; a metric without series is left out.

    `hostname` is for dcgm's labels, `accounts` are native families that come from many readings.
    """
    wanted = set(sets)
    pages = (
        (*native(fleet), *accounts) if "native" in wanted else (),
        legacy(fleet) if "legacy" in wanted else (),
        dcgm.families(fleet, hostname) if "dcgm" in wanted else (),
    )
    return tuple(family for page in pages for family in page if family.samples)
