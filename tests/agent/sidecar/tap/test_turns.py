"""One connection's exchanges, from bytes alone."""

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pegel_agent.sidecar.paths import OPEN_INFERENCE, OTHER, TFSERVING
from pegel_agent.sidecar.tap import turns as turns_module
from pegel_agent.sidecar.tap.turns import MAX_COPY_BYTES, MAX_COPYING_BYTES, MAX_PIPELINED, Copying, Observer, Turns

CLIENT, MODEL = "client", "model"
BODY = b'{"instances": [[1, 2]]}'
ASK = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
ASK_CHUNKED = b"POST /v2/models/m/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n1\r\ne\r\n0\r\n\r\n"
GET = b"GET /v2/health/ready HTTP/1.1\r\nHost: m\r\n\r\n"
HEAD = b"HEAD /v1/models/m HTTP/1.1\r\nHost: m\r\n\r\n"
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"predictions": [1]}'
ANSWER_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
ANSWER_BY_CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


@dataclass
class Ended:
    """What was told of an exchange when it ended."""

    protocol: str | None
    method: bytes
    status: int
    outcome: str
    copy: tuple[bytes, bytes] | None
    started: float
    first_byte: float
    ended: float

    @property
    def summary(self) -> tuple[str | None, int, str]:
        return self.protocol, self.status, self.outcome


@dataclass
class Line:
    """A connection whose clock moves by a second with every chunk."""

    copying: Copying = field(default_factory=Copying)
    exchanges: list[Ended] = field(default_factory=list)
    begun: int = 0
    reasons: list[str] = field(default_factory=list)
    blind: int = 0
    now: float = 100.0

    def __post_init__(self) -> None:
        self.turns = Turns(Observer(self._begun, self._ended, self._unfollowed, self._watched), self.copying)

    def _begun(self, exchange: turns_module.Exchange) -> None:
        self.begun += 1

    def _ended(self, exchange: turns_module.Exchange, outcome: str) -> None:
        copy = None if exchange.request is None else (b"".join(exchange.request), b"".join(exchange.response))
        self.exchanges.append(
            Ended(
                exchange.protocol, exchange.method, exchange.status, outcome, copy,
                exchange.started, exchange.first_byte, exchange.ended,
            )
        )  # fmt: skip

    def _unfollowed(self, reason: str) -> None:
        self.reasons.append(reason)
        self.blind += 1

    def _watched(self) -> None:
        self.blind -= 1

    @property
    def unfollowed(self) -> int:
        return len(self.reasons)

    def send(self, data: bytes) -> "Line":
        self.now += 1
        self.turns.request_bytes(data, self.now)
        return self

    def answer(self, data: bytes) -> "Line":
        self.now += 1
        self.turns.response_bytes(data, self.now)
        return self

    def model_closes(self) -> "Line":
        self.turns.model_gone(self.now)
        return self

    def client_closes(self) -> "Line":
        self.turns.client_gone(self.now)
        return self

    @property
    def summaries(self) -> list[tuple[str | None, int, str]]:
        return [exchange.summary for exchange in self.exchanges]

    @property
    def copies(self) -> list[tuple[bytes, bytes] | None]:
        return [exchange.copy for exchange in self.exchanges]


def test_two_requests_on_one_connection_are_two_exchanges_with_their_own_bytes() -> None:
    line = Line().send(ASK).answer(ANSWER).send(ASK_CHUNKED).answer(ANSWER_CHUNKED)
    assert line.summaries == [(TFSERVING, 200, "ok"), (OPEN_INFERENCE, 200, "ok")]
    assert line.copies == [(ASK, ANSWER), (ASK_CHUNKED, ANSWER_CHUNKED)]
    assert line.begun == 2
    assert line.turns.idle
    assert line.copying.bytes == 0


def test_times_are_those_of_the_request_s_first_byte_and_the_answer_s_first_and_last() -> None:
    line = Line().send(ASK[:5]).send(ASK[5:]).answer(ANSWER[:10]).answer(ANSWER[10:30]).answer(ANSWER[30:])
    assert [(e.started, e.first_byte, e.ended) for e in line.exchanges] == [(101.0, 103.0, 105.0)]


def test_interim_answers_are_no_exchange_and_no_first_byte() -> None:
    line = Line().send(ASK[:-23]).answer(CONTINUE).send(BODY).answer(HINTS[:20]).answer(HINTS[20:]).answer(ANSWER)
    assert line.summaries == [(TFSERVING, 200, "ok")]
    assert line.exchanges[0].first_byte == line.exchanges[0].ended
    assert line.copies == [(ASK, CONTINUE + HINTS + ANSWER)]


def test_an_answer_that_begins_in_the_interim_answer_s_chunk_has_its_first_byte_there() -> None:
    line = Line().send(ASK).answer(CONTINUE + ANSWER[:20]).answer(ANSWER[20:])
    assert line.exchanges[0].first_byte == 102.0


def test_an_answer_to_head_ends_with_its_header() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    line = Line().send(HEAD).answer(answer).send(ASK).answer(ANSWER).send(HEAD).answer(HINTS + answer)
    assert line.summaries == [(None, 200, "ok"), (TFSERVING, 200, "ok"), (None, 200, "ok")]
    assert line.copies[1] == (ASK, ANSWER)


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_an_answer_without_a_body_by_its_status_ends_with_its_header(status: bytes) -> None:
    answer = b"HTTP/1.1 " + status + b"\r\nETag: x\r\n\r\n"
    line = Line().send(GET).answer(answer).send(ASK).answer(ANSWER)
    assert [exchange.status for exchange in line.exchanges] == [int(status[:3]), 200]


def test_an_answer_ended_by_the_model_s_close_is_complete() -> None:
    line = Line().send(ASK).answer(ANSWER_BY_CLOSE[:30]).answer(ANSWER_BY_CLOSE[30:])
    assert not line.exchanges
    line.model_closes()
    assert line.summaries == [(TFSERVING, 200, "ok")]
    assert line.copies == [(ASK, ANSWER_BY_CLOSE)]


@pytest.mark.parametrize("answer", [ANSWER, ANSWER_CHUNKED])
def test_an_answer_is_an_error_wherever_the_model_cuts_it_off(answer: bytes) -> None:
    for end in range(len(answer)):
        for split in range(end):
            line = Line().send(ASK).answer(answer[:split]).answer(answer[split:end]).model_closes()
            assert line.summaries == [(TFSERVING, 0, "error")], (split, end)
            assert line.copying.bytes == 0


def test_an_answer_cut_off_within_its_header_is_an_error() -> None:
    for end in range(ANSWER_BY_CLOSE.index(b"\r\n\r\n") + 4):
        line = Line().send(ASK).answer(ANSWER_BY_CLOSE[:end]).model_closes()
        assert line.summaries == [(TFSERVING, 0, "error")], end


def test_a_body_that_reads_like_a_header_does_not_make_a_complete_answer_broken() -> None:
    line = Line().send(ASK).answer(ANSWER_BY_CLOSE + b"\r\nContent-Length: 9\r\n\r\n").model_closes()
    assert line.summaries == [(TFSERVING, 200, "ok")]


def test_no_answer_is_an_error_when_the_model_hangs_up_and_an_abort_when_the_client_does() -> None:
    assert Line().send(ASK).model_closes().summaries == [(TFSERVING, 0, "error")]
    assert Line().send(ASK).client_closes().summaries == [(TFSERVING, 0, "client_abort")]
    assert Line().send(ASK).answer(ANSWER[:-1]).client_closes().summaries == [(TFSERVING, 0, "client_abort")]


def test_a_model_that_hangs_up_after_the_client_has_is_not_to_blame() -> None:
    line = Line().send(ASK)
    line.turns.client_finished = True
    assert line.model_closes().summaries == [(TFSERVING, 0, "client_abort")]


def test_a_request_whose_header_never_comes_is_none() -> None:
    line = Line().send(ASK[:30]).client_closes()
    assert (line.summaries, line.begun, line.copying.bytes) == ([], 0, 0)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "ok"), (404, "ok"), (408, "timeout"), (429, "ok"), (500, "error"), (503, "error"), (504, "timeout")],
)
def test_the_outcome_follows_the_status(status: int, outcome: str) -> None:
    line = Line().send(ASK).answer(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
    assert line.summaries == [(TFSERVING, status, outcome)]


def test_an_answer_before_the_request_s_end_ends_the_exchange_and_the_rest_of_the_request_begins_none() -> None:
    refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n"
    line = Line().send(ASK[:-10]).answer(refusal)
    assert line.summaries == [(TFSERVING, 413, "ok")]
    assert not line.turns.idle
    line.send(ASK[-10:]).send(ASK).answer(ANSWER)
    assert line.summaries == [(TFSERVING, 413, "ok"), (TFSERVING, 200, "ok")]
    assert line.copies[1] == (ASK, ANSWER)


def test_the_end_of_a_request_answered_early_is_not_part_of_the_next_one_s_copy() -> None:
    refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n"
    line = Line().send(ASK[:-10]).answer(refusal).send(ASK[-10:] + ASK).answer(ANSWER)
    assert line.summaries == [(TFSERVING, 413, "ok"), (TFSERVING, 200, "ok")]
    assert line.copies[1] is None


def test_a_request_refused_before_its_header_was_complete_is_not_in_flight_for_ever() -> None:
    line = Line().send(ASK[:30]).answer(b"HTTP/1.1 431 Too Large\r\nContent-Length: 0\r\n\r\n").send(ASK[30:])
    assert line.begun == len(line.exchanges) == 0
    line.send(ASK).answer(ANSWER)
    assert line.summaries == [(TFSERVING, 200, "ok")]


def test_what_a_model_says_unasked_is_nobody_s_answer() -> None:
    unasked = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"
    line = Line().send(ASK).answer(ANSWER).answer(unasked).model_closes()
    assert line.summaries == [(TFSERVING, 200, "ok")]


def test_pipelined_requests_are_counted_one_by_one_and_not_copied() -> None:
    line = Line().send(ASK + GET + ASK).answer(ANSWER + ANSWER).answer(ANSWER)
    assert line.summaries == [(TFSERVING, 200, "ok"), (None, 200, "ok"), (TFSERVING, 200, "ok")]
    assert line.copies == [None, None, None]
    assert line.copying.bytes == 0


def test_requests_pipelined_in_chunks_of_their_own_are_not_copied_into_each_other() -> None:
    line = Line().send(ASK).send(ASK).answer(ANSWER + ANSWER).send(ASK).answer(ANSWER)
    assert line.summaries == [(TFSERVING, 200, "ok")] * 3
    assert line.copies == [None, None, (ASK, ANSWER)]


def test_the_first_letters_of_the_next_request_are_not_part_of_a_copy() -> None:
    line = Line().send(ASK + b"PO").answer(ANSWER).send(ASK[2:]).answer(ANSWER)
    assert line.summaries == [(TFSERVING, 200, "ok")] * 2
    assert all(copy in (None, (ASK, ANSWER)) for copy in line.copies)


def test_a_client_that_pipelines_without_end_is_followed_no_longer() -> None:
    line = Line()
    for _ in range(MAX_PIPELINED + 1):
        line.send(GET)
    assert line.unfollowed == 1
    assert not line.turns.following
    assert len(line.exchanges) == line.begun == MAX_PIPELINED


@pytest.mark.parametrize("pipelined", [HEAD + ASK, ASK + HEAD])
def test_head_among_pipelined_requests_is_not_guessed_at(pipelined: bytes) -> None:
    line = Line().send(pipelined).answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    assert line.unfollowed == 1
    assert line.begun == len(line.exchanges)


OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
ASK_OFFERING = ASK.replace(b"Host: m\r\n", OFFER)
CHUNKED_OFFERING = ASK_CHUNKED.replace(b"\r\n", b"\r\n" + OFFER, 1)


@pytest.mark.parametrize("ask", [ASK_OFFERING, CHUNKED_OFFERING])
def test_an_upgrade_that_is_offered_and_not_taken_changes_nothing(ask: bytes) -> None:
    line = Line().send(ask).answer(ANSWER).send(ask[:50]).send(ask[50:]).answer(ANSWER).send(ASK).answer(ANSWER)
    assert [summary[1:] for summary in line.summaries] == [(200, "ok")] * 3
    assert line.copies == [(ask, ANSWER), (ask, ANSWER), (ASK, ANSWER)]
    assert (line.begun, line.unfollowed) == (3, 0)


def test_an_upgrade_offered_without_a_body_and_refused_changes_nothing() -> None:
    ask = GET.replace(b"Host: m\r\n", OFFER)
    line = Line().send(ask).answer(ANSWER).send(ASK).answer(ANSWER)
    assert line.summaries == [(None, 200, "ok"), (TFSERVING, 200, "ok")]


@pytest.mark.parametrize("also", [b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b""])
def test_an_upgrade_that_is_taken_ends_the_following_once(also: bytes) -> None:
    ask = GET.replace(b"Host: m\r\n", b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
    line = Line().send(ask).answer(b"HTTP/1.1 101 Switching Protocols\r\n" + also + b"\r\n\x81\x05hello")
    line.send(b"\x81\x85....").answer(b"\x81\x05world").client_closes()
    assert line.summaries == [(None, 0, "ok")]
    assert line.unfollowed == 1


def test_connect_is_followed_until_it_is_granted() -> None:
    connect = b"CONNECT m:443 HTTP/1.1\r\nHost: m:443\r\n\r\n"
    refused = Line().send(connect).answer(b"HTTP/1.1 405 No\r\nContent-Length: 2\r\n\r\nno").send(ASK).answer(ANSWER)
    assert refused.summaries == [(None, 405, "ok"), (TFSERVING, 200, "ok")]
    granted = Line().send(connect).answer(b"HTTP/1.1 200 Established\r\n\r\n").send(b"\x16\x03\x01\x00")
    assert granted.unfollowed == 1
    assert not granted.turns.following


@pytest.mark.parametrize(
    "first",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        bytes.fromhex("16030100f8010000f40303"),
        b"\x00\xff garbage\r\n\r\n",
        b"POST / HTTP/1.1\r\nbad header\r\n\r\n",
    ],
)
def test_what_is_not_http_1_is_followed_no_longer_and_counted_once(first: bytes) -> None:
    line = Line()
    for byte in range(len(first)):
        line.send(first[byte : byte + 1])
    line.answer(b"\x15\x03\x03").send(b"more").model_closes().client_closes()
    assert line.unfollowed == 1
    assert line.summaries == ([(OTHER, 0, "unfollowed")] if first.startswith(b"POST") else [])
    assert line.copying.bytes == 0


def test_an_answer_that_is_not_http_is_not_the_model_s_error() -> None:
    line = Line().send(ASK).answer(b"SSH-2.0-OpenSSH\r\n")
    assert line.summaries == [(TFSERVING, 0, "unfollowed")]
    assert line.reasons == ["malformed_response"]


def test_a_request_that_is_no_inference_or_in_an_unknown_protocol_is_not_copied() -> None:
    other = ASK.replace(b"/v1/models/m:predict", b"/anything")
    line = Line().send(GET).answer(ANSWER).send(other[:80]).send(other[80:]).answer(ANSWER)
    assert line.summaries == [(None, 200, "ok"), (OTHER, 200, "ok")]
    assert line.copies == [None, None]


def test_an_exchange_above_the_cap_is_counted_and_its_copy_given_up_on_the_way() -> None:
    line = Line()
    size = 3 * MAX_COPY_BYTES
    line.send(b"POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size)
    most = 0
    for _ in range(3 * 64):
        line.send(bytes(MAX_COPY_BYTES // 64))
        most = max(most, line.copying.bytes)
    assert MAX_COPY_BYTES * 0.9 < most <= MAX_COPY_BYTES
    assert line.copying.bytes == 0
    line.answer(ANSWER).send(ASK).answer(ANSWER)
    assert line.summaries == [(TFSERVING, 200, "ok")] * 2
    assert line.copies == [None, (ASK, ANSWER)]


def test_an_answer_above_the_cap_is_counted_and_not_copied() -> None:
    line = Line().send(ASK).answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MAX_COPY_BYTES + 1))
    line.answer(bytes(MAX_COPY_BYTES + 1))
    assert (line.summaries, line.copies, line.copying.bytes) == ([(TFSERVING, 200, "ok")], [None], 0)


def test_all_unfinished_copies_together_stay_below_their_cap() -> None:
    copying = Copying()
    lines = [Line(copying) for _ in range(12)]
    body = bytes(1 << 20)
    for line in lines:
        line.send(b"POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)).send(body)
        assert copying.bytes <= MAX_COPYING_BYTES
    assert copying.bytes > MAX_COPYING_BYTES - 2 * len(body)
    for line in lines:
        line.answer(ANSWER)
    assert copying.bytes == 0
    kept = [line.exchanges[0].copy is not None for line in lines]
    assert 6 <= sum(kept) < 12
    assert len(lines[0].exchanges) == 1


def test_a_huge_header_of_an_answer_is_not_kept() -> None:
    line = Line().send(ASK).answer(b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 20)).answer(b"y" * (1 << 20))
    exchange = line.turns._waiting[0]
    assert len(exchange.head) < 1 << 15


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([CLIENT, MODEL]), st.binary(max_size=60)), max_size=12), st.booleans())
def test_no_bytes_at_all_raise_or_lose_count(chunks: list[tuple[str, bytes]], model_first: bool) -> None:
    line = Line().send(ASK)
    for side, data in chunks:
        _ = line.send(data) if side == CLIENT else line.answer(data)
    _ = line.model_closes() if model_first else line.client_closes()
    line.client_closes()
    assert line.begun == len(line.exchanges)
    assert line.copying.bytes == 0
    assert line.blind == 0
    assert line.turns.idle


def _parts(data: bytes, cuts: list[float]) -> list[bytes]:
    """`data` cut at these shares of its length."""
    places = sorted({round(cut * len(data)) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]


REFUSED_HEAD = (HEAD, b"HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\n")
EXCHANGES = [
    (ASK, ANSWER),
    (ASK_CHUNKED, ANSWER_CHUNKED),
    (GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
    (ASK, CONTINUE + HINTS + ANSWER),
    (ASK_OFFERING, ANSWER),
    (CHUNKED_OFFERING, ANSWER_CHUNKED),
    REFUSED_HEAD,
]
CUTS = st.lists(st.floats(0, 1), max_size=6)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(EXCHANGES), CUTS, CUTS), min_size=1, max_size=6))
def test_any_split_into_chunks_gives_the_same_exchanges(
    script: list[tuple[tuple[bytes, bytes], list[float], list[float]]],
) -> None:
    whole, cut = Line(), Line()
    for (ask, answer), ask_cuts, answer_cuts in script:
        whole.send(ask).answer(answer)
        for part in _parts(ask, ask_cuts):
            cut.send(part)
        for part in _parts(answer, answer_cuts):
            cut.answer(part)
    assert whole.unfollowed == cut.unfollowed == 0
    assert len(cut.exchanges) == len(script)
    assert cut.summaries == whole.summaries
    assert cut.copies == whole.copies
    assert cut.copying.bytes == 0


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.sampled_from(EXCHANGES[:4]), min_size=1, max_size=8),
    CUTS, CUTS,
)  # fmt: skip
def test_pipelined_requests_are_counted_exactly_however_they_are_cut(
    script: list[tuple[bytes, bytes]], ask_cuts: list[float], answer_cuts: list[float]
) -> None:
    asks, answers = b"".join(ask for ask, _ in script), b"".join(answer for _, answer in script)
    line = Line()
    for part in _parts(asks, ask_cuts):
        line.send(part)
    for part in _parts(answers, answer_cuts):
        line.answer(part)
    assert [exchange.status for exchange in line.exchanges] == [304 if ask is GET else 200 for ask, _ in script]
    for exchange, (ask, answer) in zip(line.exchanges, script, strict=True):
        assert exchange.copy in (None, (ask, answer))
    assert line.copying.bytes == 0


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 20\r\nContent-Length: 20",
        b"Content-Length: 20\r\nTransfer-Encoding: chunked",
        b"Content-Length: 20\r\nX: a\r\n b",
        b"Content-Length: 20\r\nX: a\x01b",
        b"Content-Length: 20\nX: a",
        b"X[a]: 1\r\nContent-Length: 20",
    ],
)
def test_an_answer_that_the_parser_refuses_is_no_error_and_the_next_request_is_counted(headers: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + headers + b'\r\n\r\n{"predictions": [1]}'
    line = Line().send(ASK).answer(answer).send(ASK).answer(ANSWER)
    assert line.summaries[0] in [(TFSERVING, 0, "unfollowed"), (TFSERVING, 200, "ok")]
    assert line.summaries[1:] == [(TFSERVING, 200, "ok")]
    assert line.blind == 0
    assert line.begun == len(line.exchanges)


def test_after_a_request_with_a_strange_header_the_next_200_are_counted() -> None:
    line = Line().send(ASK.replace(b"Host: m", b"X[a]: 1")).answer(ANSWER)
    for _ in range(200):
        line.send(ASK).answer(ANSWER)
    assert line.summaries[-200:] == [(TFSERVING, 200, "ok")] * 200


STRANGE, STRANGE_ANSWER = (each.replace(b"\r\n", b"\r\nX[a]: 1\r\n", 1) for each in (ASK, ANSWER))


@pytest.mark.parametrize(
    "doubt",
    [
        [(CLIENT, ASK + STRANGE), (MODEL, ANSWER)],
        [(CLIENT, STRANGE + ASK), (MODEL, ANSWER)],
        [(CLIENT, STRANGE), (CLIENT, ASK), (MODEL, ANSWER)],
        [(CLIENT, STRANGE), (MODEL, ANSWER[:-1])],
        [(CLIENT, STRANGE), (MODEL, CONTINUE)],
        [(CLIENT, STRANGE[:-1]), (MODEL, ANSWER)],
        [(CLIENT, STRANGE), (MODEL, ANSWER + ANSWER)],
        [(CLIENT, STRANGE), (MODEL, ANSWER_BY_CLOSE)],
        [(CLIENT, STRANGE), (MODEL, b"220 mail")],
        [(CLIENT, STRANGE.replace(b"Content-Length:", b"Content-Length :")), (MODEL, ANSWER)],
        [(CLIENT, STRANGE.replace(b"\r\n", b"\r\nContent-Length: 1\r\n", 1)), (MODEL, ANSWER)],
        [(CLIENT, STRANGE), (MODEL, ANSWER), (CLIENT, b"more")],
        [(CLIENT, ASK + ASK), (MODEL, STRANGE_ANSWER)],
        [(CLIENT, ASK), (MODEL, STRANGE_ANSWER[:-1])],
        [(CLIENT, ASK), (MODEL, STRANGE_ANSWER), (CLIENT, ASK[:9])],
        [(CLIENT, ASK[:-1]), (MODEL, STRANGE_ANSWER)],
        [(CLIENT, ASK_CHUNKED.replace(b"4\r\n", b"4 x\r\n")), (MODEL, ANSWER)],
    ],
)
def test_where_there_is_doubt_after_a_break_nothing_is_counted_any_more(doubt: list[tuple[str, bytes]]) -> None:
    line = Line()
    for side, data in doubt:
        _ = line.send(data) if side == CLIENT else line.answer(data)
    for _ in range(3):
        line.send(ASK).answer(ANSWER)
    assert not line.turns.following
    assert (len(line.reasons), line.blind) == (1, 1)
    assert line.begun == len(line.exchanges)
    assert {(status, outcome) for _, status, outcome in line.summaries} == {(0, "unfollowed")}
    assert line.client_closes().blind == 0


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_however_clients_pipeline_around_a_break_no_answer_is_taken_for_another_request_s(data: st.DataObject) -> None:
    counted: list[tuple[bytes, int]] = []

    def ended(exchange: turns_module.Exchange, outcome: str) -> None:
        counted.append((exchange.target, exchange.status))

    turns = Turns(Observer(lambda _: None, ended, lambda _: None), Copying())
    strange = st.sampled_from([b"", b"", b"X[a]: 1\r\n", b"Content-Length: 2\r\n", b"X: a\r\n b\r\n", b"Y\r\n"])
    length = data.draw(st.integers(1, 6))
    asks = [
        b"POST /%d HTTP/1.1\r\n%sContent-Length: 2\r\n\r\n{}" % (number, data.draw(strange)) for number in range(length)
    ]
    answers = [
        b"HTTP/1.1 %d OK\r\n%sContent-Length: 2\r\n\r\n{}" % (200 + number, data.draw(strange))
        for number in range(length)
    ]
    asked = answered = 0
    now = 0.0
    ask, answer = b"".join(asks), b"".join(answers)
    ends = [sum(map(len, asks[: number + 1])) for number in range(length)]
    while answered < len(answer):
        now += data.draw(st.sampled_from([0.001, 1.0]))
        # The model has answered no more than it was asked.
        may_answer = sum(len(answers[number]) for number in range(length) if ends[number] <= asked)
        places = sorted({*ends, *(end + 9 for end in ends), *(end - 1 for end in ends)})
        if asked < len(ask) and (answered == may_answer or data.draw(st.booleans())):
            to = data.draw(st.sampled_from([place for place in places if asked < place <= len(ask)] or [len(ask)]))
            turns.request_bytes(ask[asked:to], now)
            asked = to
        else:
            to = data.draw(st.sampled_from([answered + 1, (answered + may_answer + 1) // 2, may_answer]))
            turns.response_bytes(answer[answered:to], now)
            answered = to
    turns.client_gone(now)
    assert all(status in (0, 200 + int(target[1:])) for target, status in counted)
    assert len({target for target, _ in counted}) == len(counted)


def test_an_answer_whose_end_no_header_tells_is_over_when_nothing_more_comes() -> None:
    at_once, later = Line(), Line()
    for line, waits in ((at_once, -1.0), (later, 0.0)):
        line.send(ASK).answer(STRANGE_ANSWER.replace(b": 20", b": 20, 20"))
        line.now += waits
        line.send(ASK).answer(ANSWER)
    assert at_once.summaries == [(TFSERVING, 0, "unfollowed")]
    assert later.summaries == [(TFSERVING, 0, "unfollowed"), (TFSERVING, 200, "ok")]


def test_two_offers_of_an_upgrade_in_one_chunk_are_pipelined_and_a_bad_body_is_not() -> None:
    assert Line().send(ASK_OFFERING * 2).reasons == ["pipelined"]
    assert Line().send(CHUNKED_OFFERING.replace(b"4\r\n", b"x\r\n")).reasons == ["malformed_request"]


def test_what_a_client_sends_before_the_model_has_spoken_begins_no_exchange_anew() -> None:
    line = Line().send(b"POST /v1/models/m:predict HTTP/1.1\r\nbad header\r\n\r\n").send(ASK)
    assert line.reasons == ["malformed_request"]
    assert not line.turns.following
    assert line.blind == 1
    assert line.client_closes().blind == 0


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2"),
        (bytes.fromhex("16030100f8010000f40303"), "tls"),
        (b"\x00garbage\r\n\r\n", "malformed_request"),
    ],
)
def test_why_a_connection_is_not_followed_is_known_however_its_bytes_are_cut(first: bytes, reason: str) -> None:
    whole, cut = Line().send(first), Line()
    for byte in range(len(first)):
        cut.send(first[byte : byte + 1])
    assert whole.reasons == cut.reasons == [reason]
