"""`pegel gpu-exporter`: arguments to the exporter."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from pegel_exporters.errors import UserError

if TYPE_CHECKING:
    from pegel_exporters.gpu.exporter import Ask, ClusterOf, OwnersOf
    from pegel_exporters.gpu.sets import MetricSet

_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.1, 3600.0
_FIRST_ANSWER_SECONDS = 5.0
"""The first readings wait so long for the API server, so that no time is counted for no team."""


@click.command(name="gpu-exporter")
@click.option("--listen", default=":9465", metavar="HOST:PORT", help="Where to serve /metrics.")
@click.option("--interval", default="5s", metavar="DURATION", help="How often the GPUs are read: 500ms, 5s, 1m.")
@click.option(
    "--metrics",
    default="native,legacy",
    metavar="SETS",
    help="Sets of metric names, with commas: native, legacy, dcgm (those of dcgm-exporter).",
)
@click.option(
    "--simulate",
    metavar="NAME|FILE",
    help="Simulate GPUs: a100-mig, broken, dgx-a100, h100-mig, t4-time-sliced, v100 or a file.",
)
@click.option(
    "--pod-resources", metavar="SOCKET",
    help="Ask the kubelet behind this socket which pods hold the GPUs; UID 0 may.",
)  # fmt: skip
@click.option(
    "--service-account", metavar="FOLDER", type=click.Path(path_type=Path),
    help="Ask the API server as this service account for teams and labels of pods, and for devices that were claimed.",
)  # fmt: skip
@click.option("--team-label", default="pegel.dev/team", metavar="LABEL", help="The label of pods that names a team.")
@click.option("--pod-labels", default="", metavar="LABELS", help="Labels of pods to publish, with commas.")
@click.option("--prices", metavar="FILE", type=click.Path(), help="Prices of an hour: currency, default, gpus (YAML).")
def command(
    listen: str,
    interval: str,
    metrics: str,
    simulate: str | None,
    pod_resources: str | None,
    service_account: Path | None,
    team_label: str,
    pod_labels: str,
    prices: str | None,
) -> None:
    """Publish this node's GPU metrics for Prometheus.

    Reads the GPUs through the NVIDIA driver's own library, NVML, and needs no privileges. Without a driver it
    says so, serves nvidia_gpu_up 0 and waits for one. Which pods hold a GPU is the kubelet's to tell, where it is
    asked: its last answer counts for 60 seconds. Pods that share a GPU are told apart by what their processes use, if
    the exporter sees the host's processes (hostPID) and /var/log/pods; else they have equal shares.

    What the kubelet doesn't know, the API server does: teams and labels of pods, and devices claimed through Dynamic
    Resource Allocation. It is asked as a service account that may list and watch pods and resourceslices; NODE_NAME
    names the node.

    SIGUSR1 lets go of the driver, for its upgrade; SIGUSR2 takes it again.

    \b
    Example, without a GPU:
      pegel gpu-exporter --simulate dgx-a100 --listen 127.0.0.1:9465
      curl 127.0.0.1:9465/metrics
    \b
    On a node, with its pods:
      pegel gpu-exporter --pod-resources /var/lib/kubelet/pod-resources/kubelet.sock
    """
    import asyncio
    import importlib.util
    import logging
    import os
    import socket

    from pegel_exporters.gpu import simulated
    from pegel_exporters.gpu.exporter import run
    from pegel_exporters.gpu.owners import Owners
    from pegel_exporters.gpu.prices import Prices
    from pegel_exporters.gpu.prices import load as load_prices
    from pegel_exporters.serving import Address
    from pegel_exporters.serving import listen as open_socket

    seconds = _seconds(interval)
    sets = _sets(metrics)
    address = Address.parse(listen)
    source = simulated.source(simulate) if simulate else None
    if source is None and importlib.util.find_spec("pynvml") is None:
        raise ModuleNotFoundError(name="nvidia-ml-py")
    table = load_prices(Path(prices)) if prices is not None else Prices()
    ask: Ask | None = _kubelet(pod_resources) if pod_resources is not None else None
    cluster: ClusterOf = _cluster(service_account, team_label, pod_labels, asked=ask is not None)
    owners: OwnersOf = Owners().of
    if simulate and ask is None:
        ask, owners, cluster = simulated.holders(simulate)
    with open_socket(address) as sock:
        what = f"simulated GPUs ({simulate})" if simulate else "this node's GPUs"
        logging.getLogger("pegel").info(
            "serving %s on http://%s/metrics", what, Address(address.host or "localhost", sock.getsockname()[1])
        )
        # A pod's own name tells nobody which node it is on.
        hostname = os.environ.get("NODE_NAME") or socket.gethostname()
        asyncio.run(
            run(
                sock, interval=seconds, sets=sets, simulate=source, ask=ask, owners=owners, prices=table,
                cluster=cluster, hostname=hostname,
            )
        )  # fmt: skip


def _kubelet(path: str) -> "Ask":
    """What asks the kubelet. Its library is loaded only where it is wanted. Raises UserError."""
    from pegel_exporters.gpu.kubelet import Kubelet

    return Kubelet(path).holdings


def _cluster(folder: Path | None, team_label: str, pod_labels: str, *, asked: bool) -> "ClusterOf":
    """What asks the API server, from now on; nobody is asked without a service account. Raises UserError."""
    import os

    from pegel_exporters.gpu.cluster import Cluster

    labels = [label.strip() for label in pod_labels.split(",") if label.strip()]
    if folder is None:
        if labels:
            raise UserError("--pod-labels goes with --service-account, as which the API server is asked for them")
        return Cluster
    from pegel_exporters.gpu.apiserver import ApiServer, ClusterWatch

    if not asked:
        raise UserError("--service-account goes with --pod-resources: only pods that hold a GPU have labels here")
    node = os.environ.get("NODE_NAME", "")
    if not node:
        raise UserError("--service-account: set NODE_NAME to the node's name, so that only its pods are asked for")
    watch = ClusterWatch(ApiServer.of_cluster(folder), node=node, team_label=team_label, labels=labels)
    watch.start()
    watch.wait(_FIRST_ANSWER_SECONDS)
    return watch.cluster


def _seconds(text: str) -> float:
    """A duration such as 500ms, 5s or 1m in seconds. Raises UserError."""
    from pegel_agent.statistics.budget import parse_duration

    try:
        seconds = parse_duration(f"{text[:-2]}s") / 1000 if text.endswith("ms") else parse_duration(text)
    except ValueError:
        seconds = 0.0
    if not _SHORTEST_SECONDS <= seconds <= _LONGEST_SECONDS:
        raise UserError(f"--interval {text!r}: write a duration between 100ms and 1h, such as 5s")
    return seconds


def _sets(text: str) -> tuple["MetricSet", ...]:
    """The metric sets of a list with commas. Raises UserError."""
    from pegel_exporters.gpu.sets import METRIC_SETS

    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in METRIC_SETS:
            raise UserError(f"--metrics: {name!r} is not known; known: {', '.join(METRIC_SETS)}")
    return tuple(known for known in METRIC_SETS if known in names)
