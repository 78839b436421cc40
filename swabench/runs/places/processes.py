"""Several processes on this machine, which share its cores, or its GPUs, among them."""

import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing.connection import wait

import torch

from swabench.runs.places.base import Job, Place, Wishes
from swabench.runs.places.crew import Crew, Event, Lost, Paused, Worker
from swabench.runs.places.worker import PAUSE, Setup, serve
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
    """

    def __init__(self, name: str, setup: Setup) -> None:
        self.name = name
        # Not a fork: CUDA and threads do not survive one.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, setup), daemon=True)
        self._process.start()
        theirs.close()  # so that its end is seen here
        self._gone = False

    @property
    def pid(self) -> int | None:
        """The process's number."""
        return self._process.pid

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
        self._send(PAUSE)

    def close(self) -> None:
        """Close the connection, at which it goes; after a while by force."""
        self.connection.close()
        self._gone = True
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


def make_processes(wishes: Wishes) -> Place:
    """So many processes as jobs were asked for, by default one a core or GPU."""
    gpus = _gpus() if choose_device(wishes.device).type == "cuda" else []
    cores = _cores()
    jobs = wishes.jobs or len(gpus) or cores
    threads = wishes.threads or max(1, cores // jobs)

    def start(number: int) -> Worker:
        gpu = gpus[(number - 1) % len(gpus)] if gpus else None
        return ProcessWorker(f"process {number}", Setup(wishes.device, threads, gpu))

    return Crew(jobs, start, wait_for, wishes.progress, wishes.pause)


def wait_for(workers: Sequence[Worker]) -> None:
    """Wait until a process says something or ends, but not for long."""
    wait([w.connection for w in workers if isinstance(w, ProcessWorker)], _TURN)


def _gpus() -> list[str]:
    """The GPUs that this process sees, by the names that CUDA_VISIBLE_DEVICES has for them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",") if given else [str(n) for n in range(torch.cuda.device_count())]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
