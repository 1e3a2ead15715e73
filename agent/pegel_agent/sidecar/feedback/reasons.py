"""Why accuracy is unknown, in a sentence that says what to do: for the page, `/api/status` and the log."""

from pegel_agent.sidecar.feedback.cohorts import Refusal
from pegel_agent.statistics.budget import span


def reason_text(refusal: Refusal, horizon_seconds: float, capacity: int, retention_seconds: float | None) -> str:
    """`capacity`: how many predictions are kept, which at the rate seen lasts `retention_seconds`."""
    horizon = span(horizon_seconds)
    if refusal.why == "forgotten":
        lasts = f", which is {span(retention_seconds)} at the rate seen" if retention_seconds is not None else ""
        return (
            f"predictions were forgotten before they were {horizon} old and their label had come: {capacity:,} are kept"
            f"{lasts}; give a shorter --label-horizon, or labels with their prediction"
        )
    if refusal.why == "reused":
        return (
            f"{_percent(refusal.share)} of the predictions have an id that came again for another one, so that labels "
            "can't be told apart; give each request an id of its own"
        )
    if refusal.why == "late":
        return (
            f"{_percent(refusal.share)} of the labels come when their predictions are older than {horizon}, and were "
            "judged without them; give a longer --label-horizon"
        )
    if refusal.why == "partial":
        return (
            f"labels come for some kinds of predictions rather than for others: {_percent(refusal.coverage)} have one, "
            "and what was predicted for these differs from what was predicted for all"
        )
    return (
        f"labels have come for {_percent(refusal.coverage)} of the predictions, usually for {_percent(refusal.usual)}; "
        f"what lasts for {horizon} is the usual share"
    )


def _percent(share: float | None) -> str:
    return "none" if not share else f"{share * 100:.3g} %"
