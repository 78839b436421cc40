"""Units of work shared out between the processes of a machine: each is done by one of them."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

Item = TypeVar("Item")
WAIT = 0.2
"""Seconds between looks at what others have in hand."""


def share(
    units: Sequence[Item],
    lock_of: Callable[[Item], FileLock],
    work: Callable[[Item], None],
    say_waits: Callable[[Item], None],
) -> None:
    """Work on every unit under its lock; on those that another process has in hand, afterwards.

    Args:
        units: What is to be done.
        lock_of: The lock of a unit, which all processes share.
        work: Does a unit, unless it turns out to be done: another process may have been faster.
        say_waits: Called when nothing is left but to wait for the process that has a unit.
    """
    left = [(unit, lock_of(unit)) for unit in units]
    waits = False
    while left:
        busy = [pair for pair in left if not _worked_on(*pair, work)]
        if busy and not waits:
            waits = True
            say_waits(busy[0][0])
        elif len(busy) == len(left):
            time.sleep(WAIT)
        left = busy


def _worked_on(unit: Item, lock: FileLock, work: Callable[[Item], None]) -> bool:
    """Work on a unit, if nobody else does now; whether that was so."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    try:
        work(unit)
        # Who waits for it finds the work done, whether the file is still there or not.
        Path(lock.lock_file).unlink(missing_ok=True)
    finally:
        lock.release()
    return True
