"""What is remembered of who holds the GPUs, and how both pages tell it: data in, data out."""

from dataclasses import replace
from typing import Any

from pegel_exporters.exposition import Renderer
from pegel_exporters.gpu import page
from pegel_exporters.gpu.cluster import Cluster
from pegel_exporters.gpu.metrics import Fleet, Gauge
from pegel_exporters.gpu.podresources import Holding, KubeletUnavailableError
from pegel_exporters.gpu.pods import PodsWatch
from pegel_exporters.gpu.readings import Reading
from pegel_exporters.gpu.sets import families

from tests.exporters.test_exposition import reference_pages

GPU = "GPU-11111111-2222-3333-4444-555555555555"
OTHER = "GPU-66666666-7777-8888-9999-000000000000"
MIG = "MIG-12345678-7777-8888-9999-000000000000"
FLEET = Fleet(
    listed=2,
    gauges=tuple(
        Gauge(reading=Reading(uuid=uuid, gpu=str(index), name="Tesla T4"), age_seconds=0.0, up=True, fresh=True)
        for index, uuid in enumerate((GPU, OTHER))
    ),
)
HOLDING = Holding("shop", "checkout-7d9", "model", "nvidia.com/gpu", (GPU,))
REFUSED = KubeletUnavailableError("it refuses", "today")


def holding(*ids: str, pod: str = "checkout-7d9") -> Holding:
    return replace(HOLDING, device_ids=ids, pod=pod)


def watch_of(*steps: tuple[tuple[Holding, ...] | KubeletUnavailableError, float]) -> tuple[PodsWatch, list[str]]:
    """A watch after answers and failures at given seconds, and the last step's news."""
    watch, news = PodsWatch(kept=60.0), []
    for step, now in steps:
        news = watch.failed(step) if isinstance(step, KubeletUnavailableError) else watch.took(step, FLEET, now)
    return watch, news


def samples(watch: PodsWatch, now: float) -> dict[str, dict[tuple[str, ...], Any]]:
    """What the page has of pods, by the metric's name without its prefix."""
    fleet = replace(FLEET, pods=watch.pods(FLEET, now))
    return {
        family.metric.name.removeprefix("nvidia_gpu_pod_"): dict(family.samples)
        for family in families(fleet)
        if "_pod_" in family.metric.name
    }


def shown(watch: PodsWatch, now: float) -> str:
    return page.page(replace(FLEET, pods=watch.pods(FLEET, now))).decode()


def test_nothing_is_said_of_pods_where_nobody_asks() -> None:
    assert not any("_pod_" in family.metric.name for family in families(FLEET))
    assert "Held by" not in page.page(FLEET).decode()


def test_before_the_first_answer_there_is_only_a_0() -> None:
    watch = PodsWatch()
    assert samples(watch, 0.0) == {"resources_up": {(): 0.0}}
    assert "has not been asked yet" in shown(watch, 0.0)


def test_an_answer_is_a_series_for_each_holder_with_its_age() -> None:
    watch, news = watch_of(((holding(GPU), holding(MIG, pod="b"), holding(f"{OTHER}::1", pod="c")), 100.0))
    assert samples(watch, 103.5) == {
        "allocated": {
            ("shop", "b", "model", "", MIG, "", "", "mig"): 1.0,
            ("shop", "c", "model", OTHER, "", "", "", "equal_share"): 1.0,
            ("shop", "checkout-7d9", "model", GPU, "", "", "", "exclusive"): 1.0,
        },
        "resources_up": {(): 1.0},
        "resources_age_seconds": {(): 3.5},
        "resources_unknown_devices": {(): 0.0},
    }
    assert news == ["the kubelet tells who holds the GPUs"]


def test_an_answer_in_which_nobody_holds_a_gpu_is_an_answer() -> None:
    watch, _ = watch_of(((), 0.0))
    assert samples(watch, 0.0)["resources_up"] == {(): 1.0}
    assert "allocated" not in samples(watch, 0.0)
    assert shown(watch, 0.0).count("nobody") == 2


def test_the_last_answer_is_kept_for_a_minute_and_then_gone() -> None:
    watch, _ = watch_of(((HOLDING,), 100.0), (REFUSED, 110.0))
    young, old = samples(watch, 160.0), samples(watch, 160.1)
    assert len(young["allocated"]) == 1
    assert young["resources_up"] == {(): 0.0}
    assert old == {"resources_up": {(): 0.0}, "resources_age_seconds": {(): 60.1}}


def test_a_pod_that_the_kubelet_no_longer_lists_is_gone_at_once() -> None:
    watch, _ = watch_of(((HOLDING,), 0.0), ((), 5.0))
    assert "allocated" not in samples(watch, 5.0)


def test_the_same_failure_is_told_once_whatever_its_detail_and_another_one_again() -> None:
    line = "who holds the GPUs is not told: it refuses: today; trying again"
    assert watch_of((REFUSED, 0.0))[1] == [line]
    assert watch_of(((HOLDING,), 0.0), (REFUSED, 5.0))[1] == [line]
    assert watch_of((REFUSED, 0.0), (KubeletUnavailableError("it refuses", "tomorrow"), 5.0))[1] == []
    assert len(watch_of((REFUSED, 0.0), (KubeletUnavailableError("it hangs"), 5.0))[1]) == 1
    assert watch_of((REFUSED, 0.0), ((), 5.0))[1] == ["the kubelet tells who holds the GPUs"]


def test_ids_that_fit_no_gpu_are_counted_and_told_once() -> None:
    odd = tuple(f"odd-{number}" for number in range(5))
    line = "5 device id(s) of the kubelet fit no GPU of this node: odd-0, odd-1, odd-2, ..."
    watch, news = watch_of(((holding(*odd),), 0.0))
    assert news == ["the kubelet tells who holds the GPUs", line]
    assert samples(watch, 0.0)["resources_unknown_devices"] == {(): 5.0}
    assert watch.took((holding(*odd, "odd-9"),), FLEET, 5.0) == []
    assert watch.took((), FLEET, 10.0) == []
    assert watch.took((holding("odd-1"),), FLEET, 15.0) == [
        "1 device id(s) of the kubelet fit no GPU of this node: odd-1"
    ]


def test_ids_are_not_called_unknown_in_the_log_before_the_driver_has_listed_its_gpus() -> None:
    watch = PodsWatch()
    assert watch.took((holding("nvidia0"),), Fleet(), 0.0) == ["the kubelet tells who holds the GPUs"]
    assert "fit no GPU" in watch.took((holding("nvidia0"),), FLEET, 5.0)[0]


def test_both_formats_are_prometheus_clients_byte_for_byte_with_pods_on_the_page() -> None:
    watch, _ = watch_of(((holding(GPU, "odd"), holding(MIG, pod='a"\\b'), holding(f"{OTHER}::1", pod="c")), 0.0))
    pods = (("shop", "checkout-7d9"), ("shop", 'a"\\b'), ("shop", "gone"))
    cluster = Cluster(
        teams=dict.fromkeys(pods, "Größe\n1"), label_names=("label_b", "label_a"),
        labels=dict.fromkeys(pods, ("of b", 'of "a"')), errors={"pods": "", "resourceslices": "refused"},
    )  # fmt: skip
    told = list(families(replace(FLEET, pods=watch.pods(FLEET, 12.25, cluster))))
    text, openmetrics = reference_pages(told)
    assert b"nvidia_gpu_pod_allocated{" in text
    assert text.count(b"nvidia_gpu_pod_labels{") == 2, "of pods that hold a GPU alone"
    assert b'nvidia_gpu_kubernetes_api_up{resource="resourceslices"} 0.0' in text
    assert Renderer().render(told) == text
    assert Renderer().render(told, openmetrics=True) == openmetrics


def test_the_page_for_people_tells_who_holds_each_gpu() -> None:
    watch, _ = watch_of(((holding(GPU), holding(f"{OTHER}::1", pod="b"), holding(f"{OTHER}::2", pod="c")), 0.0))
    told = shown(watch, 3.0)
    assert "shop/checkout-7d9 <small>model, alone</small>" in told
    assert "shop/b <small>model, shared</small><br>shop/c <small>model, shared</small>" in told
    assert "what the kubelet told 3 s ago" in told
    assert "in no row above" not in told


def test_what_is_held_in_no_row_is_told_below_and_nothing_is_called_free_then() -> None:
    lost = "GPU-99999999-9999-9999-9999-999999999999"
    watch, _ = watch_of(((holding(MIG), holding(lost, pod="b")), 0.0))
    told = shown(watch, 0.0)
    assert f"<li>{MIG}: shop/checkout-7d9 <small>model, a MIG device</small></li>" in told
    assert f"<li>{lost}: shop/b" in told
    assert "nobody" not in told
    watch, _ = watch_of(((holding("odd"),), 0.0))
    assert "Device ids that fit no GPU of this node: odd." in shown(watch, 0.0)
    assert "nobody" not in shown(watch, 0.0)


def test_a_gpu_that_was_lost_before_it_told_its_uuid_is_given_no_holder() -> None:
    lost = Gauge(reading=Reading(uuid="", gpu="0", error="GPU is lost"), age_seconds=None, up=False, fresh=False)
    watch, _ = watch_of(((holding(MIG),), 0.0))
    told = page.page(replace(FLEET, gauges=(lost,), pods=watch.pods(FLEET, 0.0))).decode()
    assert f"<li>{MIG}: shop/checkout-7d9" in told
    assert told.count("checkout-7d9") == 1


def test_the_page_for_people_says_what_is_wrong_and_what_that_means() -> None:
    watch, _ = watch_of(((HOLDING,), 0.0), (REFUSED, 5.0))
    kept, gone = shown(watch, 30.0), shown(watch, 61.0)
    assert "does not tell who holds the GPUs: it refuses: today." in kept
    assert "Its answer of 30 s ago is shown until it is 60 s old." in kept
    assert "checkout-7d9" in kept
    assert "So it is not known who holds the GPUs." in gone
    assert "checkout-7d9" not in gone
    assert "nobody" not in gone


def test_the_page_for_people_escapes_what_the_kubelet_says() -> None:
    watch, _ = watch_of(((holding(GPU, pod="<script>"), holding("<b>")), 0.0))
    assert "<script>" not in shown(watch, 0.0)
    assert "<b>" not in shown(watch, 0.0)
    watch, _ = watch_of((KubeletUnavailableError("no", "<i>"), 0.0))
    assert "<i>" not in shown(watch, 0.0)
