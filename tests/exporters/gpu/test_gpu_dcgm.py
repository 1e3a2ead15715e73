"""The set of dcgm-exporter's names: pages by hand, and the queries of its dashboard against a real Prometheus."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pegel_exporters.exposition import Renderer
from pegel_exporters.gpu import dcgm
from pegel_exporters.gpu.attribution import Allocation, Allocations
from pegel_exporters.gpu.fleet import Watch
from pegel_exporters.gpu.metrics import Fleet, Pods
from pegel_exporters.gpu.readings import Instance, Node, Reading, Xid
from pegel_exporters.gpu.sets import families

from tests.dashboards.prometheus_with_data import prometheus_scraping
from tests.exporters.gpu.kubelet_server import KubeletServer, pod

GPU = "GPU-11111111-2222-3333-4444-555555555555"
MIG = "MIG-11111111-2222-3333-4444-555555555555"
READING = Reading(
    uuid=GPU,
    gpu="0",
    name="NVIDIA H100 80GB HBM3",
    minor_number="3",
    pci_bus_id="00000000:07:00.0",
    raw={
        "clock:sm": 1410.0, "power": 61_250.0, "energy": 123_456_789.0, "temperature": 644_245_923.0,
        "memory_used": float(5 << 20), "gpm_5": 37.5, "gpm_20": 2.0,
    },
    instances=(Instance(uuid=MIG, profile="1g.10gb", gpu_instance=9, compute_instance=0, slices=1,
                        raw={"memory_used": float(3 << 20), "gpm_1": 25.0}),),
)  # fmt: skip
NODE = Node(time=0.0, driver_version="550.90.07", cuda_version="12.4", simulated=False, gpus=(READING,))
HELD = Allocation(
    namespace="shop", pod="checkout-7d9", container="model", uuid=GPU, mig_uuid="", attribution="exclusive",
    **({"mig_profile": ""} if "mig_profile" in Allocation.__dataclass_fields__ else {}),
)  # fmt: skip


def fleet_of(*steps: Node, held: tuple[Allocation, ...] = ()) -> Fleet:
    watch = Watch(stale_after=15.0)
    for number, node in enumerate(steps):
        watch.took(node, float(number))
    pods = Pods(up=True, age_seconds=0.0, kept_seconds=60.0, allocations=Allocations(held=held))
    return replace(watch.fleet(float(len(steps) - 1)), pods=pods)


def page(fleet: Fleet, *, openmetrics: bool = False) -> list[str]:
    return Renderer().render(families(fleet, ("dcgm",), hostname="n1"), openmetrics=openmetrics).decode().splitlines()


def labels(*, profile: str = "", instance: str = "", container: str = "", namespace: str = "", name: str = "") -> str:
    return (
        f'DCGM_FI_DRIVER_VERSION="550.90.07",GPU_I_ID="{instance}",GPU_I_PROFILE="{profile}",Hostname="n1",UUID="{GPU}",'
        f'container="{container}",device="nvidia3",gpu="0",hostname="n1",modelName="NVIDIA H100 80GB HBM3",'
        f'namespace="{namespace}",pci_bus_id="00000000:07:00.0",pod="{name}"'
    )


def test_values_stand_in_dcgms_units_with_its_labels_and_the_pod_that_has_the_gpu_alone() -> None:
    whole = labels(container="model", namespace="shop", name="checkout-7d9")
    part = labels(profile="1g.10gb", instance="9")
    assert [line for line in page(fleet_of(NODE, held=(HELD,))) if not line.startswith("# HELP")] == [
        "# TYPE DCGM_FI_DEV_SM_CLOCK gauge",
        f"DCGM_FI_DEV_SM_CLOCK{{{whole}}} 1410.0",
        "# TYPE DCGM_FI_DEV_POWER_USAGE gauge",
        f"DCGM_FI_DEV_POWER_USAGE{{{whole}}} 61.25",
        "# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter",
        f"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{{whole}}} 1.23456789e+08",
        "# TYPE DCGM_FI_DEV_FB_USED gauge",
        f"DCGM_FI_DEV_FB_USED{{{part}}} 3.0",
        "# TYPE DCGM_FI_PROF_GR_ENGINE_ACTIVE gauge",
        f"DCGM_FI_PROF_GR_ENGINE_ACTIVE{{{part}}} 0.25",
        "# TYPE DCGM_FI_PROF_PIPE_TENSOR_ACTIVE gauge",
        f"DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{{{whole}}} 0.375",
        "# TYPE DCGM_FI_PROF_PCIE_TX_BYTES gauge",
        f"DCGM_FI_PROF_PCIE_TX_BYTES{{{whole}}} 2.097152e+06",
        "# TYPE DCGM_FI_DEV_XID_ERRORS gauge",
        f"DCGM_FI_DEV_XID_ERRORS{{{whole}}} 0.0",
    ]


def test_a_mig_devices_values_are_its_holders() -> None:
    of_part = replace(HELD, mig_uuid=MIG, attribution="mig")
    part = labels(profile="1g.10gb", instance="9", container="model", namespace="shop", name="checkout-7d9")
    assert f"DCGM_FI_DEV_FB_USED{{{part}}} 3.0" in page(fleet_of(NODE, held=(of_part,)))
    assert f"DCGM_FI_DEV_SM_CLOCK{{{labels()}}} 1410.0" in page(fleet_of(NODE, held=(of_part,)))


def test_the_value_of_a_gpu_that_pods_share_is_no_pods() -> None:
    shared = tuple(replace(HELD, pod=name, attribution="equal_share") for name in ("a", "b"))
    assert f"DCGM_FI_DEV_SM_CLOCK{{{labels()}}} 1410.0" in page(fleet_of(NODE, held=shared))


def test_the_last_xid_stays() -> None:
    failed = replace(NODE, xids=(Xid(uuid=GPU, code=31, time=1.0), Xid(uuid=GPU, code=79, time=2.0)))
    assert f"DCGM_FI_DEV_XID_ERRORS{{{labels()}}} 79.0" in page(fleet_of(NODE, failed, NODE))


def test_a_counter_with_no_suffix_has_no_type_in_openmetrics() -> None:
    assert "# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION unknown" in page(fleet_of(NODE), openmetrics=True)


def test_every_name_is_told_in_the_documentation() -> None:
    told = Path("docs/dcgm.md").read_text()
    names = [field.metric.name for field in dcgm.FIELDS] + [dcgm.XID_ERRORS.name]
    assert [name for name in names if f"`{name}`" not in told] == []


@pytest.mark.integration
def test_the_queries_of_dcgms_dashboard_answer_in_a_real_prometheus(
    nvml: Any, kubelet: KubeletServer, run_exporter: Callable[..., Any], tmp_path: Path
) -> None:
    kubelet.pods = [pod("checkout-7d9", {"nvidia.com/gpu": [GPU]})]
    nvml.tell(
        "driver_version 550.90.07", "cuda_version 12040", "count 2",
        *(
            line
            for gpu, uuid in enumerate((GPU, f"{GPU[:-1]}6"))
            for line in (
                f"{gpu}.uuid {uuid}", f"{gpu}.name NVIDIA H100 80GB HBM3", f"{gpu}.minor_number {gpu}",
                f"{gpu}.pci_bus_id 00000000:0{gpu}:00.0", f"{gpu}.temperature 4{gpu}", f"{gpu}.power 6{gpu}250",
                f"{gpu}.clock:sm 1{gpu}10", f"{gpu}.utilization 4{gpu}", f"{gpu}.memory_utilization 7",
                f"{gpu}.memory_total {80 << 30}", f"{gpu}.memory_used {(4 + gpu) << 30}",
                f"{gpu}.gpm 1", f"{gpu}.gpm_5 {37.5 + gpu}",
            )
        ),
    )  # fmt: skip
    exporter = run_exporter(
        "--metrics", "dcgm", "--pod-resources", str(kubelet.path), environment={**nvml.environment, "NODE_NAME": "n1"}
    )
    exporter.wait(lambda: 'pod="checkout-7d9"' in exporter.metrics())
    with prometheus_scraping(tmp_path, urlsplit(exporter.url).netloc) as server:
        exporter.wait(lambda: server.query("DCGM_FI_DEV_GPU_UTIL"))
        every = '{Hostname=~"n1|", gpu=~"0|1"}'

        def by(expression: str, *kept: str) -> dict[tuple[str, ...], float]:
            return {
                tuple(dict(pairs).get(name, "") for name in kept): value
                for pairs, value in server.query(expression).items()
            }

        of_host = "Hostname", "gpu"
        assert by(f"max(DCGM_FI_DEV_GPU_TEMP{every}) by (Hostname, gpu, uuid)", *of_host) == {
            ("n1", "0"): 40, ("n1", "1"): 41,
        }  # fmt: skip
        assert list(server.query(f"avg(DCGM_FI_DEV_GPU_TEMP{every})").values()) == [40.5]
        assert list(server.query(f"sum(max(DCGM_FI_DEV_POWER_USAGE{every}) by (gpu))").values()) == [60.25 + 61.25]
        assert by(f"max(DCGM_FI_DEV_SM_CLOCK{every} * 1000000) by (Hostname, UUID, gpu)", *of_host) == {
            ("n1", "0"): 1010e6, ("n1", "1"): 1110e6,
        }  # fmt: skip
        instance = urlsplit(exporter.url).netloc
        assert by("DCGM_FI_DEV_GPU_UTIL", "instance", "gpu") == {(instance, "0"): 40, (instance, "1"): 41}
        exporter.wait(lambda: server.query("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"))
        assert by("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "instance", "gpu") == {
            (instance, "0"): 0.375, (instance, "1"): 0.385,
        }  # fmt: skip
        assert by("DCGM_FI_DEV_FB_USED", "instance", "gpu") == {(instance, "0"): 4096, (instance, "1"): 5120}
        assert by("DCGM_FI_DEV_GPU_UTIL", "namespace", "pod", "container") == {
            ("shop", "checkout-7d9", "model"): 40, ("", "", ""): 41,
        }  # fmt: skip
