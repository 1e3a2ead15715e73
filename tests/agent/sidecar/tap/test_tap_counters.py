"""What the forwarder counts of exchanges that are over."""

import asyncio
import logging
from typing import Any

import pytest
from pegel_agent.sidecar import frames
from pegel_agent.sidecar.blindness import DECODING, UNDECODABLE, UNFOLLOWED
from pegel_agent.sidecar.paths import OPEN_INFERENCE, OTHER, TFSERVING
from pegel_agent.sidecar.tap.connection import Traffic
from pegel_agent.sidecar.tap.counters import RATE_SECONDS, REFUSAL_SECONDS, Counters
from pegel_agent.sidecar.tap.served import OWN, Served
from pegel_agent.sidecar.tap.turns import Exchange, Observer
from pegel_exporters import catalogue as c
from pegel_exporters.exposition import Renderer


def over(counters: Counters, protocol: str | None, status: int, outcome: str, *, seconds: float = 0.0,
         target: bytes = b"") -> None:  # fmt: skip
    exchange = Exchange(10.0)
    exchange.protocol, exchange.status, exchange.target = protocol, status, target
    counters.begun(exchange)
    exchange.first_byte, exchange.ended = 10.0 + seconds / 2, 10.0 + seconds
    counters.ended(exchange, outcome)


def family(counters: Counters, metric: c.Metric) -> dict[tuple[str, ...], Any]:
    families = counters.families(connections=3, bytes_to_model=5, bytes_to_client=7, version="1.2")
    return next(dict(each.samples) for each in families if each.metric is metric)


def reasons(counters: Counters, metric: c.Metric) -> dict[str, float]:
    return {labels[-1]: count for labels, count in family(counters, metric).items()}


def page(counters: Counters) -> list[str]:
    families = counters.families(connections=3, bytes_to_model=5, bytes_to_client=7, version="1.2")
    return Renderer().render(families).decode().splitlines()


def test_every_inference_is_counted_once_by_protocol_status_and_outcome() -> None:
    counters = Counters("m", "1")
    over(counters, TFSERVING, 200, "ok")
    over(counters, TFSERVING, 200, "ok")
    over(counters, OPEN_INFERENCE, 503, "error")
    over(counters, OTHER, 0, "client_abort")
    over(counters, None, 200, "ok")
    lines = page(counters)
    model = 'model_name="m",model_version="1"'
    assert f'ml_inference_requests_total{{code="200",{model},protocol="tfserving"}} 2.0' in lines
    assert f'ml_inference_requests_total{{code="503",{model},protocol="oip"}} 1.0' in lines
    assert f'ml_inference_requests_total{{code="none",{model},protocol="other"}} 1.0' in lines
    outcomes = {"ok": 2, "error": 1, "client_abort": 1, "timeout": 0, "unfollowed": 0}
    for outcome, count in outcomes.items():
        assert f'ml_inference_outcomes_total{{{model},outcome="{outcome}"}} {float(count)}' in lines
    assert (counters.total, counters.in_flight, counters.undecodable) == (4, 0, 1)


def test_outcomes_exist_at_0_before_anything_happened() -> None:
    lines = page(Counters("m", "1"))
    assert 'ml_inference_outcomes_total{model_name="m",model_version="1",outcome="timeout"} 0.0' in lines
    assert 'pegel_tap_exchanges_total{model_name="m",model_version="1",outcome="shed"} 0.0' in lines


def test_every_reason_is_born_at_0_and_they_add_up_to_the_undecodable_exchanges() -> None:
    counters = Counters("m", "1", Served(("houses",)))
    assert reasons(counters, c.TAP_UNDECODABLE) == dict.fromkeys(UNDECODABLE, 0)
    assert reasons(counters, c.TAP_UNFOLLOWED) == dict.fromkeys(UNFOLLOWED, 0)
    own, others = counters.tally_of(OWN), counters.tally_of(None)
    for code in (frames.ANALYSED, frames.OTHER_MODEL, *frames.UNDECODABLE.values()):
        own.copied(code)
        others.copied(code)
    for target in (b"/invocations", b"/predictions/m", b"/anything"):
        over(counters, OTHER, 200, "ok", target=target)
    counters.unfollowed("tls")
    by_reason = reasons(counters, c.TAP_UNDECODABLE)
    looks = {"mlflow": 1, "torchserve": 1, "path": 1}
    assert by_reason == dict.fromkeys(UNDECODABLE, 0) | dict.fromkeys(DECODING, 1) | looks
    assert reasons(counters, c.TAP_UNFOLLOWED)["tls"] == 1
    copies = {labels[-1]: count for labels, count in family(counters, c.TAP_EXCHANGES).items()}
    assert copies["undecodable"] == sum(by_reason.values()) == counters.undecodable


def test_what_turns_out_to_be_another_model_s_is_no_blindness(caplog: pytest.LogCaptureFixture) -> None:
    counters = Counters("m", "1")
    counters.tally_of("shadow").copied(frames.UNDECODABLE["content"])
    with caplog.at_level(logging.WARNING):
        counters.tick()
        counters.found("houses")
        assert sum(reasons(counters, c.TAP_UNDECODABLE).values()) == 0
        for _ in range(REFUSAL_SECONDS):
            counters.tick()
        counters.tally_of(OWN).copied(frames.UNDECODABLE["content"])
        counters.tick()
    unread = [line for line in caplog.messages if "unread" in line]
    assert ["1 exchanges" in line for line in unread] == [True, True]


def test_only_answers_have_durations_and_a_quantile_lies_within_its_bucket() -> None:
    counters = Counters("m", "1")
    assert counters.quantile(0.5) is None
    over(counters, TFSERVING, 0, "client_abort", seconds=500)
    for _ in range(9):
        over(counters, TFSERVING, 200, "ok", seconds=0.02)
    over(counters, TFSERVING, 200, "ok", seconds=4)
    # As histogram_quantile: rank 5 of 9 in the bucket from 0.01 to 0.025.
    assert counters.quantile(0.5) == pytest.approx(0.01 + 0.015 * 5 / 9)
    assert counters.quantile(0.95) == pytest.approx(2.5 + 2.5 * 0.5)
    over(counters, TFSERVING, 200, "ok", seconds=10_000)
    assert counters.quantile(1.0) == 600.0


def test_the_rate_is_that_of_the_last_seconds() -> None:
    counters = Counters("m", "1")
    assert counters.requests_per_second == 0
    for second in range(100):
        for _ in range(4 if second < 50 else 8):
            over(counters, TFSERVING, 200, "ok")
        counters.tick()
        if second == 2:
            assert counters.requests_per_second == 4
    assert counters.requests_per_second == 8
    for _ in range(RATE_SECONDS):
        counters.tick()
    assert counters.requests_per_second == 0


def test_a_connection_to_a_model_that_refuses_is_an_error_without_a_request() -> None:
    counters = Counters("m", "1")
    counters.refused()
    assert (counters.errors, counters.refusals, counters.total) == (1, 1, 0)


def test_refused_connections_are_counted_for_a_minute_and_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counters = Counters("m", "1")
    counters.tick()
    assert caplog.messages == []
    for _ in range(REFUSAL_SECONDS):
        counters.refused()
        counters.tick()
    assert counters.refusals_last_minute == REFUSAL_SECONDS
    assert len(caplog.messages) == 1
    assert "1 refused since the last such line, 1 since the start" in caplog.messages[0]
    for _ in range(10):
        counters.tick()
    assert counters.refusals_last_minute == REFUSAL_SECONDS - 10
    assert f"{REFUSAL_SECONDS - 1} refused since the last such line" in caplog.messages[1]
    for _ in range(5 * REFUSAL_SECONDS):
        counters.tick()
    assert (counters.refusals, counters.refusals_last_minute) == (REFUSAL_SECONDS, 0)
    assert len(caplog.messages) == 2


def test_what_fails_while_following_one_connection_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[bytes] = []

    def fails(data: bytes, now: float) -> None:
        raise RuntimeError("a mistake of ours")

    async def pass_by() -> None:
        nothing = Observer(lambda exchange: None, lambda exchange, outcome: None, lambda: None)
        traffic = Traffic(nothing, refused=lambda: None)
        traffic.passed(fails, b"a", 1.0)
        traffic.passed(lambda data, now: heard.append(data), b"b", 2.0)
        assert heard == []
        traffic.follow()

    with caplog.at_level(logging.ERROR):
        asyncio.run(pass_by())
    assert heard == [b"b"]
    assert "its bytes were forwarded" in caplog.text
