"""How many tokens a row's list of them has, which may be filled up so that all lists of a batch are equally long."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pegel_agent.statistics.slots import FloatArray


def is_padding(number: int) -> bool:
    """Whether lists of whole numbers can be filled up with it: it has 64 bits."""
    return -(2**63) <= number < 2**63


def count_tokens(lists: NDArray[Any], padding: int) -> FloatArray:
    """Values (rows,) of lists (rows, width) that are neither `padding` nor missing.

    Of an attention mask, whose padding is 0, that is what the model attends to; `false` is 0 there. Objects are str.
    """
    if lists.dtype != object:
        found: FloatArray = ((lists != padding) & ~np.isnan(lists)).sum(axis=1).astype(np.float64)
        return found
    fillers = {None, str(padding)} | ({"false"} if padding == 0 else set())
    return np.array([sum(value not in fillers for value in row) for row in lists.tolist()], dtype=np.float64)
