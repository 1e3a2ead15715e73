"""Readings to metric families: pure. A value that is absent or impossible gives no series.

Drivers have been seen to report a utilisation of 808,334,905 percent and 644,245,923 °C; such a value is worse
than none, because averages believe it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from pegel_exporters import catalogue
from pegel_exporters.catalogue import Metric
from pegel_exporters.exposition import Family, Histogram, LabelValues
from pegel_exporters.gpu.attribution import Allocations
from pegel_exporters.gpu.readings import Reading

MetricSet = Literal["native", "legacy"]
METRIC_SETS: tuple[MetricSet, ...] = ("native", "legacy")

_LIMITS: Mapping[Metric, tuple[float, float]] = {
    catalogue.GPU_UTILIZATION: (0, 1),
    catalogue.GPU_MEMORY_UTILIZATION: (0, 1),
    catalogue.GPU_MEMORY_USED: (0, 2**50),
    catalogue.GPU_MEMORY_TOTAL: (1, 2**50),
    catalogue.GPU_POWER: (0, 10_000),
    catalogue.GPU_POWER_LIMIT: (0, 10_000),
    catalogue.GPU_ENERGY: (0, 1e13),
    catalogue.GPU_TEMPERATURE: (-50, 150),
    catalogue.GPU_CLOCK: (0, 1e11),
}
"""What each value can be in this world."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """One GPU on the page: its last good reading, how old that is, and whether it answers now.

    `fresh` is False when the reading is too old to be shown: then only its age and identity are. `error` says why
    it does not answer, empty when it does.
    """

    reading: Reading
    age_seconds: float | None
    up: bool
    fresh: bool
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pods:
    """Who holds the GPUs: the kubelet's last good answer, how old that is, and whether it answers now.

    `allocations` is None before the first answer, and when the last is older than `kept_seconds`. `error` says why the
    kubelet does not answer, empty when it does or was not asked yet.
    """

    up: bool
    age_seconds: float | None
    kept_seconds: float
    allocations: Allocations | None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Everything the page tells: the driver, as last seen, its GPUs, and who holds them.

    `listed` is None while the driver does not answer, and `error` says why. `pods` is None where nobody asks.
    """

    driver_version: str = ""
    cuda_version: str = ""
    simulated: bool = False
    listed: int | None = None
    error: str = ""
    gauges: tuple[Gauge, ...] = ()
    pods: Pods | None = None


def families(fleet: Fleet, sets: Iterable[MetricSet] = METRIC_SETS) -> tuple[Family, ...]:
    """The families of the sets asked for, in the catalogue's order; a metric without series is left out."""
    wanted = set(sets)
    pages = (_native(fleet) if "native" in wanted else ()), (_legacy(fleet) if "legacy" in wanted else ())
    return tuple(family for page in pages for family in page if family.samples)


def _native(fleet: Fleet) -> tuple[Family, ...]:
    shown = [gauge.reading for gauge in fleet.gauges if gauge.fresh]
    info = {
        (*_ids(gauge), gauge.name, gauge.minor_number, gauge.pci_bus_id, *_driver(fleet)): 1.0
        for gauge in (gauge.reading for gauge in fleet.gauges)
        if gauge.uuid
    }
    up = {_ids(gauge.reading): float(gauge.up) for gauge in fleet.gauges} or {("", ""): 0.0}
    ages = {_ids(gauge.reading): gauge.age_seconds for gauge in fleet.gauges}
    return (
        Family(catalogue.GPU_INFO, info),
        Family(catalogue.GPU_UP, up),
        Family(catalogue.GPU_DEVICES, {} if fleet.listed is None else {(): float(fleet.listed)}),
        Family(catalogue.GPU_READING_AGE, {ids: age for ids, age in ages.items() if age is not None}),
        _family(catalogue.GPU_UTILIZATION, {_ids(gpu): gpu.utilization_ratio for gpu in shown}),
        _family(catalogue.GPU_MEMORY_UTILIZATION, {_ids(gpu): gpu.memory_utilization_ratio for gpu in shown}),
        _family(catalogue.GPU_MEMORY_USED, {_ids(gpu): gpu.memory_used_bytes for gpu in shown}),
        _family(catalogue.GPU_MEMORY_TOTAL, {_ids(gpu): gpu.memory_total_bytes for gpu in shown}),
        _family(catalogue.GPU_POWER, {_ids(gpu): gpu.power_watts for gpu in shown}),
        _family(catalogue.GPU_POWER_LIMIT, {_ids(gpu): gpu.power_limit_watts for gpu in shown}),
        _family(catalogue.GPU_ENERGY, {_ids(gpu): gpu.energy_joules for gpu in shown}),
        _family(
            catalogue.GPU_TEMPERATURE,
            {(*_ids(gpu), sensor): value for gpu in shown for sensor, value in gpu.temperatures_celsius.items()},
        ),
        _family(
            catalogue.GPU_CLOCK,
            {(*_ids(gpu), clock): value for gpu in shown for clock, value in gpu.clocks_hertz.items()},
        ),
        *(_pods(fleet.pods) if fleet.pods else ()),
    )


def _pods(pods: Pods) -> tuple[Family, ...]:
    told = pods.allocations
    held: dict[LabelValues, float | Histogram] = {
        (one.namespace, one.pod, one.container, one.uuid, one.mig_uuid, one.attribution): 1.0
        for one in (told.held if told else ())
    }
    return (
        Family(catalogue.GPU_POD_ALLOCATED, held),
        Family(catalogue.GPU_POD_RESOURCES_UP, {(): float(pods.up)}),
        Family(catalogue.GPU_POD_RESOURCES_AGE, {} if pods.age_seconds is None else {(): pods.age_seconds}),
        Family(catalogue.GPU_POD_RESOURCES_UNKNOWN, {(): float(len(told.unknown))} if told else {}),
    )


def _legacy(fleet: Fleet) -> tuple[Family, ...]:
    shown = [gauge.reading for gauge in fleet.gauges if gauge.fresh]
    use: dict[LabelValues, float | None] = {
        (gpu.minor_number or gpu.gpu, gpu.uuid, gpu.name): gpu.utilization_ratio for gpu in shown
    }
    percent: dict[LabelValues, float | Histogram] = {
        labels: round(ratio * 100, 6)
        for labels, ratio in use.items()
        if ratio is not None and possible(catalogue.GPU_UTILIZATION, ratio)
    }
    return (Family(catalogue.GPU_DUTY_CYCLE, percent),)


def possible(metric: Metric, value: float) -> bool:
    """Whether a metric can have this value; not a number is never possible."""
    low, high = _LIMITS[metric]
    return low <= value <= high


def _family(metric: Metric, values: Mapping[LabelValues, float | None]) -> Family:
    return Family(
        metric,
        {labels: value for labels, value in values.items() if value is not None and possible(metric, value)},
    )


def _ids(reading: Reading) -> LabelValues:
    return reading.uuid, reading.gpu


def _driver(fleet: Fleet) -> LabelValues:
    return fleet.driver_version, fleet.cuda_version, "true" if fleet.simulated else "false"
