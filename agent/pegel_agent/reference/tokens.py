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

    Of an attention mask, whose padding is 0, that is what the model attends to. Objects are str; `false` is 0 and
    `true` is 1. In place of a list there may be nothing: a list of one that is missing is missing.
    """
    if lists.dtype != object:
        missing = np.isnan(lists)
        found: FloatArray = ((lists != padding) & ~missing).sum(axis=1).astype(np.float64)
    else:
        missing = lists == None  # noqa: E711, item by item
        fillers = {None, str(padding), {0: "false", 1: "true"}.get(padding)}
        found = np.array([sum(value not in fillers for value in row) for row in lists.tolist()], dtype=np.float64)
    if lists.shape[1] == 1:
        found[missing[:, 0]] = np.nan
    return found
