"""The alerts on what no longer watches, as promtool evaluates them."""

from pathlib import Path

import pytest
from pegel_rules import Settings, files, groups
from promtool import Firing, check, model

pytestmark = pytest.mark.integration


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The rule files as they ship."""
    for name, text in files(groups(Settings())).items():
        (tmp_path / name).write_text(text)
    return tmp_path


def exchanges(name: str, *, analysed: int, shed: int = 0, undecodable: int = 0, replica: int = 0) -> dict[str, str]:
    """A replica's exchanges by outcome, so many of each a minute."""
    rates = {"analysed": analysed, "shed": shed, "undecodable": undecodable}
    return {
        model(name, metric="pegel_tap_exchanges_total", replica=replica, outcome=outcome): f"0+{each}x120"
        for outcome, each in rates.items()
    }


def analyser(name: str, values: str, *, replica: int = 0) -> dict[str, str]:
    return {model(name, metric="pegel_tap_analyser_up", replica=replica): values}


def test_an_analyser_that_is_down_for_ten_minutes_warns(folder: Path) -> None:
    series = analyser("dead", "1+0x9 0+0x60") | analyser("dead", "1+0x70", replica=1) | analyser("well", "1+0x70")
    firing = [Firing(minute=minute, alert="AnalyserDown", models=found) for minute, found in ((19, []), (21, ["dead"]))]
    assert not check(folder, series=series, firing=firing)


def test_an_analyser_that_is_started_again_is_silent(folder: Path) -> None:
    series = analyser("restarted", "1+0x9 0+0x5 1+0x60")
    silent = [Firing(minute=minute, alert="AnalyserDown", models=[]) for minute in (12, 21, 60)]
    assert not check(folder, series=series, firing=silent)


def test_traffic_that_is_mostly_not_analysed_warns_whichever_way_it_is_lost(folder: Path) -> None:
    series = (
        exchanges("foreign", analysed=1, undecodable=9)
        | exchanges("overloaded", analysed=4, shed=6)
        | exchanges("half", analysed=5, shed=3, undecodable=2)
        | exchanges("well", analysed=10)
    )
    firing = [Firing(minute=60, alert="TrafficNotAnalysed", models=["foreign", "overloaded"])]
    assert not check(folder, series=series, firing=firing)


def test_one_bad_replica_of_three_and_an_idle_model_are_silent(folder: Path) -> None:
    series = exchanges("mostly", analysed=0, shed=10) | exchanges("idle", analysed=0)
    for replica in (1, 2):
        series |= exchanges("mostly", analysed=10, replica=replica)
    assert not check(folder, series=series, firing=[Firing(minute=60, alert="TrafficNotAnalysed", models=[])])
