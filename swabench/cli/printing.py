"""The only module that prints: results on standard output, progress and errors beside it."""

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Never

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from swabench.system.errors import printable
from swabench.system.progress import LineProgress, Progress, SilentProgress, TerminalProgress

if TYPE_CHECKING:  # pandas takes long to import, and `--help` needs none
    import pandas as pd

out = Console(emoji=False)  # else `:x:` in a study's title becomes a picture
err = Console(stderr=True, emoji=False)

LOG_WIDTH = 160
"""Columns of a table that is written to a file or a pipe, which have no width of their own."""


def say(text: str, *, to: Console = out) -> None:
    """Print a line as it is, control characters spelled out."""
    to.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def stop(message: str, code: int) -> Never:
    """End the command with a message and an exit code."""
    say(message, to=err)
    raise typer.Exit(code)


def say_at_once(line: str) -> None:
    """Write a line to standard error in the middle of whatever runs, which may be printing."""
    with suppress(OSError):  # the terminal may be gone, which is what a signal may say
        os.write(2, f"\n{line}\n".encode())


def say_json(content: Mapping[str, Any]) -> None:
    """Print an object as JSON; what is not a number becomes null, as JSON has no NaN."""
    # JSON can spell what an encoding lacks.
    spelled = not (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    print(json.dumps(_plain(content), indent=1, ensure_ascii=spelled, allow_nan=False))  # noqa: T201


def _plain(value: Any) -> Any:
    """A value as JSON knows it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def progress(quiet: bool = False) -> Progress:
    """A bar on a terminal, lines elsewhere, nothing where it was asked to be quiet."""
    if quiet:
        return SilentProgress(lambda line: say(line, to=err))
    if err.is_terminal:
        return TerminalProgress(err)
    return LineProgress(lambda line: print(printable(line), file=sys.stderr, flush=True))  # noqa: T201


def print_table(title: str, shown: "pd.DataFrame", console: Console | None = None) -> None:
    """Print a table; columns whose entries all begin with a letter are words, others numbers.

    The first column names the rows and is never cut or folded, however narrow the terminal.
    """
    drawn = Table(title=Text(title), title_justify="left")
    for place, column in enumerate(shown.columns):
        begin = {str(cell)[:1] for cell in shown[column]} - {"—"}
        words = place == 0 or (bool(begin) and all(map(str.isalpha, begin)))
        drawn.add_column(
            Text(str(column)),
            justify="left" if words else "right",
            no_wrap=place == 0,
            min_width=max(map(len, shown[column].astype(str))) if place == 0 else None,
            overflow="fold",
        )
    for row in shown.astype(str).itertuples(index=False):
        drawn.add_row(*(Text(cell) for cell in row))
    (console or Console(width=None if out.is_terminal else LOG_WIDTH)).print(drawn)


def numbers(values: Sequence[float]) -> str:
    """Numbers with six decimals."""
    return ", ".join(f"{value:.6f}" for value in values)
