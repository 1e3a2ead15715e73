"""What a model's monitor knows at one moment: what the status page shows and `/api/status` answers."""

from typing import Literal

import msgspec

from pegel_agent.sidecar.frames import TapState


class FeatureState(msgspec.Struct, frozen=True):
    """One feature in the last closed window.

    `bins`, `reference` (shares) and `current` (shares of the last windows' rows) have the same length; shares sum to 1.
    `evidence` is log10; `direction` is the detector's word for what moved, empty without evidence.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    role: Literal["input", "prediction"]
    bins: tuple[str, ...]
    reference: tuple[float, ...]
    current: tuple[float, ...]
    rows: int
    evidence: float | None
    drifted: bool
    direction: str
    psi: float | None
    psi_limit: float | None
    js: float | None
    ks: float | None
    design_effect: float = 1.0
    by_hour: bool = False
    """Whether the reference tells the hours of the day apart."""


class EvidencePoint(msgspec.Struct, frozen=True):
    """The model's evidence (log10) when a window closed, at Unix time `time`; None after it was set back to nothing."""

    time: float
    evidence: float | None
    drifted: bool


class UnknownAccuracy(msgspec.Struct, frozen=True):
    """Why the labels that came are no fair sample of the predictions, so that nothing is made of them; `text` says it
    in a sentence for people.

    Predictions were `forgotten` before their label came, ids were `reused`, labels came too `late`, for some kinds of
    predictions rather than for others (`partial`), or for another share of them than usual (`coverage`).
    """

    reason: Literal["forgotten", "reused", "late", "partial", "coverage"]
    since: float
    text: str
    coverage: float | None = None
    """Share of the predictions refused last that have a label, and the usual share."""
    usual_coverage: float | None = None


class AccuracyState(msgspec.Struct, frozen=True):
    """Accuracy over the recent labelled rows with its 95 % interval; None where there are too few labels.

    `unknown` is set where the state says so. `coverage` is the share of the predictions old enough that have a label;
    `retention_seconds` is how long predictions are kept for their labels, at the rate seen.
    """

    state: Literal["ok", "immature", "insufficient", "unknown"]
    labels: int
    accuracy: float | None
    lower: float | None
    upper: float | None
    history: tuple[tuple[float, float, float, float], ...]
    """Past values: (Unix time, accuracy, lower, upper), oldest first."""
    unknown: UnknownAccuracy | None = None
    coverage: float | None = None
    horizon_seconds: float = 0.0
    retention_seconds: float | None = None


class ReferenceState(msgspec.Struct, frozen=True):
    """The reference in use. While it is learned, `rows` in `windows` (those with rows) have been seen.

    Learning ends when both are at least what is needed, whichever comes last. `dependence` is how the design effects
    came about: assumed to be 1 where the reference's rows had no time order, measured in `order_windows` windows of it,
    or unknown where these are too few: then nothing is called drift. `smallest_shift` is the smallest shift of a mean,
    in standard deviations, that can be shown in a feature like most.
    """

    source: Literal["profile", "learned", "learning"]
    hash: str
    created: float | None
    rows: int
    rows_needed: int
    windows: int = 0
    windows_needed: int = 0
    dependence: Literal["assumed", "measured", "unknown"] = "assumed"
    order_windows: int = 0
    smallest_shift: float | None = None


class ModelState(msgspec.Struct, frozen=True):
    """Everything about one model. `features` are ordered by evidence, strongest first. Times are Unix times.

    `evidence`, `drifted`, `score` and `history` are of the data; predictions have a limit of the same height.
    """

    model_name: str
    model_version: str
    since: float
    now: float
    rows: int
    windows: int
    window: str
    evidence: float | None
    evidence_limit: float
    drifted: bool
    drifted_since: float | None
    score: float
    features: tuple[FeatureState, ...]
    history: tuple[EvidencePoint, ...]
    accuracy: AccuracyState
    reference: ReferenceState
    tap: TapState
    prediction_evidence: float | None = None
    prediction_drifted: bool = False
