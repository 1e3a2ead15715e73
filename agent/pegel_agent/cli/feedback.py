"""`pegel feedback`: labels from a file to every replica."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pegel_exporters.errors import UserError

if TYPE_CHECKING:
    from pegel_agent.cluster.feedback_client import Outcome


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--to", multiple=True, required=True, metavar="URL",
    help="The sidecars' admin port, through a headless Service; may be repeated.",
)  # fmt: skip
@click.option("--token", type=click.Path(), metavar="FILE", help="Bearer token, where --feedback-token guards labels.")
def command(file: Path, to: tuple[str, ...], token: str | None) -> int:
    """Send labels from a CSV, Parquet or NDJSON file to every replica of a model.

    Columns (or fields): label, and id or prediction; as needed row, score, ts, predicted_ts, model_name, model_version.
    Others stay in the file. The whole file is checked first: where a line is no label, none is sent.

    A label with an id goes to all replicas, because only the one that served the request can join it; to the others the
    id is unknown, which is no error. A label that brings its prediction goes to one. What fails is tried five times in
    all; where a replica breaks off after it took them, labels with a prediction and no id can count twice.

    Exit code 0: sent, known or not; 2: some were rejected, a replica could not be reached, or nothing could be sent.

    \b
    Example:
      pegel feedback labels.csv --to http://churn-pegel.shop.svc:9466
      pegel feedback labels.parquet --to https://churn-pegel.shop.svc:9466 --token /var/run/pegel/token
    """
    from pegel_exporters.serving import read_token

    from pegel_agent.batch.labels import read_labels
    from pegel_agent.cli.profile import progress_bar
    from pegel_agent.cluster.feedback_client import Sender, batches, replicas

    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log a line for each call
    secret = read_token(token)
    with progress_bar(f"Checking {file.name}") as progress:
        labels = sum(1 for _ in read_labels(file, progress=progress))
    if not labels:
        raise UserError(f"{file} has no labels")
    found = replicas(to)
    with progress_bar(f"Sending {file.name}") as progress, Sender(found, token=secret) as sender:
        for batch in batches(read_labels(file)):
            sender.send(batch)
            if progress:
                progress(sender.outcome.labels / labels)
        outcome = sender.outcome
    return _report(file.name, outcome, len(found))


def _report(name: str, outcome: "Outcome", replicas: int) -> int:
    parts = [f"{outcome.counted:,} counted"]
    if outcome.repeated:
        parts.append(f"{outcome.repeated:,} sent before")
    if outcome.unknown:
        parts.append(f"{outcome.unknown:,} of a request that no replica knows yet, which waits for ten minutes")
    if outcome.rejected:
        parts.append(f"{outcome.rejected:,} rejected ({outcome.reason})")
    click.echo(
        f"{name}: {outcome.labels:,} label{'s' * (outcome.labels != 1)} to {replicas} "
        f"replica{'s' * (replicas != 1)}: {', '.join(parts)}"
    )
    for replica, lost in outcome.lost.items():
        click.echo(
            f"warning: {replica} was not told of {lost.labels:,} labels and may be the one that knows them: {lost.why}",
            err=True,
        )
    return 2 if outcome.rejected or outcome.lost else 0
