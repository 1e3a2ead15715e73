"""The demo's data: what a housing market looked like each month, and whether it grew in the year that followed.

Recorded in Texas between 2001 and 2010, in the order of the months. In the middle of it lies the crisis of 2007.
Nothing here is made up, and nothing knows where the drift begins.
"""

import csv
from collections import Counter
from dataclasses import dataclass
from importlib import resources

FEATURES = ("inventory", "sales_change", "price_change")
"""Months of supply; homes sold and median price, as change since the same month of the year before."""

MODEL_NAME = "housing"
LABEL_AFTER_MONTHS = 12
_TRAIN_UNTIL = (2003, 12)
_REFERENCE_UNTIL = (2004, 12)
_REPLAY_UNTIL = (2009, 12)


@dataclass(frozen=True, slots=True)
class Market:
    """A city in a month; `month` counts from year 0. `grew`: more homes were sold a year later."""

    city: str
    month: int
    features: tuple[float, float, float]
    grew: bool

    @property
    def date(self) -> str:
        """Year and month as text."""
        return f"{self.month // 12}-{self.month % 12 + 1:02d}"


@dataclass(frozen=True, slots=True)
class Housing:
    """Rows in recorded order: those the model learns from, the reference's, and those that are replayed.

    The reference is all that was known when the replay begins; the model learns from the part of it whose outcome was.
    """

    training: tuple[Market, ...]
    reference: tuple[Market, ...]
    replayed: tuple[Market, ...]


def housing() -> Housing:
    """Read the table that comes with Pegel. Only cities that reported throughout the reference's years are kept."""
    with resources.files("pegel_agent.demo").joinpath("data/txhousing.csv").open(encoding="utf-8") as file:
        months = {(row["city"], _month(int(row["year"]), int(row["month"]))): row for row in csv.DictReader(file)}
    markets = [market for key in months if (market := _market(months, *key)) is not None]
    markets.sort(key=lambda market: (market.month, market.city))
    reference = [market for market in markets if market.month <= _month(*_REFERENCE_UNTIL)]
    reported = Counter(market.city for market in reference)
    throughout = {city for city, count in reported.items() if count == max(reported.values())}
    reference = [market for market in reference if market.city in throughout]
    return Housing(
        training=tuple(market for market in reference if market.month <= _month(*_TRAIN_UNTIL)),
        reference=tuple(reference),
        replayed=tuple(
            market
            for market in markets
            if market.city in throughout and _month(*_REFERENCE_UNTIL) < market.month <= _month(*_REPLAY_UNTIL)
        ),
    )


def _month(year: int, month: int) -> int:
    return year * 12 + month - 1


def _market(months: dict[tuple[str, int], dict[str, str]], city: str, month: int) -> Market | None:
    now, before, after = (months.get((city, month + offset), {}) for offset in (0, -12, LABEL_AFTER_MONTHS))
    try:
        inventory, sales, price = (float(now[name]) for name in ("inventory", "sales", "median"))
        sales_before, price_before = float(before["sales"]), float(before["median"])
        sales_after = float(after["sales"])
    except (KeyError, ValueError):  # not reported
        return None
    changes = (sales / sales_before - 1, price / price_before - 1)
    return Market(city, month, (inventory, round(changes[0], 4), round(changes[1], 4)), sales_after > sales)
