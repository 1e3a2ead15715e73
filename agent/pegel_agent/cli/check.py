"""`pegel check`: one batch against a profile, as a step of a pipeline."""

from pathlib import Path

import click

from pegel_agent.cli.options import one_column


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--profile", type=click.Path(path_type=Path), required=True, help="From `pegel profile build`.")
@click.option("--category-key", type=click.Path(path_type=Path), metavar="FILE", help="The key of hashed categories.")
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
@one_column(
    "--time",
    help="The rows' times (ISO 8601, or seconds since 1970), to compare them with their hours of the day.",
)  # fmt: skip
@click.option("--output", type=click.Choice(["table", "json"]), default="table", help="For people or for programs.")
@click.pass_context
def command(
    ctx: click.Context,
    data: Path,
    profile: Path,
    category_key: Path | None,
    alpha: float,
    min_psi: float,
    time: str | None,
    output: str,
) -> None:
    """Test one batch of rows, a CSV or Parquet file, against a profile.

    Exit code 0: no drift; 1: drift; 2: the batch or the profile can't be used, which a column whose type has changed
    can't; 3: a failure of Pegel's own. Columns that the profile doesn't have are left alone. A batch so small that even
    a large change could pass gets a warning on standard error.

    By a profile that was built with --time the rows count by its design effects: a batch is then rows in the order of
    time, and with --time compared with its own hours if the profile tells them apart. By another one they count as
    independent of each other, and --alpha holds for rows that are: exit code 1 then says that the batch isn't like the
    reference, which rows that resemble their neighbours can do without drift. Where the profile had too few windows to
    tell, a note says so.

    \b
    Example:
      pegel check --profile profile.json today.csv
      pegel check --profile profile.json today.parquet --time at --output json
    """
    import msgspec

    from pegel_agent.batch.check import basis, check_file
    from pegel_agent.batch.text import batch_warning, check_text
    from pegel_agent.cli.profile import progress_bar
    from pegel_agent.reference.keys import key_for
    from pegel_agent.reference.profile import load

    loaded = load(profile)
    key = key_for(profile, loaded.category_key, category_key)
    with progress_bar(f"Reading {data.name}") as progress:
        result = check_file(loaded, data, alpha=alpha, psi_floor=min_psi, time=time, key=key, progress=progress)
    if warning := batch_warning(result, psi_floor=min_psi):
        click.echo(f"warning: {data.name}: {warning}", err=True)
    if time is not None and not result.by_hour:
        click.echo(f"note: the profile tells no hours of the day apart, so --time {time} changes nothing", err=True)
    if result.design_effects == "unknown" or result.by_hour == "no_time":
        click.echo(f"note: {data.name}: {basis(result)}", err=True)
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(result), indent=2).decode())
    else:
        sentence = basis(result)
        click.echo(f"{sentence[0].upper()}{sentence[1:]}.\n\n{check_text(result, data=data.name)}")
    ctx.exit(1 if result.drift else 0)
