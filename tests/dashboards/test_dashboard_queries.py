"""Every query of a dashboard on a real Prometheus, beside the same figure worked out here."""

import math
from collections.abc import Iterator

import pytest
from pegel_dashboards import dashboards, queries
from pegel_dashboards.grafana import LONGEST_SCRAPE_INTERVAL
from pegel_rules import Record, Settings, accuracy, groups
from prometheus_with_data import Prometheus, Series, prometheus

pytestmark = pytest.mark.integration

EVERYTHING = {"namespace": ".*", "model_name": ".*", "feature": ".*", "window": ".*", "__rate_interval": "1m"}
CHURN, FRAUD, BARE = (
    {"namespace": "shop", "model_name": "churn", "model_version": "3"},
    {"namespace": "bank", "model_name": "fraud", "model_version": "1"},
    {"model_name": "bare", "model_version": "1"},  # outside Kubernetes
)
REPLICAS = [(CHURN, "churn-0"), (CHURN, "churn-1"), (FRAUD, "fraud-0"), (BARE, "bare-0")]

# Requests per second that took up to so many seconds.
LATENCY = {
    "churn-0": {0.01: 2.0, 0.025: 5.0, 0.05: 1.0, 0.1: 0.5, math.inf: 0.0},
    "churn-1": {0.01: 1.0, 0.025: 1.0, 0.05: 4.0, 0.1: 3.0, math.inf: 0.0},
    "fraud-0": {0.01: 10.0, 0.025: 0.2, 0.05: 0.0, 0.1: 0.0, math.inf: 0.0},
    "bare-0": {0.01: 0.0, 0.025: 0.0, 0.05: 0.0, 0.1: 1.0, math.inf: 0.0},
}
CODES = {
    "churn-0": {"200": 8.0, "500": 0.5},
    "churn-1": {"200": 9.0, "500": 0.0},
    "fraud-0": {"200": 10.0, "404": 0.2},
    "bare-0": {"200": 1.0},
}
# (accuracy, lower, upper, labels that it rests on)
ACCURACY = {
    "churn-0": (0.9, 0.88, 0.92, 500),
    "churn-1": (0.7, 0.6, 0.78, 100),
    "fraud-0": (0.99, 0.97, 1.0, 400),
}
EXPECTED = {"churn-0": 0.9, "churn-1": 0.8}
EVIDENCE = {"churn-0": 4.5, "churn-1": 1.0, "fraud-0": -math.inf, "bare-0": -0.5}
FEATURES = {"churn-0": {"age": 5.0, "fee": 0.2}, "churn-1": {"age": -math.inf, "fee": 2.0}, "fraud-0": {"sum": -1.0}}
# PSI and its limit of the fleet by feature and window, as rules record them
FLEET = {
    ("age", "1h"): (0.02, 0.04),
    ("age", "7d"): (0.003, 0.002),
    ("fee", "1h"): (0.01, 0.04),
}
SHARES = {"low": (0.3, 0.5), "high": (0.7, 0.5)}
REFERENCES = {"churn-0": ("cafe", "profile"), "churn-1": ("cafe", "profile"), "bare-0": ("f00d", "learned")}
LIMITS = {"churn-0": 3.9, "churn-1": 3.9, "fraud-0": 3.2, "bare-0": 3.9}


def data() -> Iterator[Series]:
    for model, pod in REPLICAS:
        own = {**model, "pod": pod, "instance": f"{pod}:9466", "job": "pegel"}
        total = 0.0
        for bound, rate in LATENCY[pod].items():
            total += rate
            le = {"le": "+Inf" if math.isinf(bound) else str(bound)}
            yield Series("ml_inference_duration_seconds_bucket", own | le, 1e6, total)
        for code, rate in CODES[pod].items():
            yield Series("ml_inference_requests_total", own | {"protocol": "kserve-v2", "code": code}, 1e6, rate)
        if pod in ACCURACY:
            accuracy, lower, upper, labels = ACCURACY[pod]
            yield Series("ml_model_accuracy", own, accuracy)
            yield Series("ml_model_accuracy_lower", own, lower)
            yield Series("ml_model_accuracy_upper", own, upper)
            yield Series("ml_model_accuracy_labels", own, labels)
        if pod in EXPECTED:
            yield Series("ml_model_accuracy_estimated", own, EXPECTED[pod])
            yield Series("ml_model_accuracy_estimated_error", own, 0.01)
        yield Series("ml_accuracy_drop_evidence", own, EVIDENCE[pod] - 1)
        yield Series("ml_accuracy_drop_evidence_limit", own, LIMITS[pod] + 1)
        yield Series("ml_drift_evidence", own, EVIDENCE[pod])
        yield Series("ml_drift_evidence_limit", own, LIMITS[pod])
        for feature, value in FEATURES.get(pod, {}).items():
            yield Series("ml_feature_drift_evidence", own | {"feature": feature}, value)
        if pod in REFERENCES:
            reference, source = REFERENCES[pod]
            yield Series("ml_reference_info", own | {"reference": reference, "source": source}, 1)
    for (feature, window), (psi, limit) in FLEET.items():
        own = CHURN | {"feature": feature, "reference": "cafe", "window": window}
        for measure, value in (("psi", psi), ("js", psi / 2), ("tvd", psi / 4)):
            yield Series(f"namespace_feature:ml_feature_drift:{measure}", own, value)
        yield Series("namespace_feature:ml_feature_drift_limit:psi", own, limit)
        yield Series("namespace_feature:ml_feature_rows:sum", own, 900)
        for own_bin, (share, reference_share) in SHARES.items():
            yield Series("namespace_bin:ml_feature_rows:share", own | {"bin": own_bin}, share)
            if window == "1h":
                lasting = {key: value for key, value in own.items() if key != "window"} | {"bin": own_bin}
                yield Series("namespace_bin:ml_feature_reference_rows:share", lasting, reference_share)
    yield Series("pegel_threshold", {"alert": "ModelAccuracyDrift"}, 0.85)
    yield Series("pegel_threshold", {"alert": "ModelAccuracyDrift", "model_name": "fraud"}, 0.95)
    yield Series("pegel_threshold", {"alert": "DataDriftBroad"}, 0.5)
    for gpu, ratio in (("0", 0.25), ("1", 0.75)):
        node = {"instance": "node-1", "uuid": f"GPU-a{gpu}"}
        yield Series("nvidia_gpu_utilization_ratio", node | {"gpu": gpu}, ratio)
        # Minor numbers need not be the indices.
        older = {"minor_number": str(7 - int(gpu)), "name": "A100"}
        yield Series("nvidia_gpu_duty_cycle", node | older, ratio * 100)
    yield Series(
        "nvidia_gpu_duty_cycle", {"instance": "node-2", "minor_number": "0", "uuid": "GPU-b", "name": "V100"}, 40.0
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with prometheus(tmp_path_factory.mktemp("prometheus"), list(data())) as running:
        yield running


def asked(server: Prometheus, title: str, ref: str = "A", *, file: str = "ml-operations.json", **chosen: str):
    """What the panel's query shows, all models unless some are chosen."""
    board = dashboards()[file]
    (expr,) = [
        expr
        for panel, own_ref, expr in queries(board, EVERYTHING | chosen)
        if panel.startswith(title) and own_ref == ref
    ]
    return server.query(expr)


def by(*parts: tuple[dict[str, str], float]):
    return pytest.approx({frozenset(labels.items()): value for labels, value in parts})


def quantile(q: float, rates: dict[float, float]) -> float:
    """The q-quantile of requests spread evenly within their bucket."""
    rank, below, lower = q * sum(rates.values()), 0.0, 0.0
    for bound, rate in rates.items():
        if below + rate >= rank:
            return lower + (bound - lower) * (rank - below) / rate
        below, lower = below + rate, bound
    raise AssertionError("no requests")


def weighted(position: int, *pods: str) -> float:
    labels = [ACCURACY[pod][3] for pod in pods]
    return sum(ACCURACY[pod][position] * n for pod, n in zip(pods, labels, strict=True)) / sum(labels)


def test_no_query_is_empty(server):
    for board in dashboards().values():
        for title, ref, expr in queries(board, EVERYTHING):
            assert server.query(expr), (title, ref)


def test_latency_is_the_quantile_of_all_replicas_together(server):
    churn = {bound: LATENCY["churn-0"][bound] + LATENCY["churn-1"][bound] for bound in LATENCY["churn-0"]}
    expected = [(CHURN, quantile(0.95, churn)), (FRAUD, quantile(0.95, LATENCY["fraud-0"]))]
    assert asked(server, "Model Inference Latency") == by(*expected, (BARE, quantile(0.95, LATENCY["bare-0"])))


def test_every_gpu_is_shown_once_whichever_metrics_its_exporter_has(server):
    assert asked(server, "GPU Utilization") == by(
        ({"instance": "node-1", "gpu": "0"}, 0.25),
        ({"instance": "node-1", "gpu": "1"}, 0.75),
        ({"instance": "node-2", "gpu": "0"}, 0.4),
    )


@pytest.mark.parametrize(("ref", "position"), [("A", 0), ("B", 1), ("C", 2)])
def test_accuracy_and_its_interval_count_labels_and_leave_out_who_has_too_few(server, ref, position):
    assert asked(server, "Model Accuracy", ref) == by(
        (CHURN, weighted(position, "churn-0", "churn-1")), (FRAUD, weighted(position, "fraud-0"))
    )


@pytest.mark.parametrize(("ref", "expected"), [("A", 0.85), ("B", 0.83), ("C", 0.87)])
def test_the_expected_accuracy_is_the_replicas_mean_between_two_standard_errors(server, ref, expected):
    assert asked(server, "Accuracy Expected", ref) == by((CHURN, expected))


def test_the_evidence_of_a_drop_is_averaged_as_it_is_not_its_logarithm(server):
    churn = math.log10((10**3.5 + 10**0) / 2)
    assert asked(server, "Accuracy Drop") == by((CHURN, churn), (FRAUD, 0.0), (BARE, 0.0))
    assert asked(server, "Accuracy Drop", "B") == by((CHURN, 4.9), (FRAUD, 4.2), (BARE, 4.9))


def test_the_accuracy_shown_is_the_accuracy_that_the_alert_judges(server):
    recorded = {
        rule.name: rule.expr for group in groups(Settings()) for rule in group.rules if isinstance(rule, Record)
    }
    judged = recorded[accuracy.ACCURACY].replace(accuracy.JUDGED, f"({recorded[accuracy.JUDGED]})")
    assert asked(server, "Model Accuracy") == server.query(judged)


def test_the_default_threshold_is_shown_beside_the_models_own(server):
    default, own = ({"": ""}, 0.85), ({"model_name": "fraud"}, 0.95)
    assert asked(server, "Model Accuracy", "D") == pytest.approx(
        {frozenset(): default[1], frozenset(own[0].items()): own[1]}
    )
    assert asked(server, "Model Accuracy", "D", model_name="churn") == pytest.approx({frozenset(): 0.85})
    assert asked(server, "Model Accuracy", "D", model_name="(churn|fraud)") == asked(server, "Model Accuracy", "D")


def test_evidence_is_averaged_before_the_logarithm_and_shown_from_zero(server):
    average = math.log10((10**4.5 + 10**1.0) / 2)
    assert asked(server, "Data Drift: Evidence") == by((CHURN, average), (FRAUD, 0), (BARE, 0))


def test_the_limit_is_each_models_own(server):
    assert asked(server, "Data Drift: Evidence", "B") == by((CHURN, 3.9), (FRAUD, 3.2), (BARE, 3.9))


def test_features_are_averaged_over_replicas(server):
    assert asked(server, "Data Drift: Strongest") == by(
        (CHURN | {"feature": "age"}, math.log10(10**5 / 2)),
        (CHURN | {"feature": "fee"}, math.log10((10**0.2 + 10**2) / 2)),
        (FRAUD | {"feature": "sum"}, 0),
    )


def test_requests_are_added_by_code(server):
    assert asked(server, "Requests") == by(({"code": "200"}, 28.0), ({"code": "404"}, 0.2), ({"code": "500"}, 0.5))


def test_a_choice_of_model_and_namespace_leaves_the_others_out(server):
    assert asked(server, "Requests", namespace="shop") == by(({"code": "200"}, 17.0), ({"code": "500"}, 0.5))
    for title in ("Model Inference", "Model Accuracy", "Data Drift: Evidence", "Data Drift: Strongest"):
        shown = asked(server, title, model_name="fraud")
        assert {dict(labels)["model_name"] for labels in shown} == {"fraud"}, title


def test_the_variables_offer_the_models_and_namespaces_that_there_are(server):
    assert server.label_values("namespace", "ml_inference_requests_total") == ["bank", "shop"]
    asking = [v["query"] for v in dashboards()["ml-operations.json"]["templating"]["list"] if v["type"] == "query"]
    assert asking == [
        "label_values(ml_inference_requests_total, namespace)",
        'label_values(ml_inference_requests_total{namespace=~"$namespace"}, model_name)',
    ]
    chosen = asking[1].removeprefix("label_values(").partition(", ")[0].replace("$namespace", "shop")
    assert server.label_values("model_name", chosen) == ["churn"]


# Model Drift


def drift(server: Prometheus, title: str, ref: str = "A", **chosen: str):
    return asked(server, title, ref, file="model-drift.json", **chosen)


def of(feature: str, window: str, **more: str) -> dict[str, str]:
    return CHURN | {"feature": feature, "window": window, "reference": "cafe"} | more


def test_the_ten_furthest_are_psi_over_its_limit(server):
    assert drift(server, "Furthest") == by(*((of(*key), psi / limit) for key, (psi, limit) in FLEET.items()))


def test_psi_stands_beside_the_limit_of_the_chosen_feature_and_windows(server):
    assert drift(server, "PSI", feature="age") == by((of("age", "1h"), 0.02), (of("age", "7d"), 0.003))
    assert drift(server, "PSI", "B", feature="age", window="7d") == by((of("age", "7d"), 0.002))
    assert drift(server, "PSI", model_name="fraud") == {}


def test_each_bins_share_stands_beside_the_references(server):
    now = [(of("fee", "1h", bin=own), share) for own, (share, _) in SHARES.items()]
    reference = [
        (CHURN | {"feature": "fee", "reference": "cafe", "bin": own}, share) for own, (_, share) in SHARES.items()
    ]
    assert drift(server, "Share", feature="fee") == by(*now)
    assert drift(server, "Share", "B", feature="fee", window="7d") == by(*reference)


def test_distances_and_rows_are_the_recorded_ones(server):
    assert drift(server, "Distance", feature="fee") == by((of("fee", "1h"), 0.005))
    assert drift(server, "Distance", "B", feature="fee") == by((of("fee", "1h"), 0.0025))
    assert drift(server, "Rows", feature="fee") == by((of("fee", "1h"), 900))


def test_both_dashboards_show_the_same_evidence(server):
    for title in ("Data Drift: Evidence", "Data Drift: Strongest"):
        assert drift(server, title) == asked(server, title)


def test_replicas_are_counted_by_their_reference(server):
    assert drift(server, "Replicas") == by(
        (CHURN | {"reference": "cafe", "source": "profile"}, 2), (BARE | {"reference": "f00d", "source": "learned"}, 1)
    )


def test_one_feature_is_chosen_at_a_time_and_windows_all_at_first():
    choices = {v["name"]: v for v in dashboards()["model-drift.json"]["templating"]["list"]}
    assert not choices["feature"]["includeAll"]
    assert not choices["feature"]["multi"]
    assert choices["window"]["current"]["value"] == ["$__all"]


def test_a_rate_has_values_where_prometheus_scrapes_once_a_minute() -> None:
    targets = [target for board in dashboards().values() for panel in board["panels"] for target in panel["targets"]]
    rates = [target for target in targets if "$__rate_interval" in target["expr"]]
    assert rates
    assert {target["interval"] for target in rates} == {LONGEST_SCRAPE_INTERVAL}
