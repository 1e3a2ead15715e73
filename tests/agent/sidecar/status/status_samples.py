"""States of a model to look at: from nothing seen yet to fifty features in drift."""

import math
from itertools import pairwise

import numpy as np
from pegel_agent.sidecar.frames import TapState
from pegel_agent.sidecar.monitor.state import (
    AccuracyState,
    EvidencePoint,
    FeatureState,
    ModelState,
    ReferenceState,
)

NOW = 1_777_817_010.0  # 2026-05-03 14:03:30 UTC
LIMIT = math.log10(8_640)
NO_ACCURACY = AccuracyState("insufficient", 0, None, None, None, ())


def numeric(name: str, *, shift: float = 0.0, evidence: float | None = 0.1, intervals: int = 20) -> FeatureState:
    """A numeric feature whose ranks moved by a multiple of their scale."""
    reference = np.full(intervals, 1 / intervals)
    current = reference * np.exp(shift * np.linspace(-1.7, 1.7, intervals))
    current *= 1 + 0.12 * np.random.default_rng(len(name)).standard_normal(intervals)
    edges = np.linspace(0, 4_000, intervals + 1)
    names = (
        "below 0",
        *(f"{a:g} to {b:g}" for a, b in pairwise(edges)),
        "above 4000",
        "missing",
    )
    reference = np.array([0.001, *reference * 0.979, 0.001, 0.019])
    current = np.array([0.002, *current / current.sum() * 0.976, 0.004, 0.018])
    drifted = evidence is not None and evidence >= LIMIT
    return FeatureState(
        name=name,
        kind="numeric",
        role="input",
        bins=names,
        reference=tuple(map(float, reference)),
        current=tuple(map(float, current)),
        rows=4_000,
        evidence=evidence,
        drifted=drifted,
        direction="" if evidence is None or evidence < 0 else "down" if shift < 0 else "up",
        psi=float(np.sum((current - reference) * np.log(current / reference))),
        psi_limit=0.061,
        js=abs(shift) / 4 + 0.02,
        ks=abs(shift) / 3 + 0.015,
    )


def categorical(name: str, *, evidence: float | None = 0.4, role: str = "input") -> FeatureState:
    """A feature of five categories, with new ones turning up among the others."""
    return FeatureState(
        name=name,
        kind="categorical",
        role="prediction" if role == "prediction" else "input",
        bins=("Austin", "Dallas", "El Paso", "Houston", "San Antonio", "other", "missing"),
        reference=(0.18, 0.24, 0.07, 0.31, 0.14, 0.041, 0.019),
        current=(0.17, 0.22, 0.06, 0.29, 0.15, 0.091, 0.019),
        rows=4_000,
        evidence=evidence,
        drifted=evidence is not None and evidence >= LIMIT,
        direction="new",
        psi=0.24,
        psi_limit=0.021,
        js=0.15,
        ks=0.052,
    )


def drifting(features: int = 6) -> ModelState:
    """A model an hour into its watch, in drift for some minutes."""
    every = (
        numeric("inventory", shift=-0.6, evidence=6.4),
        categorical("city", evidence=4.2),
        numeric("median_price_usd", shift=0.35, evidence=2.7),
        categorical("prediction", evidence=1.1, role="prediction"),
        numeric("listings", evidence=0.3),
        numeric("sales", evidence=-0.4),
        *(numeric(f"feature_{number:02}", evidence=-0.4 - number / 100) for number in range(7, features + 1)),
    )
    values = (*(0.4 * math.sin(step / 3) for step in range(90)), *(0.45 * step for step in range(1, 16)))
    history = tuple(
        EvidencePoint(NOW - 60 * (len(values) - place), -math.inf if place == 0 else value, value >= LIMIT)
        for place, value in enumerate(values)
    )
    accuracy = tuple(
        (NOW - 300 * (20 - step), 0.88 - 0.003 * step, 0.865 - 0.003 * step, 0.894 - 0.003 * step) for step in range(20)
    )
    return ModelState(
        model_name="txhousing",
        model_version="3",
        since=NOW - 6_300,
        now=NOW,
        rows=52_480,
        windows=105,
        window="500",
        evidence=6.75,
        evidence_limit=LIMIT,
        drifted=True,
        drifted_since=NOW - 420,
        score=2 / len(every[:features]),
        features=every[:features],
        history=history,
        accuracy=AccuracyState("ok", 2_310, 0.823, 0.807, 0.838, accuracy),
        reference=ReferenceState("profile", "9f31c2ab", NOW - 86_400 * 40, 10_000, 0),
        tap=TapState(
            requests=5_248, requests_per_second=0.83, errors=3, in_flight=1, connections=4, analysed=5_201, shed=40,
            undecodable=7, analyser_restarts=0, p50_seconds=0.0041, p95_seconds=0.0123, p99_seconds=0.0874,
        ),
    )  # fmt: skip


def untouched() -> ModelState:
    """A sidecar that has just started without a profile and seen nothing."""
    return ModelState(
        model_name="txhousing",
        model_version="3",
        since=NOW - 4,
        now=NOW,
        rows=0,
        windows=0,
        window="5m",
        evidence=None,
        evidence_limit=LIMIT,
        drifted=False,
        drifted_since=None,
        score=0.0,
        features=(),
        history=(),
        accuracy=NO_ACCURACY,
        reference=ReferenceState("learning", "", None, 0, 10_000, 0, 80),
        tap=TapState(),
    )
