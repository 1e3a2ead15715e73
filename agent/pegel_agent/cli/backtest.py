"""`pegel backtest`: what Pegel would have said over recorded traffic."""

from pathlib import Path

import click
from pegel_exporters.errors import UserError

from pegel_agent.cli.options import one_column


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--profile", type=click.Path(path_type=Path), required=True, help="From `pegel profile build`.")
@one_column("--time", help="When each row was served: ISO 8601 (UTC by default) or Unix seconds.")
@click.option("--window", help="A window of time (5m) or of rows (500): by default 5m with --time, else 500.")
@click.option(
    "--false-alarms", metavar="BUDGET",
    help="False alarms at most: 1/30d, or 1/8640w in windows. The default is 1/30d where windows are of time,"
    " else 1/8640w.",
)  # fmt: skip
@click.option("--category-key", type=click.Path(path_type=Path), metavar="FILE", help="The key of hashed categories.")
@click.option(
    "--harmless-drift", default=0.0, type=click.FloatRange(0, 1), metavar="CHI2",
    help="Drift up to this χ² divergence is not reported; 0.01 is a shift of the mean by 0.1 σ.",
)  # fmt: skip
@click.option("--output", type=click.Choice(["table", "json"]), default="table", help="For people or for programs.")
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="A picture, .png or .svg."
)
def command(
    data: Path,
    profile: Path,
    category_key: Path | None,
    time: str | None,
    window: str | None,
    false_alarms: str | None,
    harmless_drift: float,
    output: str,
    plot: Path | None,
) -> None:
    """Run recorded traffic, a CSV or Parquet file, through the sidecar's detector.

    The rows are in the order in which they were served, and the file may be larger than memory. Each window gets a line
    with its evidence; ALARM marks where drift begins, drift where it lasts. Windows of time begin at whole multiples of
    their length (UTC); one without rows gets no line. Windows of rows leave out rows at the end that fill none.

    The whole budget goes to what the file holds: the sidecar keeps parts of it for alarms that need labels or several
    replicas, and so may come a window or two later.

    \b
    Example:
      pegel backtest --profile profile.json march.parquet --time served_at --window 1h --plot march.png
      pegel backtest --profile profile.json traffic.csv --window 500 --false-alarms 1/1000w
      pegel backtest --profile profile.json traffic.csv --output json
    """
    import msgspec

    from pegel_agent.batch.backtest import backtest
    from pegel_agent.batch.backtest_text import backtest_text, notes
    from pegel_agent.cli.profile import progress_bar
    from pegel_agent.reference.keys import key_for
    from pegel_agent.reference.profile import load
    from pegel_agent.statistics.budget import budget_windows, parse_window

    try:
        size = parse_window(window or ("500" if time is None else "5m"))
    except ValueError as error:
        raise UserError(f"--window: {error}") from error
    if size.seconds is not None and time is None:
        raise UserError(f"--window {window}: a window of time needs --time COLUMN; without, write a number of rows")
    try:
        budget = budget_windows(false_alarms, size)
    except ValueError as error:
        raise UserError(f"--false-alarms: {error}") from error
    if plot is not None:
        from pegel_agent.batch.plot import check_output

        check_output(plot)
    loaded = load(profile)
    key = key_for(profile, loaded.category_key, category_key)
    with progress_bar(f"Reading {data.name}") as progress:
        result = backtest(
            loaded,
            data,
            window=size,
            budget_windows=budget,
            time=time,
            tolerance=harmless_drift,
            key=key,
            progress=progress,
        )
    for note in notes(result, data=data.name):
        click.echo(f"note: {note}", err=True)
    if plot is not None:
        from pegel_agent.batch.plot import draw

        draw(
            result,
            plot,
            title=" ".join(word for word in (loaded.model_name, loaded.model_version) if word) or data.name,
        )
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(result), indent=2).decode())
    else:
        click.echo(backtest_text(result, data=data.name))
