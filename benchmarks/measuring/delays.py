"""How many windows it takes to see drift: Pegel, and KS and PSI corrected to the same budget.

Of 50 features only those that drift are watched; the detector still shares its stakes among all 50, and the tests'
levels are for all. What the others could add is a false alarm, or stakes that bring an alarm forward, never back.
Drift begins with the first window, before any stake has grown.
"""

import copy
import math
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pegel_agent.reference.build import Roles, build_profile
from pegel_agent.reference.columns import count_columns, learn_feature
from pegel_agent.reference.detection import detector_for
from pegel_agent.reference.profile import FORMAT, Feature, Profile
from pegel_agent.sidecar.monitor.windows import Watch
from pegel_agent.statistics import distances
from pegel_agent.statistics.budget import DEFAULT_BUDGET_WINDOWS, share_of
from pegel_agent.statistics.slots import FloatArray
from scipy.special import kolmogorov

from measuring.figures import aligned

FEATURES = 50
ROWS = 500
REFERENCES = (500, 2_000, 10_000)
BUDGET = share_of(DEFAULT_BUDGET_WINDOWS, "data_drift")
AT_MOST = 100
"""Windows, after which drift is taken for not seen."""
METHODS = ("Pegel", "KS", "PSI")

Column = NDArray[Any]
_CATEGORIES = 10
_WORDS = np.array([*(f"c{number}" for number in range(_CATEGORIES)), "unheard of"], dtype=object)


@dataclass(frozen=True, slots=True)
class Drift:
    """What changes, in how many features, and a drifted window (rows,)."""

    name: str
    features: int
    window: Callable[[np.random.Generator], Column]
    categorical: bool = False


def _normal(*, shift: float = 0.0, spread: float = 1.0) -> Callable[[np.random.Generator], Column]:
    return lambda random_numbers: random_numbers.normal(shift, spread, ROWS)


def _tail(random_numbers: np.random.Generator) -> Column:
    return random_numbers.normal(size=ROWS) * np.where(random_numbers.random(ROWS) < 0.02, 4.0, 1.0)


def _missing(random_numbers: np.random.Generator) -> Column:
    return np.where(random_numbers.random(ROWS) < 0.01, np.nan, random_numbers.normal(size=ROWS))


def _new_category(random_numbers: np.random.Generator) -> Column:
    known = random_numbers.integers(0, _CATEGORIES, ROWS)
    return _WORDS[np.where(random_numbers.random(ROWS) < 0.01, _CATEGORIES, known)]


DRIFTS = (
    *(
        Drift(f"mean + {shift:g} σ", features, _normal(shift=shift))
        for features in (1, 5)
        for shift in (0.05, 0.1, 0.15, 0.25, 0.35, 0.5, 1.0)
    ),
    *(Drift(f"spread × {spread:g}", 1, _normal(spread=spread)) for spread in (1.1, 1.2)),
    Drift("2 % of rows 4 × as far out", 1, _tail),
    Drift("missing 0 to 1 %", 1, _missing),
    Drift("new category, 1 %", 1, _new_category, categorical=True),
)


class Delays:
    """Windows until each method saw each drift, AT_MOST + 1 where it didn't, over all references so far."""

    def __init__(self) -> None:
        self._found: defaultdict[tuple[str, int, int, str], list[int]] = defaultdict(list)

    def run(self, random_numbers: np.random.Generator) -> None:
        """One more reference of each size, and each drift once."""
        for rows in REFERENCES:
            columns: list[Column] = list(random_numbers.normal(size=(FEATURES - 1, rows)))
            columns.append(_WORDS[random_numbers.integers(0, _CATEGORIES, rows)])
            learned = [learn_feature(f"f{number}", "input", column) for number, column in enumerate(columns)]
            features = [feature for feature in learned if feature is not None]
            profile = Profile(FORMAT, 0.0, "m", "1", rows, tuple(features))
            fresh = detector_for(profile, windows=BUDGET)
            for drift in DRIFTS:
                drifted = features[-1:] if drift.categorical else features[: drift.features]
                reference = columns[-1:] if drift.categorical else columns[: drift.features]
                seen = _first_seen(drift, drifted, reference, copy.deepcopy(fresh), random_numbers)
                for method, window in seen.items():
                    self._found[drift.name, drift.features, rows, method].append(window)

    def words(self) -> str:
        """A table of medians."""
        header = ["drift", "in", *(f"{method}, m = {rows:,}" for rows in REFERENCES for method in METHODS)]
        lines = [
            [drift.name, f"{drift.features} of {FEATURES}",
             *(self._median(drift, rows, method) for rows in REFERENCES for method in METHODS)]
            for drift in DRIFTS
        ]  # fmt: skip
        return aligned(header, lines)

    def later(self) -> list[str]:
        """Where Pegel's median is later than that of the better test by more than a window."""
        found = []
        for drift in DRIFTS:
            for rows in REFERENCES:
                pegel, *tests = (self._value(drift, rows, method) for method in METHODS)
                if pegel > min(tests) + 1:
                    found.append(f"{drift.name} in {drift.features}, m = {rows:,}: {pegel:g} to {min(tests):g}")
        return found

    def _value(self, drift: Drift, rows: int, method: str) -> float:
        windows = self._found[drift.name, drift.features, rows, method]
        return statistics.median(windows) if windows else math.inf

    def _median(self, drift: Drift, rows: int, method: str) -> str:
        value = self._value(drift, rows, method)
        return "none" if math.isinf(value) else "never" if value > AT_MOST else f"{value:g}"


def _first_seen(
    drift: Drift,
    features: Sequence[Feature],
    reference: Sequence[Column],
    detector: Any,
    random_numbers: np.random.Generator,
) -> dict[str, int]:
    alpha = 1 / (BUDGET * FEATURES)
    ordered = [] if drift.categorical else [np.sort(column) for column in reference]
    seen: dict[str, int] = {}
    methods = METHODS if ordered else ("Pegel", "PSI")
    for window in range(1, AT_MOST + 1):
        columns = [drift.window(random_numbers) for _ in features]
        counts = {f.name: count_columns(f, column)[0] for f, column in zip(features, columns, strict=True)}
        if "Pegel" not in seen and detector.observe(counts).drifted:
            seen["Pegel"] = window
        if "KS" not in seen and any(ks_p_value(a, b) < alpha for a, b in zip(ordered, columns, strict=bool(ordered))):
            seen["KS"] = window
        if "PSI" not in seen and any(_psi_exceeds(feature, counts[feature.name], alpha) for feature in features):
            seen["PSI"] = window
        if len(seen) == len(methods):
            break
    return {method: seen.get(method, AT_MOST + 1) for method in methods}


def ks_p_value(reference: FloatArray, values: FloatArray) -> float:
    """Of the two-sample test, by its limiting distribution; `reference` is sorted, missing values are left out."""
    values = np.sort(values[~np.isnan(values)])
    n, m = len(values), len(reference)
    both = np.concatenate((reference, values))
    gap = np.searchsorted(reference, both, side="right") / m - np.searchsorted(values, both, side="right") / n
    return float(kolmogorov(np.sqrt(n * m / (n + m)) * np.abs(gap).max()))


def _psi_exceeds(feature: Feature, counts: Any, alpha: float) -> bool:
    """PSI of the profile's bins over its limit, with the sampling errors of both sides."""
    p, q = distances.smoothed_shares(counts), feature.shares.shares
    limit = distances.psi_limit(ROWS, sum(feature.counts), len(p), alpha=alpha)
    return distances.psi(p, q) > limit


_JOINT_FEATURES = 10


def correlation_seen(rows: int, random_numbers: np.random.Generator) -> int:
    """Windows until Pegel sees that two of ten features have come to correlate by 0.4 instead of 0.8.

    Each feature alone is as before, so that tests of one feature at a time have nothing to see. The profile is built
    from a file, and the sidecar's own watch counts the rows.
    """
    with tempfile.TemporaryDirectory(prefix="pegel-bench-") as folder:
        path = Path(folder, "reference.parquet")
        pq.write_table(pa.table(_correlated(rows, 0.8, random_numbers)), path)
        profile = build_profile(path, roles=Roles(), model_name="m", model_version="1", created=0.0)
    watch = Watch(profile, budget_windows=DEFAULT_BUDGET_WINDOWS, tolerance=0.0)
    for window in range(1, AT_MOST + 1):
        watch.add(_correlated(ROWS, 0.4, random_numbers))
        verdict = watch.close_window()
        if verdict is not None and verdict.drifted:
            return window
    return AT_MOST + 1


def _correlated(rows: int, correlation: float, random_numbers: np.random.Generator) -> dict[str, Column]:
    values = random_numbers.normal(size=(_JOINT_FEATURES, rows))
    values[1] = correlation * values[0] + math.sqrt(1 - correlation**2) * values[1]
    return {f"f{number}": column for number, column in enumerate(values)}
