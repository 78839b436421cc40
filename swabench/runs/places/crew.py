"""Hands units to workers, one to each at a time, and loses none."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
class Said:
    """A worker has a line for the user."""

    line: str


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


Event = Ready | Said | Done | Failed | Paused | Lost


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
        """Go; what is in hand is kept where that takes no time."""


@dataclass
class _Round:
    """Units on their way through the workers.

    Attributes:
        job: What they are units of.
        left: Those that nobody has in hand.
        kinds: The hardware that each seed is bound to, as far as it is.
        advance: Counts units that are done.
        tries: How often a unit's worker was lost.
        written: What is recorded by now.
        failure: The first unit's that failed.
        stopping: Whether nothing more is handed out.
    """

    job: Job
    left: list[Unit]
    kinds: dict[int, str]
    advance: Advance
    tries: Counter[Unit]
    written: dict[tuple[str, int], str]
    failure: Exception | None = None
    stopping: bool = False

    def take(self, hardware: str) -> Unit | None:
        """The next unit for a worker with that hardware; its seeds stay there from then on."""
        for unit in self.left:
            if {self.kinds.get(seed, hardware) for seed in unit.seeds} == {hardware}:
                self.left.remove(unit)
                if unit.task in ("pretrain", "finetune"):
                    self.kinds.update(dict.fromkeys(unit.seeds, hardware))
                return unit
        return None


class Crew:
    """A place that has workers; whatever can start one makes a place.

    Workers stay from one call to the next: they hold torch, the features and the device.

    Args:
        size: How many workers at most.
        start: Starts one, given its number from 1 on.
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
        self._started = 0
        self._hardware: dict[Worker, str | None] = {}  # of every worker; None until it is ready
        self._in_hand: dict[Worker, Unit] = {}
        self._prepared: Job | None = None

    def carry_out(self, job: Job, title: str, units: Sequence[Unit]) -> Written:
        """Execute units, see `Place`."""
        if job != self._prepared:
            self._execute(job, "features", shared_units(job.study, units))
            self._prepared = job
        return self._execute(job, title, units)

    def close(self) -> None:
        """Let the workers go."""
        for worker in self._hardware:
            worker.close()
        self._hardware, self._in_hand = {}, {}

    def _execute(self, job: Job, title: str, units: Sequence[Unit]) -> Written:
        if not units:
            return {}
        seeds = [seed for unit in units for seed in unit.seeds]
        kinds = hardware_of(job.study, RecordStore(job.results, job.study), seeds)
        with (
            self._pause.at_safe_points(),
            self._progress.task(title, len(units), "units") as advance,
        ):
            going = _Round(job, list(units), kinds, advance, Counter(), {})
            while going.left or self._in_hand:
                self._hand_out(going)
                self._wait(list(self._hardware))
                for worker in list(self._hardware):
                    for event in worker.events():
                        self._hear(going, worker, event)
                if not going.stopping and (going.failure or self._pause.wished):
                    self._stop(going)
            if going.failure:
                raise going.failure
        return going.written

    def _hand_out(self, going: _Round) -> None:
        """Give every free worker a unit, and start those that are still lacking."""
        while len(self._hardware) < min(self._size, len(going.left) + len(self._in_hand)):
            self._started += 1
            self._hardware[self._start(self._started)] = None
        for worker, hardware in self._hardware.items():
            if hardware and worker not in self._in_hand and (unit := going.take(hardware)):
                self._in_hand[worker] = unit
                worker.begin(going.job, unit)
        if going.left and not self._in_hand and all(self._hardware.values()):
            seed = going.left[0].seeds[0]
            raise InputError(
                f"seed {seed} has runs on {going.kinds[seed]}, and no worker here is such "
                f"({', '.join(sorted(set(map(str, self._hardware.values()))))}); run it there, or "
                "set `mixed_hardware: allow` in the study"
            )

    def _stop(self, going: _Round) -> None:
        """Hand out no more, and have what is in hand paused."""
        going.stopping = True
        going.left.clear()
        for worker in self._in_hand:
            worker.pause()

    def _hear(self, going: _Round, worker: Worker, event: Event) -> None:
        if isinstance(event, Ready):
            self._hardware[worker] = event.hardware
        elif isinstance(event, Said):
            self._progress.say(f"{worker.name}: {event.line}")
        elif isinstance(event, Done):
            unit = self._in_hand.pop(worker)
            going.written.update(event.written)
            self._progress.say(f"{worker.name}: {unit}, {duration(event.seconds)}")
            going.advance(1)
        elif isinstance(event, Failed):
            self._in_hand.pop(worker, None)
            going.failure = going.failure or event.error
        else:
            self._let_go(going, worker, event)

    def _let_go(self, going: _Round, worker: Worker, event: Paused | Lost) -> None:
        """A worker is gone; another takes its unit up, unless all are to stop."""
        started = self._hardware.pop(worker) is not None
        worker.close()
        unit = self._in_hand.pop(worker, None)
        if going.stopping:
            return
        reason = event.reason if isinstance(event, Lost) else "asked to end"
        if not started:
            going.failure = SwabenchError(f"{worker.name}: did not start ({reason})")
        elif unit is None:
            return
        else:
            going.tries[unit] += 1
            if going.tries[unit] < MOST_TRIES:
                self._progress.say(f"{worker.name}: lost ({reason}); {unit} goes to another")
                going.left.insert(0, unit)
            else:
                going.failure = SwabenchError(
                    f"{unit}: {MOST_TRIES} workers were lost with it, the last one "
                    f"({worker.name}) by: {reason}. Is the memory too small for so many?"
                )
