"""The reference profile: what a model's data looked like, as counts per bin and never a row.

A profile is one JSON document, `pegel-profile/1`, small enough for a ConfigMap. What can go wrong while reading it is
one sentence with the file's name and the field.
"""

import hashlib
import math
import zlib
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np
from pegel_exporters.errors import UserError
from pegel_exporters.files import write_whole

from pegel_agent.reference.bins import CategoryBins, NumericBins
from pegel_agent.reference.performance import Performance
from pegel_agent.reference.seasons import HOURS, quarters
from pegel_agent.reference.tokens import is_padding
from pegel_agent.statistics.slots import IntArray, Reference, ReferenceShares, reference_shares

FORMAT: Final = "pegel-profile/1"
MEASURES: Final = ("length", "words", "non-letters")
"""What is counted of a text: characters; runs of them between white space; the share of them, white space apart, that
are no letters."""

Role = Literal["input", "prediction"]

_MOST_ROWS = 2**53
_YEAR_10000 = 253_402_300_800


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a reference in time order was looked at: its windows, how many there were, and what came of it.

    `window` is a duration (`300s`) or a number of rows (`500`). In the state `unknown` there are too few windows to
    tell how much rows resemble their neighbours.
    """

    window: str
    windows: int
    state: Literal["measured", "unknown"]


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One feature: its bins and the reference's rows in each.

    `edges` are a numeric feature's, `categories` a categorical one's. Rare categories have no name here: a name that
    few rows share may tell of a person. `design_effects` and `heterogeneity` are as in `Reference`. `hours` has the
    rows in each bin by the hour of the day (UTC), where these differ: 24 × k unsigned numbers of 32 bits, the lowest
    bytes of all first, then the next ones, compressed by zlib. Where a row has a list of tokens, `padding` is what
    lists are filled up with, and the feature's value is how many of the list are something else.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    role: Role
    counts: tuple[int, ...]
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    design_effects: dict[str, float] = {}
    heterogeneity: float = 0.0
    hours: bytes = b""
    padding: int | None = None

    @property
    def bins(self) -> NumericBins | CategoryBins:
        """Where a value of this feature falls."""
        if self.kind == "numeric":
            return NumericBins(self.edges)
        return CategoryBins(self.categories)

    @property
    def shares(self) -> ReferenceShares:
        """The reference's share of each bin."""
        return reference_shares(self.counts, self.bins.slots)

    @property
    def reference(self) -> Reference:
        """What the detector compares windows with."""
        slots = self.bins.slots
        by_hour = tuple(reference_shares(counts, slots) for counts in unpacked(self.hours, len(slots)))
        return Reference(self.shares, quarters(by_hour) if by_hour else (), self.design_effects, self.heterogeneity)

    def __post_init__(self) -> None:
        if self.kind == "numeric" and (len(self.edges) < 2 or list(self.edges) != sorted(self.edges)):
            raise ValueError(f"feature {self.name!r}: edges must be two or more and ascend")
        if len(set(self.categories)) < len(self.categories):
            raise ValueError(f"feature {self.name!r}: a category is listed twice")
        if len(self.counts) != len(self.bins.slots):
            raise ValueError(f"feature {self.name!r}: {len(self.counts)} counts for {len(self.bins.slots)} bins")
        if min(self.counts) < 0 or sum(self.counts) == 0:
            raise ValueError(f"feature {self.name!r}: counts must not be negative, nor all zero")
        if self.padding is not None and not (self.kind == "numeric" and is_padding(self.padding)):
            raise ValueError(f"feature {self.name!r}: a count of tokens must be numeric, its padding of 64 bits")
        if not all(1 <= effect < math.inf for effect in self.design_effects.values()):
            raise ValueError(f"feature {self.name!r}: design effects must be 1 or more")
        if not 0 <= self.heterogeneity < math.inf:
            raise ValueError(f"feature {self.name!r}: the heterogeneity must be 0 or more")
        if self.hours and not unpacked(self.hours, len(self.counts)).any(axis=1).all():
            raise ValueError(f"feature {self.name!r}: an hour of the day has no rows")


def packed(by_hour: IntArray) -> bytes:
    """Counts (24, k) as a feature has them in `hours`."""
    planes = by_hour.astype("<u4").ravel().view(np.uint8).reshape(-1, 4).T
    return zlib.compress(planes.tobytes(), 9)


def unpacked(hours: bytes, bins: int) -> IntArray:
    """Counts (24, k) of a feature's `hours`, (0, k) where there are none. Raises ValueError."""
    if not hours:
        return np.zeros((0, bins), dtype=np.int64)
    size = HOURS * bins * 4
    try:
        planes = zlib.decompressobj().decompress(hours, size)
    except zlib.error as error:
        raise ValueError(f"the rows by hour cannot be read: {error}") from error
    if len(planes) != size:
        raise ValueError(f"the rows by hour are not those of {bins} bins")
    found = np.frombuffer(planes, np.uint8).reshape(4, -1).T.copy().view("<u4")
    return found.astype(np.int64).reshape(HOURS, bins)


class Relation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What other inputs leave unexplained of one, and the feature that its values are.

    `loadings` say how much of each input is in it.
    """

    feature: Feature
    loadings: tuple[float, ...]


class Joint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Relations between `inputs`: a value is the sum of loading × (input − centre) / scale, each clipped at ±4 before.

    Centres and scales are of the values without the hundredth part at either end. All are rounded, and of many rows.
    """

    inputs: tuple[str, ...]
    centres: tuple[float, ...]
    scales: tuple[float, ...]
    relations: tuple[Relation, ...]

    def __post_init__(self) -> None:
        sizes = {len(self.centres), len(self.scales), *(len(relation.loadings) for relation in self.relations)}
        if not self.relations or not self.inputs or sizes != {len(self.inputs)}:
            raise ValueError("relations need inputs, and a centre, a scale and loadings for each")
        if not all(0 < scale < math.inf for scale in self.scales):
            raise ValueError("the scales of relations must be above 0")
        if any(one.feature.kind != "numeric" or one.feature.role != "input" for one in self.relations):
            raise ValueError("a relation must be numeric and an input")


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A column of free text, and the features that are counted of it: its length, its words, its share of non-letters.

    The column itself is a categorical feature without categories: there or missing.
    """

    column: str
    features: tuple[Feature, ...]

    def __post_init__(self) -> None:
        if len(self.features) != len(MEASURES) or any(one.kind != "numeric" for one in self.features):
            raise ValueError(f"the text {self.column!r} needs {len(MEASURES)} numeric features")


class _Header(msgspec.Struct):
    """What any version of a profile says of itself."""

    format: str = FORMAT


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, dict=True):
    """A model's reference. `created` is a Unix time, `rows` the number of reference rows."""

    format: Literal["pegel-profile/1"]
    created: float
    model_name: str
    model_version: str
    rows: int
    features: tuple[Feature, ...]
    order: Order | None = None
    """None where the rows had no time order, so that they are taken to be independent of each other."""
    performance: Performance | None = None
    """None where the reference rows had no labels and predictions."""
    category_key: str = ""
    """What tells the key by which categories are named from others; empty where they have their own names."""
    joint: Joint | None = None
    """Relations between the inputs; None where there is none to tell of."""
    texts: tuple[Text, ...] = ()
    """Columns of free text with what is counted of them."""

    @cached_property
    def watched(self) -> tuple[Feature, ...]:
        """All features: those that are columns, then those that are computed from them."""
        of_texts = (feature for text in self.texts for feature in text.features)
        relations = self.joint.relations if self.joint else ()
        return (*self.features, *of_texts, *(relation.feature for relation in relations))

    @property
    def tokens(self) -> dict[str, int]:
        """The padding of each column that has a list of tokens in each row."""
        return {feature.name: feature.padding for feature in self.features if feature.padding is not None}

    @cached_property
    def hash(self) -> str:
        """Eight hexadecimal digits that change with the bins or counts: the label value of `reference`."""
        counted = [(one.name, one.kind, one.role, one.counts, one.edges, one.categories) for one in self.watched]
        return hashlib.sha256(msgspec.json.encode(counted)).hexdigest()[:8]

    def of_role(self, role: Role) -> "Profile | None":
        """The profile with the columns of one role and what is computed from them; None where there are none."""
        features = tuple(feature for feature in self.features if feature.role == role)
        joint = self.joint if role == "input" else None
        texts = tuple(text for text in self.texts if text.features[0].role == role)
        return msgspec.structs.replace(self, features=features, joint=joint, texts=texts) if features else None

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.watched]
        if not self.features:
            raise ValueError("a profile needs a feature")
        if len(set(names)) < len(names):
            raise ValueError("two features have the same name")
        numbers = {feature.name for feature in self.features if feature.role == "input" and feature.kind == "numeric"}
        if self.joint is not None and not numbers.issuperset(self.joint.inputs):
            raise ValueError("a relation is of an input that the profile has no numbers of")
        if not {feature.name for feature in self.features if feature.kind == "categorical"}.issuperset(
            text.column for text in self.texts
        ):
            raise ValueError("a text is of a column that the profile has no texts of")
        if not 1 <= self.rows <= _MOST_ROWS:
            raise ValueError(f"rows must be 1 or more, and not {self.rows}")
        if not 0 <= self.created < _YEAR_10000:
            raise ValueError(f"created must be a Unix time, and not {self.created:g}")


def load(path: str | Path) -> Profile:
    """Read a profile. Raises UserError when it is missing, malformed or of another format."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the profile {path}: {error.strerror}") from error
    try:
        header = msgspec.json.decode(data, type=_Header)
        if header.format != FORMAT:
            raise ValueError(f"unknown format {header.format!r}")
        profile = msgspec.json.decode(data, type=Profile)
        for feature in profile.watched:
            if sum(feature.counts) > profile.rows:
                raise ValueError(f"feature {feature.name!r} counts {sum(feature.counts)} rows of {profile.rows}")
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a {FORMAT} profile: {error}") from error
    return profile


def encoded(profile: Profile) -> bytes:
    """A profile as its file has it."""
    return msgspec.json.format(msgspec.json.encode(profile), indent=0) + b"\n"


def save(profile: Profile, path: str | Path) -> None:
    """Write a profile, whole or not at all. Raises UserError when it can't be written."""
    write_whole(path, encoded(profile))
