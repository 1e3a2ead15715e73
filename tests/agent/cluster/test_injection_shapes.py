"""Every shape of pod: as it should be after injection, unchanged by a second one, and as it was after --undo."""

import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
import yaml
from pegel_agent.cli.main import pegel
from pegel_agent.cli.sidecar import command as sidecar_command
from pegel_agent.cluster.injection import inject
from pegel_agent.cluster.sidecar import Settings
from pegel_agent.sidecar import leave
from pegel_agent.statistics.budget import parse_duration

from tests.agent.cluster.shapes import SHAPES, each_shape, injected, options, run

GOLDEN = Path(__file__).with_name("golden")
SAME_IN_OTHER_BYTES = {"aliases", "json", "nulls"}


@each_shape
def test_a_shape_is_injected_as_its_golden_file_says(shape: Path) -> None:
    result = run(shape.read_text(encoding="utf-8"), options(shape))
    assert result.return_value == 0, result.exception
    said = "".join(f"# {line}\n" for line in result.stderr.splitlines())
    golden = GOLDEN / shape.name
    if os.environ.get("PEGEL_WRITE_GOLDEN"):
        golden.write_text(said + result.stdout, encoding="utf-8")
    assert said + result.stdout == golden.read_text(encoding="utf-8")


@each_shape
def test_injecting_twice_is_injecting_once(shape: Path) -> None:
    once = injected(shape.read_text(encoding="utf-8"), options(shape))
    assert injected(once, options(shape)) == once


@each_shape
def test_undo_gives_the_original_back(shape: Path) -> None:
    original = shape.read_text(encoding="utf-8")
    back = injected(injected(original, options(shape)), ["--undo"])
    if shape.stem in SAME_IN_OTHER_BYTES:
        assert list(yaml.safe_load_all(back)) == list(map(without_nothing, yaml.safe_load_all(original)))
    else:
        assert back == original


def without_nothing(value: object) -> object:
    """Fields that say null say nothing, and need not come back."""
    if isinstance(value, dict):
        return {key: without_nothing(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [without_nothing(each) for each in value]
    return value


@each_shape
def test_a_diff_applied_to_the_original_is_the_result(shape: Path, tmp_path: Path) -> None:
    original = shape.read_text(encoding="utf-8")
    result = run(original, [*options(shape), "--diff"])
    (tmp_path / "before").write_text(original, encoding="utf-8")
    if result.stdout:
        subprocess.run(["patch", "-s", tmp_path / "before"], input=result.stdout, text=True, check=True)
    assert (tmp_path / "before").read_text(encoding="utf-8") == injected(original, options(shape))


def test_there_are_golden_files_for_these_shapes_and_no_others() -> None:
    assert {path.name for path in GOLDEN.glob("*.yaml")} == {path.name for path in SHAPES}


def sidecars(value: object) -> list[dict[str, list[str]]]:
    """Every container of Pegel in a manifest."""
    if isinstance(value, dict):
        own = [value] if value.get("name") == "pegel-sidecar" and "args" in value else []
        return own + [found for each in value.values() for found in sidecars(each)]
    return [found for each in value for found in sidecars(each)] if isinstance(value, list) else []


@each_shape
def test_the_sidecar_takes_the_arguments_that_it_is_given(shape: Path) -> None:
    manifest = injected(shape.read_text(encoding="utf-8"), options(shape))
    found = sidecars(list(yaml.safe_load_all(manifest)))
    assert found or shape.stem == "opted-out"
    for container in found:
        name, *arguments = container["args"]
        command = pegel.get_command(click.Context(pegel), name)
        assert command is not None
        command.make_context(name, list(arguments))


@pytest.mark.parametrize("grace", [None, 0, 1, 5, 6, 10, 17, 29, 30, 31, 60, 300, 3600])
def test_notice_lame_duck_and_drain_fit_the_time_that_a_pod_has_for_its_end(grace: int | None) -> None:
    spec = {"containers": [{"name": "model", "ports": [{"name": "http", "containerPort": 8000}]}]}
    if grace is not None:
        spec["terminationGracePeriodSeconds"] = grace  # type: ignore[assignment]
    pod = inject({"spec": spec}, Settings(image="i", version="1")).pod
    (container,) = pod["spec"]["initContainers"]
    said = dict(arg.removeprefix("--").split("=", 1) for arg in container["args"] if "=" in arg)
    times = {option.name: option.default for option in sidecar_command.params}
    lame_duck, drain = (
        parse_duration(text) if (text := str(said.get(name, times[name.replace("-", "_")]))) != "0" else 0
        for name in ("lame-duck", "drain")
    )
    hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
    notice = float(hook[-1]) if hook else 0.0
    if hook:
        assert hook[:-1] == ["python3", "-m", leave.__name__, said["leave-file"]]
    # The file is looked for once a second, and half a second goes by until what was said last is read.
    assert max(notice, min(notice, 1) + lame_duck) + drain + 0.5 <= max(1, 30 if grace is None else grace)
    assert bool(hook) == (grace is None or grace >= 6)


def test_a_pod_that_ends_by_itself_is_not_held_up_by_a_hook() -> None:
    spec = {"restartPolicy": "Never", "containers": [{"name": "model", "ports": [{"containerPort": 8000}]}]}
    (container,) = inject({"spec": spec}, Settings(image="i", version="1")).pod["spec"]["initContainers"]
    assert "lifecycle" not in container


def test_the_hook_makes_the_file_and_lasts(tmp_path: Path) -> None:
    file = tmp_path / "leaving"
    hook = subprocess.Popen([sys.executable, "-m", leave.__name__, str(file), "60"])
    try:
        deadline = time.monotonic() + 20
        while not file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert hook.poll() is None
    finally:
        hook.kill()
        hook.wait()
