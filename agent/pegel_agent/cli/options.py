"""Options that several commands have."""

from collections.abc import Callable
from typing import Any

import click


class _Column(click.types.StringParamType):
    """The name of a column, with its spaces and commas, in the environment too."""

    def split_envvar_value(self, rv: str) -> list[str]:
        return [rv]


def one_column(name: str, *, help: str) -> Callable[[Any], Any]:  # noqa: A002
    """An option that names one column. Naming two is refused: click would silently take the last."""
    return click.option(name, multiple=True, type=_Column(), callback=_one, metavar="COLUMN", help=help)


def _one(_: click.Context, parameter: click.Parameter, names: tuple[str, ...]) -> str | None:
    if len(set(names)) > 1:
        raise click.UsageError(f"{parameter.opts[0]} names one column, and not {' and '.join(map(repr, names))}.")
    return names[0] if names else None
