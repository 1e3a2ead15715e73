"""Which streams of an HTTP/2 connection are open, however its bytes are cut, by the frames that h2 itself makes."""

import h2.config
import h2.connection
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pegel_agent.sidecar.tap.http2 import GOAWAY, PREFACE, Streams

HEADERS = [(":method", "POST"), (":path", "/a"), (":scheme", "http"), (":authority", "m"), ("x", "y" * 20_000)]


def _sides() -> tuple[h2.connection.H2Connection, h2.connection.H2Connection]:
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    client.initiate_connection()
    server.initiate_connection()
    return client, server


@settings(max_examples=30)
@given(st.integers(1, 20_000))
def test_a_stream_is_open_from_its_request_to_the_end_of_its_answer_wherever_bytes_are_cut(size: int) -> None:
    client, server = _sides()
    streams = Streams()

    def pass_on() -> None:
        asked = client.data_to_send()
        server.receive_data(asked)
        for at in range(0, len(asked), size):
            streams.from_client(asked[at : at + size])
        answered = server.data_to_send()
        client.receive_data(answered)
        for at in range(0, len(answered), size):
            streams.from_model(answered[at : at + size])

    pass_on()
    assert streams.idle
    assert streams.between_answers
    for stream in (1, 3):
        client.send_headers(stream, HEADERS)
        client.send_data(stream, b"abc", end_stream=True)
    pass_on()
    assert not streams.idle
    for stream in (1, 3):
        server.send_headers(stream, [(":status", "200"), *HEADERS[4:]])
        server.send_data(stream, b"abc")
        pass_on()
        assert not streams.idle
        server.send_headers(stream, [("grpc-status", "0")], end_stream=True)
        pass_on()
    assert streams.idle
    client.send_headers(5, HEADERS, end_stream=True)
    pass_on()
    client.reset_stream(5)
    pass_on()
    assert streams.idle
    assert streams.between_answers


def test_the_farewell_is_a_frame_that_h2_takes_for_what_it_is() -> None:
    client, server = _sides()
    client.receive_data(server.data_to_send() + GOAWAY)
    with pytest.raises(h2.exceptions.ProtocolError):
        client.send_headers(1, HEADERS)


def test_no_frame_may_be_put_before_the_first_or_into_another_or_between_the_parts_of_a_head() -> None:
    _, server = _sides()
    settings = server.data_to_send()
    streams = Streams()
    assert not streams.between_answers
    streams.from_model(settings[:-1])
    assert not streams.between_answers
    streams.from_model(settings[-1:])
    assert streams.between_answers
    streams.from_model(b"\x00\x00\x01\x01\x00\x00\x00\x00\x01x")
    assert not streams.between_answers
    streams.from_model(b"\x00\x00\x01\x09\x04\x00\x00\x00\x01x")
    assert streams.between_answers


@given(st.lists(st.binary(max_size=40)))
def test_whatever_follows_the_preface_is_walked(parts: list[bytes]) -> None:
    streams = Streams()
    streams.from_client(PREFACE)
    for part in parts:
        streams.from_client(part)
        streams.from_model(part)
