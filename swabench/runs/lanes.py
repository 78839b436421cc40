"""Lanes: how many pieces of work go on side by side in one process, a turn each.

A minibatch of small images is too little for a large GPU: its kernels last some microseconds each
and leave most of it idle. Several trajectories at a time, each on a stream of its own, fill it. On
a CPU there is one lane.
"""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache

import torch

Turns = Generator[None, None, None]
"""A piece of work that lets others go on wherever it yields."""

MOST = 6
"""Lanes of a GPU; `tests/gpu/kernels.py` measures what they bring."""

SPARE = 3
"""Another piece of work begins where this many times a piece's memory is free on the GPU.

To measure takes more memory than the steps do, and comes later.
"""


class Lanes:
    """The lanes of one process, for pieces of work that take much the same.

    Args:
        device: The GPU that the work is done on; None where it is none.
        most: How many there are at most; by default `MOST` on a GPU, and one elsewhere.
        clock: Tells seconds that never go back.
    """

    def __init__(
        self,
        device: torch.device | None = None,
        most: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gpu = device if device is not None and device.type == "cuda" else None
        self._most = most or (MOST if self._gpu else 1)
        streams = range(self._most)
        self._free = [_stream(self._gpu, number) if self._gpu else None for number in streams]
        self._under_way = 0
        self._footprint = 0  # bytes
        self._clock = clock
        self._shared, self._looked_at = 0.0, clock()

    @property
    def have_room(self) -> bool:
        """Whether another piece of work can begin. It takes a while to find out on a GPU."""
        if self._under_way >= self._most:
            return False
        if not self._under_way or self._gpu is None:
            return True
        torch.cuda.empty_cache()  # what no tensor uses is free
        free, _ = torch.cuda.mem_get_info(self._gpu)
        return free > SPARE * self._footprint

    def enter(self) -> "Lane":
        """A lane for a piece of work that begins."""
        self.seconds()
        self._under_way += 1
        return Lane(self._free.pop(), self._note_footprint)

    def leave(self, lane: "Lane") -> None:
        """Its work has ended."""
        self.seconds()
        self._under_way -= 1
        self._free.append(lane.stream)

    def narrow(self) -> None:
        """Memory did not suffice for all that is under way: from now on there is one lane less."""
        self._most = max(1, self._under_way - 1)

    def seconds(self) -> float:
        """A clock whose seconds are shared by all that is under way."""
        now = self._clock()
        self._shared += (now - self._looked_at) / max(1, self._under_way)
        self._looked_at = now
        return self._shared

    def _note_footprint(self, taken: int) -> None:
        self._footprint = max(self._footprint, taken)


class Lane:
    """Where one piece of work goes on.

    Args:
        stream: A GPU's stream; None computes as usual.
        note_footprint: Takes the bytes of the GPU's memory that the first turn took.
    """

    def __init__(
        self, stream: torch.cuda.Stream | None, note_footprint: Callable[[int], None]
    ) -> None:
        self.stream = stream
        self._note_footprint = note_footprint
        self._begun = False

    def take_turn(self, work: Turns) -> None:
        """Let work go on until its next stop.

        Raises:
            StopIteration: It has ended.
        """
        if self.stream and not self._begun:
            self._take_first_turn(work, self.stream)
        else:
            with self._computing():
                next(work)

    def stop(self, work: Turns, reason: Exception) -> None:
        """Throw a reason to stop into work, where it can see what its own steps gave."""
        with self._computing():
            work.throw(reason)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with torch.cuda.stream(self.stream) if self.stream else nullcontext():
            yield

    def _take_first_turn(self, work: Turns, stream: torch.cuda.Stream) -> None:
        """Apart from all else: what it loads other lanes may use, and it shows what it takes."""
        self._begun = True
        torch.cuda.synchronize(stream.device)
        torch.cuda.empty_cache()
        # This process's own: others may be on the GPU.
        before = torch.cuda.memory_reserved(stream.device)
        with self._computing():
            next(work)
        torch.cuda.synchronize(stream.device)
        self._note_footprint(torch.cuda.memory_reserved(stream.device) - before)


@cache
def _stream(device: torch.device, number: int) -> torch.cuda.Stream:
    """Always the same ones: cuBLAS keeps a workspace for every stream that it has worked on."""
    return torch.cuda.Stream(device)
