"""What the product publishes and offers is documented."""

import os
import re
import shlex
from pathlib import Path

import click
import pytest
from pegel_agent.cli.main import COMMANDS, pegel
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
