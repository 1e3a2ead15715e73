"""The demo's client: asks about one recorded market after the other, and tells what came of each a year later."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx

from pegel_agent.demo.housing import FEATURES, LABEL_AFTER_MONTHS, MODEL_NAME, Market


@dataclass(frozen=True, slots=True)
class Urls:
    """Where the client asks and where it reports."""

    model: str
    admin: str


def replay(
    markets: tuple[Market, ...], urls: Urls, *, seconds: float, sleep: Callable[[float], None] = time.sleep
) -> Iterator[Market]:
    """Ask at a steady rate so that all markets take this many seconds; yields each market once it is answered.

    A market's outcome is reported when the replay has come to the same month of the next year. Raises httpx.HTTPError
    when the model's answer fails: with Pegel in between, none may.
    """
    pause = seconds / len(markets)
    began = time.monotonic()
    unlabelled: deque[tuple[str, Market]] = deque()
    with httpx.Client(timeout=10.0) as client:
        for number, market in enumerate(markets):
            request_id = f"market-{number}"
            answer = client.post(
                f"{urls.model}/v1/models/{MODEL_NAME}:predict",
                json={"instances": [dict(zip(FEATURES, market.features, strict=True))]},
                headers={"X-Request-Id": request_id},
            )
            answer.raise_for_status()
            unlabelled.append((request_id, market))
            known = []
            while unlabelled and unlabelled[0][1].month + LABEL_AFTER_MONTHS <= market.month:
                asked, earlier = unlabelled.popleft()
                known.append({"id": asked, "label": int(earlier.grew)})
            if known:
                client.post(f"{urls.admin}/v1/feedback", json=known).raise_for_status()
            yield market
            sleep(max(0.0, began + pause * (number + 1) - time.monotonic()))
