"""NannyML's side of benchmarks/false_alarms.py, in NannyML's environment. Argument: the folder with the data.

Prints JSON: of each file the number of windows, and in how many any feature alerted, and the first one.
"""

import json
import sys
from pathlib import Path

import nannyml
import numpy as np
import pandas as pd


def main(folder: Path) -> None:
    """Univariate drift with its defaults; windows of quiet.npy and drifted.npy are (windows, rows, features)."""
    reference = np.load(folder / "reference.npy")
    names = [f"f{i}" for i in range(reference.shape[1])]
    found = {}
    for name in ("quiet", "drifted"):
        windows = np.load(folder / f"{name}.npy")
        calculator = nannyml.UnivariateDriftCalculator(column_names=names, chunk_size=windows.shape[1])
        calculator.fit(pd.DataFrame(reference, columns=names))
        rows = pd.DataFrame(windows.reshape(-1, windows.shape[2]), columns=names)
        alerts = calculator.calculate(rows).filter(period="analysis").to_df().xs("alert", axis=1, level=2)
        found[name] = {
            "windows": len(alerts), "any": int(alerts.any(axis=1).sum()), "first": int(alerts["f0"].any(axis=1).sum())
        }  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
