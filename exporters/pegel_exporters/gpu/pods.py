"""What is known over time of who holds the GPUs: the kubelet's last answer, for a while. No I/O, no clock."""

from pegel_exporters.gpu.attribution import Allocations, allocations
from pegel_exporters.gpu.cluster import NO_CLUSTER, Cluster
from pegel_exporters.gpu.metrics import Fleet, Pods
from pegel_exporters.gpu.podresources import Holding, KubeletUnavailableError

KEPT_SECONDS = 60.0
"""How long an answer counts when no other follows: a kubelet starts again in less, and its pods go on meanwhile."""
_EXAMPLES = 3


class PodsWatch:
    """Takes the kubelet's answers and failures in, gives the holders as the page shows them. Times are seconds."""

    def __init__(self, *, kept: float = KEPT_SECONDS) -> None:
        """`kept` is the age in seconds at which an answer counts no longer."""
        self._kept = kept
        self._holdings: tuple[Holding, ...] = ()
        self._at: float | None = None
        self._error: KubeletUnavailableError | None = None
        self._answered = False
        self._told_unknown = False

    def took(self, holdings: tuple[Holding, ...], fleet: Fleet, now: float, cluster: Cluster = NO_CLUSTER) -> list[str]:
        """An answer arrived. Returns what a person should be told, a line each.

        Ids that fit no GPU are told when the first of them appears, and not before the driver has listed the GPUs.
        """
        news = []
        if not self._answered:
            news.append("the kubelet tells who holds the GPUs")
        self._holdings, self._at, self._error, self._answered = holdings, now, None, True
        unknown = self._allocations(fleet, cluster).unknown if fleet.listed is not None else ()
        if unknown and not self._told_unknown:
            examples = ", ".join(unknown[:_EXAMPLES]) + (", ..." if len(unknown) > _EXAMPLES else "")
            news.append(f"{len(unknown)} device id(s) of the kubelet fit no GPU of this node: {examples}")
        self._told_unknown = bool(unknown)
        return news

    def failed(self, error: KubeletUnavailableError) -> list[str]:
        """The kubelet could not be asked. Returns one line, unless the reason is still the same."""
        same = self._error is not None and self._error.reason == error.reason
        self._error, self._answered = error, False
        return [] if same else [f"who holds the GPUs is not told: {error}; trying again"]

    def pods(self, fleet: Fleet, now: float, cluster: Cluster = NO_CLUSTER) -> Pods:
        """What the page tells at this moment."""
        age = None if self._at is None else round(now - self._at, 3)
        fresh = age is not None and age <= self._kept
        return Pods(
            up=self._answered,
            age_seconds=age,
            kept_seconds=self._kept,
            allocations=self._allocations(fleet, cluster) if fresh else None,
            error=str(self._error or ""),
            cluster=cluster,
        )

    def _allocations(self, fleet: Fleet, cluster: Cluster) -> Allocations:
        return allocations(self._holdings, (gauge.reading for gauge in fleet.gauges), cluster)
