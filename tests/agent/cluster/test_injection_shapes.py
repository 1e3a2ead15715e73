"""Every shape of pod: as it should be after injection, unchanged by a second one, and as it was after --undo."""

import os
import subprocess
from pathlib import Path

import click
import yaml
from pegel_agent.cli.main import pegel

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
