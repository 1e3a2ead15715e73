"""Labels to the replicas behind a headless Service: to all of them, as only the one that served a request knows it.

What a label brings its own prediction for nothing has to be joined to, so it goes to one replica only.
"""

import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpx
import msgspec
from pegel_exporters.errors import UserError

MAX_ITEMS = 1_000
MAX_BYTES = 1 << 20
"""What a sidecar takes in one call."""
_PATH = "/v1/feedback"
_ATTEMPTS = 5
_TIMEOUT_SECONDS = 15.0
_PASSING = frozenset({429, 500, 502, 503, 504})

Resolve = Callable[[str, int], Sequence[str]]
"""A host's addresses; raises OSError where it has none."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Labels in one body, one JSON object a line. `joined`: to predictions that only one replica may know."""

    body: bytes
    items: int
    joined: bool


@dataclass(frozen=True, slots=True)
class Replica:
    """One address of a Service: `url` has the address; `authority` is the name with its port, `host` without it."""

    url: str
    authority: str
    host: str

    def __str__(self) -> str:
        return self.url.removesuffix(_PATH)


@dataclass(slots=True)
class Lost:
    """A replica that stopped answering, why, and how many labels it was not told of."""

    why: str
    labels: int = 0


@dataclass(slots=True)
class Outcome:
    """What became of the labels: each is in one of the numbers.

    `counted` were joined to their prediction or brought it. `repeated` were sent before. `unknown` are of a request
    that no replica knows, or not yet. `rejected` were refused by all replicas, the first one for `reason`.
    """

    counted: int = 0
    repeated: int = 0
    unknown: int = 0
    rejected: int = 0
    reason: str = ""
    lost: dict[Replica, Lost] = field(default_factory=dict)

    @property
    def labels(self) -> int:
        return self.counted + self.repeated + self.unknown + self.rejected


class _Answer(msgspec.Struct):
    accepted: int
    duplicate: int
    rejected: int
    reason: str | None = None


class _NoAnswer(Exception):
    """A replica doesn't answer; the message says how."""


def addresses(host: str, port: int) -> Sequence[str]:
    """What the host's name resolves to now. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in found})


def replicas(urls: Iterable[str], resolve: Resolve = addresses) -> tuple[Replica, ...]:
    """All addresses behind the URLs, each once. Raises UserError for one that is no URL or resolves to nothing."""
    found: dict[str, Replica] = {}
    for url in urls:
        parts = _split(url)
        host = parts.hostname or ""
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        try:
            behind = resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise UserError(f"--to {url}: cannot resolve {host}: {getattr(error, 'strerror', error)}") from error
        for address in behind:
            shown = f"[{address}]" if ":" in address else address
            target = f"{parts.scheme}://{shown}:{port}{parts.path.rstrip('/') or _PATH}"
            found.setdefault(target, Replica(target, parts.netloc.rpartition("@")[2], host))
    return tuple(found.values())


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise UserError(f"--to {url}: expected a URL such as http://churn.shop.svc:9466")
    return parts


def batches(items: Iterable[Mapping[str, Any]]) -> Iterator[Batch]:
    """Items in bodies that a sidecar takes, those with a prediction apart from those that need one."""
    encoder = msgspec.json.Encoder()
    waiting = {joined: _Waiting(joined) for joined in (True, False)}
    for item in items:
        lines = waiting["prediction" not in item]
        line = encoder.encode(item)
        if lines.has_no_room_for(line):
            yield lines.batch()
        lines.add(line)
    for lines in waiting.values():
        if lines.lines:
            yield lines.batch()


@dataclass(slots=True)
class _Waiting:
    """Lines of a batch that is not full yet."""

    joined: bool
    lines: list[bytes] = field(default_factory=list)
    size: int = 0

    def has_no_room_for(self, line: bytes) -> bool:
        return len(self.lines) == MAX_ITEMS or self.size + len(line) > MAX_BYTES

    def add(self, line: bytes) -> None:
        self.lines.append(line)
        self.size += len(line) + 1

    def batch(self) -> Batch:
        lines, self.lines, self.size = self.lines, [], 0
        return Batch(b"\n".join(lines), len(lines), self.joined)


class Sender:
    """Sends batches and adds up what became of them. Use it in a `with`.

    `pause` is waited after a first failed attempt, and twice as long after each other one.
    """

    def __init__(self, to: Sequence[Replica], *, token: str | None = None, pause: float = 0.5) -> None:
        self.outcome = Outcome()
        self._replicas = list(to)
        self._pause = pause
        headers = {"Content-Type": "application/x-ndjson"} | ({"Authorization": f"Bearer {token}"} if token else {})
        # A proxy that the environment names knows nothing of a pod's address.
        self._client = httpx.Client(
            headers=headers, timeout=_TIMEOUT_SECONDS, trust_env=False, verify=ssl.create_default_context()
        )
        self._pool = ThreadPoolExecutor(max_workers=max(1, len(to)))

    def __enter__(self) -> "Sender":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self._client.close()

    def send(self, batch: Batch) -> None:
        """Send a batch to all replicas, or to one where that is enough. One that does not answer is left out after it.

        Raises UserError where no replica is left, and for an answer that no other attempt would change.
        """
        for lost in self.outcome.lost.values():
            lost.labels += batch.items if batch.joined else 0
        if batch.joined:
            answers = list(self._pool.map(lambda to: self._ask(to, batch), tuple(self._replicas)))
        else:
            answers = self._ask_one(batch)
        found = [answer for answer in answers if answer is not None]
        if not self._replicas:
            raise UserError(self._nobody())
        self.outcome = added(self.outcome, batch, found)

    def _ask_one(self, batch: Batch) -> "list[_Answer | None]":
        for replica in tuple(self._replicas):
            answer = self._ask(replica, batch)
            if answer is not None:
                return [answer]
        return []

    def _ask(self, replica: Replica, batch: Batch) -> "_Answer | None":
        """The replica's answer; None after the last attempt, when it is left out. Raises UserError."""
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(self._pause * 2 ** (attempt - 1))
            try:
                return self._post(replica, batch)
            except _NoAnswer as failure:
                why = str(failure)
        self._replicas.remove(replica)
        self.outcome.lost[replica] = Lost(why, batch.items if batch.joined else 0)
        return None

    def _post(self, replica: Replica, batch: Batch) -> _Answer:
        try:
            response = self._client.post(
                replica.url, content=batch.body, headers={"Host": replica.authority},
                extensions={"sni_hostname": replica.host},
            )  # fmt: skip
        except httpx.TransportError as error:
            raise _NoAnswer(str(error) or type(error).__name__) from error
        if response.status_code in _PASSING:
            raise _NoAnswer(f"status {response.status_code}")
        if response.status_code in {401, 403}:
            raise UserError(f"{replica} refuses the token (status {response.status_code}); give its file to --token")
        text = response.text.strip()
        if response.status_code == 400 and len(text) < 200:  # none of them is a label that it takes
            return _Answer(0, 0, batch.items, text)
        try:
            return msgspec.json.decode(response.content, type=_Answer)
        except msgspec.DecodeError:
            raise UserError(
                f"{replica} answers with status {response.status_code} and not as a sidecar does; "
                "--to needs its admin port, by default 9466"
            ) from None

    def _nobody(self) -> str:
        replica, lost = next(iter(self.outcome.lost.items()))
        done = f"after {self.outcome.labels:,} labels " if self.outcome.labels else ""
        return f"{done}no replica answers; {replica}: {lost.why}"


def added(outcome: Outcome, batch: Batch, answers: Sequence[_Answer]) -> Outcome:
    """The outcome with a batch's answers.

    An answer has counts only, so which label met which fate is not known; the bounds are. A label is known to at most
    one replica and only waits at the others: counts of accepted ones add up. What one replica rejects another, of the
    other version in a rollout, may take, so only the fewest rejected were refused by all. What is left was sent before
    as far as replicas say so, and is unknown to all where none says anything.
    """
    left = batch.items
    counted = min(left, sum(answer.accepted for answer in answers))
    left -= counted
    rejected = min(left, min((answer.rejected for answer in answers), default=0))
    left -= rejected
    repeated = min(left, sum(answer.duplicate for answer in answers))
    reason = next((answer.reason for answer in answers if answer.reason), "") if rejected else ""
    return replace(
        outcome,
        counted=outcome.counted + counted,
        repeated=outcome.repeated + repeated,
        unknown=outcome.unknown + left - repeated,
        rejected=outcome.rejected + rejected,
        reason=outcome.reason or reason or "",
    )
