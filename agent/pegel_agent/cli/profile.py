"""`pegel profile`: build a reference profile, or show one."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from pegel_exporters.errors import UserError


@click.group()
def command() -> None:
    """Build or show a reference profile: what a model's data looked like, as counts per bin and never a row.

    \b
    Example:
      pegel profile build train.csv -o profile.json --label price --ignore id
      pegel profile show profile.json
    """


@command.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="File to write.")
@click.option("--label", multiple=True, metavar="COLUMN", help="The true answer; not profiled. May be repeated.")
@click.option("--prediction", multiple=True, metavar="COLUMN", help="What the model answered. May be repeated.")
@click.option("--ignore", multiple=True, metavar="COLUMN", help="Leave it out, as an id or a date. May be repeated.")
@click.option("--categorical", multiple=True, metavar="COLUMN", help="Numbers that are names. May be repeated.")
@click.option("--model-name", default="", help="The model that the data is for.")
@click.option("--model-version", default="", help="Its version.")
def build(
    data: Path,
    output: Path,
    label: tuple[str, ...],
    prediction: tuple[str, ...],
    ignore: tuple[str, ...],
    categorical: tuple[str, ...],
    model_name: str,
    model_version: str,
) -> None:
    """Build a profile from a CSV or Parquet file of reference rows, which may be larger than memory.

    The file is read twice. A column of numbers gets up to 20 intervals that hold about as many rows each, and a bin for
    each value that many rows share; a column of text gets a bin for each of its 64 most frequent values. Nothing that
    fewer than ten rows share is named in the profile, and a column of text without more, as an id, is left out.

    A CSV file is UTF-8, its fields separated by commas, semicolons or tabs, as its header has it. With semicolons,
    numbers may have a decimal comma.

    \b
    Example:
      pegel profile build train.parquet -o profile.json \\
        --label price --prediction predicted --categorical postcode
    """
    from pegel_agent.batch.text import reference_warning, short, what_it_can_show
    from pegel_agent.reference.build import Roles, build_profile
    from pegel_agent.reference.profile import save

    if output.exists() and data.exists() and output.samefile(data):
        raise UserError(f"{output} is the data itself; give another file to -o")
    if not output.resolve().parent.is_dir():
        raise UserError(f"cannot write {output}: there is no folder {output.parent}")
    roles = Roles(frozenset(label), frozenset(prediction), frozenset(ignore), frozenset(categorical))
    with progress_bar(f"Reading {data.name}") as progress:
        profile = build_profile(
            data,
            roles=roles,
            model_name=model_name,
            model_version=model_version,
            created=time.time(),
            progress=progress,
        )
    save(profile, output)
    click.echo(
        f"{output}: profile {profile.hash} of {len(profile.features)} features from {profile.rows:,} rows; "
        f"{what_it_can_show(profile)}"
    )
    profiled = {feature.name for feature in profile.features}
    for name in roles.columns(data):
        if name not in profiled:
            click.echo(f"note: {short(name)} is left out: it has no number, and no text that ten rows share", err=True)
    if warning := reference_warning(profile):
        click.echo(f"warning: {output.name}: {warning}", err=True)


@command.command()
@click.argument("profile", type=click.Path(path_type=Path))
@click.option("--output", type=click.Choice(["table", "json"]), default="table", help="For people or for programs.")
def show(profile: Path, output: str) -> None:
    """Show a profile: its features, their ranges and what share is missing.

    \b
    Example:
      pegel profile show profile.json
    """
    import msgspec

    from pegel_agent.batch.text import profile_text
    from pegel_agent.reference.profile import load
    from pegel_agent.statistics.sensitivity import smallest_shift

    loaded = load(profile)
    if output == "table":
        click.echo(profile_text(loaded))
        return
    document = msgspec.to_builtins(loaded) | {
        "hash": loaded.hash,
        "smallest_shift": smallest_shift(loaded.rows, len(loaded.features)),
        "features": [
            {
                "name": feature.name,
                "kind": feature.kind,
                "role": feature.role,
                "bins": [
                    {"bin": name, "rows": rows} for name, rows in zip(feature.bins.names, feature.counts, strict=True)
                ],
            }
            for feature in loaded.features
        ],
    }
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[float], None] | None]:
    """A bar on standard error that is told the share that is done; None where nobody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    steps = 1_000
    with click.progressbar(length=steps, label=label, file=sys.stderr) as bar:
        yield lambda share: bar.update(int(share * steps) - bar.pos)
