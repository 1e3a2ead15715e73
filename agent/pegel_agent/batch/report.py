"""Evidently's HTML report on two files. Evidently is imported only here: with it come 280 MB and three seconds."""

import importlib.util
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pegel_exporters.errors import UserError
from pegel_exporters.files import write_whole

from pegel_agent.reference import tables
from pegel_agent.reference.columns import Column, as_texts

_MOST_CATEGORIES = 1_000
"""Evidently draws each category, which takes it minutes for a column of ids."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a report is on: its columns, the rows of both files, and why other columns are not in it."""

    columns: tuple[str, ...]
    reference_rows: int
    current_rows: int
    left_out: tuple[str, ...]


def check_output(path: Path) -> None:
    """Raises UserError where a report can't be made or written to this file, before anything is read."""
    if not path.absolute().parent.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {path.parent}")
    # Importing it takes seconds, which a mistake in what follows need not cost.
    if importlib.util.find_spec("evidently") is None:
        raise UserError("the report needs evidently, in an environment of its own: pip install 'pegel[report]'")


def write_report(
    reference: Path, current: Path, output: Path, *, ignore: frozenset[str], progress: tables.Progress | None = None
) -> Written:
    """Write the report, whole or not at all.

    Both files are read whole. In it are the columns that both have, but for those to ignore, empty ones and text of
    more than 1,000 values. Raises UserError for files that can't be read or have no such column.
    """
    names, theirs = tables.column_names(reference), tables.column_names(current)
    for name in sorted(ignore):
        if name not in names and name not in theirs:
            raise UserError(f"neither file has a column {name!r} to ignore; {reference} has {', '.join(names)}")
    shared = tuple(name for name in names if name in theirs and name not in ignore)
    if not shared:
        raise UserError(f"{reference} and {current} have no column in common; the first has {', '.join(names)}")
    tell = progress or (lambda _: None)
    before = _columns(reference, shared, lambda share: tell(share / 2))
    now = _columns(current, shared, lambda share: tell(0.5 + share / 2))
    left_out = [
        f"{name} is in {here.name} only"
        for here, mine, other in ((reference, names, theirs), (current, theirs, names))
        for name in mine
        if name not in other and name not in ignore
    ]
    kept = {}
    for name in shared:
        columns = _alike(before[name], now[name])
        if reason := _why_not(*columns):
            left_out.append(f"{name} {reason}")
        else:
            kept[name] = columns
    if not kept:
        raise UserError(f"no column is left to report on: {'; '.join(left_out)}")
    _write(kept, output)
    rows = len(before[shared[0]]), len(now[shared[0]])
    return Written(tuple(kept), *rows, tuple(left_out))


def _columns(path: Path, names: tuple[str, ...], progress: tables.Progress) -> dict[str, Column]:
    parts: dict[str, list[Column]] = {name: [] for name in names}
    for batch in tables.read(path, names, progress=progress):
        for name in names:
            parts[name].append(batch[name])
    columns = {name: _joined(found) for name, found in parts.items() if found}
    if not columns or not len(columns[names[0]]):
        raise UserError(f"{path} has no rows")
    return columns


def _joined(parts: list[Column]) -> Column:
    """One column of a file's batches: numbers if all are, else text."""
    if any(part.dtype == object for part in parts):
        parts = [part if part.dtype == object else as_texts(part) for part in parts]
    return np.concatenate(parts)


def _alike(before: Column, now: Column) -> tuple[Column, Column]:
    """Both files' columns as numbers if both are, else as text."""
    if before.dtype == now.dtype:
        return before, now
    return (
        before if before.dtype == object else as_texts(before),
        now if now.dtype == object else as_texts(now),
    )


def _why_not(before: Column, now: Column) -> str:
    """Why Evidently can't take a column, empty where it can."""
    for values in (before, now):
        if values.dtype != object:
            if np.isnan(values).all():
                return "has no value"
        elif not (distinct := {value for value in values.tolist() if value is not None}):
            return "has no value"
        elif len(distinct) > _MOST_CATEGORIES:
            return f"has {len(distinct):,} different texts"
    return ""


def _write(columns: dict[str, tuple[Column, Column]], output: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's and plotly's, which are no news to a reader of the report
        html = _html(columns)
    write_whole(output, html.encode())


def _html(columns: dict[str, tuple[Column, Column]]) -> str:
    # Pegel tells nobody of what it reads, and neither may a library.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    import pandas as pd  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: PLC0415
    from evidently import (  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415
        DataDefinition,
        Dataset,
        Report,
    )
    from evidently.presets import DataDriftPreset  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

    numbers = [name for name, (before, _) in columns.items() if before.dtype != object]
    definition = DataDefinition(
        numerical_columns=numbers, categorical_columns=[name for name in columns if name not in numbers]
    )
    before, now = (
        Dataset.from_pandas(pd.DataFrame({name: pair[side] for name, pair in columns.items()}), definition)
        for side in (0, 1)
    )
    # Its save_html takes a file object too, and writes nothing to it.
    html: str = Report([DataDriftPreset()]).run(now, before).get_html_str(as_iframe=False)
    return html
