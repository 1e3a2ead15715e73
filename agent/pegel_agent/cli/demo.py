"""`pegel demo`."""

import sys

import click
from pegel_exporters.errors import UserError


@click.command()
@click.option("--for", "duration", metavar="DURATION", help="End after this long, at least 30s.")
@click.option("--no-browser", is_flag=True, help="Don't open the status page.")
def command(duration: str | None, no_browser: bool) -> None:
    """Show the whole product on this machine: no cluster, no GPU, no internet.

    A real model is asked about recorded data that begins to drift; labels come late and begin to disagree. The replay
    takes a minute or --for. On a terminal, and without --for, all pages then stay open until Ctrl-C. Ends with a
    summary and leaves nothing behind.

    \b
    Example:
      pegel demo --for 60s
    """
    from pegel_agent.demo.run import run
    from pegel_agent.statistics.budget import parse_duration

    try:
        seconds = parse_duration(duration) if duration else 60.0
    except ValueError as error:
        raise UserError(f"--for: {error}") from error
    run(
        seconds=seconds,
        stay=duration is None and sys.stdout is not None and sys.stdout.isatty(),
        browser=not no_browser,
    )
