"""When a label may be judged: with all others of its time.

Labels rarely come in the order of the predictions: where a good outcome shows after an hour and a bad one after a day,
the labels that are there say that all is well, or that nothing is. So rows are grouped by the time of their prediction,
and a group is judged once it is older than the slowest labels.
"""

from collections import Counter, deque

from pegel_exporters.catalogue import JUDGED_LABELS

from pegel_agent.sidecar.feedback.rows import Row, Tally

_GROUPS = 288
"""Groups in the horizon: with a horizon of a day each is five minutes long."""
_CHUNK_ROWS = 50


class Cohorts:
    """Labelled rows by the time of their prediction. Times are Unix times, told by the caller.

    `horizon_seconds`: how old a prediction must be to be judged. A label that comes later still, or one whose
    prediction has no time, is judged at once.
    """

    def __init__(self, horizon_seconds: float) -> None:
        self._horizon = horizon_seconds
        self._length = max(1.0, horizon_seconds / _GROUPS)
        self._waiting: dict[int, Tally] = {}
        self._latest: deque[Tally] = deque()
        self._latest_rows = 0
        self._open: Tally | None = None
        self._predicted: Counter[int] = Counter()
        self._labelled: Counter[int] = Counter()
        self.judged = Tally()
        """All rows that were ever judged, as they were then."""

    def add(self, row: Row, predicted_at: float | None, now: float) -> Tally:
        """Count a labelled row. In the answer it can be counted anew when its label is corrected."""
        if predicted_at is not None:
            group = self._group(predicted_at)
            if not self._is_mature(group, now):
                waiting = self._waiting.setdefault(group, Tally())
                waiting.add(row)
                return waiting
        self.judged.add(row)
        if self._open is None or self._open.rows >= _CHUNK_ROWS:
            self._open = Tally()
            self._latest.append(self._open)
        self._open.add(row)
        self._latest_rows += 1
        self._forget_oldest()
        return self._open

    def tick(self, now: float) -> None:
        """Time passes: judge the groups that are old enough."""
        for group in sorted(group for group in self._waiting if self._is_mature(group, now)):
            tally = self._waiting.pop(group)
            self.judged.merge(tally)
            self._latest.append(tally)
            self._latest_rows += tally.rows
            self._open = None
        self._forget_oldest()
        for group in [group for group in self._predicted if not self._counts_for_coverage(group, now)]:
            del self._predicted[group]
            self._labelled.pop(group, None)

    def latest(self) -> Tally:
        """The latest judged rows: 500, and what else their groups have."""
        found = Tally()
        for tally in self._latest:
            found.merge(tally)
        return found

    @property
    def waiting(self) -> int:
        """Labelled rows that are not old enough."""
        return sum(tally.rows for tally in self._waiting.values())

    def predicted(self, at: float) -> None:
        """Count a prediction whose label may come."""
        if self._horizon:
            self._predicted[self._group(at)] += 1

    def labelled(self, at: float) -> None:
        """Count a label that found its prediction, which was made then."""
        if self._horizon:
            self._labelled[self._group(at)] += 1

    def coverage(self, now: float) -> float | None:
        """Share of the predictions old enough, up to twice as old, that have a label.

        None where there are none, or where every label is judged at once.
        """
        if not self._horizon:
            return None
        mature = [group for group in self._predicted if self._is_mature(group, now)]
        predicted = sum(self._predicted[group] for group in mature)
        return sum(self._labelled[group] for group in mature) / predicted if predicted else None

    def _group(self, at: float) -> int:
        return int(at // self._length)

    def _is_mature(self, group: int, now: float) -> bool:
        return (group + 1) * self._length + self._horizon <= now or not self._horizon

    def _counts_for_coverage(self, group: int, now: float) -> bool:
        return (group + 1) * self._length + 2 * self._horizon >= now

    def _forget_oldest(self) -> None:
        while self._latest and self._latest_rows - self._latest[0].rows >= JUDGED_LABELS:
            self._latest_rows -= self._latest.popleft().rows
