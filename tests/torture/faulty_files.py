"""A file layer that fails, or ends the process, at a chosen write.

Whatever the program writes goes through a few functions; each call of one of them is a write
here, numbered from 0 in the order of a run. What it removes, and its lock files, are no writes.
"""

import errno
import itertools
import os
import pathlib
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

Kill = Literal["kill before", "kill within", "kill after"]
Failure = Literal["ENOSPC", "EIO", "EACCES", "short"]
Kind = Kill | Failure | Literal["none"]
KILLS: tuple[Kind, ...] = get_args(Kill)
FAILURES: tuple[Kind, ...] = get_args(Failure)


def let_the_clock_jump() -> None:
    """By a day and more, forwards and backwards, whenever somebody looks at it."""
    real, jumps = time.time, itertools.cycle([0.0, 1e5, -1e5, 3e6])
    time.time = lambda: real() + next(jumps)


class FaultyFiles:
    """Counts writes, and lets one of them go wrong.

    Args:
        number: Which write.
        kind: How. A `short` write leaves half of its bytes and then finds the disk full.
        note: A file that gets the number of writes so far, one byte each; None to keep no count.
    """

    def __init__(self, number: int = -1, kind: Kind = "none", note: Path | None = None) -> None:
        self._number = number
        self._kind = kind
        self._writes = 0
        self._note = os.open(note, os.O_CREAT | os.O_WRONLY | os.O_APPEND) if note else None

    def install(self) -> None:
        """Stand between the program and its files, in this process alone."""
        from swabench.runs import features

        self._wrap_content(pathlib.Path, "write_bytes", lambda data: data[: len(data) // 2])
        self._wrap_content(pathlib.Path, "write_text", lambda data: data[: len(data) // 2])
        self._wrap(os, "replace")
        self._wrap(features, "save_file")

    def _wrap(self, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            return self._write(lambda: original(*arguments, **options), lambda: None)

        setattr(owner, name, wrapped)

    def _wrap_content(self, owner: Any, name: str, half: Callable[[Any], Any]) -> None:
        original = getattr(owner, name)

        def wrapped(path: Path, data: Any, *rest: Any, **options: Any) -> Any:
            return self._write(
                lambda: original(path, data, *rest, **options),
                lambda: original(path, half(data), *rest, **options),
            )

        setattr(owner, name, wrapped)

    def _write(self, whole: Callable[[], Any], half: Callable[[], Any]) -> Any:
        mine = self._writes == self._number
        self._writes += 1
        if self._note is not None:
            os.write(self._note, b".")
        if not mine or self._kind == "none":
            return whole()
        if self._kind in FAILURES:
            if self._kind == "short":
                half()
            code = getattr(errno, "ENOSPC" if self._kind == "short" else self._kind)
            raise OSError(code, os.strerror(code))
        if self._kind == "kill within":
            half()
        elif self._kind == "kill after":
            whole()
        os.kill(os.getpid(), signal.SIGKILL)
        return None
