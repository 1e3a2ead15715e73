"""PSI, Jensen–Shannon, KS and rank-Wasserstein are what Evidently and scipy make of the same rows.

Where a figure is one of bins, the peers get Pegel's own bins: what is left then is that Pegel adds half a row to each,
so that no bin is empty. Where it is one of values, what is left is that Pegel has seen 20 bins of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from pegel_agent.reference.columns import Column, count_columns, learn_feature
from pegel_agent.statistics.batch_test import Counts, Measures, compare
from scipy import stats
from scipy.spatial import distance

from tests.peers import ask

ROWS = {"reference": 20_000, "batch": 10_000}


@dataclass(frozen=True, slots=True)
class Pair:
    """A column of the reference and of the batch."""

    reference: Column
    batch: Column


def pairs() -> dict[str, Pair]:
    """Without drift, and with more and more of several kinds."""
    rng = np.random.default_rng(1)
    m, n = ROWS.values()
    cities = ["Ulm", "Bonn", "Köln", "Trier"]
    found = {
        f"normal, moved by {shift}": Pair(rng.normal(size=m), rng.normal(shift, 1, n))
        for shift in (0, 0.1, 0.25, 0.5, 1)
    }
    found |= {
        "normal, wider": Pair(rng.normal(size=m), rng.normal(0, 1.3, n)),
        "lognormal, moved by 0.3": Pair(rng.lognormal(size=m), rng.lognormal(0.3, 1, n)),
        "exponential, half as large": Pair(rng.exponential(2, m), rng.exponential(1, n)),
        "few numbers": Pair(rng.binomial(10, 0.4, m).astype(float), rng.binomial(10, 0.45, n).astype(float)),
        "cities": Pair(
            rng.choice(cities, m, p=[0.4, 0.3, 0.2, 0.1]).astype(object),
            rng.choice(cities, n, p=[0.3, 0.3, 0.25, 0.15]).astype(object),
        ),
    }
    return found


PAIRS = pairs()
NUMBERS = [name for name, pair in PAIRS.items() if pair.reference.dtype != object]
CONTINUOUS = [name for name in NUMBERS if name != "few numbers"]


@dataclass(frozen=True, slots=True)
class Ours:
    """Pegel's measures of a pair, and the bin of each row."""

    measures: Measures
    bins: Pair


def ours(pair: Pair) -> Ours:
    feature = learn_feature("x", "input", pair.reference)
    assert feature is not None
    counts = (count_columns(feature, pair.reference)[0], count_columns(feature, pair.batch)[0])
    measures = compare({"x": Counts(counts[1], counts[0], feature.bins.slots)}, alpha=0.001)["x"]
    names = np.array(feature.bins.names)
    return Ours(measures, Pair(*(names[feature.bins.positions(values)] for values in (pair.reference, pair.batch))))  # type: ignore[arg-type]


def ranks(pair: Pair) -> Pair:
    """Both columns as ranks in the reference, 0 to 1."""
    ordered = np.sort(pair.reference)
    both = (np.searchsorted(ordered, of, side="right") / len(ordered) for of in (pair.reference, pair.batch))
    return Pair(*both)


@pytest.fixture(scope="session")
def evidently(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Mapping[str, float]]:
    """Evidently's answers on the values, on Pegel's bins (`bins of NAME`) and on ranks (`ranks of NAME`)."""
    columns = {}
    for name, pair in PAIRS.items():
        asked = {f"bins of {name}": ours(pair).bins}
        if name in NUMBERS:
            asked |= {name: pair, f"ranks of {name}": ranks(pair)}
        for key, each in asked.items():
            columns |= {f"{key} reference": each.reference, f"{key} batch": each.batch}
    file = tmp_path_factory.mktemp("peers") / "columns.npz"
    np.savez(file, **columns)
    answers: Mapping[str, Mapping[str, float]] = ask("evidently", "tests/peers/evidently_answers.py", file)
    return answers


@pytest.mark.parametrize("name", PAIRS)
def test_psi_is_evidentlys_on_the_same_bins(evidently: Mapping[str, Mapping[str, float]], name: str) -> None:
    # Half a row in each of some 20 bins of 10,000 rows moves a share by 0.1 % of itself, and an empty bin's most.
    assert ours(PAIRS[name]).measures.psi == pytest.approx(evidently[f"bins of {name}"]["psi"], rel=0.02, abs=2e-4)


@pytest.mark.parametrize("name", PAIRS)
def test_js_is_evidentlys_and_scipys_on_the_same_bins(evidently: Mapping[str, Mapping[str, float]], name: str) -> None:
    found = ours(PAIRS[name])
    both = np.union1d(found.bins.reference, found.bins.batch)
    shares = [np.array([(values == one).mean() for one in both]) for values in (found.bins.batch, found.bins.reference)]
    in_nats = evidently[f"bins of {name}"]["jensenshannon"]
    assert in_nats == pytest.approx(distance.jensenshannon(*shares), rel=0.01, abs=1e-3), "the peers agree"
    assert found.measures.js == pytest.approx(in_nats / np.sqrt(np.log(2)), rel=0.01, abs=1e-3)  # to base 2, as ours


@pytest.mark.parametrize("name", NUMBERS)
def test_ks_is_scipys_and_so_evidentlys(evidently: Mapping[str, Mapping[str, float]], name: str) -> None:
    exact = stats.ks_2samp(PAIRS[name].reference, PAIRS[name].batch)
    assert evidently[name]["ks"] == pytest.approx(exact.pvalue, rel=1e-6, abs=1e-300), "Evidently says its p-value"
    # The largest gap may lie within a bin, which has up to a twentieth of the rows: there both functions rise together.
    assert exact.statistic - 0.004 <= ours(PAIRS[name]).measures.ks <= exact.statistic + 1e-3  # type: ignore[operator]


@pytest.mark.parametrize("name", CONTINUOUS)
def test_rank_wasserstein_is_evidentlys_and_scipys_on_ranks(
    evidently: Mapping[str, Mapping[str, float]], name: str
) -> None:
    by_rank = ranks(PAIRS[name])
    exact = stats.wasserstein_distance(by_rank.reference, by_rank.batch)
    normed = evidently[f"ranks of {name}"]["wasserstein"]
    assert normed * by_rank.reference.std() == pytest.approx(exact, rel=1e-6), "Evidently divides by the spread"
    # Within a bin rows count as evenly spread: in the outer ones of a wider batch they lie further out.
    assert ours(PAIRS[name]).measures.rank_wasserstein == pytest.approx(exact, rel=0.03, abs=1e-3)


@pytest.mark.parametrize("shift", [0.25, 0.5, 1])
def test_psi_of_20_bins_is_near_that_of_evidentlys_own_bins(
    evidently: Mapping[str, Mapping[str, float]], shift: float
) -> None:
    # Evidently lays bins of one width, Pegel such as hold as many rows: of a normal shift both approach shift².
    name = f"normal, moved by {shift}"
    assert ours(PAIRS[name]).measures.psi == pytest.approx(shift**2, rel=0.15)
    assert evidently[name]["psi"] == pytest.approx(ours(PAIRS[name]).measures.psi, rel=0.2)
