"""What was measured to metric families: pure. A value that is absent or impossible gives no series."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pegel_exporters import catalogue
from pegel_exporters.catalogue import Metric
from pegel_exporters.exposition import Family, Histogram, LabelValues
from pegel_exporters.gpu import xid
from pegel_exporters.gpu.attribution import Allocations
from pegel_exporters.gpu.cluster import NO_CLUSTER, Cluster
from pegel_exporters.gpu.measures import MEASURES, MIG_MEASURES, Measured
from pegel_exporters.gpu.readings import Reading, Xid

_NOTHING = Measured({}, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """One GPU on the page: its last good reading, how old that is, and whether it answers now.

    `measured` is the reading in base units, `instances` its MIG devices, in the reading's order. `fresh` is False when
    the reading is too old to be shown: then only its age, its identity and its counts are. `error` says why it does not
    answer, empty when it does. `xids` are counts by code, published as 0 until `counting`.
    """

    reading: Reading
    measured: Measured = _NOTHING
    instances: tuple[Measured, ...] = ()
    age_seconds: float | None
    up: bool
    fresh: bool
    error: str = ""
    implausible: int = 0
    xids: Mapping[str, int] = field(default_factory=dict)
    counting: bool = True
    last_xid: Xid | None = None

    def value(self, metric: Metric, *labels: str) -> float | None:
        """A measured value, while it is fresh; None where there is none. `labels` are those after the GPU's own."""
        return self.measured.value(metric, *labels) if self.fresh else None

    def mig_value(self, mig_uuid: str, metric: Metric) -> float | None:
        """A measured value of one of its MIG devices, likewise."""
        of_mig = zip(self.reading.instances, self.instances, strict=True) if self.fresh else ()
        return next((told.value(metric) for one, told in of_mig if one.uuid == mig_uuid), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pods:
    """Who holds the GPUs: the kubelet's last good answer, how old that is, and whether it answers now.

    `allocations` is None before the first answer, and when the last is older than `kept_seconds`. `error` says why the
    kubelet does not answer, empty when it does or was not asked yet. `cluster` is what the API server tells.
    """

    up: bool
    age_seconds: float | None
    kept_seconds: float
    allocations: Allocations | None
    error: str = ""
    cluster: Cluster = NO_CLUSTER


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Everything the page tells: the driver, as last seen, its GPUs, and who holds them.

    `listed` is None while the driver does not answer, and `error` says why. `released` says that it is
    left alone on request. `pods` is None where nobody asks.
    """

    driver_version: str = ""
    cuda_version: str = ""
    simulated: bool = False
    listed: int | None = None
    error: str = ""
    released: bool = False
    gauges: tuple[Gauge, ...] = ()
    pods: Pods | None = None


def native(fleet: Fleet) -> tuple[Family, ...]:
    """The families of Pegel's own names, in the catalogue's order, those without samples too."""
    told = _told(fleet)
    shown = [gauge for gauge in fleet.gauges if gauge.fresh]
    for gauge in shown:
        ids = _ids(gauge.reading)
        for name, samples in gauge.measured.samples.items():
            told[name].update({(*ids, *labels): value for labels, value in samples.items()})
        for instance, measured in zip(gauge.reading.instances, gauge.instances, strict=True):
            mig = (*ids, instance.uuid, instance.profile)
            of_instance = str(instance.gpu_instance), str(instance.compute_instance)
            told[catalogue.GPU_MIG_INFO.name][*mig, *of_instance] = 1.0
            for name, samples in measured.samples.items():
                told[name].update({(*mig, *labels): value for labels, value in samples.items()})
    own = tuple(Family(metric, told[metric.name]) for metric in _METRICS)
    return *own, *(_pods(fleet.pods) if fleet.pods else ())


_METRICS = tuple(
    metric
    for metric in catalogue.CATALOGUE
    if metric
    in {
        catalogue.GPU_INFO, catalogue.GPU_UP, catalogue.GPU_DEVICES, catalogue.GPU_DRIVER_RELEASED,
        catalogue.GPU_READING_AGE,
        catalogue.GPU_XID_ERRORS, catalogue.GPU_XID_LAST, catalogue.GPU_XID_INFO, catalogue.GPU_IMPLAUSIBLE,
        catalogue.GPU_THROTTLED, catalogue.GPU_RECOVERY_ACTION, catalogue.GPU_MIG_INFO,
        *(one.metric for one in (*MEASURES.values(), *MIG_MEASURES.values())),
    }
)  # fmt: skip
"""The native metrics of GPUs, in the catalogue's order."""


def _told(fleet: Fleet) -> dict[str, dict[LabelValues, float | Histogram]]:
    """Samples by metric, with those that do not come from a reading."""
    told: dict[str, dict[LabelValues, float | Histogram]] = {metric.name: {} for metric in _METRICS}
    told[catalogue.GPU_INFO.name] = {
        (*_ids(gauge), gauge.name, gauge.minor_number, gauge.pci_bus_id, *_driver(fleet)): 1.0
        for gauge in (gauge.reading for gauge in fleet.gauges)
        if gauge.uuid
    }
    told[catalogue.GPU_UP.name] = {_ids(gauge.reading): float(gauge.up) for gauge in fleet.gauges} or {("", ""): 0.0}
    told[catalogue.GPU_DRIVER_RELEASED.name] = {(): float(fleet.released)}
    if fleet.listed is not None:
        told[catalogue.GPU_DEVICES.name] = {(): float(fleet.listed)}
    seen: set[str] = set()
    for gauge in fleet.gauges:
        ids = _ids(gauge.reading)
        if gauge.age_seconds is not None:
            told[catalogue.GPU_READING_AGE.name][ids] = gauge.age_seconds
        if gauge.reading.uuid:
            told[catalogue.GPU_IMPLAUSIBLE.name][ids] = float(gauge.implausible)
            told[catalogue.GPU_XID_ERRORS.name].update(
                {(*ids, code): float(count if gauge.counting else 0) for code, count in gauge.xids.items()}
            )
            seen.update(code for code, count in gauge.xids.items() if count)
        if gauge.last_xid is not None:
            told[catalogue.GPU_XID_LAST.name][ids] = gauge.last_xid.time
    told[catalogue.GPU_XID_INFO.name] = {
        (code, known.kind, known.meaning, known.advice): 1.0 for code, known in xid.BY_NAME.items() if code in seen
    }
    return told


def _pods(pods: Pods) -> tuple[Family, ...]:
    told = pods.allocations
    held = told.held if told else ()
    cluster = pods.cluster
    holders = dict.fromkeys((one.namespace, one.pod) for one in held)
    labelled: dict[LabelValues, float | Histogram] = {
        (*pod, *cluster.labels[pod]): 1.0 for pod in holders if pod in cluster.labels
    }
    return (
        Family(catalogue.GPU_POD_ALLOCATED, {one.labels: 1.0 for one in held}),
        Family(catalogue.GPU_POD_RESOURCES_UP, {(): float(pods.up)}),
        Family(catalogue.GPU_POD_RESOURCES_AGE, {} if pods.age_seconds is None else {(): pods.age_seconds}),
        Family(catalogue.GPU_POD_RESOURCES_UNKNOWN, {(): float(len(told.unknown))} if told else {}),
        Family(_labelled(cluster.label_names), labelled),
        Family(catalogue.GPU_API_UP, {(resource,): float(not error) for resource, error in cluster.errors.items()}),
    )


def _labelled(names: tuple[str, ...]) -> Metric:
    metric = catalogue.GPU_POD_LABELS
    return replace(metric, labels=(*metric.labels, *names))


def legacy(fleet: Fleet) -> tuple[Family, ...]:
    """The families of names that were in use before."""
    percent: dict[LabelValues, float | Histogram] = {}
    for gauge in fleet.gauges:
        gpu, ratio = gauge.reading, gauge.value(catalogue.GPU_UTILIZATION)
        if ratio is not None:
            percent[gpu.minor_number or gpu.gpu, gpu.uuid, gpu.name] = round(ratio * 100, 6)
    return (Family(catalogue.GPU_DUTY_CYCLE, percent),)


def _ids(reading: Reading) -> LabelValues:
    return reading.uuid, reading.gpu


def _driver(fleet: Fleet) -> LabelValues:
    return fleet.driver_version, fleet.cuda_version, "true" if fleet.simulated else "false"
