"""`pegel check`: one batch against a profile, as a step of a pipeline."""

from pathlib import Path

import click


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--profile", type=click.Path(path_type=Path), required=True, help="From `pegel profile build`.")
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.001,
    help="How often a batch without drift may be called drift, over all its features.",
)
@click.option(
    "--min-psi", type=click.FloatRange(0), default=0.005,
    help="The least PSI that is worth an alarm, however sure: 0.005 is a mean that moved by 0.07 standard deviations.",
)  # fmt: skip
@click.option("--output", type=click.Choice(["table", "json"]), default="table", help="For people or for programs.")
@click.pass_context
def command(ctx: click.Context, data: Path, profile: Path, alpha: float, min_psi: float, output: str) -> None:
    """Test one batch of rows, a CSV or Parquet file, against a profile.

    Exit code 0: no drift; 1: drift; 2: the batch or the profile can't be used. Columns that the profile doesn't have
    are left alone. The rows count as independent of each other. A batch so small that even a large change could pass
    gets a warning on standard error.

    \b
    Example:
      pegel check --profile profile.json today.csv
      pegel check --profile profile.json today.parquet --output json
    """
    import msgspec

    from pegel_agent.batch.check import check_file
    from pegel_agent.batch.text import batch_warning, check_text
    from pegel_agent.cli.profile import progress_bar
    from pegel_agent.reference.profile import load

    loaded = load(profile)
    with progress_bar(f"Reading {data.name}") as progress:
        result = check_file(loaded, data, alpha=alpha, psi_floor=min_psi, progress=progress)
    if warning := batch_warning(result, psi_floor=min_psi):
        click.echo(f"warning: {data.name}: {warning}", err=True)
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(result), indent=2).decode())
    else:
        click.echo(check_text(result, data=data.name))
    ctx.exit(1 if result.drift else 0)
