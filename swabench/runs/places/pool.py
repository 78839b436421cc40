"""Hands units to workers, one to each at a time, and loses none."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from swabench.records import RecordStore
from swabench.runs.hardware import hardware_of
from swabench.runs.places.base import Job, Written
from swabench.runs.units import Unit, shared_units
from swabench.system.errors import InputError, SwabenchError
from swabench.system.pausing import Pause
from swabench.system.progress import Advance, Progress, duration

MOST_TRIES = 3
"""Of a unit whose workers were lost: it may be the unit that costs them their lives."""


@dataclass(frozen=True)
class Ready:
    """A worker can take a unit.

    Attributes:
        hardware: The device that it computes on.
    """

    hardware: str


@dataclass(frozen=True)
class Note:
    """A worker has a line for the user.

    Attributes:
        line: The line.
        warns: Whether it matters even to who wants no progress.
    """

    line: str
    warns: bool = False


@dataclass(frozen=True)
class Done:
    """A worker has done its unit.

    Attributes:
        seconds: What it took.
        written: The unit's runs that have records now.
    """

    seconds: float
    written: Written


@dataclass(frozen=True)
class Failed:
    """A worker could not do its unit, and no other could."""

    error: Exception


@dataclass(frozen=True)
class Paused:
    """A worker has kept what it had done of its unit, and is gone."""


@dataclass(frozen=True)
class Lost:
    """A worker is gone, and did not say why.

    Attributes:
        reason: What is known of it.
    """

    reason: str


Event = Ready | Note | Done | Failed | Paused | Lost


class Worker(Protocol):
    """Something that carries out units, one at a time.

    Attributes:
        name: Which one it is, for the user.
    """

    name: str

    def begin(self, job: Job, unit: Unit) -> None:
        """Take a unit up; only one that is ready and has none in hand is asked to."""

    def events(self) -> list[Event]:
        """What happened since the last call; never waits."""

    def pause(self) -> None:
        """Keep what is done of the unit, and go."""

    def close(self) -> None:
        """Ask to go; never waits."""

    def join(self) -> None:
        """Wait until it is gone, and after a while make it go."""


@dataclass
class _Batch:
    """Units on their way through the workers.

    Attributes:
        job: What they are units of.
        left: Those that nobody has in hand.
        bound: The hardware that each seed is bound to, as far as it is.
        advance: Counts units that are done.
        tries: How often a unit's worker was lost.
        written: What is recorded by now.
        lost_idle: How many workers were lost without a unit since the last was done.
        failure: The first unit's that failed.
        stopping: Whether nothing more is handed out.
    """

    job: Job
    left: list[Unit]
    bound: dict[int, str]
    advance: Advance
    tries: Counter[Unit] = field(default_factory=Counter)
    written: dict[tuple[str, int], str] = field(default_factory=dict)
    lost_idle: int = 0
    failure: Exception | None = None
    stopping: bool = False

    def take(self, hardware: str) -> Unit | None:
        """The next unit for a worker with that hardware; its seeds stay there from then on."""
        for unit in self.left:
            if {self.bound.get(seed, hardware) for seed in self.binding(unit)} <= {hardware}:
                self.left.remove(unit)
                self.bound |= dict.fromkeys(self.binding(unit), hardware)
                return unit
        return None

    def binding(self, unit: Unit) -> Sequence[int]:
        """The seeds that a unit binds to the hardware it is done on."""
        trains = unit.task in ("pretrain", "finetune")
        return unit.seeds if trains and self.job.study.mixed_hardware == "refuse" else ()

    def put_back(self, unit: Unit, in_hand: Sequence[Unit]) -> None:
        """Let another worker have a unit; its seeds are bound by their records, and others' work.

        Args:
            unit: The unit.
            in_hand: What workers have in hand now.
        """
        self.left.insert(0, unit)
        busy = {seed for other in in_hand for seed in self.binding(other)}
        for seed in set(self.binding(unit)) - busy:
            self.bound.pop(seed, None)
        self.bound = {**recorded_hardware(self.job, [unit]), **self.bound}


class Pool:
    """A place that has workers; whatever can start one makes a place.

    Workers stay from one call to the next: they hold torch, the features and the device.

    Args:
        size: How many workers at most.
        start: Starts one, given its number: the lowest from 1 on that no other has.
        wait: Waits until one of some workers may have an event, but not for long.
        progress: Takes lines and counts of what is done.
        pause: Says when to pause.
    """

    def __init__(
        self,
        size: int,
        start: Callable[[int], Worker],
        wait: Callable[[Sequence[Worker]], None],
        progress: Progress,
        pause: Pause,
    ) -> None:
        self._size = size
        self._start = start
        self._wait = wait
        self._progress = progress
        self._pause = pause
        self._numbers: dict[Worker, int] = {}  # of every worker
        self._hardware: dict[Worker, str] = {}  # of those that are ready
        self._in_hand: dict[Worker, Unit] = {}
        self._prepared: Job | None = None

    def carry_out(self, job: Job, title: str, units: Sequence[Unit]) -> Written:
        """Execute units, see `Place`."""
        if job != self._prepared and (shared := shared_units(job.study, units)):
            self._execute(job, "features", shared)
            self._prepared = job
        return self._execute(job, title, units)

    def close(self) -> None:
        """Let the workers go."""
        for worker in self._numbers:
            worker.close()
        for worker in self._numbers:
            worker.join()
        self._numbers, self._hardware, self._in_hand = {}, {}, {}

    def _execute(self, job: Job, title: str, units: Sequence[Unit]) -> Written:
        if not units:
            return {}
        task = self._progress.task(title, len(units), "units")
        with self._pause.at_safe_points(), task as advance:
            batch = _Batch(job, list(units), recorded_hardware(job, units), advance)
            while batch.left or self._in_hand:
                self._hand_out(batch)
                self._wait(list(self._numbers))
                for worker in list(self._numbers):
                    for event in worker.events():
                        self._handle(batch, worker, event)
                if not batch.stopping and (batch.failure or self._pause.wished):
                    self._stop(batch)
            if batch.failure:
                raise batch.failure
        return batch.written

    def _hand_out(self, batch: _Batch) -> None:
        """Give every free worker a unit, and start those that are still lacking."""
        for worker, hardware in self._hardware.items():
            if worker not in self._in_hand and (unit := batch.take(hardware)):
                self._in_hand[worker] = unit
                worker.begin(batch.job, unit)
        useful = min(self._size, len(batch.left) + len(self._in_hand))
        # What is left may fit none of the workers that are there.
        if batch.left and not self._in_hand and len(self._hardware) == len(self._numbers):
            if len(self._numbers) == self._size:
                raise _nowhere(batch, set(self._hardware.values()))
            useful = max(useful, len(self._numbers) + 1)
        while len(self._numbers) < useful:
            number = min(set(range(1, self._size + 1)) - set(self._numbers.values()))
            self._numbers[self._start(number)] = number

    def _stop(self, batch: _Batch) -> None:
        """Hand out no more, and have what is in hand paused."""
        batch.stopping = True
        batch.left.clear()
        for worker in self._in_hand:
            worker.pause()

    def _handle(self, batch: _Batch, worker: Worker, event: Event) -> None:
        if isinstance(event, Ready):
            self._hardware[worker] = event.hardware
        elif isinstance(event, Note):
            tell = self._progress.warn if event.warns else self._progress.say
            tell(f"{worker.name}: {event.line}")
        elif isinstance(event, Done):
            unit = self._in_hand.pop(worker)
            batch.written.update(event.written)
            batch.lost_idle = 0
            self._progress.say(f"{worker.name}: {unit}, {duration(event.seconds)}")
            batch.advance(1)
        elif isinstance(event, Failed):
            self._in_hand.pop(worker, None)
            batch.failure = batch.failure or event.error
        else:
            reason = event.reason if isinstance(event, Lost) else "asked to end"
            self._replace(batch, worker, reason)

    def _replace(self, batch: _Batch, worker: Worker, reason: str) -> None:
        """Another takes the unit of a worker that is gone, unless all are to stop."""
        started = self._hardware.pop(worker, None) is not None
        del self._numbers[worker]
        worker.close()
        worker.join()
        unit = self._in_hand.pop(worker, None)
        if batch.stopping or self._pause.wished:
            return
        if unit is None:
            batch.lost_idle += 1
            what = "lost" if started else "did not start"
            if batch.lost_idle < MOST_TRIES:
                self._progress.warn(f"{worker.name}: {what} ({reason}); another is started")
            else:
                batch.failure = SwabenchError(f"{worker.name}: {what} ({reason})")
            return
        batch.tries[unit] += 1
        if batch.tries[unit] < MOST_TRIES:
            self._progress.warn(f"{worker.name}: lost ({reason}); {unit} goes to another")
            batch.put_back(unit, list(self._in_hand.values()))
        else:
            batch.failure = SwabenchError(
                f"{unit}: {MOST_TRIES} workers were lost with it, the last one ({worker.name}) "
                f"by: {reason}. Is the memory too small for so many?"
            )


def recorded_hardware(job: Job, units: Sequence[Unit]) -> dict[int, str]:
    """The hardware on which seeds of units have runs already."""
    seeds = [seed for unit in units for seed in unit.seeds]
    return hardware_of(job.study, RecordStore(job.results, job.study), seeds)


def _nowhere(batch: _Batch, there: set[str]) -> InputError:
    """What to raise where no worker can take what is left."""
    unit = batch.left[0]
    wanted = sorted({batch.bound[seed] for seed in unit.seeds if seed in batch.bound})
    return InputError(
        f"{unit}: there are runs of it on {' and '.join(wanted)}, and the workers have "
        f"{', '.join(sorted(there))}; run it on a machine like the one that began it, or set "
        "`mixed_hardware: allow` in the study"
    )
