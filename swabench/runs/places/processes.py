"""Several processes on this machine, which share its cores, or its GPUs, among them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait

import torch

from swabench.runs.places.base import Job, Options, Place
from swabench.runs.places.pool import Event, Lost, Paused, Pool, Worker
from swabench.runs.places.worker import PAUSE_ORDER, Setup, serve
from swabench.runs.units import Unit
from swabench.system.device import choose_device

_TURN = 0.5
"""Seconds after which a wish to pause is seen at the latest."""

_SECONDS_TO_GO = 5.0
"""That a worker has to end by itself."""


class ProcessWorker:
    """A worker in a process of its own.

    Args:
        name: Its name.
        setup: What it is.
        environment: Variables that its process has beside this one's.
    """

    def __init__(
        self, name: str, setup: Setup, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        # Not a fork: CUDA and threads do not survive one.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, setup), daemon=True)
        own = {"OMP_NUM_THREADS": str(setup.threads), **(environment or {})}
        with _environment(own), _terminal_ignored():
            self._process.start()
        theirs.close()  # so that its end is seen here
        self._gone = False

    def begin(self, job: Job, unit: Unit) -> None:
        """Hand over a unit."""
        self._send((job, unit))

    def events(self) -> list[Event]:
        """What came through the connection; once, what is known of its end."""
        found: list[Event] = []
        try:
            while not self._gone and self.connection.poll():
                found.append(self.connection.recv())
        except (EOFError, OSError):
            self._gone = True
            if not any(isinstance(event, Paused) for event in found):
                found.append(Lost(self._end_in_words()))
        return found

    def pause(self) -> None:
        """Ask to keep what is done, and to go."""
        self._send(PAUSE_ORDER)

    def close(self) -> None:
        """Close the connection, at which it goes."""
        self.connection.close()
        self._gone = True

    def join(self) -> None:
        """Wait until it is gone; after a while it is killed."""
        self._process.join(_SECONDS_TO_GO)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _send(self, order: object) -> None:
        try:
            self.connection.send(order)
        except OSError:
            return  # it is gone, which `events` tells

    def _end_in_words(self) -> str:
        self._process.join(_SECONDS_TO_GO)
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"killed by signal {-code}"
        return f"ended with exit code {code}"


def make_processes(options: Options) -> Place:
    """So many processes as jobs were asked for, by default one a core or GPU."""
    gpus = _gpus() if choose_device(options.device).type == "cuda" else []
    cores = _cores()
    jobs = options.jobs or len(gpus) or cores
    setup = Setup(options.device, options.threads or max(1, cores // jobs))

    def start(number: int) -> Worker:
        gpu = {"CUDA_VISIBLE_DEVICES": gpus[(number - 1) % len(gpus)]} if gpus else {}
        return ProcessWorker(f"process {number}", setup, gpu)

    return Pool(jobs, start, wait_for, options.progress, options.pause)


def wait_for(workers: Sequence[Worker]) -> None:
    """Wait until a process says something or ends, but not for long."""
    wait([w.connection for w in workers if isinstance(w, ProcessWorker)], _TURN)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Within it, the environment has some variables: a process that starts keeps them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _terminal_ignored() -> Iterator[None]:
    """Within it, what a terminal sends is ignored, by a process that starts for good.

    The process that started it hears that, and tells it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's; the worker ignores them as soon as it can
        return
    before = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _gpus() -> list[str]:
    """The GPUs that this process sees, by the names that CUDA_VISIBLE_DEVICES has for them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",") if given else [str(n) for n in range(torch.cuda.device_count())]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
