"""`pegel dashboards`: the Grafana dashboards as files."""

from pathlib import Path

import click

from pegel_agent.cli.files import write_files


@click.command()
@click.option(
    "-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write to."
)
@click.option(
    "--format", type=click.Choice(["json", "configmap"]), default="json",
    help="Files to import or provision, or ConfigMaps for Grafana's sidecar.",
)  # fmt: skip
def command(output: Path, format: str) -> None:  # noqa: A002
    """Write the Grafana dashboards.

    Each asks for its Prometheus data source when it is opened.

    \b
    Example:
      pegel dashboards -o /var/lib/grafana/dashboards
      pegel dashboards -o manifests --format configmap
    """
    from pegel_dashboards import files

    write_files(output, files(form="configmap" if format == "configmap" else "json"))
