"""XID errors: what the driver's codes mean and what to do about them. Pure.

Codes and meanings are those of NVIDIA's "XID Errors" documentation. A code that isn't in the table is `other`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["hardware", "memory", "link", "driver", "application", "other"]


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a code means; `kind` says where to look first, `advice` what to do."""

    kind: Kind
    meaning: str
    advice: str


OTHER = "other"
_KNOWN: Mapping[int, Meaning] = {
    13: Meaning(
        "application", "Exception of the graphics engine", "look at the application first; if it repeats, test the GPU"
    ),
    31: Meaning("application", "Memory page fault", "debug the application"),
    48: Meaning("memory", "Memory error of two bits that could not be corrected", "drain the node and reset the GPU"),
    79: Meaning("hardware", "The GPU has fallen off the bus", "drain the node, restart it, check power and seating"),
}

BY_NAME: Mapping[str, Meaning] = {
    **{str(code): meaning for code, meaning in _KNOWN.items()},
    OTHER: Meaning(
        "other", "A code that Pegel doesn't know", "look the code up in the kernel's log and NVIDIA's documentation"
    ),
}
"""By the label's value."""
NAMES = tuple(BY_NAME)


def name(code: int) -> str:
    """The label's value of a code."""
    return str(code) if code in _KNOWN else OTHER


def describe(code: int) -> str:
    """A code in a line for people."""
    known = BY_NAME[name(code)]
    return f"XID {code}: {known.meaning}; {known.advice}"
