"""`pegel sidecar` with settings that cannot work: one line, exit 2, nothing left."""

import importlib.metadata
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pegel_exporters.catalogue import BUILD_INFO, REFERENCE_READY, TAP_ANALYSER_UP, TAP_EXCHANGES
from prometheus_client.parser import text_string_to_metric_families

from tests.agent.sidecar.tap.tap_process import ANSWER, ASK, connected, free_ports, model, predict, received, tap, until

pytestmark = pytest.mark.integration


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[..., str]:
    """Runs the command, which must refuse; its one line."""

    def run(*options: str) -> str:
        temporary = tmp_path / "tmp"
        temporary.mkdir()
        listen, admin, upstream = (f"127.0.0.1:{port}" for port in free_ports(3))
        addresses = {"--listen": listen, "--admin": admin, "--upstream": upstream}
        if "sink" in options:
            del addresses["--upstream"]
        given = [part for pair in addresses.items() if pair[0] not in options for part in pair]
        done = subprocess.run(
            [sys.executable, "-c", "from pegel_agent.cli.main import main; main()", "sidecar", *given, *options],
            env={**os.environ, "TMPDIR": str(temporary)}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        said = [line for line in done.stderr.splitlines() if not re.match(r"\d{4}-\d\d-\d\d .* INFO watching ", line)]
        assert len(said) == 1, done.stderr
        assert said[0].startswith("pegel: ")
        assert list(temporary.iterdir()) == []
        assert not [process for process in _command_lines() if str(temporary) in process or listen in process]
        return said[0]

    return run


def _command_lines() -> list[str]:
    lines = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                lines.append((folder / "cmdline").read_text(errors="replace"))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return lines


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--window", "soon"], "--window"),
        (["--window", "0"], "--window"),
        (["--false-alarms", "never"], "--false-alarms"),
        (["--window", "500", "--false-alarms", "1/30d"], "no clock"),
        (["--false-alarms", "9/5m"], "--false-alarms"),
        (["--listen", "here"], "'here' is not an address"),
        (["--upstream", "127.0.0.1:99999"], "99999"),
        (["--listen", ":8501", "--upstream", "127.0.0.1:8501"], "is where Pegel itself listens"),
        (["--listen", "0.0.0.0:8501", "--upstream", "127.0.0.1:8501"], "is where Pegel itself listens"),
        (["--admin", ":9", "--upstream", "127.0.0.1:9"], "--upstream 127.0.0.1:9 is where Pegel itself listens"),
        (["--forward", ":15081=:15081"], "--forward :15081 is where Pegel itself listens"),
        (["--listen", ":15080", "--forward", ":15081=127.0.0.1:15080"], "is where Pegel itself listens"),
        (["--forward", ":1=127.0.0.1:2", "--forward", ":2=127.0.0.1:1"], "is where Pegel itself listens"),
        (
            ["--forward", ":15081=:1", "--forward", "127.0.0.1:15081=:2"],
            "--forward 127.0.0.1:15081 and --forward :15081 are the same port",
        ),
        (["--listen", ":15080", "--forward", ":15080=:1"], "--forward :15080 and --listen :15080 are the same port"),
        (["--listen", ":15080", "--admin", ":15080"], "are the same port"),
        (["--forward", ":15081"], "':15081' is not LISTEN=UPSTREAM"),
        (["--forward", "=127.0.0.1:1"], "--forward: '' is not an address"),
        (["--forward", ":15081=model"], "--forward: 'model' is not an address"),
        (["--mode", "mirror"], "--mode"),
        (["--mode", "sink", "--forward", ":15081=127.0.0.1:1"], "--forward goes with --mode proxy"),
        (["--mode", "sink", "--upstream", "127.0.0.1:1"], "--upstream goes with --mode proxy"),
        (["--harmless-drift", "nan"], "--harmless-drift"),
        (["--lame-duck", "soon"], "--lame-duck"),
        (["--drain", "-1s"], "--drain"),
        (["--upstream", "http://127.0.0.1:8501"], "--upstream"),
        (["--profile", "/nowhere/profile.json"], "/nowhere/profile.json"),
        (["--feedback-token", "/nowhere/token"], "/nowhere/token"),
        (["--served-model", ""], "--served-model: '' has an empty name in it"),
        (["--served-model", "a,,b"], "--served-model: 'a,,b' has an empty name in it"),
        (["--served-version", "1, "], "--served-version: '1, ' has an empty name in it"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_option_that_cannot_work_is_named(options: list[str], word: str, refusal: Callable[..., str]) -> None:
    assert word in refusal(*options)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"a": 1}', "\x00", '{"model_name": "m", "model_version": "1"}',
     '{"model_name": 3, "model_version": "1"}'],
    ids=["empty", "cut off", "a list", "another document", "no text", "only names", "a number for a name"],
)  # fmt: skip
def test_a_file_that_is_no_profile_is_named(content: str, refusal: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(content)
    assert str(path) in refusal("--profile", str(path))


@pytest.mark.parametrize(("option", "value"), [("--listen", ""), ("--admin", ""), ("--forward", "=127.0.0.1:1")])
def test_a_port_in_use_is_named(option: str, value: str, refusal: Callable[..., str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1:{port}" in refusal(option, f"127.0.0.1:{port}{value}")


def test_the_version_on_the_page_is_the_installed_one() -> None:
    with model(predict) as port, tap(port) as running:
        assert f'pegel_build_info{{version="{importlib.metadata.version("pegel")}"}}' in running.counts()


def test_every_series_says_which_model_it_is_of() -> None:
    with model(predict) as port, tap(port, "--model-name", "wine", "--model-version", "7", ready=True) as running:
        with connected(running.port) as client:
            client.sendall(ASK)
            assert received(client, len(ANSWER)) == ANSWER
        until(lambda: sum(running.copies().values()) == 1)
        page = running.ask("/metrics")[1].decode()
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    assert {sample.labels.get("model_name") for sample in samples} == {"wine"}
    assert {sample.labels.get("model_version") for sample in samples} == {"7"}
    names = {sample.name for sample in samples}
    assert names >= {BUILD_INFO.name, TAP_EXCHANGES.name, TAP_ANALYSER_UP.name, REFERENCE_READY.name}


def test_an_option_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEGEL_SIDECAR_MODEL_NAME", "wine")
    with model(predict) as port, tap(port) as running:
        assert b'model_name="wine"' in running.ask("/metrics")[1]


def test_help_has_an_example_of_each_mode() -> None:
    program = [sys.executable, "-c", "from pegel_agent.cli.main import main; main()", "sidecar", "--help"]
    said = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    assert "pegel sidecar --upstream 127.0.0.1:8501 --profile profile.json" in said
    assert "pegel sidecar --mode sink --profile profile.json" in said


def test_a_temporary_folder_whose_name_is_too_long_for_sockets_is_named(tmp_path: Path) -> None:
    temporary = tmp_path / ("x" * 80)
    temporary.mkdir()
    listen, admin, upstream = (f"127.0.0.1:{port}" for port in free_ports(3))
    done = subprocess.run(
        [sys.executable, "-m", "pegel_agent.cli.main", "sidecar", "--listen", listen, "--admin", admin,
         "--upstream", upstream],
        env={**os.environ, "TMPDIR": str(temporary)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, "set TMPDIR to a shorter one" in done.stderr) == (2, True)
