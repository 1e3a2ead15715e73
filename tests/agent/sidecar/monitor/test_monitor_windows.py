"""Rows in, windows, verdicts and series out."""

import logging
import math
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monitor_samples import COLOURS, bins, exchange, houses, monitor, numbers, profile_of, series, state, texts
from pegel_agent.reference.columns import count_columns, learn_feature
from pegel_agent.reference.order import in_order
from pegel_agent.reference.profile import FORMAT, Order, Profile
from pegel_agent.sidecar.monitor.state import ModelState
from pegel_agent.sidecar.protocols import Inference, Undecodable
from pegel_agent.statistics.detector import Detector
from pegel_agent.statistics.slots import FloatArray
from pegel_exporters.catalogue import CATALOGUE

PROFILE = houses()


def traffic(rng: np.random.Generator, rows: int, *, area: float = 0.0, colours: tuple[str, ...] = COLOURS) -> Inference:
    """Rows like the reference's, but for a shift of the area in its standard deviations, or other colours."""
    side = [
        numbers(np.column_stack([rng.normal(100 + 20 * area, 20, rows), rng.exponential(30, rows)]), ["area", "age"]),
        texts(rng.choice(colours, rows).astype(object)[:, None], ["colour"]),
    ]
    return exchange(side, numbers(rng.normal(0, 1, (rows, 1))))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=40), st.integers(0, 2**32 - 1))
def test_any_split_into_exchanges_gives_the_same_counts(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = sum(sizes)
    matrix = np.column_stack([rng.normal(100, 30, rows), rng.exponential(30, rows)])
    matrix[rng.random(rows) < 0.1, 0] = np.nan
    colours = rng.choice([*COLOURS, "mauve", None], rows).astype(object)
    watched = monitor(PROFILE, rows=170)
    for start, end in pairwise([0, *np.cumsum(sizes).tolist()]):
        part = slice(start, end)
        watched.add(exchange([numbers(matrix[part], ["area", "age"]), texts(colours[part, None], ["colour"])]), 0.0)
    for feature, column in (("area", matrix[:, 0]), ("age", matrix[:, 1]), ("colour", colours)):
        reference = next(one for one in PROFILE.features if one.name == feature)
        counts = count_columns(reference, column)[0].tolist()
        expected = {name: count for name, count in zip(reference.bins.names, counts, strict=True) if count}
        assert bins(watched, feature) == expected
    assert state(watched).rows == rows


def test_a_window_of_rows_ends_with_the_exchange_that_fills_it() -> None:
    rng = np.random.default_rng(1)
    watched = monitor(PROFILE, rows=500)
    for rows, windows in ((499, 0), (3, 1), (498, 1), (2, 2), (1_700, 3), (499, 3)):
        watched.add(traffic(rng, rows), 0.0)
        assert state(watched).windows == windows


def test_a_window_of_time_ends_when_its_time_is_over_with_or_without_rows() -> None:
    watched = monitor(PROFILE, seconds=60.0)
    watched.add(traffic(np.random.default_rng(1), 700), 0.0)
    for now, windows in ((59.9, 0), (60.0, 1), (60.2, 1), (119.9, 1), (120.1, 2), (400.0, 3), (419.0, 3), (420.0, 4)):
        watched.tick(now)
        assert state(watched).windows == windows


def test_a_clock_that_is_set_back_does_not_stop_the_windows() -> None:
    watched = monitor(PROFILE, seconds=60.0)
    watched.tick(100_000.0)
    watched.tick(500.0)
    watched.tick(560.0)
    assert state(watched).windows == 2


def test_no_alarm_in_300_windows_without_drift() -> None:
    rng = np.random.default_rng(2)
    watched = monitor(PROFILE)
    for _ in range(300):
        watched.add(traffic(rng, 500), 0.0)
    seen = state(watched)
    assert seen.windows == 300
    assert not any(point.drifted for point in seen.history)
    assert not any(feature.drifted for feature in seen.features)


def test_a_shift_is_found_in_its_feature_with_its_direction_and_goes() -> None:
    rng = np.random.default_rng(3)
    watched = monitor(PROFILE)
    for now in range(20):
        watched.add(traffic(rng, 500), float(now))
    for now in range(20, 35):
        watched.add(traffic(rng, 500, area=-0.5), float(now))
    seen = state(watched)
    assert seen.drifted
    assert seen.drifted_since is not None
    assert 20 <= seen.drifted_since <= 25
    assert (seen.features[0].name, seen.features[0].direction) == ("area", "down")
    assert [feature.drifted for feature in seen.features] == [True, False, False, False]
    assert seen.score == pytest.approx(1 / 3), "predictions are judged apart"
    published = series(watched)
    assert published["ml_data_drift_detected"][()] == 1
    assert published["ml_data_drift_score"][()] == pytest.approx(1 / 3)
    assert published["ml_prediction_drift_detected"][()] == 0
    assert published["ml_feature_drift"]["area", "psi"] > published["ml_feature_drift_limit"]["area",]
    assert published["ml_feature_drift"]["age", "psi"] < published["ml_feature_drift_limit"]["age",]
    for now in range(35, 120):
        watched.add(traffic(rng, 500), float(now))
    assert not state(watched).drifted
    assert state(watched).drifted_since is None


def test_drift_of_predictions_alone_is_told_apart_from_drift_of_data() -> None:
    rng = np.random.default_rng(20)
    watched = monitor(PROFILE)
    for window in range(30):
        same = traffic(rng, 500)
        answers = numbers(rng.normal(0.5 * (window >= 20), 1, (500, 1)))
        watched.add(exchange(same.inputs, answers), float(window))
    published, seen = series(watched), state(watched)
    assert published["ml_prediction_drift_detected"][()] == 1
    assert published["ml_prediction_drift_evidence"][()] > published["ml_drift_evidence_limit"][()]
    assert published["ml_data_drift_detected"][()] == 0
    assert published["ml_data_drift_score"][()] == 0
    assert (seen.drifted, seen.prediction_drifted) == (False, True)
    assert (seen.features[0].name, seen.features[0].drifted) == ("price", True)


def test_each_process_has_a_quarter_of_the_budget() -> None:
    assert series(monitor(PROFILE))["ml_drift_evidence_limit"][()] == pytest.approx(math.log10(4 * 8640))


def test_a_reference_too_short_for_its_order_is_shown_and_never_alarms() -> None:
    rng = np.random.default_rng(21)
    watched = monitor(msgspec.structs.replace(PROFILE, order=Order("500", 19, "unknown")))
    for _ in range(12):
        watched.add(traffic(rng, 500, area=3.0), 0.0)
    published, seen = series(watched), state(watched)
    assert published["ml_feature_drift_evidence"]["area",] > 4
    assert seen.evidence is not None
    assert seen.evidence > seen.evidence_limit
    assert not seen.drifted
    assert not any(feature.drifted for feature in seen.features)
    judged = ("ml_drift_evidence", "ml_drift_evidence_limit", "ml_data_drift_score", "ml_data_drift_detected")
    assert not published.keys() & {*judged, "ml_prediction_drift_detected", "ml_drift_design_effect"}
    assert (seen.reference.dependence, seen.reference.order_windows) == ("unknown", 19)


def test_a_learned_reference_has_its_design_effects_measured_in_its_windows() -> None:
    rng = np.random.default_rng(22)
    watched = monitor(None)
    for window in range(170):
        ups = rng.normal(0, 1)  # every window has a level of its own
        watched.add(traffic(rng, 500, area=ups), float(window))
    seen = state(watched)
    assert (seen.reference.dependence, seen.reference.order_windows) == ("measured", 80)
    effects = {feature.name: feature.design_effect for feature in seen.features}
    assert effects["area"] > 50
    assert effects["age"] < 5
    assert not any(point.drifted for point in seen.history)


def test_a_window_is_compared_with_its_hour_of_the_day() -> None:
    rng = np.random.default_rng(23)

    def rows(hour: float, size: int) -> FloatArray:
        return rng.normal(3 * np.sin(2 * np.pi * hour / 24), 1, size)

    hours = np.arange(288) / 12
    feature = learn_feature("x", "input", np.concatenate([rows(hour, 400) for hour in hours]))
    assert feature is not None
    windows = np.array([count_columns(feature, rows(hour, 400))[0] for hour in hours])
    feature = in_order(feature, windows, np.arange(288), hours * 3_600)
    assert feature.hours
    profile = Profile(FORMAT, 0.0, "m", "1", 115_200, (feature,), Order("300s", 288, "measured"))
    watched = monitor(profile, seconds=300.0)
    for place, hour in enumerate(hours.tolist()):
        watched.add(exchange(numbers(rows(hour, 400)[:, None])), 300.0 * place + 150)
        watched.tick(300.0 * (place + 1))
    assert not any(point.drifted for point in state(watched).history)
    page = {family.metric.name: dict(family.samples) for family in watched.families()}
    counted = np.array(list(page["ml_feature_rows_total"].values()))
    expected = np.array(list(page["ml_feature_expected_rows_total"].values()))
    assert page["ml_feature_rows_total"].keys() == page["ml_feature_expected_rows_total"].keys()
    assert expected.sum() == pytest.approx(counted.sum())
    assert np.abs(expected - counted).max() < 4 * np.sqrt(counted.max())
    assert list(page["ml_feature_heterogeneity"].values()) == [feature.heterogeneity]
    watched.add(exchange(numbers(rows(12.0, 400)[:, None])), 86_400.0 + 6 * 3_600)
    watched.tick(86_400.0 + 6 * 3_600 + 200)
    assert state(watched).drifted, "noon's rows at six in the morning are drift"


def test_windows_of_another_length_than_the_profile_s_are_pointed_out(caplog: pytest.LogCaptureFixture) -> None:
    monitor(msgspec.structs.replace(PROFILE, order=Order("300s", 99, "measured")), rows=500)
    assert "windows of 300 s, and these are of 500 rows" in caplog.text


def test_new_categories_are_found_as_new() -> None:
    rng = np.random.default_rng(4)
    watched = monitor(PROFILE)
    for _ in range(6):
        watched.add(traffic(rng, 500, colours=(*COLOURS, "mauve")), 0.0)
    first = state(watched).features[0]
    assert (first.name, first.direction, first.drifted) == ("colour", "new", True)


def test_a_feature_that_is_never_seen_gathers_no_evidence() -> None:
    rng = np.random.default_rng(5)
    watched = monitor(PROFILE, seconds=60.0)
    for minute in range(1, 40):
        watched.add(exchange(traffic(rng, 50).inputs), 0.0)
        watched.tick(60.0 * minute)
    assert next(feature for feature in state(watched).features if feature.name == "price").evidence is None


def test_evidence_is_minus_infinity_before_a_window_and_after_a_reset_and_never_nan() -> None:
    rng = np.random.default_rng(6)
    watched = monitor(PROFILE)
    assert series(watched)["ml_drift_evidence"][()] == -math.inf
    found = []
    for drift in (3.0,) * 5 + (0.0,) * 80:
        watched.add(traffic(rng, 500, area=drift), 0.0)
        published = series(watched)
        found.append(published["ml_drift_evidence"][()])
        assert not any(math.isnan(value) for samples in published.values() for value in samples.values())
    assert -math.inf in found[5:]
    assert any(point.evidence is None for point in state(watched).history)


def test_without_a_reference_there_is_no_evidence_and_no_series_of_a_feature() -> None:
    watched = monitor(None)
    watched.add(traffic(np.random.default_rng(7), 500), 0.0)
    published = series(watched)
    assert published["ml_reference_ready"][()] == 0
    assert published["ml_inference_rows_total"][()] == 500
    assert "ml_drift_evidence" not in published
    assert not any(name.startswith("ml_feature") for name in published)


def test_all_bins_are_born_at_zero_and_the_reference_s_rows_add_up() -> None:
    published = series(monitor(PROFILE))
    rows, reference = published["ml_feature_rows_total"], published["ml_feature_reference_rows"]
    expected = {(one.name, name, PROFILE.hash) for one in PROFILE.features for name in one.bins.names}
    assert set(rows) == set(reference) == expected
    assert set(rows.values()) == {0.0}
    for feature in PROFILE.features:
        total = sum(value for (name, _, _), value in reference.items() if name == feature.name)
        assert total == pytest.approx(10_000)
    assert published["ml_feature_invalid_total"] == {(one.name, "not_a_number"): 0.0 for one in PROFILE.features}
    assert published["ml_reference_info"] == {(PROFILE.hash, "profile"): 1.0}


def test_every_family_is_in_the_catalogue_and_every_sample_has_its_labels() -> None:
    watched = monitor(PROFILE)
    for _ in range(3):
        watched.add(traffic(np.random.default_rng(8), 500), 0.0)
    families = list(watched.families())
    assert len({family.metric.name for family in families}) == len(families)
    for family in families:
        assert family.metric in CATALOGUE
        assert all(len(labels) == len(family.metric.labels) for labels in family.samples)
        assert all(labels[:2] == ("houses", "3") for labels in family.samples)


@pytest.mark.parametrize("windows", [0, 1, 12])
def test_the_state_survives_json(windows: int) -> None:
    watched = monitor(PROFILE)
    for now in range(windows):
        watched.add(traffic(np.random.default_rng(now), 500, area=2.0), float(now))
    seen = state(watched)
    assert msgspec.json.decode(msgspec.json.encode(seen), type=ModelState) == seen
    assert len(seen.features) == 4
    for feature in seen.features:
        assert len(feature.bins) == len(feature.reference) == len(feature.current)
        assert sum(feature.reference) == pytest.approx(1)
        assert sum(feature.current) == pytest.approx(1 if windows else 0)


def learn(rng: np.random.Generator, **more: int) -> tuple[Profile | None, list[tuple[str, int]]]:
    watched = monitor(None, rows=500, **more)
    sources = []
    for window in range(1, 120):
        watched.add(traffic(rng, 500), float(window))
        reference = state(watched).reference
        if not sources or sources[-1][0] != reference.source:
            sources.append((reference.source, window))
    return watched._watch.profile if watched._watch else None, sources


def test_learning_takes_80_windows_and_10_000_rows() -> None:
    profile, sources = learn(np.random.default_rng(9))
    assert sources == [("learning", 1), ("learned", 80)]
    assert profile is not None
    assert profile.rows == 40_000
    assert [feature.name for feature in profile.features] == ["area", "age", "colour", "prediction"]
    assert all(sum(feature.counts) == 40_000 for feature in profile.features)
    assert profile.features[2].categories == COLOURS


def test_learning_waits_for_10_000_rows_however_many_windows() -> None:
    watched = monitor(None, seconds=60.0)
    rng = np.random.default_rng(10)
    for minute in range(1, 120):
        watched.add(traffic(rng, 100), 0.0)
        watched.tick(60.0 * minute)
        assert state(watched).reference.source == ("learning" if minute < 100 else "learned")


def test_windows_without_rows_teach_nothing() -> None:
    watched = monitor(None, seconds=60.0)
    watched.add(traffic(np.random.default_rng(10), 10_000), 0.0)
    for minute in range(1, 200):
        watched.tick(60.0 * minute)
    assert state(watched).reference.source == "learning"


def test_a_learned_reference_is_marked_and_its_features_have_no_series() -> None:
    rng = np.random.default_rng(12)
    watched = monitor(None)
    for window in range(90):
        watched.add(traffic(rng, 500), float(window))
    published = series(watched)
    ((reference, source),) = published["ml_reference_info"]
    assert source == "learned"
    assert len(reference) == 8
    assert not any(name.startswith("ml_feature") for name in published)
    assert published["ml_drift_evidence"][()] > -math.inf
    labels = {label for family in watched.families() for labels in family.samples for label in labels}
    assert labels.isdisjoint(("area", "colour", "red", "prediction"))
    (colour,) = (feature for feature in state(watched).features if feature.name == "colour")
    assert colour.bins[:2] == ("category 1", "category 2"), "nor are their categories named on the page"
    assert colour.bins[-2:] == ("other", "missing")


def test_a_shift_after_learning_is_found_and_none_before_it() -> None:
    rng = np.random.default_rng(13)
    watched = monitor(None)
    for window in range(180):
        watched.add(traffic(rng, 500), float(window))
    assert not any(point.drifted for point in state(watched).history)
    for window in range(10):
        watched.add(traffic(rng, 500, area=0.5), float(window))
    seen = state(watched)
    assert seen.drifted
    assert (seen.features[0].name, seen.features[0].direction) == ("area", "up")


def test_a_column_that_was_always_empty_does_not_shift_the_others_after_learning() -> None:
    rng = np.random.default_rng(14)
    watched = monitor(None, learn_rows=1_000, learn_windows=2)
    for _ in range(6):
        matrix = rng.normal(size=(500, 3))
        matrix[:, 1] = np.nan
        watched.add(exchange(numbers(matrix)), 0.0)
    seen = state(watched)
    assert seen.reference.source == "learned"
    assert {feature.name for feature in seen.features} == {"f0", "f2"}
    assert seen.rows == 3_000


def test_a_mixed_table_without_names_is_learned_column_by_column() -> None:
    rng = np.random.default_rng(15)
    watched = monitor(None, learn_rows=1_000, learn_windows=2)
    for _ in range(3):
        size = [str(round(value, 3)) for value in rng.normal(size=500)]
        watched.add(exchange(texts(np.column_stack([size, rng.choice(COLOURS, 500)]).astype(object))), 0.0)
    assert {feature.name: feature.kind for feature in state(watched).features} == {"f0": "numeric", "f1": "categorical"}


def test_an_id_in_the_traffic_is_left_out_and_the_rest_is_learned_and_watched(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rng = np.random.default_rng(17)
    watched = monitor(None, learn_rows=1_000, learn_windows=20)
    for window in range(26):
        ids = texts([[f"{window}-{row}"] for row in range(500)], ["id"])
        watched.add(exchange([ids, *traffic(rng, 500, area=3.0 * (window > 23)).inputs]), 0.0)
    seen = state(watched)
    assert seen.reference.source == "learned"
    assert {feature.name for feature in seen.features} == {"area", "age", "colour"}
    assert (seen.rows, seen.windows, seen.drifted) == (13_000, 6, True)
    first, last = (record.message for record in caplog.records)
    assert "1000 rows and 20 windows of 500" in first
    assert "--profile" in first
    assert "10000 rows in 20 windows: 3 of 4 columns are watched" in last


def test_where_ids_are_all_there_is_learning_begins_again_until_something_can_be_watched() -> None:
    watched = monitor(None, learn_rows=1_000, learn_windows=2)
    for window in range(6):
        watched.add(exchange(texts([[f"{window}-{row}"] for row in range(500)], ["id"])), 0.0)
        assert state(watched).reference.source == "learning"
    for _ in range(4):
        watched.add(exchange(texts([[COLOURS[row % 3]] for row in range(500)], ["id"])), 0.0)
    assert [feature.name for feature in state(watched).features] == ["id"]


def test_a_learned_feature_that_cannot_be_watched_costs_no_other_one_its_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    build = Detector.__init__

    def fails_for_age(self: Detector, references: Any, settings: Any) -> None:
        if "age" in references:
            raise IndexError("nothing to bet on")
        build(self, references, settings)

    monkeypatch.setattr(Detector, "__init__", fails_for_age)
    rng = np.random.default_rng(18)
    watched = monitor(None, learn_rows=1_000, learn_windows=2)
    for _ in range(4):
        watched.add(traffic(rng, 500), 0.0)
    assert {feature.name for feature in state(watched).features} == {"area", "colour", "prediction"}


def test_what_learning_still_needs_is_in_the_state() -> None:
    watched = monitor(None, seconds=60.0)
    rng = np.random.default_rng(19)
    for minute, rows in enumerate((12_000, 3_000, 0), start=1):
        if rows:
            watched.add(traffic(rng, rows), 0.0)
        watched.tick(60.0 * minute)
    reference = state(watched).reference
    assert (reference.rows, reference.rows_needed) == (15_000, 10_000)
    assert (reference.windows, reference.windows_needed) == (2, 80)


def test_the_first_odd_request_does_not_decide_what_is_learned() -> None:
    watched = monitor(None, learn_rows=1_000, learn_windows=2)
    watched.add(exchange(numbers([[1, 2, 3, 4, 5, 6, 7]], list("abcdefg"))), 0.0)
    rng, refused = np.random.default_rng(16), 0
    for _ in range(10):
        try:
            watched.add(traffic(rng, 500), 0.0)
        except Undecodable:
            refused += 1
    assert refused <= 1
    assert {feature.name for feature in state(watched).features} == {"area", "age", "colour", "prediction"}


def test_learning_keeps_no_long_text() -> None:
    watched = monitor(None)
    for number in range(50):
        watched.add(exchange(texts([["z" * 200_000 + str(number)]])), 0.0)
    state(watched)
    assert watched._learning is not None
    assert max(len(text) for part in watched._learning._first["f0"] for text in part.tolist()) <= 256


def test_wide_texts_lay_the_bins_before_they_fill_the_memory() -> None:
    watched = monitor(None)
    for _ in range(60):
        watched.add(exchange(texts([[f"{place}" + "z" * 500 for place in range(500)]])), 0.0)
    state(watched)
    assert watched._learning is not None
    assert watched._learning._counted is not None
    assert watched._learning.rows == 60
    assert not watched._learning._first


def test_rows_that_mean_nothing_still_have_a_finite_state() -> None:
    watched = monitor(profile_of({"x": np.arange(1000.0)}), rows=10)
    watched.add(exchange(numbers(np.array([[np.nan], [np.inf], [-np.inf], [1e308], [-1e308]] * 4))), 0.0)
    assert math.isfinite(series(watched)["ml_feature_drift"]["x", "psi"])
    assert msgspec.json.encode(state(watched))
