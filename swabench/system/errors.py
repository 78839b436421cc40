"""The two kinds of failure a user can meet, and the exit codes they end in.

Every message names the place (file, key or option), what was found there and what to do.
Anything else that escapes is a bug of ours and keeps its traceback.
"""

import unicodedata


class SwabenchError(Exception):
    """A failure that is told to the user in words, without a traceback."""

    exit_code = 1


class DivergedError(SwabenchError):
    """Some runs' losses left the finite numbers; the others were recorded."""


class InputError(SwabenchError):
    """Wrong usage or input: a study, an option, a data file, a folder that cannot be used."""

    exit_code = 2


def in_short(value: object) -> str:
    """A value as Python writes it, for a message: cut where it is long."""
    return cut(repr(value))


def cut(text: str, most: int = 200) -> str:
    """A text that is cut where it is longer, for a message."""
    return text if len(text) <= most else f"{text[:most]}…"


def printable(text: str) -> str:
    """A text whose control characters are spelled out, ends of lines excepted.

    A terminal would obey them, and they may come from a file that somebody else wrote.
    """
    return "".join(
        ascii(char)[1:-1] if unicodedata.category(char) in ("Cc", "Cs") and char != "\n" else char
        for char in text
    )
