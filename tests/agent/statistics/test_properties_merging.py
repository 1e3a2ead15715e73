"""Counts are all that is kept, so rows may come in any order and in any pieces."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pegel_agent.reference.columns import Column, count_columns, learn_feature
from pegel_agent.reference.performance import Performance, PerformanceCollector
from pegel_agent.reference.profile import FORMAT, Feature, Profile
from pegel_agent.sidecar.monitor.windows import Watch
from pegel_agent.statistics.batch_test import Counts, Measures, compare
from pegel_agent.statistics.detector import Verdict

seeds = st.integers(0, 2**32 - 1)
cuts = st.lists(st.integers(0, 300), max_size=8).map(lambda places: [0, *sorted(places), 300])


def rows(rng: np.random.Generator, count: int) -> dict[str, Column]:
    """Numbers with gaps and infinities, few numbers, and names."""
    numbers = rng.lognormal(size=count)
    numbers[rng.random(count) < 0.05] = np.nan
    numbers[rng.random(count) < 0.01] = np.inf
    names = rng.choice(np.array(["Ulm", "Bonn", "Köln", None], dtype=object), count)
    return {"amount": numbers, "events": rng.poisson(2, count).astype(np.float64), "city": names}


def profile() -> Profile:
    learned = [learn_feature(name, "input", values) for name, values in rows(np.random.default_rng(0), 3_000).items()]
    return Profile(FORMAT, 0.0, "m", "1", 3_000, tuple(feature for feature in learned if feature is not None))


PROFILE = profile()


def verdicts(windows: list[list[dict[str, Column]]]) -> list[Verdict | None]:
    """After each window, whose rows come in pieces."""
    watch = Watch(PROFILE, budget_windows=100, tolerance=0.0)
    found = []
    for pieces in windows:
        for piece in pieces:
            watch.add(piece)
        found.append(watch.close_window())
    return found


def taken(columns: dict[str, Column], places: slice | np.ndarray) -> dict[str, Column]:
    return {name: values[places] for name, values in columns.items()}


@settings(max_examples=25)
@given(seeds, st.lists(cuts, min_size=1, max_size=3))
def test_a_window_s_rows_give_the_same_verdict_in_any_order_and_any_pieces(
    seed: int, of_windows: list[list[int]]
) -> None:
    rng = np.random.default_rng(seed)
    windows = [rows(rng, 300) for _ in of_windows]
    shuffled = [taken(columns, rng.permutation(300)) for columns in windows]
    pieces = [
        [taken(columns, slice(start, end)) for start, end in pairwise(places)]
        for columns, places in zip(shuffled, of_windows, strict=True)
    ]
    assert verdicts([[columns] for columns in windows]) == verdicts(pieces)


def measures(counts: dict[str, np.ndarray]) -> dict[str, Measures]:
    features = {feature.name: feature for feature in PROFILE.features}
    return compare({name: against(features[name], found) for name, found in counts.items()}, alpha=0.05)


def against(feature: Feature, found: np.ndarray) -> Counts:
    return Counts(found, np.array(feature.counts), feature.bins.slots)


@settings(max_examples=25)
@given(seeds, cuts)
def test_a_batch_s_verdict_is_that_of_its_pieces_counts_added_up(seed: int, places: list[int]) -> None:
    columns = rows(np.random.default_rng(seed), 300)
    whole = {one.name: count_columns(one, columns[one.name])[0] for one in PROFILE.features}
    added = {
        one.name: sum(
            (count_columns(one, columns[one.name][start:end])[0] for start, end in pairwise(places)),
            start=np.zeros(len(one.counts), dtype=np.int64),
        )
        for one in PROFILE.features
    }
    assert measures(whole) == measures(added)


@settings(max_examples=25)
@given(seeds)
def test_a_feature_is_learned_alike_from_rows_in_any_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns = rows(rng, 1_000)
    again = taken(columns, rng.permutation(1_000))
    for name, values in columns.items():
        assert learn_feature(name, "input", values) == learn_feature(name, "input", again[name])


def performance(columns: dict[str, Column], places: list[int]) -> Performance | None:
    collector = PerformanceCollector("label", "prediction", "score")
    for start, end in pairwise(places):
        collector.add(taken(columns, slice(start, end)))
    return collector.result()


@settings(max_examples=50)
@given(seeds, cuts, st.integers(1, 4))
def test_performance_is_the_same_for_labelled_rows_in_any_order_and_any_pieces(
    seed: int, places: list[int], classes: int
) -> None:
    rng = np.random.default_rng(seed)
    columns: dict[str, Column] = {
        "label": rng.choice(np.array([*"abcd"[:classes], None], dtype=object), 300),
        "prediction": rng.choice(np.array([*"abcd"[:classes]], dtype=object), 300),
        "score": np.where(rng.random(300) < 0.1, np.nan, rng.integers(0, 65, 300) / 64),
    }
    shuffled = taken(columns, rng.permutation(300))
    assert performance(columns, [0, 300]) == performance(shuffled, places)
