"""The kubelet, asked who holds its devices: one gRPC call on its socket, over HTTP/2.

Each question opens a connection of its own, so that a socket that was deleted and made anew needs no care, and nothing
is left of a kubelet that hung. gRPC's own library would add threads, and 13 MiB to a process that has 64; the tests run
against its server.
"""

import asyncio
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error

from pegel_exporters.errors import UserError
from pegel_exporters.gpu.attribution import DRA_DRIVER, VENDOR
from pegel_exporters.gpu.podresources import LIST, Holding, KubeletUnavailableError, UndecodableAnswerError, read_list

DEADLINE_SECONDS = 5.0
MAX_ANSWER_BYTES = 4 << 20
"""A node of 250 pods answers with less than 1 MiB; gRPC's clients have this limit unless they are told otherwise."""
_LONGEST_PATH_BYTES = 107
_LONGEST_DETAIL = 200
_CHUNK_BYTES = 1 << 13
"""So much is read between two turns of the event loop: frames may be tiny, and each of them takes a while."""
_PREFIX_BYTES = 5
_REQUEST = bytes(_PREFIX_BYTES)  # not compressed, of length 0: ListPodResourcesRequest has no fields
_REFUSALS = {
    "8": "the kubelet's rate limit is reached",
    "12": "this kubelet does not have PodResources v1",
}
"""What gRPC's status codes mean here."""


class Kubelet:
    """A kubelet behind its PodResources socket."""

    def __init__(self, path: str, *, deadline: float = DEADLINE_SECONDS) -> None:
        """`deadline` is in seconds. The socket need not be there yet. Raises UserError when it never can be."""
        if not path or "\0" in path or len(path.encode()) > _LONGEST_PATH_BYTES:
            raise UserError(f"--pod-resources {path!r}: the path of a socket has 1 to {_LONGEST_PATH_BYTES} bytes")
        self._path = path
        self._deadline = deadline

    async def holdings(self) -> tuple[Holding, ...]:
        """Who holds which of NVIDIA's devices now. Raises KubeletUnavailableError, at the deadline at the latest."""
        try:
            async with asyncio.timeout(self._deadline):
                answer = await self._list()
        except TimeoutError:
            raise KubeletUnavailableError(f"the kubelet did not answer within {self._deadline:g} seconds") from None
        except FileNotFoundError:
            raise KubeletUnavailableError(f"{self._path} does not exist") from None
        except ConnectionRefusedError:
            raise KubeletUnavailableError(f"nobody listens on {self._path}") from None
        except PermissionError:
            raise KubeletUnavailableError(f"{self._path} may not be opened; UID 0 may") from None
        except OSError as error:
            raise KubeletUnavailableError(f"{self._path} fails", error.strerror or str(error)) from error
        except H2Error as error:
            raise _broken_off(f"{type(error).__name__} {error}".strip()) from error
        except UndecodableAnswerError as error:
            raise KubeletUnavailableError("the kubelet's answer cannot be read", str(error)) from error
        return answer

    async def _list(self) -> tuple[Holding, ...]:
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            message = await _call(reader, writer)
        finally:
            writer.transport.abort()
        # Not on the event loop: the page must stay quick, whatever the answer is.
        return await asyncio.to_thread(lambda: tuple(read_list(message, vendor=VENDOR, driver=DRA_DRIVER)))


class _Answer:
    """What has come of an answer so far."""

    def __init__(self) -> None:
        self.complete = False
        self._headers: dict[bytes, bytes] = {}
        self._body = bytearray()

    def take(self, event: Event) -> None:
        """One of HTTP/2's events. Raises KubeletUnavailableError for one that says that no more will come."""
        match event:
            case ResponseReceived() | TrailersReceived():
                self._headers.update(event.headers)
            case DataReceived():
                self._body += event.data
                if len(self._body) > MAX_ANSWER_BYTES:
                    raise KubeletUnavailableError(f"the kubelet's answer is larger than {MAX_ANSWER_BYTES >> 20} MiB")
            case StreamEnded():
                self.complete = True
            case StreamReset() | ConnectionTerminated():
                raise _broken_off()

    def message(self) -> bytes:
        """The message of a complete answer. Raises KubeletUnavailableError when it is a refusal."""
        status = self._header(b"grpc-status")
        if status != "0":
            said = self._header(b"grpc-message")
            if not status:
                status, said = "missing", f"HTTP status {self._header(b':status')}"
            raise KubeletUnavailableError(
                _REFUSALS.get(status, f"the kubelet's gRPC status is {status}"),
                " ".join(unquote(said).split())[:_LONGEST_DETAIL],
            )
        length = int.from_bytes(self._body[1:_PREFIX_BYTES])
        if self._body[:1] != b"\0" or len(self._body) != _PREFIX_BYTES + length:
            raise UndecodableAnswerError("it is not one message, uncompressed")
        return bytes(self._body[_PREFIX_BYTES:])

    def _header(self, name: bytes) -> str:
        return self._headers.get(name, b"").decode("ascii", "replace")


async def _call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """One gRPC call. Raises KubeletUnavailableError, H2Error, OSError and UndecodableAnswerError."""
    http = H2Connection(H2Configuration(client_side=True))
    http.initiate_connection()
    stream = http.get_next_available_stream_id()
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": LIST,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
        "user-agent": "pegel",
    }
    http.send_headers(stream, list(headers.items()))
    http.send_data(stream, _REQUEST, end_stream=True)
    answer = _Answer()
    while not answer.complete:
        writer.write(http.data_to_send())
        await writer.drain()
        await asyncio.sleep(0)  # others get their turn, though there may be more to read already
        chunk = await reader.read(_CHUNK_BYTES)
        if not chunk:
            raise _broken_off()
        for event in http.receive_data(chunk):
            answer.take(event)
            if isinstance(event, DataReceived):
                http.acknowledge_received_data(event.flow_controlled_length, stream)
    return answer.message()


def _broken_off(detail: str = "") -> KubeletUnavailableError:
    return KubeletUnavailableError("the kubelet broke off before it had answered", detail)
