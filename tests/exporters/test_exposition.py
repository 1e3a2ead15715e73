"""The page is prometheus_client's page, byte for byte."""

import math
from collections.abc import Iterator
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pegel_exporters.catalogue import CATALOGUE, GPU_DEVICES, LABEL_DELAY, LABELS, TAP_BYTES
from pegel_exporters.exposition import Family, Histogram, Renderer, number, wants_openmetrics
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.utils import floatToGoString

ReferenceFamily = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class Reference:
    """Our families, given to prometheus_client as a collector."""

    def __init__(self, families: list[Family]) -> None:
        self.families = families

    def collect(self) -> Iterator[ReferenceFamily]:
        for family in self.families:
            metric = family.metric
            kind = {
                "counter": CounterMetricFamily,
                "gauge": GaugeMetricFamily,
                "histogram": HistogramMetricFamily,
            }[metric.type]
            theirs = kind(metric.openmetrics_name, metric.help, labels=metric.labels)
            for values, sample in family.samples.items():
                if isinstance(sample, Histogram):
                    bounds = [floatToGoString(bound) for bound in (*metric.buckets, math.inf)]
                    theirs.add_metric(values, list(zip(bounds, accumulate(sample.counts), strict=True)), sample.sum)
                else:
                    theirs.add_metric(values, sample)
            yield theirs


def reference_pages(families: list[Family]) -> tuple[bytes, bytes]:
    registry = CollectorRegistry()
    registry.register(Reference(families))
    return generate_latest(registry), generate_openmetrics(registry)


label = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=8)
value = st.floats(allow_nan=True, allow_infinity=True)


@given(
    st.dictionaries(st.tuples(label, label, label), value, max_size=5),
    st.lists(st.integers(0, 10**9), min_size=13, max_size=13),
    st.floats(0, 1e12),
)
def test_the_page_equals_prometheus_clients_byte_for_byte(
    labels: dict[tuple[str, str, str], float], counts: list[int], total: float
) -> None:
    families = [
        Family(LABELS, labels),
        Family(TAP_BYTES, {}),
        Family(GPU_DEVICES, {(): 3.0}),
        Family(LABEL_DELAY, {("m\n", '"1"\\'): Histogram(tuple(counts), total)}),
    ]
    text, openmetrics = reference_pages(families)
    assert Renderer().render(families) == text
    assert Renderer().render(families, openmetrics=True) == openmetrics


def test_a_second_page_from_the_same_renderer_is_the_same() -> None:
    families = [
        Family(LABEL_DELAY, {("m", "1"): Histogram((1,) * 13, 2.5)}),
        Family(GPU_DEVICES, {(): 1.0}),
    ]
    renderer = Renderer()
    assert renderer.render(families) == renderer.render(families)


def test_a_renderer_forgets_series_that_left_the_page() -> None:
    renderer = Renderer()
    for tick in range(100):
        renderer.render([Family(TAP_BYTES, {("m", "1", str(tick)): 1.0})])
    assert len(renderer._plain[TAP_BYTES.name]) == 1


def test_a_value_that_changes_is_written_anew_and_one_that_stays_as_it_was() -> None:
    renderer = Renderer()
    for values in ((1.0, 2.0), (1.0, 3.0), (math.nan, 3.0), (math.nan, 3.0), (4.0, 3.0)):
        family = Family(TAP_BYTES, {("m", "1", str(place)): value for place, value in enumerate(values)})
        assert renderer.render([family]) == Renderer().render([family])


@pytest.mark.parametrize("value", [0, 1, -1, 1e-9, 999_999, 1_000_000, 1e6, 123456789.5, 1e21, 5e-324, -1e9])
def test_numbers_are_written_as_prometheus_client_writes_them(value: float) -> None:
    assert number(value) == floatToGoString(value)


def test_every_metric_has_a_name_of_its_own() -> None:
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)


def test_only_counters_end_in_total() -> None:
    assert all(metric.name.endswith("_total") == (metric.type == "counter") for metric in CATALOGUE)


def test_a_scraper_that_asks_for_openmetrics_gets_it() -> None:
    assert wants_openmetrics("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.4")
    assert not wants_openmetrics("text/plain")
