"""What can be counted of a text without keeping any of it: its length, its words, and how much of it is no letter.

Free text has no categories: hardly two are alike. These three numbers move when a field is cut off, filled with another
language, with markup or with nothing to speak of.
"""

import re

import numpy as np

from pegel_agent.reference.columns import Column, as_texts
from pegel_agent.reference.profile import MEASURES
from pegel_agent.statistics.slots import FloatArray

CHARACTERS = 10_000
"""So many of a text's characters are looked at: what a client sends must not take up the analyser."""

_WORDS_OF_TEXT = 4.0
_LOOKED_AT = 200
_NO_LETTERS = re.compile(r"[\W\d_]+")


def measures_of(values: Column) -> tuple[FloatArray, ...]:
    """The measures (rows,) of a column of texts, NaN for missing; of the first CHARACTERS of each.

    Numbers are taken as the texts that say them. The share of an empty text is missing.
    """
    texts = (values if values.dtype == object else as_texts(values)).tolist()
    found = np.full((len(MEASURES), len(texts)), np.nan)
    for row, text in enumerate(texts):
        if text is not None:
            found[:, row] = _measured(text[:CHARACTERS])
    return tuple(found)


def _measured(text: str) -> tuple[float, float, float]:
    words = text.split()
    characters = sum(map(len, words))
    letters = len(_NO_LETTERS.sub("", text))
    return float(len(text)), float(len(words)), 1 - letters / characters if characters else np.nan


def looks_like_text(values: Column) -> bool:
    """Whether texts are sentences rather than names: four words, on average over some from all of them."""
    some = values[:: max(1, len(values) // _LOOKED_AT)]
    texts = [text for text in some.tolist() if text is not None]
    return bool(texts) and sum(len(text[:CHARACTERS].split()) for text in texts) >= _WORDS_OF_TEXT * len(texts)
