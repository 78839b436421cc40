"""One figure of a study: its files and its words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from matplotlib.figure import Figure

Format = Literal["png", "svg"]
FORMATS: tuple[Format, ...] = ("png", "svg")


class Drawn(NamedTuple):
    """A figure before it becomes a picture.

    Attributes:
        figure: The figure.
        caption: What it shows.
        lacking: Which runs are missing; empty where none are.
        diverged: Which runs diverged, and what that does to the figure; empty where none did.
    """

    figure: Figure
    caption: str
    lacking: str = ""
    diverged: str = ""


@dataclass(frozen=True)
class Picture:
    """One figure of a study, or why there is none.

    Attributes:
        name: Stem of its file names.
        caption: What it shows, in a sentence or two; plain text.
        content: The files, by format; empty where it was skipped.
        note: What stands under it: what it lacks, and what diverged; empty where neither is.
        skipped: Why it was not drawn; empty where it was.
        lacking: What it lacks; empty where it lacks nothing.
    """

    name: str
    caption: str
    content: Mapping[Format, bytes]
    note: str = ""
    skipped: str = ""
    lacking: str = ""


class CannotDrawError(Exception):
    """A figure's inputs are not there; says which."""
