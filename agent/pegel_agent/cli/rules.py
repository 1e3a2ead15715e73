"""`pegel rules`: the Prometheus rules as files."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import click
from pegel_exporters.errors import UserError


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


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write texts by file name into a folder, made where missing: all of them or none. Prints their paths.

    Raises UserError when the folder can't be made or written, or a folder is where a file should be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder / name for name in files):
            if path.is_dir():
                raise UserError(f"cannot write {path}: it is a folder")
        with tempfile.TemporaryDirectory(dir=folder, prefix=".pegel-") as drafts:
            for name, text in files.items():
                Path(drafts, name).write_text(text, encoding="utf-8")
            for name in files:
                Path(drafts, name).replace(folder / name)
                click.echo(folder / name)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from error
