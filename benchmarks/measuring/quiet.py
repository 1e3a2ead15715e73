"""False alarms: rows that have not drifted, through Pegel's detector, with two budgets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from pegel_agent.reference.detection import detector_for, is_judged, stratum_of
from pegel_agent.reference.profile import Profile
from pegel_agent.statistics.budget import share_of
from pegel_agent.statistics.slots import IntArray

from measuring.figures import aligned, poisson_bounds
from measuring.rows import Kind, Stream, normal_shares, profile_of

BUDGETS = (100, 1_000)
"""Mean numbers of windows between a model's false alarms as a user sets them; a quarter of them is the data's."""
FEATURES = 50
WINDOW_ROWS = (200, 500, 5_000)
REFERENCE_ROWS = (500, 2_000, 10_000)
LARGE_REFERENCE = 240_000
"""Enough for the hours of the day to be told apart, and for 20 windows of any size."""


@dataclass(slots=True)
class Cell:
    """One kind of rows, window and reference, and what came of it: `alarms` by budget in so many `windows`."""

    kind: Kind
    rows: int
    reference: int
    windows: int = 0
    alarms: dict[int, int] = field(default_factory=lambda: dict.fromkeys(BUDGETS, 0))

    @property
    def known(self) -> bool:
        """False where Pegel says that the reference is too short to tell how its rows depend on each other."""
        return self.kind == "independent" or self.reference // self.rows >= 20

    def run(self, windows: int, random_numbers: np.random.Generator) -> None:
        """A new reference, and so many windows after it."""
        ordered = self.kind != "independent"
        stream = Stream(self.kind, FEATURES, self.rows, random_numbers)
        profile = profile_of(stream.next(self.reference), window=self.rows, in_time_order=ordered)
        assert is_judged(profile) is self.known
        source = _rows(profile, stream, self.rows) if ordered else _shares(profile, self.rows, random_numbers)
        seen = [next(source) for _ in range(windows)]
        self.windows += windows
        lowest, *others = sorted(BUDGETS, reverse=True)
        alarms, highest = _watch(profile, seen, lowest)
        self.alarms[lowest] += alarms
        for budget in others:
            # Until the evidence reaches the lower line it is the same under both budgets.
            if highest >= np.log10(share_of(budget, "data_drift")):
                self.alarms[budget] += _watch(profile, seen, budget)[0]


Counted = tuple[Mapping[str, IntArray], int]
"""A window's counts by feature, and its stratum."""


def _shares(profile: Profile, rows: int, random_numbers: np.random.Generator) -> Iterator[Counted]:
    """Windows of independent rows, drawn as counts from the true share of every bin."""
    shares = [normal_shares(feature) for feature in profile.features]
    while True:
        yield {f.name: random_numbers.multinomial(rows, p) for f, p in zip(profile.features, shares, strict=True)}, 0


def _rows(profile: Profile, stream: Stream, rows: int) -> Iterator[Counted]:
    """Windows of a stream's next rows."""
    while True:
        middle = stream.now + 1_800
        columns = stream.next(rows)
        counts = {f.name: f.bins.counts(column) for f, column in zip(profile.features, columns, strict=True)}
        yield counts, stratum_of(profile, middle)


def _watch(profile: Profile, seen: Sequence[Counted], budget: int) -> tuple[int, float]:
    """How many alarms began, and the highest evidence (log10) before the first of them."""
    detector = detector_for(profile, windows=share_of(budget, "data_drift"))
    alarms, drifted, highest = 0, False, -np.inf
    for counts, stratum in seen:
        verdict = detector.observe(counts, stratum)
        highest = max(highest, verdict.evidence)
        alarms += verdict.drifted and not drifted
        drifted = verdict.drifted
    return alarms, highest


def cells() -> list[Cell]:
    """All that is measured, and all where nothing can be."""
    plain = [Cell("independent", rows, reference) for rows in WINDOW_ROWS for reference in REFERENCE_ROWS]
    kinds: tuple[Kind, ...] = ("AR(1)", "season")
    large = (*REFERENCE_ROWS, LARGE_REFERENCE)
    return plain + [Cell(kind, rows, reference) for kind in kinds for rows in WINDOW_ROWS for reference in large]


def words(measured: Sequence[Cell]) -> str:
    """A table: false alarms of each cell and of each kind together beside what the data's quarter allows."""
    header = ("rows", "a window", "reference", "windows", *(f"1 in {b:,}: allowed, alarms (95 %)" for b in BUDGETS))
    lines = []
    for kind in dict.fromkeys(cell.kind for cell in measured):
        of_kind = [cell for cell in measured if cell.kind == kind]
        lines += [
            (kind, f"{c.rows:,}", f"{c.reference:,}", f"{c.windows:,}" if c.known else "unknown",
             *(_beside(c.alarms[b], c.windows, b) for b in BUDGETS))
            for c in of_kind
        ]  # fmt: skip
        windows = sum(cell.windows for cell in of_kind)
        together = (_beside(sum(cell.alarms[b] for cell in of_kind), windows, b) for b in BUDGETS)
        lines.append((kind, "all", "all", f"{windows:,}", *together))
    return aligned(header, lines)


def _beside(alarms: int, windows: int, budget: int) -> str:
    if not windows:
        return ""
    low, high = poisson_bounds(alarms)
    allowed = windows / share_of(budget, "data_drift")
    verdict = "kept" if high <= allowed else "MISSED" if low > allowed else ""
    return f"{allowed:.1f}, {alarms} ({low:.1f} to {high:.1f}) {verdict}".rstrip()
