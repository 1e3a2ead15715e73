"""The API server, followed as a service account: objects of a resource, listed and then watched, in a thread.

The kubernetes package would add 38 MiB to a process that has 64; http.client adds one. Of pods nothing but metadata is
asked for (PartialObjectMetadata), so that no specification and no secret in one ever comes here.
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
from pegel_exporters.gpu.cluster import Cluster, Metadata, Pod, Slice, devices_of, label_names, labels_of, teams_of

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

T = TypeVar("T", Pod, Slice)


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
        try:
            self._tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        except OSError as error:
            raise UserError(f"--service-account: cannot read {folder / 'ca.crt'}: {error.strerror or error}") from error

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
            return (self._folder / "token").read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a token"
            raise UserError(f"--service-account: cannot read {self._folder / 'token'}: {reason}") from error

    @contextlib.contextmanager
    def get(
        self, path: str, query: Mapping[str, str], *, accept: str, seconds: float
    ) -> Iterator[http.client.HTTPResponse]:
        """An answer; a part of it may take so many seconds. Raises ApiUnavailableError, OSError and HTTPException."""
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=_ANSWER_SECONDS, context=self._tls)
        with contextlib.closing(connection):
            try:
                headers = {"Accept": accept, "Authorization": f"Bearer {self._token()}", "User-Agent": "pegel"}
            except UserError as error:
                raise ApiUnavailableError(str(error)) from error
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
        return _MissingError()
    try:
        said = " ".join(msgspec.json.decode(answer.read(_MAX_EVENT_BYTES), type=_Status).message.split())
    except msgspec.MsgspecError:
        said = answer.reason
    return ApiUnavailableError(f"HTTP status {answer.status}: {said[:_LONGEST_DETAIL]}")


class Followed(Generic[T]):
    """Objects of one resource, kept up to date by `run`.

    `error` says why they are not, empty when they are; None when the cluster has no such resource.
    """

    def __init__(
        self, server: ApiServer, kind: type[T], name: str, path: Callable[[], str], *, selector: str, accept: str
    ) -> None:
        """`path` finds where the resource is; `accept` has braces where a list's kind ends in List."""
        self._server = server
        self._kind: type[T] = kind
        self._name = name
        self._path = path
        self._selector = selector
        self._accept = accept
        self._objects: Mapping[str, T] = {}
        self._version = ""
        self.error: str | None = "it was not asked yet"
        self.told = threading.Event()
        """Set when it was first told, or why not."""

    def objects(self) -> tuple[T, ...]:
        """All of them, as last told."""
        return tuple(self._objects.values())

    def run(self) -> None:
        """Follow for ever."""
        pause = _SHORTEST_PAUSE_SECONDS
        while True:
            try:
                path = self._path()
                self._list(path)
                pause = _SHORTEST_PAUSE_SECONDS
                while True:
                    self._watch(path)
                    time.sleep(_SHORTEST_PAUSE_SECONDS)
            except _GoneError:
                pass
            except _MissingError:
                self._objects, pause = {}, _LONGEST_PAUSE_SECONDS
                self._say(None)
            except (ApiUnavailableError, OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
                self._say(getattr(error, "strerror", None) or str(error) or type(error).__name__)
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
        query = {"fieldSelector": self._selector, "resourceVersion": "0"}
        with self._server.get(path, query, accept=self._accept.format("List"), seconds=_ANSWER_SECONDS) as answer:
            listed = msgspec.json.decode(answer.read(_MAX_LIST_BYTES), type=_List[self._kind])  # type: ignore[name-defined]
        self._objects = {one.metadata.uid: one for one in listed.items or ()}
        self._version = listed.metadata.resource_version
        self._say("")

    def _watch(self, path: str) -> None:
        """Until the server ends it. Raises _GoneError when it must be listed anew."""
        query = {
            "fieldSelector": self._selector, "resourceVersion": self._version, "watch": "true",
            "allowWatchBookmarks": "true", "timeoutSeconds": str(_WATCH_SECONDS),
        }  # fmt: skip
        seconds = _WATCH_SECONDS + _ANSWER_SECONDS
        with self._server.get(path, query, accept=self._accept.format(""), seconds=seconds) as answer:
            while line := answer.readline(_MAX_EVENT_BYTES):
                self._take(msgspec.json.decode(line, type=_Event))

    def _take(self, event: _Event) -> None:
        if event.type == "ERROR":
            status = msgspec.json.decode(event.object, type=_Status)
            raise _GoneError if status.code == http.client.GONE else ApiUnavailableError(status.message)
        if event.type == "BOOKMARK":
            self._version = msgspec.json.decode(event.object, type=_Bookmark).metadata.resource_version
            return
        one = msgspec.json.decode(event.object, type=self._kind)
        others = {uid: other for uid, other in self._objects.items() if uid != one.metadata.uid}
        self._objects = others if event.type == "DELETED" else {**others, one.metadata.uid: one}
        self._version = one.metadata.resource_version


class ClusterWatch:
    """What the API server tells of one node, kept up to date once it is started."""

    def __init__(self, server: ApiServer, *, node: str, team_label: str, labels: Sequence[str]) -> None:
        """Raises UserError for labels that can't be told."""
        self._server = server
        self._team_label = team_label
        self._labels = tuple(labels)
        self._label_names = label_names(self._labels)
        on_node = f"spec.nodeName={node}"
        self._pods = Followed(
            server, Pod, "the pods of this node", lambda: "/api/v1/pods", selector=on_node, accept=_PARTIAL
        )
        self._slices = Followed(
            server, Slice, "devices that can be claimed (ResourceSlices)", self._slices_path,
            selector=f"{on_node},spec.driver={DRA_DRIVER}", accept="application/json",
        )  # fmt: skip

    def start(self) -> None:
        """Follow in threads that end with the process."""
        for followed in (self._pods, self._slices):
            threading.Thread(target=followed.run, daemon=True, name="api-server").start()

    def wait(self, seconds: float) -> None:
        """Until everything was told once, or why not, at most so long."""
        until = time.monotonic() + seconds
        for told in (self._pods.told, self._slices.told):
            told.wait(max(0.0, until - time.monotonic()))

    def cluster(self) -> Cluster:
        """What is known now. What was told last stands until it is told anew."""
        pods = self._pods.objects()
        errors = {"pods": self._pods.error, "resourceslices": self._slices.error}
        return Cluster(
            teams=teams_of(pods, self._team_label),
            label_names=self._label_names,
            labels=labels_of(pods, self._labels),
            devices=devices_of(self._slices.objects(), DRA_DRIVER),
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
        raise _MissingError
