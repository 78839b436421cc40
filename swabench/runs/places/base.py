"""What a place is, what it is asked for, and what its workers are told."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from swabench.records import RecordStore
from swabench.runs.units import Task, Unit, digest_of
from swabench.study.inputs import SplitName
from swabench.study.study import Study
from swabench.system.errors import InputError
from swabench.system.pausing import Pause
from swabench.system.progress import Progress

Written = Mapping[tuple[str, int], str]
"""Runs, or parts of a landscape, that have a record now, by name and seed: its digest."""

SEEN_WITHIN = 60.0
"""Seconds after which a record that another machine wrote is seen on a shared disk."""


@dataclass(frozen=True)
class Job:
    """What is the same for all units of a study: all that an `Experiment` is made from.

    Attributes:
        study: The study.
        results: The results folder.
        other_results: Where the studies lie that this one starts from.
        cache: The user's cache folder.
        measured: On which images runs are measured.
        save_every: Seconds of work that an interruption may cost.
    """

    study: Study
    results: Path
    other_results: Path
    cache: Path
    measured: Sequence[SplitName]
    save_every: float


@dataclass(frozen=True)
class Options:
    """How a study is to be spread, as the user asked for it.

    Attributes:
        jobs: How many workers; None leaves it to the place.
        threads: Processor threads of each; None leaves it to the place.
        device: The name of the device of each: `auto`, `cpu`, `cuda` or `mps`.
        gpus_per_unit: Which share of a GPU each takes, where GPUs are shared out.
        progress: Takes lines and counts of what is done.
        pause: Says when to pause.
        address: Of a cluster.
    """

    jobs: int | None
    threads: int | None
    device: str
    gpus_per_unit: float
    progress: Progress
    pause: Pause
    address: str | None = None

    def at(self, address: str | None) -> "Options":
        """The same at a cluster of that address."""
        return replace(self, address=address)


class Place(Protocol):
    """Where units are executed."""

    def carry_out(self, job: Job, title: str, units: Sequence[Unit]) -> Written:
        """Execute units, in any order.

        What a place leaves undone the process that asks does by itself.

        Args:
            job: What they are units of.
            title: What they are, for progress.
            units: Which; none of them waits for another.

        Returns:
            What it has seen recorded.

        Raises:
            SwabenchError: A unit failed; what others had in hand was paused and kept.
            Interrupted: A pause was wished; likewise.
        """

    def close(self) -> None:
        """Let the workers go."""


def wait_until_seen(store: RecordStore, task: Task, written: Written) -> None:
    """Wait until the records that a place wrote in a task are seen here.

    Raises:
        InputError: One is not, or it is another.
    """
    for (name, seed), digest in written.items():
        deadline = time.monotonic() + SEEN_WITHIN
        while (found := digest_of(store, task, name, seed)) is None and time.monotonic() < deadline:
            time.sleep(1)
        if found != digest:
            raise InputError(
                f"{store.folder}: {name} at seed {seed} was recorded by another machine and is "
                "not seen here; give --results a folder that all machines share"
            )
