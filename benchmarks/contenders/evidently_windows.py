"""Evidently's side of benchmarks/false_alarms.py, in Evidently's environment. Argument: the folder with the data.

Prints JSON: of each file the number of windows, and in how many any feature drifted, and the first one.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset

THRESHOLD = 0.1
"""Evidently's own, of the normed Wasserstein distance that it takes for numbers where the reference is large."""


def main(folder: Path) -> None:
    """DataDriftPreset with its defaults; windows of quiet.npy and drifted.npy are (windows, rows, features)."""
    rows = np.load(folder / "reference.npy")
    names = [f"f{i}" for i in range(rows.shape[1])]
    reference = pd.DataFrame(rows, columns=names)
    found = {}
    for name in ("quiet", "drifted"):
        windows = np.load(folder / f"{name}.npy")
        reports = [
            Report([DataDriftPreset()]).run(pd.DataFrame(window, columns=names), reference).dict()["metrics"]
            for window in windows
        ]
        found[name] = {
            "windows": len(windows),
            "any": sum(int(report[0]["value"]["count"] > 0) for report in reports),
            "first": sum(int(report[1]["value"] >= THRESHOLD) for report in reports),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
