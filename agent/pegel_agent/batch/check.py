"""A batch in a file against a profile: is it drift?"""

from collections import Counter
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from pegel_exporters.errors import UserError

from pegel_agent.reference import tables
from pegel_agent.reference.columns import Column, alike, count_columns
from pegel_agent.reference.computed import Computed
from pegel_agent.reference.keys import CategoryKey
from pegel_agent.reference.profile import Feature, Profile, unpacked
from pegel_agent.reference.seasons import QUARTERS, mixture, quarter_of
from pegel_agent.reference.times import times_of
from pegel_agent.statistics.batch_test import PSI_FLOOR, Counts, Measures, compare
from pegel_agent.statistics.distances import psi_parts, smoothed_shares
from pegel_agent.statistics.slots import IntArray

_MOVED = 3
_OTHER, _MISSING = -2, -1
_FEW_OTHERS = 0.01


class MovedBin(msgspec.Struct, frozen=True):
    """A bin's share in the reference and in the batch, 0 to 1."""

    bin: str
    reference: float
    batch: float


class FeatureResult(msgspec.Struct, frozen=True):
    """One feature's measures, as `Measures` says; `moved` are the bins with the largest parts of PSI.

    `design_effect` is the largest of any direction: as many rows count as one.
    """

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
    design_effect: float
    moved: tuple[MovedBin, ...]


class CheckResult(msgspec.Struct, frozen=True):
    """A batch's verdict: `score` is the share of features in drift; `reference` the profile's hash.

    `design_effects` says where they come from: measured in the profile; assumed to be 1, as its rows had no time order;
    or unknown, as it had too few windows, and taken to be 1.
    """

    drift: bool
    score: float
    rows: int
    reference_rows: int
    reference: str
    alpha: float
    design_effects: Literal["measured", "assumed", "unknown"]
    by_hour: Literal["", "compared", "no_time"]
    """Where the profile tells the hours of the day apart: whether rows were compared with theirs or had no time."""
    features: dict[str, FeatureResult]


def check_file(
    profile: Profile,
    path: Path,
    *,
    alpha: float,
    psi_floor: float = PSI_FLOOR,
    time: str | None = None,
    key: CategoryKey | None = None,
    progress: tables.Progress | None = None,
) -> CheckResult:
    """Count a file's rows, a batch at a time, and test them against the profile.

    `time` names the column of the rows' times: by a profile that tells the hours of the day apart they are then
    compared with their own hours. Columns that the profile doesn't have are left alone. Raises UserError for a file
    that can't be read or has no rows, and for a column that is missing, holds text where the profile has numbers, or
    numbers alone where the profile has text.
    """
    counts, of_day = count_file(profile, path, time=time, key=key, progress=progress)
    rows = int(counts[profile.features[0].name].sum())
    if not rows:
        raise UserError(f"{path} has no rows")
    expected = {f.name: _expected(f, of_day) for f in profile.watched}
    measured = compare(
        {
            f.name: Counts(counts[f.name], expected[f.name], f.bins.slots, f.design_effects, f.heterogeneity)
            for f in profile.watched
        },
        alpha=alpha,
        psi_floor=psi_floor,
    )
    features = {f.name: _result(f, counts[f.name], expected[f.name], measured[f.name]) for f in profile.watched}
    drifted = sum(feature.drifted for feature in features.values())
    return CheckResult(
        drift=drifted > 0,
        score=drifted / len(features),
        rows=rows,
        reference_rows=profile.rows,
        reference=profile.hash,
        alpha=alpha,
        design_effects="assumed" if profile.order is None else profile.order.state,
        by_hour=_by_hour(profile, time),
        features=features,
    )


def basis(result: CheckResult) -> str:
    """A sentence on how rows were counted, and so on what drift means here."""
    if result.design_effects == "assumed":
        return "the profile's rows had no time order: rows count as independent, so those alike can look like drift"
    if result.design_effects == "unknown":
        return (
            "the profile has too few windows to tell how much rows resemble their neighbours: they count as one each,"
            " and drift here may be no more than rows that are alike"
        )
    name, most = max(result.features.items(), key=lambda item: item[1].design_effect)
    effects = f"rows in time order count by the profile's design effects, up to {most.design_effect:.3g} ({name})"
    if result.by_hour == "compared":
        return f"{effects}; where hours of the day differ, rows are compared with their own"
    if result.by_hour == "no_time":
        return (
            f"{effects}; hours of the day differ, so a batch that isn't of whole days can look like drift:"
            " name its column of times with --time"
        )
    return effects


def count_file(
    profile: Profile,
    path: Path,
    *,
    time: str | None = None,
    key: CategoryKey | None = None,
    progress: tables.Progress | None = None,
) -> tuple[dict[str, IntArray], IntArray]:
    """Rows per bin (k,) of all that the profile watches, and by quarter of the day (96,), which are none without a
    `time`. Raises UserError as `check_file` does."""
    names = tables.column_names(path)
    if time is not None and time not in names:
        raise UserError(f"{path} has no column {time!r}; it has {', '.join(names)}")
    for feature in profile.features:
        if feature.name not in names:
            raise UserError(f"{path} has no column {feature.name!r}, which the profile has; it has {', '.join(names)}")
    texts = frozenset(feature.name for feature in profile.features if feature.kind == "categorical")
    counts = {feature.name: np.zeros(len(feature.counts), dtype=np.int64) for feature in profile.watched}
    computed = Computed.by(profile)
    columns = tuple(feature.name for feature in profile.features)
    asked = columns if time is None else tuple(dict.fromkeys((*columns, time)))
    of_day: IntArray = np.zeros(QUARTERS, dtype=np.int64)
    numbers: Counter[str] = Counter()
    rows = 0
    for batch in tables.read(path, asked, text=texts, tokens=profile.tokens, progress=progress):
        if time is not None:
            of_day += np.bincount(quarter_of(times_of(path, time, batch[time], after=rows)), minlength=QUARTERS)
        shown: dict[str, Column] = {**batch}
        for feature in profile.features:
            values = alike(feature, batch[feature.name], key)
            found, invalid = count_columns(feature, values)
            if invalid:
                row = rows + 1 + tables.first_text(values)
                raise UserError(
                    f"{path}: column {feature.name!r} has text in row {row:,}, where the profile has numbers"
                )
            counts[feature.name] += found
            if feature.kind == "numeric":
                shown[feature.name] = values
            if key is None and _only_numbers(feature, found, values):
                numbers[feature.name] += int(found[_OTHER])
        values_of = computed.of(shown)
        for feature in profile.watched[len(columns) :]:
            counts[feature.name] += count_columns(feature, values_of[feature.name])[0]
        rows += len(batch[profile.features[0].name])
    for name, among_them in numbers.items():
        if among_them == counts[name][:_MISSING].sum():
            raise UserError(f"{path}: column {name!r} has numbers alone, where the profile has text and no number")
    return counts, of_day


def _only_numbers(feature: Feature, found: IntArray, values: Column) -> bool:
    """Whether the type of a column has changed: its values are numbers, none of which is a category of the profile, nor
    is any category a number. `found` (k,) are its rows by bin."""
    if feature.kind == "numeric" or not feature.categories or not found[_OTHER] or found[:_OTHER].any():
        return False
    if feature.counts[_OTHER] > _FEW_OTHERS * sum(feature.counts):
        return False  # which may have been numbers
    texts = [*feature.categories, *(str(value) for value in values.tolist() if value is not None)]
    said = [tables.is_number(text) for text in texts]
    return not any(said[: len(feature.categories)]) and all(said[len(feature.categories) :])


def _by_hour(profile: Profile, time: str | None) -> Literal["", "compared", "no_time"]:
    if not any(feature.hours for feature in profile.watched):
        return ""
    return "no_time" if time is None else "compared"


def _expected(feature: Feature, of_day: IntArray) -> IntArray:
    """The reference's counts (k,), of the hours that the batch has its rows in where these are told apart."""
    if feature.hours and of_day.any():
        return mixture(unpacked(feature.hours, len(feature.counts)), of_day)
    return np.array(feature.counts)


def _result(feature: Feature, counts: IntArray, reference: IntArray, measures: Measures) -> FeatureResult:
    names = feature.bins.names
    expected, current = reference / reference.sum(), counts / counts.sum()
    largest = np.argsort(-psi_parts(smoothed_shares(counts), smoothed_shares(reference)), kind="stable")
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
        design_effect=max(feature.design_effects.values(), default=1.0),
        moved=tuple(MovedBin(names[i], float(expected[i]), float(current[i])) for i in largest[:_MOVED]),
    )
