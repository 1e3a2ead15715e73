"""When labels may be judged: with all others of their time, and only where they are a fair sample of its predictions.

Labels rarely come in the order of the predictions: where a good outcome shows after an hour and a bad one after a day,
the labels that are there say that all is well, or that nothing is. So rows are grouped by the time of their prediction,
and a group is judged once it is older than the slowest labels. Even then labels may have come for some kinds of
predictions only. Groups are gathered into blocks of 50 labels or more, and each block has to show that its labelled
predictions could have been drawn from all of its predictions at random, that as many of them have a label as usual, and
that none was forgotten before its label could come.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

import numpy as np
from pegel_exporters.catalogue import JUDGED_LABELS

from pegel_agent.sidecar.feedback.rows import Row, Tally
from pegel_agent.sidecar.feedback.store import Plain
from pegel_agent.sidecar.feedback.strata import SPLIT, STRATA, Strata
from pegel_agent.statistics.sampling import design_effect, difference
from pegel_agent.statistics.slots import IntArray

MIN_LABELS = 50
"""So many labels make a block, and an accuracy."""
_CHANCE_OF_BLOCK = 1e-3
_CHANCE_OF_POOL = 1e-5
"""How often at most labels that came at random are taken for others: those of a block, which is then left out, and
those of many, which takes back what was judged."""
_SIGMAS = 4.4
"""Twice the tail of a normal distribution beyond so many is _CHANCE_OF_POOL."""
_TOLERATED = 0.02
"""A block is judged all the same if so many of its labelled rows would have to be others, or of its ids came again."""
_COVERAGE_TOLERATED = 0.1
_LATE_TOLERATED = 0.1
_LONG_LABELS = 8_000
"""Weak preferences show over so many labels: those that evidence is gathered from."""
_GROUPS = 288
"""Groups in the horizon: with a horizon of a day each is five minutes long."""
_CHUNK_ROWS = 50
_FIRST_PREDICTIONS = 256
_USUAL_BLOCKS = 4
_KEPT_BLOCKS = 16
_MOST_BLOCKS = 1_000
_LATE_HORIZONS = 8

Why = Literal["forgotten", "reused", "late", "partial", "coverage"]


@dataclass(slots=True)
class Sample:
    """Predictions of a time, and what labels say of them."""

    first: int = 0
    predicted: int = 0
    labelled: int = 0
    of_all: IntArray = field(default_factory=lambda: np.zeros(STRATA, dtype=np.int64))
    of_labelled: IntArray = field(default_factory=lambda: np.zeros(STRATA, dtype=np.int64))
    predicted_squared: float = 0.0
    """Sum of squares of each request's rows."""
    labelled_squared: float = 0.0
    forgotten: int = 0
    reused: int = 0
    tally: Tally = field(default_factory=Tally)

    def merge(self, other: "Sample") -> None:
        """Take in another one, but for its tally."""
        self.predicted += other.predicted
        self.labelled += other.labelled
        self.of_all += other.of_all
        self.of_labelled += other.of_labelled
        self.predicted_squared += other.predicted_squared
        self.labelled_squared += other.labelled_squared
        self.forgotten += other.forgotten
        self.reused += other.reused

    @property
    def coverage(self) -> float:
        """Share of the predictions that have a label."""
        return self.labelled / self.predicted

    @property
    def design_effect(self) -> float:
        """How many rows are labelled together; all of a request's where all rows have a label, or none."""
        if not 0 < self.labelled < self.predicted:
            return self.predicted_squared / self.predicted
        return design_effect(self.predicted, self.labelled, self.predicted_squared, self.labelled_squared)

    def is_partial(self, chance: float, effect: float) -> bool:
        """Whether labels came for some kinds of predictions rather than for others, and chance does not explain it."""
        for part in (slice(SPLIT), slice(SPLIT, None)):
            found = difference(self.of_all[part], self.of_labelled[part], design_effect=effect)
            if found.p < chance and found.share > _TOLERATED:
                return True
        return False


@dataclass(frozen=True, slots=True)
class _Coverage:
    """That of a block: when it began (its first group), its coverage and design effect, and how many predictions."""

    first: int
    share: float
    effect: float
    predicted: int

    @property
    def variance(self) -> float:
        """By chance alone."""
        return self.effect * self.share * (1 - self.share) / self.predicted


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the latest labels are not judged, since when, and the coverage they have beside the usual one."""

    why: Why
    since: float
    block: int
    coverage: float | None = None
    usual: float | None = None
    share: float | None = None
    """Of the labels, those that came too late; of the predictions, those whose id came again."""


class _Runs:
    """Sums of squares of the rows that follow each other and belong to one request."""

    def __init__(self) -> None:
        self._request: object = None
        self._rows = 0

    def add(self, request: object) -> int:
        """By how much the sum grows with a row."""
        self._rows = self._rows + 1 if request == self._request else 1
        self._request = request
        return 2 * self._rows - 1


class Cohorts:
    """Labelled rows by the time of their prediction. Times are Unix times, told by the caller.

    `horizon_seconds`: how old a prediction must be to be judged. At 0 every label is judged at once, as is one whose
    prediction has no time, and nothing of the above is known. `withdrawn` is called when rows that were judged turn out
    to have been no fair sample.
    """

    def __init__(self, horizon_seconds: float, withdrawn: Callable[[], None] = lambda: None) -> None:
        self.horizon_seconds = horizon_seconds
        self._length = max(1.0, horizon_seconds / _GROUPS)
        self._withdrawn = withdrawn
        self._waiting: dict[int, Sample] = {}
        self._block: Sample | None = None
        self._pool: deque[Sample] = deque(maxlen=_MOST_BLOCKS)
        self._usual: deque[_Coverage] = deque()
        self._late: dict[int, list[int]] = {}
        """Labels in time, and late ones, by the horizon in which their predictions were made."""
        self._strata: Strata | None = None
        self._unsorted: list[tuple[Sample, Plain, float, bool]] = []
        self._requests, self._labelled_requests = _Runs(), _Runs()
        self._latest: deque[Tally] = deque()
        self._latest_rows = 0
        self._tally_of_group: dict[int, Tally] = {}
        self._chunk = 0
        self._chunks: dict[int, Tally] = {}
        self._old: dict[int, tuple[int, int]] = {}
        """Predictions and labels of groups that were judged, for the coverage of the latest."""
        self._mature_until: int | None = None
        self.judged = Tally()
        """All labelled rows whose time has come, as they were then."""
        self.fair = Tally()
        """Those of them that are a fair sample: what evidence may be gathered from."""
        self.refusal: Refusal | None = None

    # Predictions and labels

    def predicted(self, value: Plain, score: float, at: float, request: object, *, reused: bool = False) -> None:
        """Count a prediction whose label may come. `request` is one object for all rows of a request."""
        if not self.horizon_seconds:
            return
        group = self._group(at)
        if self._is_decided(group):  # a clock was set back, or an exchange took longer than the horizon
            return
        sample = self._sample(group)
        sample.predicted += 1
        sample.reused += reused
        sample.predicted_squared += self._requests.add(request)
        self._sort(sample, value, score, labelled=False)

    def forgotten(self, at: float, now: float) -> bool:
        """A prediction without a label made room for others; whether it was younger than the horizon."""
        sample = self._waiting.get(self._group(at))
        if sample is None:
            return False
        sample.forgotten += 1
        if self._mature_until is None and self.refusal is None:
            self._refuse("forgotten", sample, self._group(at), now)
        return True

    def reused(self, at: float) -> None:
        """A prediction of that time can't be told from another one with its id."""
        sample = self._waiting.get(self._group(at))
        if sample is not None:
            sample.reused += 1

    def labelled(self, value: Plain, score: float, at: float, request: object) -> None:
        """Count a label that found its prediction, before `add`."""
        if not self.horizon_seconds:
            return
        group = self._group(at)
        sample = self._waiting.get(group)
        in_time, late = self._late.setdefault(int(at // self.horizon_seconds), [0, 0])
        self._late[int(at // self.horizon_seconds)] = [in_time + (sample is not None), late + (sample is None)]
        if sample is not None:
            sample.labelled += 1
            sample.labelled_squared += self._labelled_requests.add(request)
            self._sort(sample, value, score, labelled=True)
        elif group in self._old:
            predicted, labelled = self._old[group]
            self._old[group] = predicted, min(predicted, labelled + 1)

    def add(self, row: Row, at: float | None, now: float, *, joined: bool = False) -> int | None:
        """Count a labelled row. The answer is what a row that is judged at once is found by; None for others.

        A label that found its prediction later than the horizon is counted, but not judged: it would be without the
        others of its time. One that brings its own prediction is judged at once then.
        """
        if at is not None and self.horizon_seconds:
            group = self._group(at)
            on_time = joined or group > self._last_older_than(self.horizon_seconds, now)
            if group in self._waiting or (on_time and not self._is_decided(group)):
                self._sample(group).tally.add(row)
                return None
            if joined:
                self.judged.add(row)
                return None
        self.judged.add(row)
        self.fair.add(row)
        tally = self._chunks.get(self._chunk)
        if tally is None or tally.rows >= _CHUNK_ROWS:
            self._chunk += 1
            tally = self._chunks[self._chunk] = Tally()
            self._latest.append(tally)
        tally.add(row)
        self._latest_rows += 1
        self._forget_oldest()
        return self._chunk

    def tally_of(self, at: float | None, chunk: int | None) -> Tally | None:
        """Where a row is counted that may still be corrected; by its prediction's time, or what `add` said."""
        if chunk is not None:
            return self._chunks.get(chunk)
        if at is None:
            return None
        group = self._group(at)
        sample = self._waiting.get(group)
        return sample.tally if sample is not None else self._tally_of_group.get(group)

    # Time

    def tick(self, now: float) -> None:
        """Time passes: judge the groups that are old enough."""
        last = self._last_older_than(self.horizon_seconds, now)
        for group in sorted(group for group in self._waiting if group <= last):
            if self._strata is None:
                self._learn_strata()
            self._take(group, self._waiting.pop(group), now)
        block = self._block
        if block is not None and self._age(block.first, now) >= 2 * self.horizon_seconds:
            self._decide(block, now)
        if self.refusal is not None and self._age(self.refusal.block, now) > 4 * self.horizon_seconds:
            self.refusal = None  # there has been no prediction since that a label could be joined to
        oldest = int(now // self.horizon_seconds) - _LATE_HORIZONS if self.horizon_seconds else 0
        for horizon in [horizon for horizon in self._late if horizon < oldest]:
            del self._late[horizon]
        last = self._last_older_than(2 * self.horizon_seconds, now)
        for group in [group for group in self._old if group < last]:
            del self._old[group]
        self._forget_oldest()

    def _take(self, group: int, sample: Sample, now: float) -> None:
        self.judged.merge(sample.tally)
        self._mature_until = max(group, self._mature_until or group)
        self._old[group] = sample.predicted, sample.labelled
        if self._block is None:
            self._block = Sample(first=group)
        block = self._block
        block.merge(sample)
        block.tally.merge(sample.tally)
        self._tally_of_group[group] = block.tally
        usual = self._usual_coverage()
        if block.tally.rows >= MIN_LABELS or (usual is not None and block.predicted * usual >= 2 * MIN_LABELS):
            self._decide(block, now)

    def _decide(self, block: Sample, now: float) -> None:
        self._block = None
        why = self._why_not(block) if block.predicted else None
        if block.labelled and not block.forgotten:
            self._usual.append(_Coverage(block.first, block.coverage, block.design_effect, block.predicted))
        while len(self._usual) > _KEPT_BLOCKS and self._age(self._usual[0].first, now) > 3 * self.horizon_seconds:
            self._usual.popleft()
        if why is None:
            self.fair.merge(block.tally)
            self._latest.append(block.tally)
            self._latest_rows += block.tally.rows
            if block.labelled:
                self.refusal = None
            return
        entered = self.refusal is None or self.refusal.why != why
        self._refuse(why, block, block.first, now)
        self._forget_places()
        if entered and (why == "late" or (self._pool and self._pool[-1] is block)):
            self._withdraw()

    def _why_not(self, block: Sample) -> Why | None:
        """Why a block is no fair sample of its predictions, or those before it turn out to have been none."""
        if block.forgotten:
            return "forgotten"
        if block.reused > _TOLERATED * block.predicted:
            return "reused"
        if self.late_share > _LATE_TOLERATED:
            return "late"
        if block.is_partial(_CHANCE_OF_BLOCK, self._effect(block)):
            return "partial"
        if self._differs_from_usual(block):
            return "coverage"
        return self._why_not_with_earlier(block)

    def _why_not_with_earlier(self, block: Sample) -> Why | None:
        self._pool.append(block)
        while sum(one.labelled for one in self._pool) - self._pool[0].labelled > _LONG_LABELS:
            self._pool.popleft()
        pools = [_merged(self._pool, labels) for labels in (JUDGED_LABELS, _LONG_LABELS)]
        if any(pool.is_partial(_CHANCE_OF_POOL, pool.design_effect) for pool in pools):
            return "partial"
        return "coverage" if self._differs_from_usual(pools[0]) else None

    def _differs_from_usual(self, block: Sample) -> bool:
        """Whether coverage is another one by a tenth, and by more than chance and its usual spread explain."""
        usual = self._usual_coverage()
        if usual is None:
            return False
        spread = 1.4826 * median(abs(one.share - usual) for one in self._usual)
        excess = max(0.0, spread * spread - median(one.variance for one in self._usual))
        chance = self._effect(block) * usual * (1 - usual) / block.predicted
        apart = abs(block.coverage - usual)
        return apart > _COVERAGE_TOLERATED * max(usual, block.coverage) and apart > _SIGMAS * math.sqrt(excess + chance)

    def _usual_coverage(self) -> float | None:
        """The median of two horizons: one that has changed for good is the usual one after a horizon."""
        if len(self._usual) < _USUAL_BLOCKS:
            return None
        return median(one.share for one in self._usual)

    def _effect(self, block: Sample) -> float:
        """A block's design effect, or the usual one: few requests tell little of it."""
        return max(block.design_effect, median(one.effect for one in self._usual) if self._usual else 1.0)

    def _refuse(self, why: Why, sample: Sample, group: int, now: float) -> None:
        since = self.refusal.since if self.refusal is not None and self.refusal.why == why else now
        coverage = sample.coverage if sample.predicted else None
        share = self.late_share if why == "late" else sample.reused / max(1, sample.predicted)
        self.refusal = Refusal(why, since, group, coverage, self._usual_coverage(), share)

    def _withdraw(self) -> None:
        """What was judged lately was no fair sample either."""
        self._latest.clear()
        self._latest_rows = 0
        self._tally_of_group.clear()
        self._chunks.clear()
        self._withdrawn()

    # What is known

    def latest(self) -> Tally:
        """The latest judged rows: 500, and what else their blocks have."""
        found = Tally()
        for tally in self._latest:
            found.merge(tally)
        return found

    @property
    def waiting(self) -> int:
        """Labelled rows that are not old enough, or too few to be judged."""
        block = self._block.tally.rows if self._block is not None else 0
        return block + sum(sample.tally.rows for sample in self._waiting.values())

    @property
    def late_share(self) -> float:
        """Share of the joined labels that came when their time had been judged; 0 where they are too few to tell."""
        late = sum(late for _, late in self._late.values())
        return late / sum(map(sum, self._late.values())) if late >= MIN_LABELS else 0.0

    def coverage(self, now: float) -> float | None:
        """Share of the predictions old enough, up to twice as old, that have a label.

        None where there are none, or where every label is judged at once.
        """
        last = self._last_older_than(self.horizon_seconds, now)
        mature = [sample for group, sample in self._waiting.items() if group <= last]
        predicted = sum(one for one, _ in self._old.values()) + sum(sample.predicted for sample in mature)
        labelled = sum(one for _, one in self._old.values()) + sum(sample.labelled for sample in mature)
        return labelled / predicted if predicted else None

    # Inside

    def _sort(self, sample: Sample, value: Plain, score: float, *, labelled: bool) -> None:
        if self._strata is None:
            self._unsorted.append((sample, value, score, labelled))
            if len(self._unsorted) >= _FIRST_PREDICTIONS:
                self._learn_strata()
            return
        counts = sample.of_labelled if labelled else sample.of_all
        for place in self._strata.of(value, score):
            counts[place] += 1

    def _learn_strata(self) -> None:
        first = [(value, score) for _, value, score, labelled in self._unsorted if not labelled]
        if not first:
            return
        self._strata = Strata(first)
        for sample, value, score, labelled in self._unsorted:
            self._sort(sample, value, score, labelled=labelled)
        self._unsorted.clear()

    def _sample(self, group: int) -> Sample:
        found = self._waiting.get(group)
        if found is None:
            found = self._waiting[group] = Sample(first=group)
        return found

    def _group(self, at: float) -> int:
        return int(at // self._length)

    def _age(self, group: int, now: float) -> float:
        """Of the youngest prediction that a group may have."""
        return now - (group + 1) * self._length

    def _last_older_than(self, seconds: float, now: float) -> int:
        """The last group of predictions that are all so old."""
        return int((now - seconds) // self._length) - 1

    def _is_decided(self, group: int) -> bool:
        return self._mature_until is not None and group <= self._mature_until

    def _forget_oldest(self) -> None:
        before = len(self._latest)
        while self._latest and self._latest_rows - self._latest[0].rows >= JUDGED_LABELS:
            self._latest_rows -= self._latest.popleft().rows
        if len(self._latest) < before:
            self._forget_places()

    def _forget_places(self) -> None:
        """Corrections of rows that are shown no longer change nothing."""
        kept = {id(tally) for tally in self._latest} | ({id(self._block.tally)} if self._block is not None else set())
        self._chunks = {chunk: tally for chunk, tally in self._chunks.items() if id(tally) in kept}
        self._tally_of_group = {group: tally for group, tally in self._tally_of_group.items() if id(tally) in kept}


def _merged(blocks: Iterable[Sample], labels: int) -> Sample:
    """The latest blocks, until they have so many labels."""
    found = Sample()
    for block in reversed(list(blocks)):
        found.merge(block)
        if found.labelled >= labels:
            break
    return found
