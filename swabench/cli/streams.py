"""Standard output and error that end a command in words or quietly, never in a traceback."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

CLOSED = 141
"""Exit code where whoever reads the output went away, as `head` does.

It is what a shell shows of every program that a closed pipe ends (128 and SIGPIPE's number), so
that scripts know it. Not 0: what was still to be done was not done.
"""


class _Stream(io.TextIOWrapper):
    """A stream that leaves the program where it cannot be written."""

    is_result = True

    def write(self, text: str) -> int:
        with self._left_if_unwritable():
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with self._left_if_unwritable():
            super().flush()

    @contextmanager
    def _left_if_unwritable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # What is left of it goes nowhere, or Python would fail at it once more on its way out.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if error.errno == errno.EPIPE:
                raise SystemExit(CLOSED) from None
            if not self.is_result:  # progress and errors that nobody can be told
                return
            told = (
                f"error: standard output: cannot be written ({error.strerror}); send it elsewhere"
            )
            with suppress(OSError):
                os.write(2, f"{told}\n".encode())
            raise SystemExit(1) from None


@contextmanager
def tolerant_streams() -> Iterator[None]:
    """Within it, what is printed ends in no traceback.

    A character that a stream's encoding lacks is a question mark. A pipe that was closed ends the
    program, and so does a disk without room for results.
    """
    before = sys.stdout, sys.stderr
    sys.stdout = _tolerant(sys.stdout, is_result=True)
    sys.stderr = _tolerant(sys.stderr, is_result=False)
    try:
        yield
    finally:
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
        finally:
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, _Stream):
                    stream.detach()  # or its end would close what it writes to
            sys.stdout, sys.stderr = before


def _tolerant(stream: TextIO, is_result: bool) -> TextIO:
    """A stream of the process, made tolerant; a stand-in for one, or none at all, is as it was."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    tolerant = _Stream(
        stream.buffer,
        encoding=stream.encoding,
        errors="replace" if stream.errors == "strict" else stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    tolerant.is_result = is_result
    return tolerant
