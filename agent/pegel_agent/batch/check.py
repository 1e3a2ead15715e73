"""A batch in a file against a profile: is it drift?"""

from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from pegel_exporters.errors import UserError

from pegel_agent.reference import tables
from pegel_agent.reference.columns import count_columns
from pegel_agent.reference.profile import Feature, Profile
from pegel_agent.statistics.batch_test import PSI_FLOOR, Counts, Measures, compare
from pegel_agent.statistics.distances import psi_parts, smoothed_shares
from pegel_agent.statistics.slots import IntArray

_MOVED = 3


class MovedBin(msgspec.Struct, frozen=True):
    """A bin's share in the reference and in the batch, 0 to 1."""

    bin: str
    reference: float
    batch: float


class FeatureResult(msgspec.Struct, frozen=True):
    """One feature's measures, as `Measures` says; `moved` are the bins with the largest parts of PSI."""

    kind: Literal["numeric", "categorical"]
    role: Literal["input", "prediction"]
    drifted: bool
    direction: str
    psi: float
    psi_limit: float
    js: float
    ks: float | None
    tvd: float
    rank_wasserstein: float | None
    p_value: float
    moved: tuple[MovedBin, ...]


class CheckResult(msgspec.Struct, frozen=True):
    """A batch's verdict: `score` is the share of features in drift; `reference` the profile's hash."""

    drift: bool
    score: float
    rows: int
    reference_rows: int
    reference: str
    alpha: float
    features: dict[str, FeatureResult]


def check_file(
    profile: Profile,
    path: Path,
    *,
    alpha: float,
    psi_floor: float = PSI_FLOOR,
    progress: tables.Progress | None = None,
) -> CheckResult:
    """Count a file's rows, a batch at a time, and test them against the profile.

    Columns that the profile doesn't have are left alone. Raises UserError for a file that can't be read or has no
    rows, and for a column that is missing or holds text where the profile has numbers.
    """
    counts = count_file(profile, path, progress=progress)
    rows = int(counts[profile.features[0].name].sum())
    if not rows:
        raise UserError(f"{path} has no rows")
    measured = compare(
        {f.name: Counts(counts[f.name], np.array(f.counts), f.bins.slots) for f in profile.features},
        alpha=alpha,
        psi_floor=psi_floor,
    )
    features = {f.name: _result(f, counts[f.name], measured[f.name]) for f in profile.features}
    drifted = sum(feature.drifted for feature in features.values())
    return CheckResult(drifted > 0, drifted / len(features), rows, profile.rows, profile.hash, alpha, features)


def count_file(profile: Profile, path: Path, *, progress: tables.Progress | None = None) -> dict[str, IntArray]:
    """Rows per bin (k,) of each of the profile's features. Raises UserError as `check_file` does."""
    names = tables.column_names(path)
    for feature in profile.features:
        if feature.name not in names:
            raise UserError(f"{path} has no column {feature.name!r}, which the profile has; it has {', '.join(names)}")
    texts = frozenset(feature.name for feature in profile.features if feature.kind == "categorical")
    counts = {feature.name: np.zeros(len(feature.counts), dtype=np.int64) for feature in profile.features}
    rows = 0
    for batch in tables.read(path, tuple(counts), text=texts, progress=progress):
        for feature in profile.features:
            values = batch[feature.name]
            found, invalid = count_columns(feature, values)
            if invalid:
                row = rows + 1 + tables.first_text(values)
                raise UserError(
                    f"{path}: column {feature.name!r} has text in row {row:,}, where the profile has numbers"
                )
            counts[feature.name] += found
        rows += len(batch[profile.features[0].name])
    return counts


def _result(feature: Feature, counts: IntArray, measures: Measures) -> FeatureResult:
    names = feature.bins.names
    expected, current = np.array(feature.counts) / sum(feature.counts), counts / counts.sum()
    largest = np.argsort(-psi_parts(smoothed_shares(counts), smoothed_shares(np.array(feature.counts))), kind="stable")
    return FeatureResult(
        kind=feature.kind,
        role=feature.role,
        drifted=measures.drifted,
        direction=measures.direction,
        psi=measures.psi,
        psi_limit=measures.psi_limit,
        js=measures.js,
        ks=measures.ks,
        tvd=measures.tvd,
        rank_wasserstein=measures.rank_wasserstein,
        p_value=measures.p_value,
        moved=tuple(MovedBin(names[i], float(expected[i]), float(current[i])) for i in largest[:_MOVED]),
    )
