"""Evidently's side of benchmarks/check.py, in Evidently's environment. Arguments: reference and batch, as Parquet.

Prints how many columns drifted.
"""

import sys

import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset

if __name__ == "__main__":
    reference, batch = (pd.read_parquet(path) for path in sys.argv[1:])
    print(int(Report([DataDriftPreset()]).run(batch, reference).dict()["metrics"][0]["value"]["count"]))
