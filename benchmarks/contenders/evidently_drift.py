"""Evidently's side of benchmarks/drift.py, in Evidently's environment. Argument: the folder with the data.

Prints JSON: seconds to import, and for each batch a Report with DataDriftPreset; peak memory in MiB.
"""

import json
import sys
import time
from pathlib import Path


def main(folder: Path) -> None:
    """Measure, in a process that has imported nothing yet."""
    began = time.perf_counter()
    import numpy as np
    import pandas as pd
    from evidently import Report
    from evidently.presets import DataDriftPreset
    from measuring.processes import own_peak_mib

    found = {"import": time.perf_counter() - began}

    def frame(name: str) -> pd.DataFrame:
        rows = np.load(folder / f"{name}.npy")
        return pd.DataFrame(rows, columns=[f"f{i}" for i in range(rows.shape[1])])

    reference = frame("reference")
    for name in ("batch", "window"):
        rows = frame(name)
        began = time.perf_counter()
        answer = Report([DataDriftPreset()]).run(rows, reference).dict()
        found[name] = time.perf_counter() - began
        found[f"{name} drifted"] = int(answer["metrics"][0]["value"]["count"])
    print(json.dumps({**found, "peak": own_peak_mib()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
