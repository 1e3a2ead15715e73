"""What an hour of a GPU or of a MIG device costs: a table by names, from a file or built in."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from pegel_exporters.errors import UserError

_KNOWN = ("currency", "default", "gpus", "profiles")
_PROFILE = re.compile(r"(?:.+ )?(?:\d+c\.)?\d+g\.\d+gb\S*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Prices of an hour by a word in the model's name, the longest that fits; `default` for a model without one.

    `profiles` are MIG devices', by PROFILE, or WORD PROFILE where the model's name must have the word.
    The built-in ones are rounded prices of rented GPUs, a start that is to be replaced by one's own.
    """

    currency: str = "EUR"
    default: float = 1.00
    gpus: Mapping[str, float] = field(
        default_factory=lambda: {
            "H200": 4.50, "H100": 3.50, "A100": 2.00, "L40S": 1.50, "A10": 1.00, "L4": 0.70, "V100": 1.80, "T4": 0.40,
        }
    )  # fmt: skip
    profiles: Mapping[str, float] = field(default_factory=dict)

    def hour(self, name: str) -> float:
        """The price of an hour of a model."""
        words = [word for word in self.gpus if word.lower() in name.lower()]
        return self.gpus[max(words, key=len)] if words else self.default

    def device_hour(self, name: str, profile: str) -> float | None:
        """The price of an hour of a MIG device of a model, None where the table has none."""
        told = ((*key.rpartition(" ")[::2], price) for key, price in self.profiles.items())
        words = {word: price for word, own, price in told if own == profile and word.lower() in name.lower()}
        return words[max(words, key=len)] if words else None


def load(path: Path) -> Prices:
    """Prices from a YAML file. Raises UserError that says what is wrong and where."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the prices {path}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none is a ValueError
        raise UserError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise UserError(f"{path}: expected currency, default, gpus and profiles")
    for name in document:
        if name not in _KNOWN:
            raise UserError(f"{path}: {name!r} is not known; known: {', '.join(_KNOWN)}")
    gpus = document.get("gpus", {})
    if not isinstance(gpus, dict):
        raise UserError(f"{path}: 'gpus' must be prices by model, such as A100: 2.00")
    if not all(isinstance(word, str | int) and str(word).strip() for word in gpus):
        raise UserError(f"{path}: a price without a word of a model's name; 'default' is the price of all others")
    profiles = document.get("profiles", {})
    if not isinstance(profiles, dict) or not all(_PROFILE.fullmatch(str(name)) for name in profiles):
        raise UserError(f"{path}: 'profiles' must be prices by MIG profile, such as 3g.20gb: 0.9 or A100 3g.20gb: 0.9")
    currency = document.get("currency", "EUR")
    if not isinstance(currency, str) or not re.fullmatch("[A-Za-z]{3}", currency):
        raise UserError(f"{path}: 'currency' must be three letters, such as EUR")
    default = _price(document.get("default", 1.00), f"{path}: 'default'")
    return Prices(
        currency=currency.upper(),
        default=default,
        gpus=_prices(gpus, path),
        profiles=_prices(profiles, path),
    )


def _prices(table: Mapping[object, object], path: Path) -> dict[str, float]:
    return {str(name): _price(price, f"{path}: the price of {name!r}") for name, price in table.items()}


def _price(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise UserError(f"{what} must be a number, 0 or more")
    return float(value)
