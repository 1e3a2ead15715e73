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
_DRAIN = "drain the node and reset the GPU; if it comes back, have the GPU replaced"
_RESTART = "restart the application; if it comes back, reset the GPU"
_DEBUG = "debug the application first; if several applications have it, test the GPU"
_REBOOT = "drain the node and restart it; check the GPU's seat, power and cooling"
_LINK = "check the links, cables and the fabric manager; reset the GPU"
_KNOWN: Mapping[int, Meaning] = {
    13: Meaning("application", "An exception in the graphics engine", _DEBUG),
    31: Meaning("application", "A page fault in the GPU's memory", _DEBUG),
    32: Meaning("application", "Broken commands from the application or the bus", _DEBUG),
    38: Meaning("driver", "An error in the driver's firmware", "update the driver; reset the GPU"),
    43: Meaning("application", "The GPU stopped working on an application", _RESTART),
    44: Meaning("hardware", "A fault in the graphics engine while changing contexts", _DRAIN),
    45: Meaning(
        "application",
        "Work was cut off, after another error or when its application ended",
        "look for the error before it",
    ),
    46: Meaning("driver", "The GPU stopped answering", "reset the GPU"),
    48: Meaning("memory", "A memory error that could not be corrected", _DRAIN),
    54: Meaning("hardware", "An auxiliary power cable is not connected", "connect the GPU's power"),
    56: Meaning("hardware", "An error of the display engine", _DRAIN),
    57: Meaning("hardware", "An error while the video memory was set up", _DRAIN),
    58: Meaning("hardware", "The video memory's interface is not stable", _DRAIN),
    61: Meaning("hardware", "An internal microcontroller stopped", _DRAIN),
    62: Meaning("hardware", "An internal microcontroller was halted", _DRAIN),
    63: Meaning(
        "memory", "A row or page of memory is to be replaced", "let the work end, then reset the GPU, which replaces it"
    ),
    64: Meaning("memory", "A row or page of memory could not be recorded for replacement", _DRAIN),
    68: Meaning("hardware", "An exception in the video processor", _DEBUG),
    69: Meaning("application", "An error of a graphics engine class", _DEBUG),
    74: Meaning("link", "An error on an NVLink", _LINK),
    78: Meaning("driver", "A virtual GPU could not be started", "check the vGPU's driver and licence"),
    79: Meaning("hardware", "The GPU has fallen off the bus", _REBOOT),
    92: Meaning("memory", "Many memory errors that were corrected", "watch it; if they go on, have the GPU tested"),
    94: Meaning(
        "memory", "A memory error that was contained", "restart the application; reset the GPU when it is free"
    ),
    95: Meaning("memory", "A memory error that was not contained", _DRAIN),
    109: Meaning(
        "driver", "Changing contexts took too long", "restart the application; if it comes back, reset the GPU"
    ),
    110: Meaning("hardware", "A fault of a security engine", _DRAIN),
    119: Meaning("driver", "The GPU's system processor did not answer in time", "reset the GPU; update the driver"),
    120: Meaning("driver", "An error in the GPU's system processor", "reset the GPU; update the driver"),
    121: Meaning("link", "An error on the link between the GPU and the CPU", "watch it; reset the GPU when it is free"),
    123: Meaning("driver", "An error of the power management unit", "reset the GPU"),
    136: Meaning("link", "An NVLink could not be trained", _LINK),
    137: Meaning("link", "A fault on another GPU's side of an NVLink", "look for the error of that GPU"),
    140: Meaning(
        "memory", "Memory errors that could not be corrected and were recovered from", "reset the GPU when it is free"
    ),
    143: Meaning("hardware", "An error while the GPU was started", _DRAIN),
    144: Meaning("link", "An error of NVLink's serialiser", _LINK),
    145: Meaning("link", "An error of NVLink's link layer", _LINK),
    149: Meaning("link", "An error of NVLink's network layer", _LINK),
    150: Meaning("link", "An error of NVLink's transaction layer", _LINK),
    154: Meaning(
        "driver", "What must be done to recover the GPU has changed", "do what nvidia_gpu_recovery_action says"
    ),
    155: Meaning("link", "An NVLink's software state has changed", _LINK),
    156: Meaning("memory", "A memory resource is to be retired", "reset the GPU when it is free"),
    157: Meaning("memory", "A memory resource could not be retired", _DRAIN),
}
"""Codes that are worth knowing. An application's errors are its own matter until several applications have them."""

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
