"""File descriptors, shared out: clients of the model may use up theirs, and the admin port still has its own."""

from dataclasses import dataclass

_OWN = 40
"""For what the tap itself opens: to the analyser, to the model when it is asked for its readiness."""
_MOST_ADMIN = 1024
_LEAST_ADMIN = 8


@dataclass(frozen=True, slots=True)
class Shares:
    """How many connections the admin port may have, and how many clients the model's ports, which take two each."""

    admin: int
    clients: int


def shared_out(descriptors: int) -> Shares:
    """Of so many descriptors.

    >>> shared_out(1_000)
    Shares(admin=240, clients=360)
    """
    left = descriptors - _OWN
    admin = max(_LEAST_ADMIN, min(_MOST_ADMIN, left // 4))
    return Shares(admin, max(1, (left - admin) // 2))
