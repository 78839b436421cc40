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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

Kill = Literal["kill before", "kill within", "kill after"]
Failure = Literal["ENOSPC", "EIO", "EACCES", "short"]
Kind = Kill | Failure | Literal["none"]
KILLS: tuple[Kind, ...] = get_args(Kill)
FAILURES: tuple[Kind, ...] = get_args(Failure)

WHOLE_OR_NOT: tuple[Kind, ...] = ("kill before", "kill after", "ENOSPC", "EIO", "EACCES")
"""What can happen to a rename, which has no half."""


def let_the_clock_jump() -> None:
    """By a day and more, forwards and backwards, whenever somebody looks at it."""
    real, jumps = time.time, itertools.cycle([0.0, 1e5, -1e5, 3e6])
    time.time = lambda: real() + next(jumps)


@dataclass(frozen=True)
class Write:
    """A write of a run.

    Attributes:
        is_rename: Whether a file is renamed; else its content is written.
        path: The file that is written to, or the new name.
    """

    is_rename: bool
    path: Path


class FaultyFiles:
    """Takes down writes, and lets one of them go wrong.

    Args:
        number: Which write.
        kind: How. A `short` write leaves half of its bytes and then finds the disk full.
        note: A file that gets a line for each write; None to take down none.
    """

    def __init__(self, number: int = -1, kind: Kind = "none", note: Path | None = None) -> None:
        self._number = number
        self._kind = kind
        self._writes = 0
        self._note = os.open(note, os.O_CREAT | os.O_WRONLY | os.O_APPEND) if note else None

    def install(self) -> None:
        """Stand between the program and its files, in this process alone."""
        from swabench.runs import cache

        self._wrap_content(pathlib.Path, "write_bytes")
        self._wrap_content(pathlib.Path, "write_text")
        self._wrap_replace()
        self._wrap_save_file(cache)

    def _wrap_replace(self) -> None:
        original = os.replace

        def wrapped(source: Any, target: Any) -> None:
            self._write(Write(True, Path(target)), lambda: original(source, target), lambda: None)

        os.replace = wrapped  # type: ignore[assignment]

    def _wrap_save_file(self, owner: Any) -> None:
        original = owner.save_file

        def wrapped(tensors: Any, path: Path) -> None:
            def half() -> None:
                original(tensors, path)
                os.truncate(path, Path(path).stat().st_size // 2)

            self._write(Write(False, Path(path)), lambda: original(tensors, path), half)

        owner.save_file = wrapped

    def _wrap_content(self, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def wrapped(path: Path, data: Any, *rest: Any, **options: Any) -> Any:
            return self._write(
                Write(False, path),
                lambda: original(path, data, *rest, **options),
                lambda: original(path, data[: len(data) // 2], *rest, **options),
            )

        setattr(owner, name, wrapped)

    def _write(self, write: Write, whole: Callable[[], Any], half: Callable[[], Any]) -> Any:
        mine = self._writes == self._number
        self._writes += 1
        if self._note is not None:
            os.write(self._note, f"{int(write.is_rename)} {write.path}\n".encode())
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


def writes_in(note: Path) -> tuple[Write, ...]:
    """The writes that were taken down."""
    lines = (line.split(" ", 1) for line in note.read_text().splitlines())
    return tuple(Write(is_rename == "1", Path(path)) for is_rename, path in lines)
