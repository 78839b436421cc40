"""A Ray cluster: one that runs already, or one that is started on this machine.

On a node an actor holds a worker's process, as `processes` has it here, and passes messages on. So
what a node, an actor or the driver loses is lost to a process that keeps its states.

Nothing is packaged and sent: every node has the same version of the program, which is checked
first. Records go to the results folder, where all nodes see it; else they travel as bytes.
"""

import logging
import os
import platform
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from swabench.data.datasets import user_cache
from swabench.data.inputs import starting_run
from swabench.records.parcels import Parcel, pack, unpack
from swabench.runs.places.base import Job, Place, Wishes
from swabench.runs.places.crew import Crew, Done, Event, Failed, Lost, Worker
from swabench.runs.places.processes import ProcessWorker, wait_for
from swabench.runs.places.worker import Setup
from swabench.runs.units import Unit
from swabench.system.environment import commit
from swabench.system.errors import InputError
from swabench.system.version import __version__

_TURN = 0.5
"""Seconds after which a wish to pause is seen at the latest."""

_SECONDS_TO_GO = 10.0
"""That actors have to end by themselves."""


def made_with() -> Mapping[str, str | None]:
    """What must be the same on every node, so that a record is the same wherever it is made."""
    return {
        "swabench": __version__,
        "commit": commit(),
        "torch": torch.__version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


class Station:
    """An actor: a worker's process on a node, and what passes between it and the driver.

    Args:
        setup: What the worker is.
    """

    def __init__(self, setup: Setup) -> None:
        self._worker = ProcessWorker("", setup)
        self._job: Job | None = None  # as the worker has it
        self._unit: Unit | None = None
        self._given: Parcel | None = None  # None where the results folder is shared
        self._own: Path | None = None

    def facts(self) -> tuple[str, Mapping[str, str | None]]:
        """The node's name, and what it has installed."""
        return socket.gethostname(), made_with()

    def sees(self, path: Path, content: str) -> bool:
        """Whether a file that the driver wrote is the same file here."""
        with suppress(OSError):
            return path.read_text() == content
        return False

    def begin(self, job: Job, unit: Unit, given: Parcel | None) -> None:
        """Hand a unit to the worker, with the records it needs where no folder is shared."""
        cache = job.cache if job.cache.is_dir() else user_cache()
        self._job, self._unit, self._given = replace(job, cache=cache), unit, given
        if given is not None:
            self._own = self._own or Path(tempfile.mkdtemp(prefix="swabench-"))
            self._job = replace(self._job, results=self._own, other_results=self._own)
            unpack(given, self._own / job.study.name)
        self._worker.begin(self._job, unit)

    def events(self) -> list[tuple[Event, Parcel]]:
        """What happened since the last call, with new records where no folder is shared."""
        wait_for([self._worker])
        return [(event, self._new_records(event)) for event in self._worker.events()]

    def pause(self) -> None:
        """Have the worker keep what is done of its unit, and go."""
        self._worker.pause()

    def close(self) -> None:
        """Let the worker go."""
        self._worker.close()
        if self._own:
            shutil.rmtree(self._own, ignore_errors=True)

    def _new_records(self, event: Event) -> Parcel:
        if not isinstance(event, Done) or self._given is None or not (self._job and self._unit):
            return {}
        folder = self._job.results / self._job.study.name
        return pack(folder, self._unit.seeds, without=self._given.keys())


class RayWorker:
    """A worker on some node of a cluster.

    Args:
        name: Its name; the node's is added when it is known.
        actor: Its actor, a `Station`.
    """

    def __init__(self, name: str, actor: Any) -> None:
        self.name = name
        self._actor = actor
        self._facts = actor.facts.remote()
        self._asked: Any = None
        self._job: Job | None = None
        self._shared: dict[Path, bool] = {}  # by results folder

    @property
    def awaited(self) -> Any:
        """What is there as soon as there is something to look at."""
        return self._asked or self._facts

    def begin(self, job: Job, unit: Unit) -> None:
        """Hand over a unit."""
        import ray

        self._job, given = job, None
        with suppress(ray.exceptions.RayError):  # it is gone, which `events` tells
            if not self._sees(job.results):
                given = self._records_for(job, unit)
            self._actor.begin.remote(job, unit, given)

    def events(self) -> list[Event]:
        """What the actor has passed on."""
        import ray

        ready, _ = ray.wait([self.awaited], timeout=0)
        if not ready:
            return []
        try:
            if self._asked is None:
                found: list[Event] = self._compare(*ray.get(self._facts))
            else:
                found = [self._received(*each) for each in ray.get(self._asked)]
        except ray.exceptions.RayError as error:
            return [_end_of(error)]
        self._asked = self._actor.events.remote()
        return found

    def pause(self) -> None:
        """Ask to keep what is done, and to go."""
        self._actor.pause.remote()

    def close(self) -> None:
        """Have it go; by force where it does not."""
        import ray

        with suppress(ray.exceptions.RayError, ValueError):
            ray.wait([self._actor.close.remote()], timeout=_SECONDS_TO_GO)
            ray.kill(self._actor)

    def _compare(self, node: str, theirs: Mapping[str, str | None]) -> list[Event]:
        self.name = f"{self.name} on {node}"
        ours = made_with()
        if not (others := [key for key in ours if ours[key] != theirs.get(key)]):
            return []
        there = ", ".join(f"{key} {theirs.get(key)} (here {ours[key]})" for key in others)
        return [Failed(InputError(f"--on ray: {node} has {there}; install the same on every node"))]

    def _sees(self, results: Path) -> bool:
        """Whether the node shares the results folder; asked once for each."""
        import ray

        if results not in self._shared:
            results.mkdir(parents=True, exist_ok=True)
            content = secrets.token_hex(16)
            with tempfile.NamedTemporaryFile("w", dir=results, prefix=".writing-") as file:
                file.write(content)
                file.flush()
                self._shared[results] = ray.get(self._actor.sees.remote(Path(file.name), content))
        return self._shared[results]

    def _records_for(self, job: Job, unit: Unit) -> Parcel:
        """The records that a unit needs.

        Raises:
            InputError: They are another study's, too.
        """
        if starting_run(job.study):
            raise InputError(
                f"--on ray: study {job.study.name!r} starts from another study's run, and "
                f"{self.name} does not see {job.results}; give --results a folder that all nodes "
                "share"
            )
        return pack(job.results / job.study.name, unit.seeds)

    def _received(self, event: Event, parcel: Parcel) -> Event:
        if parcel and self._job:
            unpack(parcel, self._job.results / self._job.study.name)
        return event


def make_ray(wishes: Wishes) -> Place:
    """As many workers as were asked for, or as the cluster has room for.

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """
    try:
        import ray
    except ImportError:
        raise InputError(
            "--on ray: Ray is not installed; `pip install 'swabench[ray]'`, on every node"
        ) from None
    _join(wishes.address)
    try:
        threads = wishes.threads or 1
        gpus, room = _room(wishes, threads)
    except InputError:
        ray.shutdown()
        raise
    station = ray.remote(num_cpus=threads, num_gpus=gpus, max_restarts=0)(Station)

    def start(number: int) -> Worker:
        return RayWorker(f"worker {number}", station.remote(Setup(wishes.device, threads)))

    def wait(workers: Sequence[Worker]) -> None:
        ray.wait([w.awaited for w in workers if isinstance(w, RayWorker)], timeout=_TURN)

    return _RayCrew(min(room, wishes.jobs or room), start, wait, wishes.progress, wishes.pause)


class _RayCrew(Crew):
    def close(self) -> None:
        """Let the workers and the cluster go; one that was started here ends."""
        import ray

        super().close()
        ray.shutdown()


def _join(address: str | None) -> None:
    """Connect to a cluster; without an address to one that is found, or started here.

    Raises:
        InputError: There is none at that address.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    if address and address != "auto":
        _knock(address)  # Ray itself would try for minutes

    heard = signal.getsignal(signal.SIGTERM)  # which Ray takes over
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--on ray: no cluster at {address or 'hand'} ({reason})") from None
    finally:
        signal.signal(signal.SIGTERM, heard)


def _knock(address: str) -> None:
    """Find out whether anybody listens at `HOST:PORT`.

    Raises:
        InputError: Nobody does, or it is no such address.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_GO).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "give HOST:PORT, as `ray start` told it"
        raise InputError(f"--on ray: no cluster at {address} ({reason})") from None


def _room(wishes: Wishes, threads: int) -> tuple[float, int]:
    """The share of a GPU that each worker takes, 0 for none, and how many the cluster has room for.

    Raises:
        InputError: It has room for none.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    there = any(node.get("GPU") for node in nodes)
    if wishes.device == "cuda" and not there:
        raise InputError("--device: the cluster has no GPU; use --device cpu")
    gpus = wishes.gpus_per_unit if there and wishes.device in ("auto", "cuda") else 0.0
    wanted = {"CPU": threads, "GPU": gpus}
    room = sum(
        min(int(node.get(kind, 0) / share) for kind, share in wanted.items() if share)
        for node in nodes
    )
    if not room:
        also = f" and {gpus:g} GPUs" if gpus else ""
        raise InputError(
            f"--on ray: no node of the cluster has {threads} threads{also}; ask for less"
        )
    return gpus, room


def _end_of(error: Exception) -> Event:
    """What to make of an actor that is gone."""
    said = str(error)
    if "ModuleNotFoundError" in said or "ImportError" in said:
        return Failed(
            InputError("--on ray: a node has no swabench, or another one; install the same there")
        )
    return Lost(said.splitlines()[0])
