"""A profile comes back from its file as it was, whatever it holds."""

import math
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pegel_agent.reference.performance import Curve, Errors, Performance
from pegel_agent.reference.profile import FORMAT, Feature, Joint, Order, Profile, Relation, Role, load, packed, save

names = st.text(min_size=1, max_size=20)
counts = st.integers(0, 10**12)
positive = st.floats(1e-6, 1e6)
any_number = st.floats(allow_nan=False, allow_infinity=False)
edges = st.lists(any_number, min_size=2, max_size=21).map(lambda values: tuple(sorted(values)))
directions = st.sampled_from(("up", "down", "wider", "narrower", "tails", "missing", "new"))


def of_length(size: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(counts, min_size=size, max_size=size).map(tuple).filter(sum)


@st.composite
def features(draw: st.DrawFn, name: str, *, numeric: bool, role: Role) -> Feature:
    bounds = draw(edges) if numeric else ()
    categories = () if numeric else tuple(draw(st.lists(st.text(max_size=20), unique=True, max_size=8)))
    size = len(bounds) + 2 if numeric else len(categories) + 2
    seed = draw(st.none() | st.integers(0, 2**32 - 1))
    by_hour = b"" if seed is None else packed(np.random.default_rng(seed).integers(1, 2**32, (24, size)))
    return Feature(
        name,
        "numeric" if numeric else "categorical",
        role,
        draw(of_length(size)),
        bounds,
        categories,
        draw(st.dictionaries(directions, st.floats(1, 1e6))),
        draw(st.floats(0, 10)),
        by_hour,
    )


@st.composite
def performances(draw: st.DrawFn) -> Performance:
    bounds = draw(edges)
    in_bins = draw(of_length(len(bounds) + 2))
    if draw(st.booleans()):
        return Performance("regression", sum(in_bins), 0, errors=Errors(bounds, in_bins))
    size = draw(st.integers(2, 5))
    confusion = tuple(draw(of_length(size + 1)) for _ in range(size + 1))
    right = tuple(draw(st.integers(0, rows)) for rows in in_bins)
    return Performance(
        "binary" if size == 2 else "multiclass",
        sum(map(sum, confusion)),
        sum(confusion[one][one] for one in range(size)),
        tuple(f"class {one}" for one in range(size)),
        confusion,
        draw(st.none() | st.just(Curve(bounds, in_bins, right))),
    )


@st.composite
def joints(draw: st.DrawFn, inputs: tuple[str, ...], name: str) -> Joint:
    def each(values: st.SearchStrategy[float]) -> tuple[float, ...]:
        return tuple(draw(st.lists(values, min_size=len(inputs), max_size=len(inputs))))

    relation = Relation(draw(features(name, numeric=True, role="input")), each(st.floats(-10, 10)))
    return Joint(inputs, each(any_number), each(positive), (relation,))


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    told = draw(st.lists(names, unique=True, min_size=3, max_size=6))
    relation, *columns = told
    numeric = [draw(st.booleans()) for _ in columns]
    roles: list[Role] = [draw(st.sampled_from(("input", "prediction"))) for _ in columns]
    each = tuple(
        draw(features(name, numeric=of_numbers, role=role))
        for name, of_numbers, role in zip(columns, numeric, roles, strict=True)
    )
    inputs = tuple(one.name for one in each if one.kind == "numeric" and one.role == "input")
    joint = draw(joints(inputs, relation)) if inputs and draw(st.booleans()) else None
    order = Order(draw(st.sampled_from(("300s", "500"))), draw(counts), draw(st.sampled_from(("measured", "unknown"))))
    return Profile(
        format=FORMAT,
        created=draw(st.floats(0, 2e11)),
        model_name=draw(st.text(max_size=20)),
        model_version=draw(st.text(max_size=20)),
        rows=2**53,
        features=each,
        order=draw(st.none() | st.just(order)),
        performance=draw(st.none() | performances()),
        joint=joint,
    )


@settings(max_examples=60)
@given(profiles())
def test_a_profile_comes_back_with_every_optional_part(profile: Profile) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "profile.json")
        save(profile, path)
        loaded = load(path)
    assert loaded == profile
    assert loaded.hash == profile.hash
    for one in loaded.watched:
        assert math.isclose(one.reference.whole.shares.sum(), 1)
