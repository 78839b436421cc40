"""Progress with a time to go: a bar on a terminal, plain lines elsewhere.

Code that works long takes a `Progress` and opens tasks on it; `cli/printing.py` decides which kind.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

WORTH_A_LINE = 10.0
"""Seconds after which a piece of work that is done has a line of its own; counts show the rest."""


class Advance(Protocol):
    """Counts units of a task."""

    def __call__(self, units: int, before: bool = False) -> None:
        """Count some more as done; `before` where they took no time now."""


class Progress(Protocol):
    """Shows a user what is done and what is left."""

    def say(self, line: str) -> None:
        """Tell one line."""

    def warn(self, line: str) -> None:
        """Tell one line that matters even to who wants no progress."""

    def tell_done(self, what: str, seconds: float) -> None:
        """Tell that a piece of work is done, and what it took, if that was long."""

    def task(self, name: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        """Open a task of `total` units; the value is called as they are done."""


class SilentProgress:
    """Tells nothing but warnings, and without somebody to take these nothing at all.

    Args:
        warn: Takes warnings.
    """

    def __init__(self, warn: Callable[[str], None] = lambda line: None) -> None:
        self._warn = warn

    def say(self, line: str) -> None:
        """Tell nothing."""

    def warn(self, line: str) -> None:
        """Pass one line on."""
        self._warn(line)

    def tell_done(self, what: str, seconds: float) -> None:
        """Tell nothing."""

    @contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        """A task without output."""
        yield lambda units, before=False: None


class TerminalProgress:
    """A bar that redraws itself, with the elapsed time and the time to go."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, line: str) -> None:
        """Print one line above the bar."""
        self._console.print(line, markup=False, highlight=False)

    def warn(self, line: str) -> None:
        """Print one line above the bar."""
        self.say(line)

    def tell_done(self, what: str, seconds: float) -> None:
        """Print one line above the bar, if it took long."""
        if seconds >= WORTH_A_LINE:
            self.say(f"{what}, {duration(seconds)}")

    @contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        """A task with a bar."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TextColumn("to go"),
            _TimeToGo(),
        )
        with RichProgress(*columns, console=self._console) as bar:
            task = bar.add_task(name, total=total, before=0)

            def advance(units: int, before: bool = False) -> None:
                earlier = bar.tasks[0].fields["before"]
                bar.update(task, advance=units, before=earlier + units * before)

            yield advance


class _TimeToGo(ProgressColumn):
    """From what was done now: what was done before took no time of this task's."""

    def render(self, task: Task) -> Text:
        """The time, as rich writes times."""
        now = task.completed - task.fields["before"]
        if not now or task.elapsed is None or task.total is None:
            return Text("-:--:--")
        to_go = task.elapsed * (task.total - task.completed) / now
        return Text(str(timedelta(seconds=round(to_go))))


class LineProgress:
    """Plain lines for logs and pipes: at most one every `seconds`, and one at the end."""

    def __init__(
        self,
        write: Callable[[str], None],
        seconds: float = 10,
        clock: Callable[[], float] = time.monotonic,
        tells_ends: bool = True,
    ) -> None:
        self._write = write
        self._seconds = seconds
        self._clock = clock
        self._tells_ends = tells_ends

    def say(self, line: str) -> None:
        """Write one line."""
        self._write(line)

    def warn(self, line: str) -> None:
        """Write one line."""
        self._write(line)

    def tell_done(self, what: str, seconds: float) -> None:
        """Write one line, if it took long."""
        if self._tells_ends and seconds >= WORTH_A_LINE:
            self._write(f"{what}, {duration(seconds)}")

    @contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        """A task told in lines."""
        start = last = self._clock()
        done = before_now = 0

        def advance(units: int, before: bool = False) -> None:
            nonlocal done, before_now, last
            done += units
            before_now += units if before else 0
            now = self._clock()
            if now - last >= self._seconds and before_now < done < total:
                last = now
                to_go = (now - start) * (total - done) / (done - before_now)
                self._write(f"{name}: {done} of {total} {unit}, {to_go:.0f} s to go")

        yield advance
        if self._tells_ends:
            self._write(f"{name}: {done} of {total} {unit}, {self._clock() - start:.0f} s")


def duration(seconds: float) -> str:
    """A time in seconds, minutes or hours."""
    if seconds < 90:
        return f"{max(1, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
