"""NannyML's side of benchmarks/accuracy.py, in NannyML's environment. Argument: the folder with the data.

Prints JSON: the accuracy that CBPE expects of each window.
"""

import json
import sys
from pathlib import Path

import nannyml
import numpy as np
import pandas as pd

COLUMNS = ("score", "predicted", "label")


def main(folder: Path) -> None:
    """reference.npy is (rows, 3) of score, prediction and label; windows.npy is (windows, rows, 3)."""
    windows = np.load(folder / "windows.npy")
    estimator = nannyml.CBPE(
        problem_type="classification_binary", y_pred_proba="score", y_pred="predicted", y_true="label",
        metrics=["accuracy"], chunk_size=windows.shape[1],
    )  # fmt: skip
    estimator.fit(pd.DataFrame(np.load(folder / "reference.npy"), columns=COLUMNS))
    rows = pd.DataFrame(windows.reshape(-1, 3), columns=COLUMNS).drop(columns="label")
    found = estimator.estimate(rows).filter(period="analysis").to_df()
    print(json.dumps(found["accuracy"]["value"].tolist()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
