"""`pegel profile`: build a reference profile, or show one."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import time as now

import click
from pegel_exporters.errors import UserError

from pegel_agent.cli.options import one_column


@click.group()
def command() -> None:
    """Build or show a reference profile: what a model's data looked like, as counts per bin and never a row.

    \b
    Example:
      pegel profile build train.csv -o profile.json --label price --ignore id
      pegel profile show profile.json
    """


@command.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="File to write.")
@click.option("--label", multiple=True, metavar="COLUMN", help="The true answer; not profiled. May be repeated.")
@click.option("--prediction", multiple=True, metavar="COLUMN", help="What the model answered. May be repeated.")
@one_column("--score", help="How sure the model was, as a probability; profiled as a prediction.")
@click.option("--ignore", multiple=True, metavar="COLUMN", help="Leave it out, as an id or a date. May be repeated.")
@click.option("--categorical", multiple=True, metavar="COLUMN", help="Numbers that are names. May be repeated.")
@click.option("--text", multiple=True, metavar="COLUMN", help="Free text: count it, name nothing. May be repeated.")
@click.option(
    "--tokens", multiple=True, metavar="COLUMN[=PADDING]",
    help="Lists of tokens: count those that are not the padding, by default 0. May be repeated.",
)  # fmt: skip
@click.option(
    "--hash-categories", type=click.Path(path_type=Path), metavar="KEYFILE",
    help="Name categories by a hash with the secret key in this file, which the sidecar then needs too.",
)  # fmt: skip
@one_column("--time", help="When a row was: a date in ISO 8601 or seconds since 1970.")
@click.option("--window", metavar="WINDOW", help="With --time: the sidecar's window, 500 or 5m (the default).")
@click.option("--model-name", default="", help="The model that the data is for.")
@click.option("--model-version", default="", help="Its version.")
def build(
    data: Path,
    output: Path,
    label: tuple[str, ...],
    prediction: tuple[str, ...],
    score: str | None,
    ignore: tuple[str, ...],
    categorical: tuple[str, ...],
    text: tuple[str, ...],
    tokens: tuple[str, ...],
    hash_categories: Path | None,
    time: str | None,
    window: str | None,
    model_name: str,
    model_version: str,
) -> None:
    """Build a profile from a CSV or Parquet file of reference rows, which may be larger than memory.

    The file is read twice. A column of numbers gets up to 20 intervals that hold about as many rows each, and a bin for
    each value that many rows share; a column of text gets a bin for each of its 64 most frequent values. Nothing that
    fewer than ten rows share is named in the profile, and a column of text without more, as an id, is left out.

    Sentences, of which hardly two are alike, have no categories: of them the length, the words and the share of what is
    no letter are profiled, as `length of comment`, and whether they are there. A column is taken for such text where it
    has four words or more on average and most rows share it with no nine others; --text and --categorical decide.

    Of lists of --tokens it is profiled how many a row has: of an attention mask the ones, or of token ids all but the
    padding, which some models write as another number: --tokens input_ids=50256.

    Where inputs that are numbers explain each other, as a flat's area and its rooms do, up to ten such relations are
    profiled too: they change when the inputs no longer go together, though each by itself looks as ever.

    With one --label and one --prediction the profile says how often the model was right on these rows, which is what
    labels that come later are compared with; with --score also how much its scores are worth.

    With --hash-categories the profile, and so the metrics, name no category of any feature; `pegel sidecar`, `check`
    and `backtest` take the same key with --category-key. The classes that labels are compared with keep their names.

    With --time Pegel learns how much rows resemble the rows before them, and how the hours of the day differ, so that
    neither passes for drift. Rows may be in any order; for a --window of rows, more than 33 million rows must be in
    order of time.

    A CSV file is UTF-8, its fields separated by commas, semicolons or tabs, as its header has it. With semicolons,
    numbers may have a decimal comma.

    \b
    Example:
      pegel profile build train.parquet -o profile.json \\
        --label churned --prediction predicted --score probability --categorical postcode --time at
    """
    from pegel_agent.batch.text import order_note, reference_warning, short, what_it_can_show
    from pegel_agent.reference.build import Roles, build_profile
    from pegel_agent.reference.keys import read_key
    from pegel_agent.reference.performance import PerformanceCollector
    from pegel_agent.reference.profile import save
    from pegel_agent.statistics.budget import parse_window

    if window is not None and time is None:
        raise UserError("--window goes with --time, which says in what order the rows came")
    try:
        size = parse_window(window or "5m")
    except ValueError as error:
        raise UserError(f"--window: {error}") from error
    if output.exists() and data.exists() and output.samefile(data):
        raise UserError(f"{output} is the data itself; give another file to -o")
    if not output.resolve().parent.is_dir():
        raise UserError(f"cannot write {output}: there is no folder {output.parent}")
    answers = frozenset(prediction) | ({score} if score is not None else frozenset())
    roles = Roles(
        frozenset(label), answers, frozenset(ignore), frozenset(categorical), time, frozenset(text), _paddings(tokens)
    )
    compared = len(label) == len(prediction) == 1
    for name in (label[0], prediction[0], score) if compared else ():
        if name in roles.tokens:
            raise UserError(f"--tokens {name}: what labels and predictions are compared by can't be lists")
    if score is not None and not compared:
        raise UserError("--score goes with one --label and one --prediction, to learn what a score is worth")
    key = read_key(hash_categories) if hash_categories is not None else None
    with progress_bar(f"Reading {data.name}") as progress:
        profile = build_profile(
            data,
            roles=roles,
            model_name=model_name,
            model_version=model_version,
            created=now(),
            window=size,
            performance=PerformanceCollector(label[0], prediction[0], score) if compared else None,
            key=key,
            progress=progress,
        )
    save(profile, output)
    relations = len(profile.watched) - len(profile.features)
    related = f" and {relations} relation{'s' * (relations != 1)}" if relations else ""
    click.echo(
        f"{output}: profile {profile.hash} of {len(profile.features)} features{related} from {profile.rows:,} rows; "
        f"{what_it_can_show(profile)}"
    )
    profiled = {feature.name for feature in profile.features}
    for name in roles.columns(data):
        if name not in profiled:
            click.echo(f"note: {short(name)} is left out: it has no number, and no text that ten rows share", err=True)
    if profile.order is not None and profile.order.state == "unknown":
        click.echo(f"warning: {output.name}: {order_note(profile)}", err=True)
    else:
        click.echo(order_note(profile))
    if warning := reference_warning(profile):
        click.echo(f"warning: {output.name}: {warning}", err=True)


def _paddings(tokens: tuple[str, ...]) -> dict[str, int]:
    """The padding by column of what --tokens says: a column, and perhaps a whole number."""
    from pegel_agent.reference.tokens import is_padding

    found: dict[str, int] = {}
    for one in tokens:
        column, _, padding = one.rpartition("=")
        if column and not (re.fullmatch(r"-?\d{1,19}", padding) and is_padding(int(padding))):
            raise UserError(f"--tokens {one}: {padding!r} is no whole number of 64 bits")
        if (column or one) in found:
            raise UserError(f"--tokens: column {column or one!r} is given twice")
        found[column or one] = int(padding) if column else 0
    return found


@command.command()
@click.argument("profile", type=click.Path(path_type=Path))
@click.option("--output", type=click.Choice(["table", "json"]), default="table", help="For people or for programs.")
def show(profile: Path, output: str) -> None:
    """Show a profile: its features, their ranges and what share is missing.

    \b
    Example:
      pegel profile show profile.json
    """
    import msgspec

    from pegel_agent.batch.text import profile_text
    from pegel_agent.reference.detection import smallest_shift_of
    from pegel_agent.reference.profile import load, unpacked

    loaded = load(profile)
    if output == "table":
        click.echo(profile_text(loaded))
        return
    document = msgspec.to_builtins(loaded) | {
        "hash": loaded.hash,
        "order": loaded.order,
        "smallest_shift": smallest_shift_of(loaded),
        "features": [
            {
                "name": feature.name,
                "kind": feature.kind,
                "role": feature.role,
                "design_effects": feature.design_effects,
                "heterogeneity": feature.heterogeneity,
                "hours": unpacked(feature.hours, len(feature.counts)).tolist(),
                "bins": [
                    {"bin": name, "rows": rows} for name, rows in zip(feature.bins.names, feature.counts, strict=True)
                ],
            }
            for feature in loaded.watched
        ],
    }
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[float], None] | None]:
    """A bar on standard error that is told the share that is done; None where nobody watches."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    steps = 1_000
    with click.progressbar(length=steps, label=label, file=sys.stderr) as bar:
        yield lambda share: bar.update(int(share * steps) - bar.pos)
