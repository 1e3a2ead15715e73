"""The same readings through prometheus_client's stock Collector, which makes its families anew for each scrape.

Argument: the port. Ends with its standard input.
"""

import sys
from collections.abc import Iterator

from pegel_exporters.gpu.devices import Devices
from pegel_exporters.gpu.fleet import Watch
from pegel_exporters.gpu.metrics import native
from prometheus_client import start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry


class Gpus(Collector):
    """Reads the GPUs when it is scraped, as collectors do."""

    def __init__(self) -> None:
        self._devices = Devices()
        self._watch = Watch(stale_after=60.0)

    def collect(self) -> Iterator[Metric]:
        self._watch.took(self._devices.read(), 0.0)
        for family in native(self._watch.fleet(0.0)):
            kind = CounterMetricFamily if family.metric.type == "counter" else GaugeMetricFamily
            found = kind(family.metric.openmetrics_name, family.metric.help, labels=family.metric.labels)
            for labels, value in family.samples.items():
                found.add_metric(labels, value)
            yield found


def main(port: int) -> None:
    """Serve until standard input ends."""
    registry = CollectorRegistry()
    registry.register(Gpus())
    start_http_server(port, addr="127.0.0.1", registry=registry)
    sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]))
