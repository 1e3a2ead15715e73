"""What the product publishes and offers is documented."""

import inspect
import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import click
import jsonschema
import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from pegel_agent.cli.main import COMMANDS, pegel
from pegel_agent.reference.profile import FORMAT, Profile
from pegel_exporters.catalogue import CATALOGUE

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def metrics_page() -> str:
    """docs/metrics.md as the catalogue wants it."""
    lines = [
        "# Metrics",
        "",
        "Every metric that Pegel publishes. `PEGEL_WRITE_DOCS=1 pytest tests/test_docs.py` writes this page from the",
        "catalogue (`exporters/pegel_exporters/catalogue.py`).",
        "",
        "| metric | type | labels | |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| `{metric.name}` | {metric.type} | {' '.join(f'`{label}`' for label in metric.labels)} | {metric.help} |"
        for metric in CATALOGUE
    ]
    return "\n".join(lines) + "\n"


def test_every_metric_is_on_its_page() -> None:
    page = ROOT / "docs" / "metrics.md"
    if os.environ.get("PEGEL_WRITE_DOCS"):
        page.write_text(metrics_page(), encoding="utf-8")
    assert page.read_text(encoding="utf-8") == metrics_page()


def profile_schema() -> dict[str, Any]:
    """docs/profile.schema.json as the code that reads profiles wants it."""
    schema = msgspec.json.schema(Profile)
    for part in schema["$defs"].values():
        part["description"] = " ".join(inspect.cleandoc(part["description"]).split())
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": FORMAT, **schema}
    read: dict[str, Any] = json.loads(json.dumps(document))  # lists, where the code has tuples
    return read


def test_the_profile_s_schema_is_what_the_code_reads() -> None:
    page = ROOT / "docs" / "profile.schema.json"
    if os.environ.get("PEGEL_WRITE_DOCS"):
        page.write_text(json.dumps(profile_schema(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert json.loads(page.read_text(encoding="utf-8")) == profile_schema()


@pytest.mark.parametrize("part", profile_schema()["$defs"])
def test_every_field_of_a_profile_is_on_its_page(part: str) -> None:
    page = (ROOT / "docs" / "profile.md").read_text(encoding="utf-8")
    section = re.split(r"^##", page.partition(f"# {part}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    first_cells = "".join(re.findall(r"^\|(.*?)\|", section, re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", first_cells)) == set(profile_schema()["$defs"][part]["properties"])


def test_a_profile_with_every_part_is_valid_by_its_schema(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    hour = np.arange(120_000) // 600 % 24
    a = rng.normal(np.sin(hour / 24 * 2 * np.pi), 0.3)
    columns = (np.arange(120_000) * 6, a, a + rng.normal(0, 0.1, 120_000), rng.integers(0, 3, 120_000))
    said = "the rooms of {} are {} and quite {}"
    lines = (
        f"{t},{x:.4f},{y:.4f},{t % 97},c{c},{said.format(t, x, y)},{c % 2},{int(c > 0)},0.5"
        for t, x, y, c in zip(*columns, strict=True)
    )
    (tmp_path / "key").write_text("correct horse battery staple")
    (tmp_path / "train.csv").write_text("\n".join(("at,a,b,c,d,text,label,said,score", *lines)), encoding="utf-8")
    built = CliRunner().invoke(
        pegel,
        ["profile", "build", str(tmp_path / "train.csv"), "-o", str(tmp_path / "p.json"), "--time", "at",
         "--label", "label", "--prediction", "said", "--score", "score", "--hash-categories", str(tmp_path / "key")],
    )  # fmt: skip
    assert built.exit_code == 0, built.output
    document = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert set(document) == set(profile_schema()["$defs"]["Profile"]["properties"])
    assert any("hours" in feature for feature in document["features"])
    jsonschema.validate(document, json.loads((ROOT / "docs" / "profile.schema.json").read_text(encoding="utf-8")))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document | {"surprise": 1}, profile_schema())


def test_every_command_is_in_the_readme_or_leads_there() -> None:
    assert [name for name in COMMANDS if f"pegel {name}" not in README and f"make {name}" not in README] == []


@pytest.mark.parametrize("line", re.findall(r"^    (pegel .*)$", README, re.MULTILINE))
def test_the_readmes_commands_have_the_options_they_are_given(line: str) -> None:
    words = shlex.split(line.partition(" | ")[0], comments=True)[1:]
    command: click.Command = pegel
    context = click.Context(pegel)
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None, line
        command = found
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    command = pegel.get_command(click.Context(pegel), name)
    assert command is not None
    inner = command.commands.values() if isinstance(command, click.Group) else [command]
    for one in inner:
        assert "Example" in (one.help or ""), one.name
        assert all(parameter.help for parameter in one.params if isinstance(parameter, click.Option)), (
            f"an option of {one.name} has no help"
        )


@pytest.mark.parametrize("file", [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md"])
def test_links_between_pages_lead_somewhere(file: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", file.read_text(encoding="utf-8")):
        assert "://" in target or (file.parent / target).exists(), target
