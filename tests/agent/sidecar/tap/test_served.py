"""Which requests are the model's own: by their paths, by their events, and as they are counted."""

import pytest
from pegel_agent.sidecar import frames
from pegel_agent.sidecar.paths import OTHER, TFSERVING, Model, model_of, protocol_of
from pegel_agent.sidecar.tap.counters import Counters
from pegel_agent.sidecar.tap.served import OWN, Served
from pegel_agent.sidecar.tap.turns import Exchange
from pegel_exporters.catalogue import TAP_OTHER_MODEL_REQUESTS


@pytest.mark.parametrize(
    ("target", "model"),
    [
        ("/v1/models/houses:predict", Model("houses")),
        ("/v1/models/houses:predict?a=/v1/models/b", Model("houses")),
        ("/v1/models/houses/versions/3:predict", Model("houses", "3")),
        ("/v1/models/houses/labels/stable:classify", Model("houses", "stable")),
        ("/v1/models/houses%3Apredict", Model("houses")),
        ("/v1/models/houses/versions/3%3apredict", Model("houses", "3")),
        ("/v1/models/h%C3%A4user:predict", Model("häuser")),
        ("/v1/models/a%2Fb:predict", Model("a/b")),
        ("/v1/models/a%3Ab:predict", Model("a:b")),
        ("/v1/models/%ff:predict", Model("\\xff")),
        ("/v1/models/..:predict", Model("..")),
        ("/v1/models/houses", Model("houses")),
        ("/v1/models/houses/", Model("houses")),
        ("/v2/models/houses/infer", Model("houses")),
        ("/v2/models/a:b/infer", Model("a:b")),
        ("/v2/models/houses/versions/3/infer", Model("houses", "3")),
        ("/v2/models/houses/versions/3", Model("houses", "3")),
        ("/v2/models/houses/versions", Model("houses")),
        ("/v2/models/houses/generate_stream", Model("houses")),
        ("http://host:80/v1/models/houses:predict", Model("houses")),
        ("/proxy/v2/models/houses/infer", Model("houses")),
        ("/v1/models", None),
        ("/v1/models/", None),
        ("/v1/models/:predict", None),
        ("/v2/models//infer", None),
        ("/v2/health/ready", None),
        ("/v2/repository/index", None),
        ("/xv1/models/houses:predict", None),
        ("/invocations", None),
        ("", None),
    ],
)
def test_a_path_names_its_model(target: str, model: Model | None) -> None:
    assert model_of(target.encode()) == model


def test_an_escaped_colon_before_the_verb_is_one() -> None:
    assert protocol_of(b"POST", b"/v1/models/houses%3Apredict?x=1") == TFSERVING
    assert protocol_of(b"POST", b"/v1/models/houses%3Aread") == OTHER


def test_long_targets_are_read_in_time_that_grows_with_them() -> None:
    for part in (b"%3A", b"/v1/models/", b"/versions/", b":", b"%", b"/v2/models/x/versions/"):
        for _ in range(100):
            model_of(b"/v1/models/" + part * 800)


def test_names_that_are_given_are_compared_and_versions_only_where_they_are() -> None:
    served = Served(["a", "b"])
    assert [served.owner_by_path(Model(name)) for name in "abc"] == [OWN, OWN, None]
    assert served.owner_by_path(Model("a", "9")) == OWN
    assert served.owner_by_path(None) == OWN
    served = Served(["a"], ["1", "2"])
    assert [served.owner_by_path(Model("a", version)) for version in ("", "1", "2", "3")] == [OWN, OWN, OWN, None]


def test_without_names_the_one_that_is_found_is_compared() -> None:
    served = Served()
    assert (served.names, served.names_given) == ((), False)
    assert served.owner_by_path(Model("a")) == "a"
    served.found = "b"
    assert [served.owner_by_path(Model(name)) for name in "ab"] == [None, OWN]
    assert (served.names, served.names_given) == (("b",), False)


@pytest.mark.parametrize("name", ["", "x" * 256, "ä" * 128, "a\nb", "\x00", "\u202e", "\\xff\x7f"])
def test_a_name_that_can_t_be_shown_is_never_found(name: str) -> None:
    assert Served().owner_by_path(Model(name)) is None
    assert Served([name]).owner_by_path(Model(name)) == OWN


def begin(counters: Counters, name: str | None, *, protocol: str = TFSERVING) -> Exchange:
    exchange = Exchange(10.0)
    exchange.protocol, exchange.model = protocol, None if name is None else Model(name)
    counters.begun(exchange)
    return exchange


def end(counters: Counters, exchange: Exchange, status: int = 200) -> None:
    exchange.status, exchange.first_byte, exchange.ended = status, 10.5, 11.0
    counters.ended(exchange, "ok")


def others(counters: Counters) -> dict[str, float]:
    families = counters.families(connections=0, bytes_to_model=0, bytes_to_client=0, version="1")
    found = next(family.samples for family in families if family.metric is TAP_OTHER_MODEL_REQUESTS)
    return {labels[2]: value for labels, value in found.items()}  # type: ignore[misc]


def test_when_the_name_is_found_what_was_others_is_taken_out_and_what_is_under_way_ends_where_it_belongs() -> None:
    counters = Counters("m", "1")
    assert others(counters) == {"200": 0}
    for name, status in (("a", 200), ("b", 200), ("b", 404), (None, 200)):
        end(counters, begin(counters, name), status)
    end(counters, begin(counters, "b", protocol=OTHER), 500)
    under_way = [begin(counters, name) for name in ("a", "b", None)]
    under_way[0].tally.shed += 1
    under_way[1].tally.copied(frames.ANALYSED)
    assert (counters.total, counters.in_flight, counters.shed, counters.undecodable) == (5, 3, 1, 1)
    assert not any(exchange.unread for exchange in under_way)
    counters.found("a")
    assert (counters.total, counters.in_flight, counters.shed) == (2, 2, 1)
    assert (counters.analysed, counters.undecodable) == (0, 0)
    assert others(counters) == {"200": 1, "404": 1, "500": 1}
    for exchange in under_way:
        end(counters, exchange)
        exchange.tally.now.copied(frames.ANALYSED)
    assert (counters.total, counters.in_flight, counters.analysed, counters.other_model_requests) == (4, 0, 2, 4)
    assert begin(counters, "b").unread
    assert not begin(counters, "a").unread
    assert counters.quantile(1.0) == 1.0
    counters.found("b")  # by an analyser that hadn't heard
    assert counters.served.found == "a"


def test_only_the_latest_names_are_kept_apart_and_none_is_lost() -> None:
    counters = Counters("m", "1")
    first = begin(counters, "0")
    for number in range(1, 1_000):
        end(counters, begin(counters, str(number)), 404)
    assert (counters.total, counters.in_flight, len(counters._undecided)) == (999, 1, 16)
    end(counters, begin(counters, "own"))
    counters.found("own")
    end(counters, first)
    assert (counters.total, counters.in_flight) == (1, 0)
    assert others(counters) == {"200": 1, "404": 999}


def test_the_rate_is_never_below_0_when_requests_are_taken_out() -> None:
    counters = Counters("m", "1")
    for _ in range(5):
        end(counters, begin(counters, "b"))
        counters.tick()
    counters.found("a")
    counters.tick()
    assert counters.requests_per_second == 0
