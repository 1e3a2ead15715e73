"""Bytes that are unusual HTTP, or none: a client and a model see the same of each other with a real `pegel sidecar`
between them as without, and what it counts is right, or is said to be unknown."""

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from pegel_exporters.catalogue import INFERENCE_IN_FLIGHT, INFERENCE_OUTCOMES, INFERENCE_REQUESTS, TAP_UNFOLLOWED
from prometheus_client.parser import text_string_to_metric_families

from tests.agent.sidecar.tap.tap_process import ANSWER, ASK, Tap, connected, model, received, tap, until

pytestmark = pytest.mark.integration

BODY = ASK.partition(b"\r\n\r\n")[2]
ANSWERED = ANSWER.partition(b"\r\n\r\n")[2]
LENGTH, ANSWER_LENGTH = b"Content-Length: %d" % len(BODY), b"Content-Length: %d" % len(ANSWERED)


def ask(*headers: bytes, body: bytes = BODY, line: bytes = b"POST /v1/models/m:predict HTTP/1.1") -> bytes:
    return b"\r\n".join((line, b"Host: m", *headers, b"", body))


def answer(*headers: bytes, body: bytes = ANSWERED, line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join((line, *headers, b"", body))


def in_chunks(body: bytes) -> bytes:
    """With an extension and a trailer."""
    return b'5;name="value"\r\n%s\r\n%x\r\n%s\r\n0\r\nExpires: now\r\n\r\n' % (body[:5], len(body) - 5, body[5:])


@dataclass(frozen=True)
class Script:
    """What the client sends, and what the model sends when it has all of that; then the same again with the next.

    `codes` and `unfollowed` are what is counted of it; `split` where that is something else when each byte comes alone.
    """

    name: str
    turns: tuple[tuple[bytes, bytes], ...]
    codes: dict[str, int]
    unfollowed: dict[str, int] = field(default_factory=dict)
    split: "Script | None" = None
    model_closes: bool = False


NEXT = (ASK, ANSWER)
OK, BOTH = {"200": 1}, {"200": 2}
LOST = {"none": 1}
OFFER = (b"Connection: Upgrade", b"Upgrade: websocket")
GET = b"GET /v1/models/m HTTP/1.1"
HEAD = b"HEAD /v1/models/m HTTP/1.1"
CONTINUE, HINTS = b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


def never_again(reason: str, codes: dict[str, int]) -> Script:
    """The connection is not followed from there on."""
    return Script("", (), codes, {reason: 1})


REQUEST, RESPONSE = {"malformed_request": 1}, {"malformed_response": 1}
REQUEST_LOST, RESPONSE_LOST = (never_again(reason, LOST) for reason in ("malformed_request", "malformed_response"))

SCRIPTS = [
    Script("plain", (NEXT, NEXT), BOTH),
    # What the parser refuses. It counts as unfollowed, and the next request counts if it is certain where it begins:
    # not if the client's bytes come one by one, so that no chunk has a whole request line.
    Script("two equal lengths", ((ask(LENGTH, LENGTH), ANSWER), NEXT), LOST | OK, REQUEST, REQUEST_LOST),
    Script("two equal lengths answered", ((ASK, answer(ANSWER_LENGTH, ANSWER_LENGTH)), NEXT), LOST | OK, RESPONSE,
           RESPONSE_LOST),
    Script("a length and chunks", ((ask(LENGTH, b"Transfer-Encoding: chunked", body=in_chunks(BODY)), ANSWER), NEXT),
           LOST, REQUEST),
    Script("a length and chunks answered",
           ((ASK, answer(ANSWER_LENGTH, b"Transfer-Encoding: chunked", body=in_chunks(ANSWERED))), NEXT),
           LOST, RESPONSE),
    Script("bare LF after the request line", ((ask(LENGTH).replace(b"\r\n", b"\n"), ANSWER), NEXT), LOST | OK, REQUEST,
           REQUEST_LOST),
    Script("strange name", ((ask(b"X[a]: 1", LENGTH), ANSWER), NEXT), LOST | OK, REQUEST, REQUEST_LOST),
    Script("strange name answered", ((ASK, answer(b"X[a]: 1", ANSWER_LENGTH)), NEXT), LOST | OK, RESPONSE,
           RESPONSE_LOST),
    # What is only written strangely.
    Script("folded", ((ask(b"X: a\r\n b", LENGTH), answer(b"X: a\r\n b", ANSWER_LENGTH)), NEXT), BOTH),
    Script("control character", ((ask(b"X: a\x01b", LENGTH), answer(b"X: a\x01b", ANSWER_LENGTH)), NEXT), BOTH),
    Script("bare LF", ((ask(LENGTH).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n", 1),
                        answer(ANSWER_LENGTH).replace(b"\r\n", b"\n")), NEXT), BOTH),
    Script("bare LF, until its end", ((ASK, answer().replace(b"\r\n", b"\n")),), OK, model_closes=True),
    Script("empty line before", ((b"\r\n" + ASK, ANSWER), NEXT), BOTH),
    Script("absolute form", ((ask(LENGTH, line=b"POST http://m/v1/models/m:predict HTTP/1.1"), ANSWER), NEXT), BOTH),
    # Where messages end.
    Script("HEAD with a length", ((ask(line=HEAD, body=b""), answer(ANSWER_LENGTH, body=b"")), NEXT), OK),
    Script("204 with a length", ((ASK, answer(b"Content-Length: 5", line=b"HTTP/1.1 204 No", body=b"")), NEXT),
           {"204": 1} | OK),
    Script("304 with a length", ((ASK, answer(b"Content-Length: 5", line=b"HTTP/1.1 304 No", body=b"")), NEXT),
           {"304": 1} | OK),
    Script("100, then 200", ((ask(b"Expect: 100-continue", LENGTH, body=b""), CONTINUE), (BODY, ANSWER), NEXT), BOTH),
    Script("103, then 200", ((ASK, HINTS + ANSWER), NEXT), BOTH),
    Script("chunks with extensions and trailers",
           ((ask(b"Transfer-Encoding: chunked", body=in_chunks(BODY)),
             answer(b"Transfer-Encoding: chunked", body=in_chunks(ANSWERED))), NEXT), BOTH),
    Script("HTTP/1.0 until its end",
           ((ask(LENGTH, line=b"POST /v1/models/m:predict HTTP/1.0"), answer(line=b"HTTP/1.0 200 OK")),), OK,
           model_closes=True),
    Script("HTTP/1.0 kept alive",
           ((ask(LENGTH, b"Connection: keep-alive", line=b"POST /v1/models/m:predict HTTP/1.0"),
             answer(ANSWER_LENGTH, b"Connection: keep-alive", line=b"HTTP/1.0 200 OK")), NEXT), BOTH),
    Script("8 pipelined", ((ASK * 8, ANSWER * 8), NEXT), {"200": 9}),
    # What is no HTTP/1.
    Script("TLS", ((bytes.fromhex("16030100f8010000f40303") + bytes(32), bytes.fromhex("160303007a02")), NEXT), {},
           {"tls": 1}),
    Script("HTTP/2", ((b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), bytes(9)), NEXT), {}, {"http2": 1}),
    Script("websocket", ((ask(*OFFER, line=GET, body=b""), answer(*OFFER, line=b"HTTP/1.1 101 Yes", body=b"\x81\0")),
                         (b"\x81\0", b"\x81\0")), {}, {"upgrade": 1}),
    # After a break no bytes are taken for a request's that may be something else's.
    Script("pipelined after a break", ((ask(b"X[a]: 1", LENGTH) + ASK, ANSWER), (b"", ANSWER), NEXT), LOST, REQUEST),
    Script("a body like a request after a break",
           ((ask(b"X[a]: 1", b"Expect: 100-continue", b"Content-Length: %d" % len(ASK), body=b""), CONTINUE),
            (ASK, ANSWER), NEXT), LOST | OK, REQUEST, REQUEST_LOST),
    Script("asked before the broken answer is over",
           ((ASK, answer(b"X[a]: 1", ANSWER_LENGTH)[:-1]), (ASK, ANSWERED[-1:] + ANSWER), NEXT), LOST, RESPONSE),
    Script("header and body apart", ((ask(b"X[a]: 1", LENGTH, body=b""), b""), (BODY, ANSWER), NEXT), LOST | OK,
           REQUEST, REQUEST_LOST),
    Script("an end that no header tells", ((ASK, answer(b"X[a]: 1", ANSWER_LENGTH + b", 20")), NEXT), LOST, RESPONSE),
    Script("broken twice", ((ask(b"X[a]: 1", LENGTH), ANSWER), (ask(b"X[a]: 1", LENGTH), ANSWER), NEXT),
           {"none": 2} | OK, {"malformed_request": 2}, REQUEST_LOST),
    Script("not a POST", ((ask(b"X[a]: 1", line=GET, body=b""), ANSWER), NEXT), OK, REQUEST,
           never_again("malformed_request", {})),
]  # fmt: skip


@dataclass
class Stage:
    """A model that plays its part of a script, and the sidecar before it."""

    port: int
    running: Tap
    script: list[Script]
    pause: list[float]
    heard: list[bytes]

    def play(self, script: Script, port: int, *, split: bool) -> tuple[bytes, bytes]:
        """What the model, and what the client, hears at this port."""
        self.script[:], self.pause[:] = [script], [0.001 if split else 0.0]
        self.heard.clear()
        answered = b""
        with connected(port) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for sent, awaited in script.turns:
                for part in _parts(sent, split=split):
                    client.sendall(part)
                    time.sleep(self.pause[0])
                answered += received(client, len(awaited))
            if script.model_closes:
                answered += received(client, 1)
        until(lambda: len(b"".join(self.heard)) >= sum(len(sent) for sent, _ in script.turns))
        return b"".join(self.heard), answered

    def counted(self) -> tuple[Counter[str], Counter[str], Counter[str], float]:
        """Requests by code, outcomes, reasons for not following, and how many requests are in flight."""
        codes, outcomes, reasons = Counter[str](), Counter[str](), Counter[str]()
        in_flight = -1.0
        for family in text_string_to_metric_families(self.running.ask("/metrics")[1].decode()):
            for sample in family.samples:
                for metric, label, counts in (
                    (INFERENCE_REQUESTS, "code", codes),
                    (INFERENCE_OUTCOMES, "outcome", outcomes),
                    (TAP_UNFOLLOWED, "reason", reasons),
                ):
                    if sample.name == metric.name:
                        counts[sample.labels[label]] += int(sample.value)
                if sample.name == INFERENCE_IN_FLIGHT.name:
                    in_flight = sample.value
        return codes, outcomes, reasons, in_flight


def _parts(data: bytes, *, split: bool) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))] if split else [data]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    scripts: list[Script] = []
    pause: list[float] = []
    heard: list[bytes] = []

    async def plays(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for awaited, sent in scripts[0].turns:
            heard.append(await reader.readexactly(len(awaited)))
            for part in _parts(sent, split=bool(pause[0])):
                writer.write(part)
                await asyncio.sleep(pause[0])
        if not scripts[0].model_closes:
            heard.append(await reader.read())

    with model(plays) as port, tap(port, "--served-model", "m", ready=True) as running:
        yield Stage(port, running, scripts, pause, heard)


@pytest.mark.parametrize("split", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_the_same_bytes_pass_with_and_without_and_what_is_counted_is_right(
    stage: Stage, script: Script, split: bool
) -> None:
    told = script.split if split and script.split else script
    without = stage.play(script, stage.port, split=split)
    codes, outcomes, reasons, _ = stage.counted()
    assert stage.play(script, stage.running.port, split=split) == without
    lost = told.codes.get("none", 0)
    wanted = Counter({"ok": sum(told.codes.values()) - lost, "unfollowed": lost})
    with contextlib.suppress(pytest.fail.Exception):
        until(lambda: stage.counted()[3] == 0 and stage.counted()[1] - outcomes == +wanted, seconds=5)
    now = stage.counted()
    assert (now[0] - codes, now[1] - outcomes, now[2] - reasons, now[3]) == (
        Counter(told.codes), +wanted, Counter(told.unfollowed), 0,
    )  # fmt: skip
