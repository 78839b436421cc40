"""Units of work shared out between the processes of a machine: each is done by one of them.

Within a process several may go on side by side, a turn each.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from filelock import FileLock, Timeout

from swabench.runs.lanes import Lane, Lanes, Turns
from swabench.system.errors import NoMemoryError
from swabench.system.pausing import Interrupted
from swabench.training.loop import Stopped

Item = TypeVar("Item")
WAIT = 0.2
"""Seconds between looks at what others have in hand."""


def share(
    units: Sequence[Item],
    lock_of: Callable[[Item], FileLock],
    work: Callable[[Item], Turns],
    say_waits: Callable[[Item], None],
    lanes: Lanes | None = None,
) -> None:
    """Work on every unit under its lock; on those that another process has in hand, afterwards.

    Args:
        units: What is to be done.
        lock_of: The lock of a unit, which all processes share.
        work: Does a unit, unless it turns out to be done: another process may have been faster.
        say_waits: Called when nothing is left but to wait for the process that has a unit.
        lanes: Where units go on side by side; one after another without them.

    Raises:
        Interrupted: A pause was wished. Where it came at a safe point all units stopped at theirs.
    """
    _Sharing(units, lock_of, work, say_waits, lanes or Lanes()).run()


@dataclass(frozen=True)
class _Piece(Generic[Item]):
    """A unit that is under way."""

    unit: Item
    turns: Turns
    lock: FileLock
    lane: Lane


class _Sharing(Generic[Item]):
    def __init__(
        self,
        units: Sequence[Item],
        lock_of: Callable[[Item], FileLock],
        work: Callable[[Item], Turns],
        say_waits: Callable[[Item], None],
        lanes: Lanes,
    ) -> None:
        self._left = [(unit, lock_of(unit)) for unit in units]
        self._work = work
        self._say_waits = say_waits
        self._lanes = lanes
        self._under_way: list[_Piece[Item]] = []
        self._interruptions: list[Interrupted] = []
        self._look_again = 0.0
        self._waits = False

    def run(self) -> None:
        try:
            while self._under_way or (self._left and not self._interruptions):
                if not self._under_way or time.monotonic() >= self._look_again:
                    self._begin_what_is_free()
                for piece in list(self._under_way):
                    self._take_turn(piece)
        except Exception:
            self._stop_all()
            raise
        finally:
            for piece in list(self._under_way):
                self._end(piece)
        if self._interruptions:
            raise self._interruption()

    def _begin_what_is_free(self) -> None:
        """Begin units that no other process has in hand, as far as there is room."""
        self._look_again = time.monotonic() + WAIT
        for pair in list(self._left):
            if self._interruptions or not self._lanes.have_room:
                return
            unit, lock = pair
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            self._left.remove(pair)
            piece = _Piece(unit, self._work(unit), lock, self._lanes.enter())
            self._under_way.append(piece)
            self._take_turn(piece)  # what it takes decides whether there is room for the next
        if self._left and not self._under_way and not self._interruptions:
            self._wait()

    def _wait(self) -> None:
        """All that is left others have in hand."""
        if not self._waits:
            self._waits = True
            self._say_waits(self._left[0][0])
        time.sleep(WAIT)

    def _take_turn(self, piece: _Piece[Item]) -> None:
        try:
            piece.lane.take_turn(piece.turns)
            return
        except StopIteration:
            # Who waits for it finds the work done, whether the file is still there or not.
            Path(piece.lock.lock_file).unlink(missing_ok=True)
        except Interrupted as interruption:
            if not interruption.at_safe_point:
                raise
            self._interruptions.append(interruption)  # others keep theirs, too
        except NoMemoryError:
            if len(self._under_way) == 1:
                raise
            self._lanes.narrow()  # it goes on later, beside fewer
            self._left.append((piece.unit, piece.lock))
        self._end(piece)

    def _stop_all(self) -> None:
        """After an error: what the others have done is kept."""
        for piece in self._under_way:
            with suppress(Exception):
                piece.lane.stop(piece.turns, Stopped())

    def _end(self, piece: _Piece[Item]) -> None:
        self._under_way.remove(piece)
        self._lanes.leave(piece.lane)
        piece.lock.release()

    def _interruption(self) -> Interrupted:
        """The first, and how many stopped with it."""
        first, *others = self._interruptions
        more = f"; so did {len(others)} beside it" if others else ""
        return Interrupted(f"{first}{more}", first.exit_code, at_safe_point=True)
