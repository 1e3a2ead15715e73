"""What the status page says of traffic that goes by unread."""

from pegel_agent.sidecar.blindness import UNDECODABLE, UNFOLLOWED
from pegel_agent.sidecar.frames import TapState
from pegel_agent.sidecar.status import words


def test_every_reason_has_a_sentence_with_its_count() -> None:
    tap = TapState(unfollowed=dict.fromkeys(UNFOLLOWED, 31), undecodable_reasons=dict.fromkeys(UNDECODABLE, 1204))
    said = words.unread(tap)
    assert len(said) == len(UNFOLLOWED) + len(UNDECODABLE)
    assert sum("31 connections" in sentence for sentence in said) == len(UNFOLLOWED)
    assert sum("1,204" in sentence for sentence in said) == len(UNDECODABLE)


def test_nothing_is_said_where_all_is_read() -> None:
    assert words.unread(TapState(requests=5, analysed=5)) == []
