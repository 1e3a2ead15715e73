"""What people read: bars in proportion, tables that line up."""

import numpy as np
import pytest
from pegel_agent.batch.text import histogram, profile_text, short, table
from pegel_agent.reference.columns import Column, learn_feature
from pegel_agent.reference.profile import FORMAT, Feature, Profile


def learned(values: Column) -> Feature:
    feature = learn_feature("x", "input", values)
    assert feature is not None
    return feature


def test_a_bell_is_drawn_as_a_bell() -> None:
    bars = histogram(learned(np.random.default_rng(0).normal(size=10_000)))
    assert len(bars) == 20
    assert "█" in bars[8:12]
    assert bars[:10] == "".join(sorted(bars[:10]))
    assert bars[0] == bars[-1] == "▁"


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        (np.repeat([0.0, 1.0, 2.0], [400, 200, 100]), "█▄▂"),
        (np.full(50, 7.0), "█"),
        (np.array(["a"] * 100 + ["b"] * 400 + ["c"] * 9, dtype=object), "█▂▁"),
        (np.array([None] * 50 + ["b"] * 50, dtype=object), "█ "),
    ],
)
def test_bars_are_in_proportion(values: Column, bars: str) -> None:
    assert histogram(learned(values)) == bars


def test_columns_line_up() -> None:
    assert table(("A", "N"), (("x", "1"), ("long", "10")), right=frozenset({1})) == "A      N\nx      1\nlong  10"


def test_a_name_stays_on_its_line() -> None:
    assert short("a\nb") == "a b"
    assert len(short("x" * 100)) == 32


def test_a_profile_is_shown_with_its_model_and_a_line_for_each_feature() -> None:
    profile = Profile(FORMAT, 0.0, "houses", "3", 60, (learned(np.repeat([0.0, 1.0, np.nan], [20, 20, 20])),))
    lines = profile_text(profile).splitlines()
    assert lines[0] == f"Profile {profile.hash} of houses 3, made 1970-01-01 00:00 UTC from 60 rows;"
    assert lines[-1].split() == ["x", "numeric", "input", "5", "-", "33.3%", "0", "██", "1"]
    assert "a design effect of 1 is assumed" in lines[2]
