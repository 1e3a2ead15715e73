"""Why traffic goes by unread: the values of the label `reason`, and how each is said to people. Never a value or a
path from a request."""

UNFOLLOWED = {
    "tls": "speak TLS: let the client or a mesh end TLS before the sidecar",
    "http2": "speak HTTP/2 (gRPC): only HTTP/1.1 is read, so that their requests are not counted",
    "upgrade": "were upgraded to another protocol (websocket, h2c), which is not read",
    "tunnel": "became a tunnel (CONNECT), which is not read",
    "pipelined": "pipeline requests in a way that can't be framed with certainty",
    "malformed_request": "had a request whose framing is not certain",
    "malformed_response": "had an answer whose framing is not certain",
}
"""Reasons for a connection to be followed no longer, and what is said of such connections."""

_LOOKS = (
    ("mlflow", "MLflow's /invocations", (b"/invocations",)),
    ("openai", "OpenAI's /v1/completions or the like", (b"/v1/chat/completions", b"/v1/completions", b"/v1/responses")),
    ("embeddings", "OpenAI's /v1/embeddings", (b"/v1/embeddings",)),
    ("seldon", "Seldon's /api/v1.0/predictions", (b"/api/v1.0/predictions",)),
    ("generate", "Triton's or TGI's /generate", (b"/generate", b"/generate_stream")),
)
LOOKS = {reason: words for reason, words, _ in _LOOKS} | {
    "torchserve": "TorchServe's /predictions/",
    "path": "no API known to Pegel",
}
"""What POSTs to paths that aren't read look like."""

_DECODING = {
    "binary": "binary_tensors",
    "malformed JSON": "malformed_json",
    "not the protocol's JSON": "malformed_json",
    "body too large": "too_large",
    "too many lists": "too_large",
    "too many rows": "too_large",
    "too many columns": "too_large",
    "content coding": "coding",
    "transfer coding": "coding",
    "malformed compression": "coding",
    "malformed request": "framing",
    "malformed response": "framing",
    "not one whole request": "framing",
    "not one whole response": "framing",
    "upgrade": "framing",
}
DECODING = {
    "binary_tensors": "binary tensors: ask the client for JSON",
    "malformed_json": "bodies that aren't the protocol's JSON",
    "too_large": "bodies with more rows, columns or bytes than are read",
    "coding": "a content or transfer coding that isn't read",
    "framing": "messages that aren't one whole request and answer",
    "content": "rows that aren't of a shape that is read",
}
"""Reasons for a body in a known protocol not to be decoded, and what is said of such exchanges."""

UNDECODABLE = (*LOOKS, *DECODING)


def look_of(target: bytes) -> str:
    """What a POST to a path that isn't read looks like."""
    path = target.partition(b"?")[0]
    for reason, _, endings in _LOOKS:
        if path.endswith(endings):
            return reason
    return "torchserve" if path.startswith(b"/predictions/") else "path"


def decoding_reason(message: str) -> str:
    """The reason for what a decoder's refusal says."""
    return "too_large" if message.startswith("more than ") else _DECODING.get(message, "content")
