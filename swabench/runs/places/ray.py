"""A Ray cluster: one that runs already, or one that is started on this machine.

On a node an actor holds a worker's process, as `processes` has it here, and passes messages on.
What is lost with a node is what its process had done since its last state.

Nothing is packaged and sent: every node has the same version of the program, which is checked
first. Records go to the results folder, where all nodes see it; else they travel as bytes.
"""

import logging
import math
import os
import platform
import secrets
import shutil
import signal
import socket
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from swabench.data.datasets import user_cache
from swabench.data.inputs import starting_run
from swabench.records.parcels import Parcel, pack, unpack
from swabench.runs.learners import in_lockstep
from swabench.runs.places.base import Job, Options, Place
from swabench.runs.places.pool import Done, Event, Failed, Lost, Note, Paused, Pool, Worker
from swabench.runs.places.processes import ProcessWorker, wait_for
from swabench.runs.places.worker import Setup
from swabench.runs.units import Unit
from swabench.system.environment import commit
from swabench.system.errors import InputError, SwabenchError, not_usable
from swabench.system.files import host, write_file
from swabench.system.version import __version__

_TURN = 0.5
"""Seconds after which a wish to pause is seen at the latest."""

_PATIENCE = 30.0
"""Seconds after which it is said that a worker has not started."""

_SECONDS_TO_GO = 10.0
"""That actors have to end by themselves, and a cluster to answer."""

_OWN_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else `uv run` uploads the working directory
}


def made_with() -> Mapping[str, str | None]:
    """What must be the same on every node, so that a record is the same wherever it is made."""
    return {
        "swabench": __version__,
        "commit": commit(),
        "torch": torch.__version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


class NodeActor:
    """A worker's process on a node, and what passes between it and the driver.

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
        self._worker.join()
        if self._own:
            shutil.rmtree(self._own, ignore_errors=True)

    def _new_records(self, event: Event) -> Parcel:
        """What a unit that ended, in whatever way, has recorded."""
        ended = isinstance(event, Done | Failed | Paused | Lost)
        if not ended or self._given is None or not (self._job and self._unit):
            return {}
        job, unit = self._job, self._unit
        return pack(job.study, job.results, unit.seeds, without=self._given.keys())


class RayWorker:
    """A worker on some node of a cluster.

    Args:
        name: Its name; the node's is added when it is known.
        actor: Its actor, a `NodeActor`.
    """

    def __init__(self, name: str, actor: Any) -> None:
        self.name = name
        self._actor = actor
        self._facts = actor.facts.remote()
        self._begun: Any = None
        self._events: Any = None
        self._closed: Any = None
        self._job: Job | None = None
        self._shared: dict[Path, bool] = {}  # by folder of results
        self._patient_until = time.monotonic() + _PATIENCE

    @property
    def awaited(self) -> Any:
        """What is there as soon as there is something to look at."""
        return self._events or self._facts

    def begin(self, job: Job, unit: Unit) -> None:
        """Hand over a unit."""
        import ray

        self._job, given = job, None
        with suppress(ray.exceptions.RayError):  # it is gone, which `events` tells
            if not self._sees(job.results / job.study.name):
                given = self._records_for(job, unit)
            self._begun = self._actor.begin.remote(job, unit, given)

    def events(self) -> list[Event]:
        """What the actor has passed on."""
        import ray

        ready, _ = ray.wait([self.awaited], timeout=0)
        if not ready:
            return self._impatience()
        try:
            if self._events is None:
                found: list[Event] = self._compare(*ray.get(self._facts))
            else:
                if self._begun and ray.wait([self._begun], timeout=0)[0]:
                    ray.get(self._begun)  # raises what went wrong there
                    self._begun = None
                found = [self._received(*each) for each in ray.get(self._events)]
        except ray.exceptions.RayError as error:
            return [self._end_of(error)]
        self._events = self._actor.events.remote()
        return found

    def pause(self) -> None:
        """Ask to keep what is done, and to go."""
        self._actor.pause.remote()

    def close(self) -> None:
        """Ask to go."""
        if self._events:  # else it waits for room, and would only hear it then
            self._closed = self._actor.close.remote()

    def join(self) -> None:
        """Wait until it is gone; after a while it is killed."""
        import ray

        with suppress(ray.exceptions.RayError, ValueError):
            if self._closed:
                ray.wait([self._closed], timeout=_SECONDS_TO_GO)
            ray.kill(self._actor)

    def _impatience(self) -> list[Event]:
        """Once, that the worker takes long to start."""
        if self._events or time.monotonic() < self._patient_until:
            return []
        self._patient_until = math.inf
        return [Note("waiting for the cluster to have room for it (`ray status` says who has)")]

    def _compare(self, node: str, theirs: Mapping[str, str | None]) -> list[Event]:
        self.name = f"{self.name} on {node}"
        ours = made_with()
        if not (others := [key for key in ours if ours[key] != theirs.get(key)]):
            return []
        there = ", ".join(f"{key} {theirs.get(key)} (here {ours[key]})" for key in others)
        return [Failed(InputError(f"--on ray: {node} has {there}; install the same on every node"))]

    def _sees(self, folder: Path) -> bool:
        """Whether the node sees a folder of results; asked once for each."""
        import ray

        if folder not in self._shared:
            content = secrets.token_hex(4)
            path = folder / f".writing-{host()}-{os.getpid()}-{content}"
            try:
                write_file(path, content.encode())  # whole and closed: NFS shows no other
                self._shared[folder] = ray.get(self._actor.sees.remote(path, content))
            finally:
                path.unlink(missing_ok=True)
        return self._shared[folder]

    def _records_for(self, job: Job, unit: Unit) -> Parcel:
        """The records that a unit needs.

        Raises:
            InputError: They are another study's, too.
        """
        study = job.study
        if starting_run(study):
            raise InputError(
                f"--on ray: study {study.name!r} starts from another study's run, and "
                f"{self.name} does not see {job.results}; give --results a folder that all nodes "
                "share"
            )
        every = unit.task == "landscape" or in_lockstep(study, study.finetune.trainable)
        starts = None if every else [study.pretrain.name]  # a network's weights fill memories
        return pack(study, job.results, unit.seeds, arrays_of=starts)

    def _received(self, event: Event, parcel: Parcel) -> Event:
        if parcel and self._job:
            unpack(parcel, self._job.results / self._job.study.name)
        if isinstance(event, Failed):
            return Failed(self._where(event.error))
        return event

    def _where(self, error: Exception) -> Exception:
        """An error with the node's name: files of that name may be there here."""
        told = not_usable(error) if isinstance(error, OSError) else error
        if isinstance(told, SwabenchError):
            return type(told)(f"{self.name}: {told}")
        return told

    def _end_of(self, error: Exception) -> Event:
        """What to make of an actor's error, or of an actor that is gone."""
        import ray

        said = str(error)
        if isinstance(error, ray.exceptions.RayTaskError):  # of a method: another would fail too
            if isinstance(error.cause, SwabenchError | OSError):
                return Failed(self._where(error.cause))
            return Failed(RuntimeError(f"{self.name}: {traceback.format_exc()}"))
        if "ModuleNotFoundError" in said or "ImportError" in said:
            return Failed(
                InputError(
                    "--on ray: a node has no swabench, or another one; install the same there"
                )
            )
        return Lost(said.splitlines()[0])


def make_ray(options: Options) -> Place:
    """As many workers as were asked for, or as the cluster has room for.

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """
    os.environ.update(_OWN_ENVIRONMENT)  # read when Ray is imported
    try:
        import ray
    except ImportError:
        raise InputError(
            "--on ray: Ray is not installed; `pip install 'swabench[ray]'`, on every node"
        ) from None
    share = options.gpus_per_unit
    if not (0.001 <= share <= 1 or (share > 1 and share == int(share))):
        raise InputError(f"--gpus-per-unit: {share:g}; give a share such as 0.5, or a whole number")
    _join(options.address)
    try:
        threads = options.threads or 1
        gpus, room, free = _room(options, threads)
    except InputError:
        ray.shutdown()
        raise
    actor = ray.remote(num_cpus=threads, num_gpus=gpus, max_restarts=0)(NodeActor)

    def start(number: int) -> Worker:
        return RayWorker(f"worker {number}", actor.remote(Setup(options.device, threads)))

    def wait(workers: Sequence[Worker]) -> None:
        ray.wait([w.awaited for w in workers if isinstance(w, RayWorker)], timeout=_TURN)

    size = min(room, options.jobs or free)
    return _RayPool(size, start, wait, options.progress, options.pause)


class _RayPool(Pool):
    def close(self) -> None:
        """Let the workers and the cluster go; one that was started here ends."""
        import ray

        super().close()
        ray.shutdown()


def _join(address: str | None) -> None:
    """Connect to a cluster; without an address to one that is found, or started here.

    Raises:
        InputError: There is none at that address, or it cannot be joined.
    """
    import ray

    if address and address != "auto":
        _check_address(address)  # Ray itself would try for minutes
    before = signal.getsignal(signal.SIGTERM)  # which Ray takes over
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        where = address or "hand"
        raise InputError(f"--on ray: the cluster at {where} cannot be joined: {reason}") from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_address(address: str) -> None:
    """Find out whether anybody listens at `HOST:PORT`.

    Raises:
        InputError: Nobody does, or it is no such address.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_GO).close()
    except (OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "give HOST:PORT, as `ray start` told it"
        raise InputError(f"--on ray: no cluster at {address} ({reason})") from None


def _room(options: Options, threads: int) -> tuple[float, int, int]:
    """The share of a GPU that a worker takes, and for how many there is room: in all, and now.

    Raises:
        InputError: There is room for none.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    there = any(node.get("GPU") for node in nodes)
    if options.device == "cuda" and not there:
        raise InputError("--device: the cluster has no GPU; use --device cpu")
    gpus = options.gpus_per_unit if there and options.device in ("auto", "cuda") else 0.0
    wanted = {kind: share for kind, share in (("CPU", threads), ("GPU", gpus)) if share}

    def fitting(resources: Mapping[str, float]) -> int:
        return min(int(resources.get(kind, 0) / share) for kind, share in wanted.items())

    room = sum(map(fitting, nodes))
    if not room:
        also = f" and {gpus:g} GPUs" if gpus else ""
        raise InputError(
            f"--on ray: no node of the cluster has {threads} threads{also}; ask for less"
        )
    return gpus, room, max(1, min(room, fitting(ray.available_resources())))
