"""`pegel report`: Evidently's HTML report on two files."""

from pathlib import Path

import click
from pegel_exporters.errors import UserError


@click.command()
@click.option("--reference", type=click.Path(path_type=Path), required=True, help="Rows to compare with.")
@click.option("--current", type=click.Path(path_type=Path), required=True, help="Rows to look at.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="File to write.")
@click.option("--ignore", multiple=True, metavar="COLUMN", help="Leave it out, as an id or a date. May be repeated.")
def command(reference: Path, current: Path, output: Path, ignore: tuple[str, ...]) -> None:
    """Write Evidently's HTML report on two files of rows, CSV or Parquet.

    The report has rows' values in its charts and needs both files in memory. Its tests are Evidently's: they keep no
    budget of false alarms, and call more columns drifted the more rows and columns there are; `pegel check` and
    `pegel backtest` keep one.

    It needs the extra `report`, which has older versions of some packages: give it an environment of its own.

    \b
    Example:
      pegel report --reference train.csv --current march.parquet -o report.html
    """
    from pegel_agent.batch.report import check_output, write_report
    from pegel_agent.cli.profile import progress_bar

    for data in (reference, current):
        if output.exists() and data.exists() and output.samefile(data):
            raise UserError(f"{output} is the data itself; give another file to -o")
    check_output(output)
    with progress_bar("Reading") as progress:
        written = write_report(reference, current, output, ignore=frozenset(ignore), progress=progress)
    for reason in written.left_out:
        click.echo(f"note: left out: {reason}", err=True)
    columns = len(written.columns)
    click.echo(
        f"{output}: Evidently's report on {columns} column{'s' * (columns != 1)}, "
        f"{written.current_rows:,} rows against {written.reference_rows:,}"
    )
