"""Pegel's forwarder alone: forwards and counts, analyses nothing. Arguments: where to listen, upstream, admin port."""

import sys

from pegel_agent.sidecar.tap.forwarder import ForwarderSettings, run
from pegel_exporters.serving import Address

if __name__ == "__main__":
    listen, upstream, admin = map(Address.parse, sys.argv[1:])
    sys.exit(run(ForwarderSettings(listen, upstream, admin, "m", "1", "benchmark", analyser=None)))
