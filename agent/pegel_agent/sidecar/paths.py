"""The protocols, and which requests ask a model for a prediction in one of them, by their start line."""

import re

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


def protocol_of(method: bytes, target: bytes) -> str | None:
    """The protocol of a request by its method and target (path and query); None when it is no inference."""
    if method != b"POST":
        return None
    path = target.partition(b"?")[0]
    for protocol, pattern in _PATHS:
        if pattern.fullmatch(path):
            return protocol
    return OTHER
