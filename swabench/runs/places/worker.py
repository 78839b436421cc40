"""A worker's process: carries out the units that come through a connection, until it closes."""

import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from swabench.runs.places.base import Job
from swabench.runs.places.pool import Done, Event, Failed, Note, Paused, Ready
from swabench.runs.units import Unit, digest_of
from swabench.system.errors import DivergedError, SwabenchError
from swabench.system.pausing import Interrupted, Pause
from swabench.system.progress import LineProgress, Progress

if TYPE_CHECKING:
    from swabench.runs.experiment import Experiment

PAUSE_ORDER = "pause"
"""What comes through the connection beside units."""

_TOLD_EVERY = 60.0
"""Seconds between a worker's lines on how far it is."""


@dataclass(frozen=True)
class Setup:
    """What a worker is.

    Attributes:
        device: Name of its device: `auto`, `cpu`, `cuda` or `mps`.
        threads: Processor threads that it computes with.
    """

    device: str
    threads: int


def serve(connection: Connection, setup: Setup) -> None:
    """Carry out units until the connection closes, or a pause is wished.

    A worker whose master is gone keeps what it has done and ends, too.
    """
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal's, which the master hears as well
        signal.signal(number, signal.SIG_IGN)
    orders: queue.SimpleQueue[tuple[Job, Unit] | None] = queue.SimpleQueue()
    pause = Pause()

    def tell(event: Event) -> None:
        with suppress(OSError):  # the master may be gone, and what is done is recorded
            connection.send(event)

    try:
        with pause.listening():
            listener = (connection, orders, pause)
            threading.Thread(target=_listen, args=listener, daemon=True).start()
            runner = UnitRunner(setup, pause, _Passed(tell))
            tell(Ready(runner.hardware))
            while order := orders.get():
                tell(runner.carry_out(*order))
    except Interrupted:
        tell(Paused())
    except SwabenchError as error:  # no such device
        tell(Failed(error))


def _listen(
    connection: Connection, orders: "queue.SimpleQueue[tuple[Job, Unit] | None]", pause: Pause
) -> None:
    """Pass on the units that come; a wish to pause, and the end, wherever the work is."""
    with suppress(EOFError, OSError):
        while (order := connection.recv()) != PAUSE_ORDER:
            orders.put(order)
    main = threading.main_thread().ident
    if main is not None and not pause.wished:  # a second signal would stop the step at once
        signal.pthread_kill(main, signal.SIGUSR1)
    orders.put(None)  # after that, for who leaves hears no signal any more


class _Passed(LineProgress):
    """Progress as events: lines now and then; what is done, the master tells."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        super().__init__(lambda line: tell(Note(line)), _TOLD_EVERY, tells_ends=False)
        self._tell = tell

    def warn(self, line: str) -> None:
        """Pass one line on as a warning."""
        self._tell(Note(line, warns=True))


class UnitRunner:
    """Carries out the units of one worker, and holds what they share.

    Args:
        setup: What the worker is.
        pause: Says when to pause.
        progress: Takes lines for the user.
    """

    def __init__(self, setup: Setup, pause: Pause, progress: Progress) -> None:
        from swabench.system.device import (
            choose_device,
            describe_device,
            use_repeatable_kernels,
            use_threads,
        )

        use_threads(setup.threads)
        use_repeatable_kernels()
        self._device = choose_device(setup.device)
        self._pause = pause
        self._progress = progress
        self._held: tuple[Job, Experiment] | None = None
        self.hardware = describe_device(self._device)

    def carry_out(self, job: Job, unit: Unit) -> Done | Failed:
        """Do a unit.

        Raises:
            Interrupted: A pause was wished; what is done is kept.
        """
        began = time.monotonic()
        try:
            experiment = self._experiment(job)
            with suppress(DivergedError):  # recorded so; the master says it of all
                unit.carry_out(experiment)
            written = {
                (name, seed): digest
                for name in unit.names
                for seed in unit.seeds
                if (digest := digest_of(experiment.store, unit.task, name, seed))
            }
        except (SwabenchError, OSError) as error:
            return Failed(error)
        except Exception:  # a bug of ours: its traceback travels as text
            return Failed(RuntimeError(f"{unit}\n{traceback.format_exc()}"))
        return Done(time.monotonic() - began, written)

    def _experiment(self, job: Job) -> "Experiment":
        from swabench.runs.experiment import Experiment

        if not self._held or self._held[0] != job:
            self._held = None  # first: the features of two would not fit everywhere
            experiment = Experiment(
                job.study,
                job.results,
                self._device,
                job.cache,
                self._progress,
                job.measured,
                job.other_results,
                self._pause,
                job.save_every,
            )
            self._held = job, experiment
        return self._held[1]
