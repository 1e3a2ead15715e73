"""`pegel rules`: the Prometheus rules as files."""

from pathlib import Path

import click

from pegel_agent.cli.files import write_files


@click.command()
@click.option(
    "-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write to."
)
@click.option(
    "--format", type=click.Choice(["prometheus", "crd"]), default="prometheus",
    help="Plain rule files, or PrometheusRule objects for the Prometheus operator.",
)  # fmt: skip
@click.option("--accuracy-threshold", type=float, default=0.85, help="Share of right predictions below which to warn.")
@click.option("--time-scale", type=float, default=1.0, help="Factor on every `for`, range and offset, for trials.")
def command(output: Path, format: str, accuracy_threshold: float, time_scale: float) -> None:  # noqa: A002
    """Write the Prometheus rules.

    One file per group. A model gets a threshold of its own from a series, not from an edited rule: see the
    runbook of ModelAccuracyDrift.

    \b
    Example:
      pegel rules -o /etc/prometheus/rules
      pegel rules -o manifests --format crd
    """
    from pegel_rules import Settings, files, groups

    settings = Settings(accuracy_threshold=accuracy_threshold, time_scale=time_scale)
    write_files(output, files(groups(settings), form="crd" if format == "crd" else "prometheus"))
