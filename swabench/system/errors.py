"""The two kinds of failure a user can meet, and the exit codes they end in.

Every message names the place (file, key or option), what was found there and what to do.
Anything else that escapes is a bug of ours and keeps its traceback.
"""


class SwabenchError(Exception):
    """A failure that is told to the user in words, without a traceback."""

    exit_code = 1


class DivergedError(SwabenchError):
    """Some runs' losses left the finite numbers; they and all others were recorded."""


class InputError(SwabenchError):
    """Wrong usage or input: a study, an option, a data file, a folder that cannot be used."""

    exit_code = 2
