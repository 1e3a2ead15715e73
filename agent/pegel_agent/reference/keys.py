"""A secret key by which categories have other names in a profile: who lacks the key can't tell or guess them.

A plain hash would be undone by hashing every name there is.
"""

import hmac
from dataclasses import dataclass, field
from pathlib import Path

from pegel_exporters.errors import UserError

_MIN_BYTES = 16
_CHECKED = "\0the key of a profile's categories"


@dataclass(frozen=True, slots=True)
class CategoryKey:
    """Names categories by the first 16 hexadecimal digits of their HMAC-SHA256 (RFC 2104)."""

    secret: bytes = field(repr=False)

    def name_of(self, category: str) -> str:
        """The category's name in the profile."""
        return hmac.digest(self.secret, category.encode("utf-8", "surrogatepass"), "sha256").hex()[:16]

    @property
    def check(self) -> str:
        """What a profile keeps to tell its key from others."""
        return self.name_of(_CHECKED)


def read_key(path: str | Path) -> CategoryKey:
    """The key in a file, without space around it. Raises UserError where there is none, or a short one."""
    try:
        secret = Path(path).read_bytes().strip()
    except OSError as error:
        raise UserError(f"cannot read the key {path}: {error.strerror}") from error
    if len(secret) < _MIN_BYTES:
        raise UserError(
            f"the key in {path} has fewer than {_MIN_BYTES} bytes; make one with: openssl rand -hex 32 > {path}"
        )
    return CategoryKey(secret)


def key_for(profile: str | Path, check: str, path: str | Path | None) -> CategoryKey | None:
    """The key in a file for a profile that keeps this `check`, "" where its categories have their own names.

    Raises UserError where they don't belong together.
    """
    if path is None:
        if check:
            raise UserError(f"the categories of {profile} are hashed; give --category-key with the key it was built by")
        return None
    key = read_key(path)
    if not check:
        raise UserError(f"the categories of {profile} are not hashed; leave out --category-key")
    if key.check != check:
        raise UserError(f"the key in {path} is not the one that {profile} was built by")
    return key
