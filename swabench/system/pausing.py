"""Pauses: a signal, or the end of a time budget, asks long work to stop where it can go on.

Where work can pause, the first such signal is only noted, and the work stops at its next safe
point. Elsewhere, and at the second signal, it stops at once.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SAVE_EVERY = 120.0
"""Seconds of work that an interruption may cost, where nothing else is asked for."""

# SIGUSR1 is what SLURM sends before a job's time is up; SIGALRM ends a time budget.
_REASONS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "asked to end (SIGTERM)",
    signal.SIGHUP: "the terminal is gone (SIGHUP)",
    signal.SIGUSR1: "asked to pause (SIGUSR1)",
    signal.SIGALRM: "the time given by --stop-after is up",
}
_ENDING = {signal.SIGTERM, signal.SIGHUP}
"""Signals that end a process: its exit code tells which, as shells have it."""

INTERRUPTED = 130


class Interrupted(KeyboardInterrupt):
    """Work stopped before its end, by a signal or a time budget.

    Like its parent no `except Exception` catches it.

    Attributes:
        exit_code: 130; 128 + the signal's number where that ends processes.
        at_safe_point: Whether it stopped where it can go on; else at once, wherever it was.
    """

    def __init__(
        self, reason: str, exit_code: int = INTERRUPTED, *, at_safe_point: bool = False
    ) -> None:
        super().__init__(reason)
        self.exit_code = exit_code
        self.at_safe_point = at_safe_point


class Pause:
    """Signals and a time limit that ask to pause; they are heard while it listens, and not else.

    Args:
        tell: Takes a line at the moment a wish is noted, in the middle of whatever runs.
    """

    def __init__(self, tell: Callable[[str], None] = lambda line: None) -> None:
        self._tell = tell
        self._wish: Interrupted | None = None
        self._at_safe_points = 0  # pieces of work that stop there

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take over the signals that end or interrupt a process, but for those it ignores."""
        if threading.current_thread() is not threading.main_thread():
            yield  # signals are the main thread's; whoever embeds us handles them
            return
        self._wish = None
        before = {number: signal.getsignal(number) for number in _REASONS}
        # `nohup` and a shell's `&` ignore some on purpose.
        heard = [number for number, now in before.items() if now is not signal.SIG_IGN]
        for number in heard:
            signal.signal(number, self._hear)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number in heard:
                signal.signal(number, before[number])

    def after(self, seconds: float) -> None:
        """Wish a pause some time from now; only while it listens."""
        signal.setitimer(signal.ITIMER_REAL, seconds)

    @contextmanager
    def at_safe_points(self) -> Iterator[None]:
        """Within, a first signal is noted only, for `wished` to tell; the end is a safe point.

        Several pieces of work may be within at a time.

        Raises:
            Interrupted: Somebody wished a pause and nothing within came to stop for it.
        """
        self._at_safe_points += 1
        try:
            yield
        finally:
            self._at_safe_points -= 1
        if self._wish:
            raise self._wish

    @property
    def wished(self) -> Interrupted | None:
        """What to raise at a safe point; None where nobody wishes a pause."""
        return self._wish

    def _hear(self, number: int, frame: FrameType | None) -> None:
        heard = signal.Signals(number)
        code = 128 + number if heard in _ENDING else INTERRUPTED
        first = bool(self._at_safe_points) and not self._wish
        wish = Interrupted(_REASONS[heard], code, at_safe_point=first)
        if not first:
            raise wish
        self._wish = wish
        self._tell("pausing after this step; once more stops at once")
