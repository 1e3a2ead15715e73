"""The API server, followed as a service account: objects of a resource, listed and then watched, in a thread.

The kubernetes package would add 38 MiB to a process that has 64; http.client adds one. Of pods nothing but metadata is
asked for (PartialObjectMetadata), and of that nothing but names and labels is kept. Annotations come along unread:
those of a bare pod that kubectl applied from a client hold its specification.
"""

import contextlib
import http.client
import logging
import os
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlencode

import msgspec

from pegel_exporters.errors import UserError
from pegel_exporters.gpu.attribution import DRA_DRIVER
from pegel_exporters.gpu.cluster import Cluster, Metadata, Pod, Slice, devices_of, label_names, labels_of

log = logging.getLogger("pegel")

_PARTIAL = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1"
_SLICE_VERSIONS = ("v1", "v1beta2", "v1beta1")
_MAX_LIST_BYTES = 16 << 20
_MAX_EVENT_BYTES = 4 << 20
"""etcd takes no object of more than 1.5 MiB."""
_ANSWER_SECONDS = 10.0
_WATCH_SECONDS = 240
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 60.0
_LONGEST_DETAIL = 200
KEPT_SECONDS = 120.0
"""How long a pod's labels are told after it: the kubelet's last answer, which counts for a minute, may name it."""

T = TypeVar("T", bound=Pod | Slice)


class ApiUnavailableError(Exception):
    """The API server does not tell what it was asked; the message says why."""


class _MissingError(Exception):
    """This cluster has no such resource."""


class _GoneError(Exception):
    """What was listed is too old to be watched on from."""


class _Status(msgspec.Struct):
    code: int = 0
    message: str = ""


class _List(msgspec.Struct, Generic[T]):
    kind: str
    metadata: Metadata
    items: list[T] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Bookmark(msgspec.Struct):
    metadata: Metadata


class _Version(msgspec.Struct):
    version: str


class _Group(msgspec.Struct):
    versions: list[_Version]


class ApiServer:
    """The API server of the cluster, asked as the service account whose `folder` a pod has mounted."""

    def __init__(self, folder: Path, *, host: str, port: int) -> None:
        """Raises UserError for a folder without a token and the server's certificate."""
        self._folder = folder
        self._host, self._port = host, port
        self._token()
        self._tls()

    @classmethod
    def of_cluster(cls, folder: Path) -> "ApiServer":
        """The API server that a pod's environment names. Raises UserError outside of a pod."""
        host, port = (os.environ.get(f"KUBERNETES_SERVICE_{part}", "") for part in ("HOST", "PORT"))
        if not host or not port.isdecimal():
            raise UserError("--service-account: KUBERNETES_SERVICE_HOST and _PORT are not set, as they are in a pod")
        return cls(folder, host=host, port=int(port))

    def _token(self) -> str:
        """The token, which the kubelet writes anew every hour or so. Raises UserError."""
        try:
            token = (self._folder / "token").read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a token"
            raise UserError(f"--service-account: cannot read {self._folder / 'token'}: {reason}") from error
        if not token.isprintable() or not token:
            raise UserError(f"--service-account: {self._folder / 'token'} is no token")
        return token

    def _tls(self) -> ssl.SSLContext:
        """What believes the cluster's certificates, which may be written anew too. Raises UserError."""
        try:
            return ssl.create_default_context(cafile=str(self._folder / "ca.crt"))
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"--service-account: cannot read {self._folder / 'ca.crt'}: {reason}") from error

    @contextlib.contextmanager
    def get(
        self, path: str, query: Mapping[str, str], *, accept: str, seconds: float
    ) -> Iterator[http.client.HTTPResponse]:
        """An answer; a part of it may take so many seconds. Raises ApiUnavailableError, OSError and HTTPException."""
        try:
            headers = {"Accept": accept, "Authorization": f"Bearer {self._token()}", "User-Agent": "pegel"}
            tls = self._tls()
        except UserError as error:
            raise ApiUnavailableError(str(error)) from error
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=_ANSWER_SECONDS, context=tls)
        with contextlib.closing(connection):
            connection.request("GET", f"{path}?{urlencode(query)}", headers=headers)
            connection.sock.settimeout(seconds)
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise _refusal(answer)
            yield answer


def _refusal(answer: http.client.HTTPResponse) -> Exception:
    if answer.status == http.client.GONE:
        return _GoneError()
    if answer.status == http.client.NOT_FOUND:
        return _MissingError("HTTP status 404")
    try:
        said = msgspec.json.decode(answer.read(_MAX_EVENT_BYTES), type=_Status).message
    except (msgspec.MsgspecError, ValueError, RecursionError):
        said = answer.reason
    return ApiUnavailableError(f"HTTP status {answer.status}: {_one_line(said)}")


def _one_line(said: str) -> str:
    return " ".join(said.split())[:_LONGEST_DETAIL]


class Followed(Generic[T]):
    """Objects of one resource, kept up to date by `run`.

    `error` says why they are not, empty when they are; None when the cluster has no such resource.
    """

    def __init__(
        self,
        server: ApiServer,
        kind: type[T],
        name: str,
        path: Callable[[], str],
        *,
        selector: str,
        accept: str,
        kept_seconds: float = 0.0,
        optional: bool = False,
    ) -> None:
        """`path` finds where the resource is; `accept` has braces where a list's kind ends in List.

        Objects are told for `kept_seconds` after they were deleted. Without `optional` every cluster has them.
        """
        self._server = server
        self._kind: type[T] = kind
        self._name = name
        self._path = path
        self._selector = selector
        self._accept = accept
        self._kept_seconds = kept_seconds
        self._optional = optional
        self._objects: Mapping[str, T] = {}
        self._gone: Mapping[str, tuple[float, T]] = {}
        """Objects that were deleted, with when."""
        self._version = "0"
        self.error: str | None = "it was not asked yet"
        self.told = threading.Event()
        """Set when it was first told, or why not."""

    def objects(self) -> tuple[T, ...]:
        """All of them, as last told, after those that were deleted a while ago."""
        since = time.monotonic() - self._kept_seconds
        gone = [one for at, one in self._gone.values() if at > since]
        return (*gone, *self._objects.values())

    def run(self) -> None:
        """Follow for ever."""
        pause = _SHORTEST_PAUSE_SECONDS
        while True:
            began = time.monotonic()
            try:
                path = self._path()
                self._list(path)
                while True:
                    self._watch(path)
                    time.sleep(_SHORTEST_PAUSE_SECONDS)
            except _GoneError:
                self._version = ""
            except _MissingError as error:
                self._keep({})
                self._say(None if self._optional else str(error))
            except (ApiUnavailableError, OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
                self._say(_one_line(getattr(error, "strerror", None) or str(error)) or type(error).__name__)
            except Exception as error:  # whatever is answered, who asks goes on; its words may hold what was answered
                self._say(f"its answer cannot be read ({type(error).__name__})")
            if time.monotonic() - began > _LONGEST_PAUSE_SECONDS:  # it went well for a while
                pause = _SHORTEST_PAUSE_SECONDS
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _say(self, error: str | None) -> None:
        before, self.error = self.error, error
        self.told.set()
        if error == before:
            return
        if error is None:
            log.info("this cluster has no %s", self._name)
        elif error:
            log.warning("the API server does not tell %s: %s; trying again", self._name, error)
        else:
            log.info("the API server tells %s", self._name)

    def _list(self, path: str) -> None:
        # Version 0 is what the server has in memory: etcd must not answer for every node that starts.
        query = {"fieldSelector": self._selector} | ({"resourceVersion": "0"} if self._version != "" else {})
        with self._server.get(path, query, accept=self._accept.format("List"), seconds=_ANSWER_SECONDS) as answer:
            listed = msgspec.json.decode(answer.read(_MAX_LIST_BYTES), type=_List[self._kind])  # type: ignore[name-defined]
        if not listed.kind.endswith("List"):
            raise ApiUnavailableError(f"it answers with {_one_line(listed.kind)!r}, which is no list")
        self._keep({one.metadata.uid: one for one in listed.items or ()})
        self._version = listed.metadata.resource_version

    def _watch(self, path: str) -> None:
        """Until the server ends it. Raises _GoneError when it must be listed anew."""
        query = {
            "fieldSelector": self._selector, "resourceVersion": self._version, "watch": "true",
            "allowWatchBookmarks": "true", "timeoutSeconds": str(_WATCH_SECONDS),
        }  # fmt: skip
        seconds = _WATCH_SECONDS + _ANSWER_SECONDS
        with self._server.get(path, query, accept=self._accept.format(""), seconds=seconds) as answer:
            self._say("")
            while line := answer.readline(_MAX_EVENT_BYTES):
                self._take(msgspec.json.decode(line, type=_Event))

    def _take(self, event: _Event) -> None:
        if event.type == "ERROR":
            status = msgspec.json.decode(event.object, type=_Status)
            raise _GoneError if status.code == http.client.GONE else ApiUnavailableError(_one_line(status.message))
        if event.type == "BOOKMARK":
            self._version = msgspec.json.decode(event.object, type=_Bookmark).metadata.resource_version
            return
        one = msgspec.json.decode(event.object, type=self._kind)
        others = {uid: other for uid, other in self._objects.items() if uid != one.metadata.uid}
        self._keep(others if event.type == "DELETED" else {**others, one.metadata.uid: one})
        self._version = one.metadata.resource_version

    def _keep(self, objects: Mapping[str, T]) -> None:
        """These are all, from now on."""
        now = time.monotonic()
        gone = {uid: (now, one) for uid, one in self._objects.items() if uid not in objects}
        still = {uid: told for uid, told in self._gone.items() if told[0] > now - self._kept_seconds}
        self._gone = {uid: told for uid, told in {**still, **gone}.items() if uid not in objects}
        self._objects = objects


class ClusterWatch:
    """What the API server tells of one node, kept up to date once it is started."""

    def __init__(self, server: ApiServer, *, node: str, team_label: str, labels: Sequence[str]) -> None:
        """Raises UserError for labels that can't be told."""
        self._server = server
        self._team_label = team_label
        self._labels = tuple(labels)
        self._label_names = label_names(self._labels)
        on_node = f"spec.nodeName={node}"
        self.pods = Followed(
            server, Pod, "the pods of this node", lambda: "/api/v1/pods", selector=on_node, accept=_PARTIAL,
            kept_seconds=KEPT_SECONDS,
        )  # fmt: skip
        self.slices = Followed(
            server, Slice, "devices that can be claimed (ResourceSlices)", self._slices_path,
            selector=f"{on_node},spec.driver={DRA_DRIVER}", accept="application/json", optional=True,
        )  # fmt: skip

    def start(self) -> None:
        """Follow in threads that end with the process."""
        for followed in (self.pods, self.slices):
            threading.Thread(target=followed.run, daemon=True, name="api-server").start()

    def wait(self, seconds: float) -> None:
        """Until everything was told once, or why not, at most so long."""
        until = time.monotonic() + seconds
        for told in (self.pods.told, self.slices.told):
            told.wait(max(0.0, until - time.monotonic()))

    def cluster(self) -> Cluster:
        """What is known now. What was told last stands until it is told anew."""
        pods = self.pods.objects()
        errors = {"pods": self.pods.error, "resourceslices": self.slices.error}
        return Cluster(
            teams={pod: team for pod, (team,) in labels_of(pods, [self._team_label]).items()},
            label_names=self._label_names,
            labels=labels_of(pods, self._labels),
            devices=devices_of(self.slices.objects(), DRA_DRIVER),
            errors={resource: error for resource, error in errors.items() if error is not None},
        )

    def _slices_path(self) -> str:
        """Where this cluster has ResourceSlices. Raises _MissingError, ApiUnavailableError."""
        group = "/apis/resource.k8s.io"
        with self._server.get(group, {}, accept="application/json", seconds=_ANSWER_SECONDS) as answer:
            served = {one.version for one in msgspec.json.decode(answer.read(_MAX_EVENT_BYTES), type=_Group).versions}
        for version in _SLICE_VERSIONS:
            if version in served:
                return f"{group}/{version}/resourceslices"
        raise _MissingError("it serves no ResourceSlices")
