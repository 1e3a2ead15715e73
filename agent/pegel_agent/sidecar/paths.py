"""The protocols, and which requests ask which model for a prediction in one of them, by their start line."""

import re
from typing import NamedTuple

TFSERVING = "tfserving"
OPEN_INFERENCE = "oip"
OTHER = "other"
CLOUDEVENTS = "cloudevents"

PROTOCOLS = (TFSERVING, OPEN_INFERENCE, OTHER, CLOUDEVENTS)
"""The values of the label `protocol`. OTHER is any POST elsewhere: counted and timed, not decoded. CLOUDEVENTS is what
KServe's payload logger tells: bodies of either of the first two, without the path that would say which."""

_PATHS = (
    (TFSERVING, re.compile(rb"/v1/models/[^/:?]+(?:/(?:versions|labels)/[^/:?]+)?:(?:predict|classify|regress)")),
    (OPEN_INFERENCE, re.compile(rb"/v2/models/[^/?]+(?:/versions/[^/?]+)?/infer")),
)
_MODEL = re.compile(
    rb"/(?:v1/models/([^/:]+)(?:/(?:versions|labels)/([^/:]+))?(?:[:/]|$)"
    rb"|v2/models/([^/]+)(?:/versions/([^/]+))?(?:/|$))"
)
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


class Model(NamedTuple):
    """What a path says of its model: the name, and the version or the version's label, empty where it says neither."""

    name: str
    version: str = ""


def protocol_of(method: bytes, target: bytes) -> str | None:
    """The protocol of a request by its method and target (path and query); None when it is no inference."""
    if method != b"POST":
        return None
    path = _path(target)
    for protocol, pattern in _PATHS:
        if pattern.fullmatch(path):
            return protocol
    return OTHER


def model_of(target: bytes) -> Model | None:
    """The model that a request's target names, whatever is asked of it; None where it names none."""
    found = _MODEL.search(_path(target))
    if found is None:
        return None
    name, version = (found[1], found[2]) if found[1] else (found[3], found[4])
    return Model(_text(name), _text(version or b""))


def _path(target: bytes) -> bytes:
    """A target's path. Some clients escape the colon before the verb."""
    path = target.partition(b"?")[0]
    return path if b":" in path else path.replace(b"%3A", b":").replace(b"%3a", b":")


def _text(escaped: bytes) -> str:
    """A part of a path as its reader understands it; what is no UTF-8 is shown as it was written."""
    plain = _ESCAPE.sub(lambda escape: bytes.fromhex(escape[1].decode()), escaped)
    return plain.decode("utf-8", "backslashreplace")
