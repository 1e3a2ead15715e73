"""The worker process and the C double against the simulation: two sources, one page."""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pegel_exporters.exposition import Renderer
from pegel_exporters.gpu import simulated
from pegel_exporters.gpu.fleet import Watch
from pegel_exporters.gpu.readings import DriverUnavailableError, Node
from pegel_exporters.gpu.sets import families
from pegel_exporters.gpu.worker import Worker

pytestmark = pytest.mark.integration

QUIET = 1_789_999_920.0
"""When no built-in scenario's driver hangs."""


def page(node: Node) -> bytes:
    watch = Watch(stale_after=60.0)
    watch.took(node, 0.0)
    return Renderer().render(families(watch.fleet(0.0)))


def read_once(timeout: float = 20.0, *, readings: int = 1) -> Node:
    async def read() -> Node:
        worker = Worker(timeout=timeout)
        try:
            for _ in range(readings - 1):
                await worker.read()
                await asyncio.sleep(0.15)
            return await worker.read()
        finally:
            await worker.close()

    return asyncio.run(read())


@pytest.mark.parametrize("name", simulated.built_in())
def test_the_double_and_the_simulation_give_the_same_page(
    name: str, nvml: Any, lines_of: Callable[[Node], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = simulated.source(name)(QUIET)
    nvml.tell(*lines_of(node))
    for key, value in nvml.environment.items():
        monkeypatch.setenv(key, value)
    read = read_once(readings=2)  # of which the performance monitor needs two
    assert not read.simulated
    assert page(replace(read, simulated=True)) == page(node)
    assert page(node).count(b"\n") > 50


def test_a_node_in_trouble_gives_the_same_pages_from_both_one_after_the_other(
    nvml: Any, lines_of: Callable[[Node], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    began = QUIET - (QUIET - simulated.EPOCH) % 120
    source = simulated.source("broken")
    whole = source(began)
    for key, value in nvml.environment.items():
        monkeypatch.setenv(key, value)
    ours, theirs = Watch(stale_after=60.0), Watch(stale_after=60.0)
    seen = []

    async def go() -> None:
        worker = Worker(timeout=20.0)
        nvml.tell(*lines_of(whole))
        await worker.read()
        numbers = itertools.count(1)
        try:
            for second in (5.0, 30.0, 60.0, 75.0):
                node = source(began + second)
                events = [f"event {next(numbers)} {node_index(whole, xid.uuid)} {xid.code}" for xid in node.xids]
                nvml.tell(*lines_of(node), *events)
                read = await worker.read()
                xids = list(read.xids)
                while len(xids) < len(node.xids):  # the driver's events come when they come
                    await asyncio.sleep(0.05)
                    xids += (await worker.read()).xids
                told = tuple(replace(xid, time=other.time) for xid, other in zip(xids, node.xids, strict=True))
                ours.took(node, second)
                theirs.took(replace(read, simulated=True, xids=told), second)
                pages = [Renderer().render(families(watch.fleet(second))) for watch in (ours, theirs)]
                assert pages[0] == pages[1]
                seen.append((sum(gpu.error != "" for gpu in node.gpus), [xid.code for xid in node.xids]))
        finally:
            await worker.close()

    asyncio.run(go())
    assert seen == [(0, []), (1, [79]), (0, []), (0, [48])]


def node_index(node: Node, uuid: str) -> str:
    return next(gpu.gpu for gpu in node.gpus if gpu.uuid == uuid)


def test_a_gpu_that_is_lost_before_it_tells_its_uuid_is_still_listed(
    nvml: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml.tell("driver_version 1", "cuda_version 12020", "count 2", "0.uuid GPU-a", "1.uuid GPU-b", "1.lost 15")
    for key, value in nvml.environment.items():
        monkeypatch.setenv(key, value)
    good, lost = read_once().gpus
    assert (good.uuid, good.error) == ("GPU-a", "")
    assert (lost.uuid, lost.gpu, lost.error) == ("", "1", "GPU is lost")


def test_a_driver_that_is_gone_ends_the_worker_and_the_next_one_reads_again(
    nvml: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml.tell("init_error 18")
    for key, value in nvml.environment.items():
        monkeypatch.setenv(key, value)

    async def read() -> Node:
        worker = Worker(timeout=20.0)
        with pytest.raises(DriverUnavailableError, match="version mismatch"):
            await worker.read()
        nvml.tell("driver_version 550.90.07", "cuda_version 12040", "count 0")
        try:
            return await worker.read()
        finally:
            await worker.close()

    assert asyncio.run(read()).driver_version == "550.90.07"
