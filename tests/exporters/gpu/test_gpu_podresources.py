"""The kubelet's answer in bytes: ours read as protobuf's own library reads it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pegel_exporters.gpu.podresources import MAX_FIELDS, Holding, UndecodableAnswerError, read_list

from tests.exporters.gpu.kubelet_server import claiming, messages, pod, response

DRIVER = "gpu.nvidia.com"
name = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=12)
containers = st.builds(
    lambda name, devices, cpus, size, claims: messages.ContainerResources(
        name=name,
        devices=devices,
        cpu_ids=cpus,
        memory=[messages.ContainerMemory(memory_type="memory", size=size)],
        dynamic_resources=claims,
    ),
    name,
    st.lists(
        st.builds(
            lambda resource, ids, nodes: messages.ContainerDevices(
                resource_name=resource,
                device_ids=ids,
                topology=messages.TopologyInfo(nodes=[messages.NUMANode(ID=node) for node in nodes]),
            ),
            name,
            st.lists(name, max_size=4),
            st.lists(st.integers(-(2**63), 2**63 - 1), max_size=2),
        ),
        max_size=3,
    ),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
    st.integers(0, 2**64 - 1),
    st.lists(
        st.builds(
            lambda name, devices: messages.DynamicResource(claim_name=name, claim_resources=devices),
            name,
            st.lists(
                st.builds(
                    lambda driver, pool, device, share: messages.ClaimResource(
                        cdi_devices=[messages.CDIDevice(name=device)],
                        driver_name=driver, pool_name=pool, device_name=device, share_id=share,
                    ),
                    st.sampled_from([DRIVER, "compute-domain.nvidia.com", ""]), name, name, name | st.none(),
                ),
                max_size=3,
            ),
        ),
        max_size=2,
    ),
)  # fmt: skip
pods = st.lists(
    st.builds(
        lambda name, namespace, containers: messages.PodResources(
            name=name, namespace=namespace, containers=containers
        ),
        name,
        name,
        st.lists(containers, max_size=3),
    ),
    max_size=3,
)


def theirs(answer: Any) -> list[Holding]:
    found = []
    for one in answer.pod_resources:
        for container in one.containers:
            found += [
                Holding(one.namespace, one.name, container.name, devices.resource_name, tuple(devices.device_ids))
                for devices in container.devices
            ]
            for claim in container.dynamic_resources:
                ids = tuple(
                    f"{device.pool_name}/{device.device_name}" + (f"::{device.share_id}" if device.share_id else "")
                    for device in claim.claim_resources
                    if device.driver_name == DRIVER
                )
                found += [Holding(one.namespace, one.name, container.name, DRIVER, ids)] if ids else []
    return found


@given(pods)
def test_an_answer_is_read_as_protobuf_reads_it(pods: list[Any]) -> None:
    answer = messages.ListPodResourcesResponse(pod_resources=pods)
    assert list(read_list(answer.SerializeToString(), driver=DRIVER)) == theirs(answer)


@given(pods, st.binary(max_size=40), st.integers(0))
def test_a_broken_answer_is_refused_or_read_as_protobuf_reads_it(pods: list[Any], noise: bytes, place: int) -> None:
    sound = response(pods)
    at = place % (len(sound) + 1)
    broken = sound[:at] + noise + sound[at + len(noise) :]
    try:
        ours = list(read_list(broken, driver=DRIVER))
    except UndecodableAnswerError:
        return
    try:
        expected = messages.ListPodResourcesResponse.FromString(broken)
    except Exception:  # protobuf also reads what is skipped here, and finds faults in it
        return
    assert ours == theirs(expected)


def test_fields_that_came_later_or_have_another_kind_are_skipped() -> None:
    number = b"\x08\x96\x01"  # field 1 as a number, which is no PodResources
    later = b"\xfa\x07\x03abc" + b"\x59" + bytes(8) + b"\x5d" + bytes(4)  # fields 127, 11 and 11
    answer = number + later + response([pod("a", {"nvidia.com/gpu": ["GPU-1"]})]) + later
    assert list(read_list(answer)) == [Holding("shop", "a", "model", "nvidia.com/gpu", ("GPU-1",))]


def test_resources_of_other_vendors_are_skipped() -> None:
    answer = response([pod("a", {"nvidia.com/gpu": ["GPU-1"], "rdma/hca": ["mlx5_0"], "nvidia.com/mig-1g.5gb": []})])
    assert list(read_list(answer, vendor="nvidia.com/")) == [
        Holding("shop", "a", "model", "nvidia.com/gpu", ("GPU-1",)),
        Holding("shop", "a", "model", "nvidia.com/mig-1g.5gb", ()),
    ]


def test_claims_of_other_drivers_are_skipped() -> None:
    answer = response(
        [claiming("a", "node-1/gpu-0", "node-1/gpu-1::s"), claiming("b", "imex/0", driver="imex.nvidia.com")]
    )
    assert list(read_list(answer, vendor="nvidia.com/", driver=DRIVER)) == [
        Holding("shop", "a", "model", DRIVER, ("node-1/gpu-0", "node-1/gpu-1::s"))
    ]


def test_more_claimed_devices_than_a_node_has_are_refused() -> None:
    with pytest.raises(UndecodableAnswerError, match="more than 4096 devices"):
        list(read_list(response([claiming("a", *(f"n/gpu-{n}" for n in range(4097)))]), driver=DRIVER))


def test_a_node_that_is_full_of_pods_is_within_the_bounds() -> None:
    held = {"nvidia.com/gpu": ["GPU-1", "GPU-2"], "rdma/hca": ["mlx5_0", "mlx5_1"], "devices.kubevirt.io/kvm": ["kvm1"]}
    full = [pod(f"pod-{number}-{place}", held) for number in range(250) for place in range(6)]
    assert len(list(read_list(response(full), vendor="nvidia.com/"))) == 1500


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"\x0a\x00" * (MAX_FIELDS + 1), "it has too many fields"),
        (b"\x50\x01" * (MAX_FIELDS + 1), "it has too many fields"),
        (b"\x0a\x05abc", "it ends within a field"),
        (b"\x0a", "it ends within a number"),
        (b"\x0a\xff", "it ends within a number"),
        (b"\x80" * 20, "the number has no end"),
        (b"\x59\x00", "it ends within a field"),
        (b"\x0b\x0c", "unknown kind 3"),
        (b"\x02\x00", "a field without a number"),
        (b"\x0a\x04\x1a\x02\x0a\xff", "it ends within a number"),
        (response([pod("abc", {})]).replace(b"abc", b"\xff\xfe\xfd"), "a name in it is no UTF-8"),
    ],
)
def test_what_is_no_answer_is_refused_with_the_reason(answer: bytes, reason: str) -> None:
    with pytest.raises(UndecodableAnswerError) as refusal:
        list(read_list(answer))
    assert reason in str(refusal.value)
