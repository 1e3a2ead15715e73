"""The reference profile: what a model's data looked like, as counts per bin and never a row.

A profile is one JSON document, `pegel-profile/1`, small enough for a ConfigMap. What can go wrong while reading it is
one sentence with the file's name and the field.
"""

import hashlib
import os
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

import msgspec
from pegel_exporters.errors import UserError

from pegel_agent.reference.bins import CategoryBins, NumericBins
from pegel_agent.statistics.slots import ReferenceShares, reference_shares

FORMAT: Final = "pegel-profile/1"

Role = Literal["input", "prediction"]

_MOST_ROWS = 2**53
_YEAR_10000 = 253_402_300_800


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One feature: its bins and the reference's rows in each.

    `edges` are a numeric feature's, `categories` a categorical one's. Rare categories have no name here: a name that
    few rows share may tell of a person.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    role: Role
    counts: tuple[int, ...]
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()

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

    def __post_init__(self) -> None:
        if self.kind == "numeric" and (len(self.edges) < 2 or list(self.edges) != sorted(self.edges)):
            raise ValueError(f"feature {self.name!r}: edges must be two or more and ascend")
        if len(set(self.categories)) < len(self.categories):
            raise ValueError(f"feature {self.name!r}: a category is listed twice")
        if len(self.counts) != len(self.bins.slots):
            raise ValueError(f"feature {self.name!r}: {len(self.counts)} counts for {len(self.bins.slots)} bins")
        if min(self.counts) < 0 or sum(self.counts) == 0:
            raise ValueError(f"feature {self.name!r}: counts must not be negative, nor all zero")


class _Header(msgspec.Struct):
    """What any version of a profile says of itself."""

    format: str = FORMAT


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """A model's reference. `created` is a Unix time, `rows` the number of reference rows."""

    format: Literal["pegel-profile/1"]
    created: float
    model_name: str
    model_version: str
    rows: int
    features: tuple[Feature, ...]

    @cached_property
    def hash(self) -> str:
        """Eight hexadecimal digits that change with the bins or counts: the label value of `reference`."""
        return hashlib.sha256(msgspec.json.encode(self.features)).hexdigest()[:8]

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.features]
        if not names:
            raise ValueError("a profile needs a feature")
        if len(set(names)) < len(names):
            raise ValueError("two features have the same name")
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
        for feature in profile.features:
            if sum(feature.counts) > profile.rows:
                raise ValueError(f"feature {feature.name!r} counts {sum(feature.counts)} rows of {profile.rows}")
    except (msgspec.DecodeError, ValueError) as error:
        raise UserError(f"{path} is not a {FORMAT} profile: {error}") from error
    return profile


def save(profile: Profile, path: str | Path) -> None:
    """Write a profile, whole or not at all. Raises UserError when the folder can't be written."""
    path = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(profile), indent=1) + b"\n")
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
