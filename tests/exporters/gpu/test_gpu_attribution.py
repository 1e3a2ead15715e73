"""From device ids to who holds which GPU: data in, data out."""

import pytest
from pegel_exporters.gpu.attribution import DRA_DRIVER, Allocations, DeviceId, allocations, read_device_id
from pegel_exporters.gpu.cluster import Cluster
from pegel_exporters.gpu.podresources import Holding
from pegel_exporters.gpu.readings import Reading

UUID = "11111111-2222-3333-4444-55555555abcd"
OTHER = "66666666-7777-8888-9999-000000000000"
LOST = "GPU-99999999-9999-9999-9999-999999999999"
GPUS = (
    Reading(uuid=f"GPU-{UUID}", gpu="0", minor_number="3"),
    Reading(uuid=f"GPU-{OTHER}", gpu="1", minor_number="0"),
)


def holding(*ids: str, resource: str = "nvidia.com/gpu", pod: str = "a", container: str = "model") -> Holding:
    return Holding("shop", pod, container, resource, ids)


def held(*holdings: Holding) -> list[tuple[str, str, str, str]]:
    """(pod, uuid, mig_uuid, attribution) of everything held, where nothing is unknown."""
    told = allocations(holdings, GPUS)
    assert told.unknown == ()
    return [(one.pod, one.uuid, one.mig_uuid, one.attribution) for one in told.held]


@pytest.mark.parametrize(
    ("text", "device"),
    [
        (f"GPU-{UUID}", DeviceId(uuid=f"GPU-{UUID}")),
        (f"GPU-{UUID}::3", DeviceId(uuid=f"GPU-{UUID}", replica=True)),
        (f"GPU-{UUID}::12", DeviceId(uuid=f"GPU-{UUID}", replica=True)),
        (f"MIG-{UUID}", DeviceId(mig_uuid=f"MIG-{UUID}")),
        (f"MIG-{UUID}::7", DeviceId(mig_uuid=f"MIG-{UUID}", replica=True)),
        (f"MIG-GPU-{UUID}/7/0", DeviceId(uuid=f"GPU-{UUID}", mig_uuid=f"MIG-GPU-{UUID}/7/0")),
        (f"MIG-GPU-{UUID}/7/0::1", DeviceId(uuid=f"GPU-{UUID}", mig_uuid=f"MIG-GPU-{UUID}/7/0", replica=True)),
        ("nvidia0", DeviceId(minor="0")),
        ("nvidia12", DeviceId(minor="12")),
        ("nvidia0/vgpu1", DeviceId(minor="0", replica=True)),
        ("nvidia0/gi7", DeviceId(minor="0", instance="/gi7")),
        ("nvidia0/gi7/vgpu1", DeviceId(minor="0", instance="/gi7", replica=True)),
        ("0", DeviceId(index="0")),
        ("15", DeviceId(index="15")),
        ("", None),
        ("GPU-1", None),
        (UUID, None),
        (f"GPU-{UUID}-3", None),
        (f"GPU-{UUID}::", None),
        (f"GPU-{UUID}::x", None),
        (f"GPU-{UUID}\n", None),
        (f"xGPU-{UUID}", None),
        ("nvidia", None),
        ("nvidia0/gi7/vgpu1/x", None),
        ("nvidia0/vgpu1/gi7", None),
        ("0:1", None),
        ("-1", None),
        ("\N{ARABIC-INDIC DIGIT ONE}", None),
        ("tegra", None),
        ("0000:07:00.0", None),
    ],
)
def test_a_device_id_is_read_by_its_form_or_not_at_all(text: str, device: DeviceId | None) -> None:
    assert read_device_id(text) == device


@pytest.mark.parametrize(
    ("text", "resource", "uuid", "mig_uuid", "attribution"),
    [
        (f"GPU-{UUID}", "nvidia.com/gpu", f"GPU-{UUID}", "", "exclusive"),
        (f"GPU-{UUID}::3", "nvidia.com/gpu", f"GPU-{UUID}", "", "equal_share"),
        (f"GPU-{UUID}::3", "nvidia.com/gpu.shared", f"GPU-{UUID}", "", "equal_share"),
        (f"MIG-{OTHER}", "nvidia.com/mig-1g.10gb", "", f"MIG-{OTHER}", "mig"),
        (f"MIG-{OTHER}", "nvidia.com/gpu", "", f"MIG-{OTHER}", "mig"),
        (f"MIG-{OTHER}::7", "nvidia.com/mig-1g.10gb.shared", "", f"MIG-{OTHER}", "equal_share"),
        (f"MIG-GPU-{UUID}/7/0", "nvidia.com/mig-1g.5gb", f"GPU-{UUID}", f"MIG-GPU-{UUID}/7/0", "mig"),
        ("nvidia3", "nvidia.com/gpu", f"GPU-{UUID}", "", "exclusive"),
        ("nvidia3/vgpu1", "nvidia.com/gpu", f"GPU-{UUID}", "", "equal_share"),
        ("nvidia3/gi7", "nvidia.com/gpu", f"GPU-{UUID}", "", "mig"),
        ("nvidia3/gi7/vgpu1", "nvidia.com/gpu", f"GPU-{UUID}", "", "equal_share"),
        ("0", "nvidia.com/gpu", f"GPU-{UUID}", "", "exclusive"),
        ("1", "nvidia.com/gpu", f"GPU-{OTHER}", "", "exclusive"),
        (f"GPU-{UUID}", "nvidia.com/a100-of-ours", f"GPU-{UUID}", "", "exclusive"),
        (LOST, "nvidia.com/gpu", LOST, "", "exclusive"),
    ],
)  # fmt: skip
def test_a_device_is_given_to_the_gpu_that_its_id_names(
    text: str, resource: str, uuid: str, mig_uuid: str, attribution: str
) -> None:
    assert held(holding(text, resource=resource)) == [("a", uuid, mig_uuid, attribution)]


@pytest.mark.parametrize(
    ("resource", "text"),
    [
        ("rdma/hca", "GPU-" + UUID),
        ("nvidia.com/hostdev", "0000:07:00.0"),
        ("nvidia.com/gpumem", "0"),
        ("nvidia.com/gpu-feature", "nvidia3"),
        ("amd.com/gpu", "0"),
    ],
)
def test_other_resources_are_no_gpus_and_not_unknown_either(resource: str, text: str) -> None:
    assert allocations([holding(text, resource=resource)], GPUS) == Allocations()


@pytest.mark.parametrize("text", ["nvidia7", "7", "tegra", f"GPU-{UUID}-3", "nvidia7/gi1"])
def test_an_id_that_fits_no_gpu_of_this_node_is_unknown_and_given_to_none(text: str) -> None:
    assert allocations([holding(text), holding(text)], GPUS) == Allocations(unknown=(text,))


def test_numbers_are_unknown_until_the_driver_has_listed_the_gpus_and_uuids_are_not() -> None:
    told = allocations([holding("nvidia3"), holding("0"), holding(f"GPU-{UUID}")], ())
    assert told.unknown == ("0", "nvidia3")
    assert [one.uuid for one in told.held] == [f"GPU-{UUID}"]


def test_a_gpu_without_a_minor_number_or_uuid_is_not_taken_for_another() -> None:
    gpus = (Reading(uuid="GPU-x", gpu="0"), Reading(uuid="", gpu="1", minor_number="1"))
    assert allocations([holding("1"), holding("nvidia1")], gpus) == Allocations(unknown=("1", "nvidia1"))
    assert allocations([holding(f"MIG-{UUID}")], gpus).held[0].uuid == ""


def test_four_pods_with_replicas_of_one_gpu_share_it_and_each_stands_there_once() -> None:
    sharing = [holding(f"GPU-{UUID}::{number}", pod=f"p{number}") for number in range(3)]
    sharing.append(holding(f"GPU-{UUID}::3", f"GPU-{UUID}::4", pod="p3"))
    assert held(*sharing) == [(f"p{number}", f"GPU-{UUID}", "", "equal_share") for number in range(4)]


def test_a_whole_gpu_that_two_containers_hold_is_exclusive_for_neither() -> None:
    both = [holding(f"GPU-{UUID}", container="model"), holding(f"GPU-{UUID}", container="helper")]
    assert held(*both) == [("a", f"GPU-{UUID}", "", "equal_share")] * 2


def test_two_instances_of_one_gpu_are_each_their_holders_own() -> None:
    assert held(holding("nvidia3/gi1"), holding("nvidia3/gi2", pod="b")) == [
        ("a", f"GPU-{UUID}", "", "mig"),
        ("b", f"GPU-{UUID}", "", "mig"),
    ]


def test_a_pod_with_several_gpus_holds_each_alone() -> None:
    assert held(holding("0", "nvidia0"), holding(f"MIG-{UUID}", resource="nvidia.com/mig-1g.10gb")) == [
        ("a", "", f"MIG-{UUID}", "mig"),
        ("a", f"GPU-{UUID}", "", "exclusive"),
        ("a", f"GPU-{OTHER}", "", "exclusive"),
    ]


CLUSTER = Cluster(
    teams={("shop", "a"): "search"},
    devices={
        "node-1/gpu-0": f"GPU-{UUID}",
        "node-1/gpu-0-mig-19-2-1": f"MIG-{UUID}",
        "node-1/gpu-odd": "what nobody knows",
    },
)


def claims(**pods: str) -> list[Holding]:
    return [Holding("shop", pod, "model", DRA_DRIVER, (device,)) for pod, device in pods.items()]


def test_a_claimed_device_is_what_its_resource_slice_says() -> None:
    told = allocations(claims(a="node-1/gpu-0", b="node-1/gpu-0-mig-19-2-1"), (), CLUSTER)
    assert [(one.pod, one.team, one.uuid, one.mig_uuid, one.attribution) for one in told.held] == [
        ("a", "search", f"GPU-{UUID}", "", "exclusive"),
        ("b", "", "", f"MIG-{UUID}", "mig"),
    ]


def test_a_claimed_device_that_several_pods_or_a_share_of_it_were_given_is_shared() -> None:
    for holdings in (
        claims(a="node-1/gpu-0", b="node-1/gpu-0"),
        claims(a="node-1/gpu-0::0f3b", b="node-1/gpu-0::77aa"),
    ):
        assert {one.attribution for one in allocations(holdings, (), CLUSTER).held} == {"equal_share"}


def test_a_claimed_device_that_no_resource_slice_tells_of_is_unknown_and_given_to_none() -> None:
    names = ("node-1/gpu-7", "node-1/gpu-odd", "node-2/gpu-0")
    holdings = [Holding("shop", "a", "model", DRA_DRIVER, names)]
    assert allocations(holdings, (), CLUSTER) == Allocations(unknown=tuple(sorted(names)))
    assert allocations(claims(a="node-1/gpu-0"), ()) == Allocations(unknown=("node-1/gpu-0",))
