"""Pegel's analyser on exchanges in memory, for benchmarks/analyser.py. Arguments: rows an exchange, seconds.

Prints JSON: exchanges a second, and peak memory in MiB before the first of them and in the end.
"""

import json
import sys
import time

from measuring.processes import own_peak_mib

COLUMNS = 50
BODIES = 32
LOOK_EVERY = 16


def main(rows: int, seconds: float) -> None:
    """From the bytes of request and answer to counts per bin, windows of 500 rows included."""
    import numpy as np
    from pegel_agent.reference.columns import learn_feature
    from pegel_agent.reference.profile import FORMAT, Profile
    from pegel_agent.sidecar import paths
    from pegel_agent.sidecar.monitor.model import Monitor, MonitorSettings
    from pegel_agent.sidecar.protocols import decode, read_exchange
    from pegel_agent.statistics.budget import Window

    random_numbers = np.random.default_rng(1)
    learned = [learn_feature(f"f{i}", "input", random_numbers.normal(size=10_000)) for i in range(COLUMNS)]
    profile = Profile(FORMAT, 0.0, "m", "1", 10_000, tuple(feature for feature in learned if feature))
    settings = MonitorSettings("m", "1", Window(rows=500), 8640)
    monitor = Monitor(settings, profile, time.time())
    answer = json.dumps({"predictions": [0.5] * rows}).encode()
    response = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer
    requests = []
    for values in random_numbers.normal(size=(BODIES, rows, COLUMNS)).round(4):
        body = json.dumps({"instances": values.tolist()}).encode()
        head = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n\r\n" % len(body)
        requests.append(head + body)
    before, done, began = own_peak_mib(), 0, time.process_time()
    while (used := time.process_time() - began) < seconds:
        for _ in range(LOOK_EVERY):
            exchange = read_exchange(requests[done % BODIES], response, max_body_bytes=1 << 20)
            monitor.add(decode(paths.TFSERVING, exchange), time.time())
            done += 1
    print(json.dumps({"rate": done / used, "before": before, "peak": own_peak_mib()}))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
