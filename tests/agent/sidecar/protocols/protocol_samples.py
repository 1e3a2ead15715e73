"""Exchanges as the tests of the protocols write them."""

import json
from typing import Any

from pegel_agent.sidecar.protocols.records import Exchange


def exchange(asked: Any, answered: Any, *, status: int = 200, **request_headers: str) -> Exchange:
    """An exchange with these bodies: bytes stay, anything else becomes JSON. Header names have _ for -."""
    headers = {name.replace("_", "-"): value for name, value in request_headers.items()}
    return Exchange("/", headers, _body(asked), status, {}, _body(answered))


def _body(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()
