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
    """Renders families, remembering each series' escaped name for the next page.

    Series that a page no longer has are forgotten with it, so the memory is that of one page.
    """

    def __init__(self) -> None:
        self._prefixes: dict[tuple[str, LabelValues, str], str] = {}
        self._next: dict[tuple[str, LabelValues, str], str] = {}

    def render(self, families: Iterable[Family], *, openmetrics: bool = False, end: bool = True) -> bytes:
        """The page. `end=False` leaves OpenMetrics' closing line to whoever appends to it."""
        lines: list[str] = []
        for family in families:
            metric = family.metric
            name = metric.openmetrics_name if openmetrics else metric.name
            lines.append(f"# HELP {name} {_escape_help(metric.help)}\n# TYPE {name} {_type(metric, openmetrics)}\n")
            for values, sample in family.samples.items():
                if isinstance(sample, Histogram):
                    self._histogram(lines, metric, values, sample)
                else:
                    lines.append(f"{self._prefix(metric, values, '')} {number(sample)}\n")
        self._prefixes, self._next = self._next, {}
        if openmetrics and end:
            lines.append(OPENMETRICS_END.decode())
        return "".join(lines).encode()

    def _prefix(self, metric: Metric, values: LabelValues, suffix: str, le: str | None = None) -> str:
        key = (metric.name, values, suffix if le is None else le)
        prefix = self._prefixes.get(key)
        if prefix is None:
            names = metric.labels if le is None else (*metric.labels, "le")
            prefix = f"{metric.name}{suffix}{_labels(names, values if le is None else (*values, le))}"
        self._next[key] = prefix
        return prefix

    def _histogram(self, lines: list[str], metric: Metric, values: LabelValues, sample: Histogram) -> None:
        bounds = (*metric.buckets, math.inf)
        for bound, total in zip(bounds, accumulate(sample.counts), strict=True):
            lines.append(f"{self._prefix(metric, values, '_bucket', number(bound))} {number(total)}\n")
        lines.append(f"{self._prefix(metric, values, '_count')} {number(sum(sample.counts))}\n")
        lines.append(f"{self._prefix(metric, values, '_sum')} {number(sample.sum)}\n")


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
