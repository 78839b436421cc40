"""The two kinds of failure a user can meet, and the exit codes they end in.

Every message names the place (file, key or option), what was found there and what to do.
Anything else that escapes is a bug of ours and keeps its traceback.
"""

import errno
import unicodedata
from pathlib import Path


class SwabenchError(Exception):
    """A failure that is told to the user in words, without a traceback."""

    exit_code = 1


class NoMemoryError(SwabenchError):
    """A device's memory, or the machine's, does not suffice."""


class DivergedError(SwabenchError):
    """Some runs' losses left the finite numbers; they and all others were recorded."""


class InputError(SwabenchError):
    """Wrong usage or input: a study, an option, a data file, a place that cannot be one."""

    exit_code = 2


_NO_SUCH_PLACE = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EINVAL,
)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def not_written(error: OSError, place: Path, elsewhere: str) -> SwabenchError:
    """What to raise where a file or folder cannot be written.

    A place that cannot be one is wrong input. Room or permission that is lacking is a failure:
    the same command may do tomorrow.

    Args:
        error: Why it cannot.
        place: Where, unless the error names a file.
        elsewhere: What to do, such as "choose another folder with --results".
    """
    where = f"{error.filename or place}: cannot be written"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return InputError(f"{where} (a file lies where a folder belongs); {elsewhere}")
    if error.errno in _NO_SUCH_PLACE:
        return InputError(f"{where} ({error.strerror}); {elsewhere}")
    room = "make room, or " if error.errno in _NO_ROOM else ""
    return SwabenchError(f"{where} ({error.strerror or error}); {room}{elsewhere}")


def not_usable(error: OSError) -> SwabenchError:
    """What to say of a file or folder that something failed at."""
    told = f"{error.filename or 'a file'}: {error.strerror or error}; look at its place and rights"
    wrong = error.errno in (*_NO_SUCH_PLACE, errno.EACCES, errno.EPERM)
    return InputError(told) if wrong else SwabenchError(told)


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


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
