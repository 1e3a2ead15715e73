"""Pegel's side of benchmarks/drift.py: bins, distances and the detector. Argument: the folder with the data.

Prints JSON: seconds to import, to build the reference, and for each batch as it comes; peak memory in MiB.
"""

import json
import sys
import time
from pathlib import Path

REPEATS = 5
BUDGET_WINDOWS = 8640


def main(folder: Path) -> None:
    """Measure, in a process that has imported nothing yet."""
    began = time.perf_counter()
    import numpy as np
    from measuring.processes import own_peak_mib
    from pegel_agent.reference.columns import learn_feature
    from pegel_agent.reference.profile import FORMAT, Profile
    from pegel_agent.sidecar.monitor.windows import Watch

    imported = time.perf_counter()
    reference = np.load(folder / "reference.npy")
    built = time.perf_counter()
    features = (learn_feature(f"f{i}", "input", column) for i, column in enumerate(reference.T))
    profile = Profile(FORMAT, 0.0, "m", "1", len(reference), tuple(feature for feature in features if feature))
    found = {"import": imported - began, "reference": time.perf_counter() - built}
    for name in ("batch", "window"):
        rows = np.load(folder / f"{name}.npy")
        watch = Watch(profile, budget_windows=BUDGET_WINDOWS, tolerance=0.0)
        taken = []
        for repeat in range(REPEATS):
            began = time.perf_counter()
            watch.add({f"f{i}": column for i, column in enumerate(rows.T)})
            verdict = watch.close_window()
            taken.append(time.perf_counter() - began)
            if repeat == 0:  # the same rows again are no new evidence
                found[f"{name} drifted"] = sum(feature.drifted for feature in verdict.features)
        found[name] = sorted(taken)[REPEATS // 2]
    print(json.dumps({**found, "peak": own_peak_mib()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
