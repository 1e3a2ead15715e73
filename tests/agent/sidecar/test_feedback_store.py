"""The store of predictions behaves as a dictionary that forgets its oldest, in no more bytes than it was given."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pegel_agent.sidecar.feedback.store import LABELLED, STORE_BYTES, Kept, Plain, Predictions

PLAIN = st.floats(allow_nan=False) | st.integers(-(2**63), 2**63 - 1)
KEYS = st.integers(0, 40) | st.integers(-(2**63), 2**63 - 1) | st.integers(0, 20).map(lambda one: one << 40)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(KEYS, PLAIN, PLAIN), max_size=200), st.integers(200, 3_000))
def test_the_store_is_a_dictionary_of_the_latest(puts: list[tuple[int, Plain, Plain]], size: int) -> None:
    forgotten: list[int] = []
    store = Predictions(size, lambda kept: forgotten.append(kept.key))
    model: dict[int, Kept] = {}
    gone: list[int] = []
    for place, (key, prediction, label) in enumerate(puts):
        kept = Kept(LABELLED, key, float(place), prediction, 0.5, label, place / 3)
        if key not in model and len(model) == store.capacity:
            gone.append(next(iter(model)))
            del model[gone[-1]]
        model[key] = kept
        store.put(kept, float(place))
    assert forgotten == gone
    assert store.count == len(model) <= store.capacity
    for key, kept in model.items():
        found = store.get(key)
        assert found == kept
        assert (type(found.prediction), type(found.label)) == (type(kept.prediction), type(kept.label))
    assert all(store.get(key) is None for key in gone if key not in model)
    assert store.size_bytes <= size


def test_sixteen_mebibytes_keep_what_the_help_says() -> None:
    store = Predictions(STORE_BYTES, lambda _: None)
    assert store.capacity == 279_620
    assert store.size_bytes <= STORE_BYTES


@pytest.mark.integration
def test_a_full_store_takes_its_bytes_of_real_memory() -> None:
    """In a process of its own, by what the kernel says."""
    script = """
from pathlib import Path
from pegel_agent.sidecar.feedback.store import STORE_BYTES, Kept, Predictions
def resident():
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) << 10
before = resident()
store = Predictions(STORE_BYTES, lambda kept: None)
for number in range(2 * store.capacity):
    store.put(Kept(0, hash((number, 0)), 1.0, 1.0, 0.5), 1.0)
print(resident() - before, store.count)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    grown, count = map(int, done.stdout.split())
    assert count == 279_620
    assert grown < 18 << 20
