"""One figure of a study: its files and its words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from matplotlib.figure import Figure

Format = Literal["png", "svg"]
FORMATS: tuple[Format, ...] = ("png", "svg")

Drawn = tuple[Figure, str, str]
"""A figure, its caption, and a note of what it lacks; the note is empty where it lacks nothing."""


@dataclass(frozen=True)
class Picture:
    """One figure of a study, or why there is none.

    Attributes:
        name: Stem of its file names.
        caption: What it shows, in a sentence or two; plain text.
        content: The files, by format; empty where it was skipped.
        note: What it lacks; empty where it lacks nothing.
        skipped: Why it was not drawn; empty where it was.
    """

    name: str
    caption: str
    content: Mapping[Format, bytes]
    note: str = ""
    skipped: str = ""


class CannotDrawError(Exception):
    """A figure's inputs are not there; says which."""
