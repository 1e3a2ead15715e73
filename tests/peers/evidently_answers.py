"""Evidently's side of against_evidently.py, in Evidently's environment. Argument: an .npz file.

It has `NAME reference` and `NAME batch`, both (rows,), of numbers or texts. Prints JSON: by name what Evidently's tests
psi, jensenshannon, ks and wasserstein say, the last two of numbers alone.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from evidently.legacy.calculations.stattests import (
    jensenshannon_stat_test,
    ks_stat_test,
    psi_stat_test,
    wasserstein_stat_test,
)
from evidently.legacy.core import ColumnType


def main(file: Path) -> None:
    """Ask for every column."""
    columns = np.load(file)
    answers = {}
    for name in sorted({key.rpartition(" ")[0] for key in columns}):
        reference, batch = (pd.Series(columns[f"{name} {which}"]) for which in ("reference", "batch"))
        numbers = reference.dtype.kind == "f"
        kind = ColumnType.Numerical if numbers else ColumnType.Categorical
        tests = [psi_stat_test, jensenshannon_stat_test, *([ks_stat_test, wasserstein_stat_test] if numbers else [])]
        answers[name] = {test.name: float(test.func(reference, batch, kind, 0.1)[0]) for test in tests}
    print(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
