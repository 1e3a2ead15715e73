"""A kubelet's PodResources socket: gRPC's own server and protobuf's own messages, so that nothing of ours answers."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

messages: Any = grpc.protos("tests/exporters/gpu/podresources.proto")
"""The classes that protobuf makes of podresources.proto."""


def pod(name: str, devices: dict[str, list[str]], *, namespace: str = "shop", container: str = "model") -> Any:
    """A pod of one container that holds devices (ids by resource), with CPUs and memory as a kubelet tells them."""
    topology = messages.TopologyInfo(nodes=[messages.NUMANode(ID=0), messages.NUMANode(ID=1)])
    return messages.PodResources(
        name=name,
        namespace=namespace,
        containers=[
            messages.ContainerResources(
                name=container,
                devices=[
                    messages.ContainerDevices(resource_name=resource, device_ids=ids, topology=topology)
                    for resource, ids in devices.items()
                ],
                cpu_ids=[0, 1, 200],
                memory=[messages.ContainerMemory(memory_type="memory", size=1 << 33, topology=topology)],
            )
        ],
    )


def claiming(name: str, *devices: str, driver: str = "gpu.nvidia.com", namespace: str = "shop") -> Any:
    """A pod of one container with a claim for devices, POOL/DEVICE or POOL/DEVICE::SHARE, as a kubelet tells them."""
    claimed = []
    for number, device in enumerate(devices):
        pool, _, rest = device.partition("/")
        own, _, share = rest.partition("::")
        claimed.append(
            messages.ClaimResource(
                cdi_devices=[messages.CDIDevice(name=f"k8s.{driver}/claim={number}")],
                driver_name=driver, pool_name=pool, device_name=own, share_id=share or None,
            )
        )  # fmt: skip
    claim = messages.DynamicResource(claim_name="gpus", claim_namespace=namespace, claim_resources=claimed)
    container = messages.ContainerResources(name="model", cpu_ids=[3], dynamic_resources=[claim])
    return messages.PodResources(name=name, namespace=namespace, containers=[container])


def response(pods: Iterable[Any]) -> bytes:
    """The answer that lists these pods."""
    answer: bytes = messages.ListPodResourcesResponse(pod_resources=pods).SerializeToString()
    return answer


class KubeletServer:
    """A kubelet that lists `pods`, or does as `behaviour` says; it may stop, and start again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pods: list[Any] = []
        self.behaviour: Callable[[grpc.ServicerContext], bytes] | None = None
        self._server: grpc.Server | None = None

    def _list(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        answer: bytes = self.behaviour(context) if self.behaviour else response(self.pods)
        return answer

    def start(self, *, service: str = "v1.PodResourcesLister") -> None:
        """Answer on the socket, made anew."""
        methods = {"List": grpc.unary_unary_rpc_method_handler(self._list)}
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_send_message_length", -1)])
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, methods)])
        self._server.add_insecure_port(f"unix:{self.path}")
        self._server.start()

    def stop(self) -> None:
        """Cut every connection and take the socket away."""
        if self._server:
            self._server.stop(None).wait()
        self._server = None
        self.path.unlink(missing_ok=True)
