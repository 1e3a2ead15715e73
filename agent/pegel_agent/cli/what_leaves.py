"""`pegel what-leaves`: the list for the data-protection officer."""

from pathlib import Path

import click


@click.command()
@click.option("--profile", type=click.Path(path_type=Path), required=True, help="From `pegel profile build`.")
@click.option(
    "--output", type=click.Choice(["markdown", "json"]), default="markdown", help="For people or for programs."
)
def command(profile: Path, output: str) -> None:
    """List every metric, label and label value that a sidecar with this profile can publish.

    And what never leaves, what the admin port shows besides, and what to look at before it is allowed: the list for the
    data-protection officer. It is made of the profile alone, so it can be made before anything runs.

    \b
    Example:
      pegel what-leaves --profile profile.json > what-leaves.md
      pegel what-leaves --profile profile.json --output json
    """
    from importlib.metadata import version

    import msgspec

    from pegel_agent.batch.leaves import leaves_of, markdown
    from pegel_agent.reference.profile import load

    loaded = load(profile)
    leaves = leaves_of(loaded, loaded.performance)
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(leaves), indent=2).decode())
    else:
        click.echo(markdown(leaves, version=version("pegel")))
