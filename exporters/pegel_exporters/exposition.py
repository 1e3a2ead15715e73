"""The metrics page: families to bytes, in Prometheus' text format 0.0.4 and in OpenMetrics 1.0.0.

prometheus_client is the reference renderer: the tests hold this page equal to its page byte for byte. It is
not used at run time because it validates and escapes every label on every scrape, which is most of a page's
cost, and because the forwarder must stay small.
"""

import gzip
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from pegel_exporters.catalogue import Metric

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
OPENMETRICS_END = b"# EOF\n"


@dataclass(frozen=True, slots=True)
class Histogram:
    """Observations per bucket (not cumulative; one more than the metric's bounds, for +Inf) and their sum."""

    counts: tuple[int, ...]
    sum: float


LabelValues = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric and its samples by label values, in the order of the metric's labels."""

    metric: Metric
    samples: Mapping[LabelValues, float | Histogram] = field(default_factory=dict)


def number(value: float) -> str:
    """A sample value as prometheus_client writes it: shortest repr, exponents from 1e+06."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    text = repr(float(value))
    dot = text.find(".")
    if value > 0 and dot > 6:
        mantissa = f"{text[0]}.{text[1:dot]}{text[dot + 1 :]}".rstrip("0.")
        return f"{mantissa}e+{dot - 1:02d}"
    return text


def _escape_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _escape_label(text: str) -> str:
    return _escape_help(text).replace('"', r"\"")


def _labels(names: Iterable[str], values: Iterable[str]) -> str:
    pairs = ",".join(f'{name}="{_escape_label(value)}"' for name, value in sorted(zip(names, values, strict=True)))
    return f"{{{pairs}}}" if pairs else ""


def _type(metric: Metric, openmetrics: bool) -> str:
    """OpenMetrics has no counter without `_total`; names that are another exporter's may."""
    foreign = openmetrics and metric.type == "counter" and not metric.name.endswith("_total")
    return "unknown" if foreign else metric.type


class Renderer:
    """Renders families, remembering each series' line for the next page: most names and many values stay.

    Series that a page no longer has are forgotten with it, so the memory is that of one page. A renderer is for one
    format.
    """

    def __init__(self) -> None:
        self._plain: dict[str, dict[LabelValues, tuple[float, str, str]]] = {}
        """By metric and label values: the last value, its line and the escaped name that begins it."""
        self._buckets: dict[str, dict[LabelValues, tuple[str, ...]]] = {}

    def render(self, families: Iterable[Family], *, openmetrics: bool = False, end: bool = True) -> bytes:
        """The page. `end=False` leaves OpenMetrics' closing line to whoever appends to it."""
        lines: list[str] = []
        plain: dict[str, dict[LabelValues, tuple[float, str, str]]] = {}
        buckets: dict[str, dict[LabelValues, tuple[str, ...]]] = {}
        for family in families:
            metric = family.metric
            name = metric.openmetrics_name if openmetrics else metric.name
            lines.append(f"# HELP {name} {_escape_help(metric.help)}\n# TYPE {name} {_type(metric, openmetrics)}\n")
            if metric.type == "histogram":
                buckets[metric.name] = self._histograms(lines, metric, family.samples)
            else:
                plain[metric.name] = self._values(lines, metric, family.samples)
        self._plain, self._buckets = plain, buckets
        if openmetrics and end:
            lines.append(OPENMETRICS_END.decode())
        return "".join(lines).encode()

    def _values(
        self, lines: list[str], metric: Metric, samples: Mapping[LabelValues, float | Histogram]
    ) -> dict[LabelValues, tuple[float, str, str]]:
        before, now = self._plain.get(metric.name, {}), {}
        for values, sample in samples.items():
            assert not isinstance(sample, Histogram)
            known = before.get(values)
            if known is None or known[0] != sample:
                prefix = f"{metric.name}{_labels(metric.labels, values)} " if known is None else known[2]
                known = sample, f"{prefix}{number(sample)}\n", prefix
            now[values] = known
            lines.append(known[1])
        return now

    def _histograms(
        self, lines: list[str], metric: Metric, samples: Mapping[LabelValues, float | Histogram]
    ) -> dict[LabelValues, tuple[str, ...]]:
        before, now = self._buckets.get(metric.name, {}), {}
        for values, sample in samples.items():
            assert isinstance(sample, Histogram)
            now[values] = names = before.get(values) or _bucket_names(metric, values)
            *bounds, count, total = names
            for prefix, upto in zip(bounds, accumulate(sample.counts), strict=True):
                lines.append(f"{prefix} {number(upto)}\n")
            lines.append(f"{count} {number(sum(sample.counts))}\n")
            lines.append(f"{total} {number(sample.sum)}\n")
        return now


def _bucket_names(metric: Metric, values: LabelValues) -> tuple[str, ...]:
    """The names of a histogram's series: its buckets, its count, its sum."""
    bounds = (number(bound) for bound in (*metric.buckets, math.inf))
    buckets = (f"{metric.name}_bucket{_labels((*metric.labels, 'le'), (*values, bound))}" for bound in bounds)
    own = _labels(metric.labels, values)
    return *buckets, f"{metric.name}_count{own}", f"{metric.name}_sum{own}"


def wants_openmetrics(accept: str) -> bool:
    """Whether a scraper's Accept header prefers OpenMetrics."""
    return "application/openmetrics-text" in accept


@dataclass(frozen=True, slots=True)
class Page:
    """A page rendered and compressed once, to be served as often as it is asked for."""

    text: bytes
    openmetrics: bytes
    text_gzip: bytes
    openmetrics_gzip: bytes

    @classmethod
    def of(cls, families: Iterable[Family], text: Renderer, openmetrics: Renderer) -> "Page":
        """Render families in both formats. Each renderer keeps the series names of its own format."""
        families = tuple(families)
        plain, opened = text.render(families), openmetrics.render(families, openmetrics=True)
        return cls(plain, opened, gzip.compress(plain, 1), gzip.compress(opened, 1))
