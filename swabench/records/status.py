"""What a study has, what is under way, and what is damaged: read from its folder alone."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from filelock import Timeout

from swabench.records.layout import ARRAYS, Layout
from swabench.records.sealing import read_sealed
from swabench.records.store import RecordStore, landscape_in, record_in
from swabench.records.unfinished import WORKER, Unfinished, Worker
from swabench.study.landscape import Part
from swabench.system.errors import InputError
from swabench.system.files import host, leftovers, sha256_of_file

RunState = Literal["done", "diverged", "under way", "interrupted", "missing", "damaged"]
STATES: Sequence[RunState] = get_args(RunState)


@dataclass(frozen=True)
class Begun:
    """Runs that train together, were begun, and have no records yet.

    Attributes:
        worker: Who trains them, or did last.
        works: Whether somebody does now.
        folder: Where their state is.
    """

    worker: Worker
    works: bool
    folder: Path


@dataclass(frozen=True)
class Damage:
    """Something that cannot be used.

    Attributes:
        path: The file or folder to remove, so that its content is made anew.
        reason: What is wrong with it.
    """

    path: Path
    reason: str


def begun_groups(store: RecordStore) -> list[Begun]:
    """Runs that were begun and have no records, also those of the study as it was before."""
    found = []
    for place in store.under_way():
        try:
            worker = place.worker()
        except InputError:
            continue  # `damages` names it
        if worker:
            found.append(Begun(worker, _works(place, worker), place.folder))
    return found


def _works(place: Unfinished, worker: Worker) -> bool:
    """Whether a process has a group in hand; that of another machine is taken for living."""
    if worker.host != host() or not worker.may_live:
        return worker.may_live
    if not place.lock_file.exists():
        return False
    try:
        with place.lock().acquire(timeout=0):
            return False  # another process has that number now
    except (Timeout, OSError):
        return True


def states(
    store: RecordStore, names: Sequence[str], seeds: Sequence[int]
) -> dict[tuple[str, int], RunState]:
    """How each run of a study is, by name and seed."""
    begun = {
        (name, group.worker.seed, identity): group.works
        for group in begun_groups(store)
        for name, identity in group.worker.runs.items()
    }
    found: dict[tuple[str, int], RunState] = {}
    for name in names:
        for seed in seeds:
            works = begun.get((name, seed, store.identity(name, seed)))
            found[name, seed] = _state(store, name, seed, works)
    return found


def _state(store: RecordStore, name: str, seed: int, works: bool | None) -> RunState:
    try:
        if record := store.find(name, seed):
            return "diverged" if record.diverged else "done"
    except InputError:
        return "damaged"
    if works is None:
        return "missing"
    return "under way" if works else "interrupted"


def is_measured(store: RecordStore, part: Part, seed: int) -> bool:
    """Whether a part of the landscape has a record, and the runs that it looks at have, too."""
    with suppress(InputError):
        return store.find_landscape(part, seed) is not None
    return False


def damages(folder: Path) -> Iterator[Damage]:
    """What is damaged in a study's results folder, that of its tuning included.

    Every byte of weights and predictions is read.
    """
    layout = Layout(folder)
    for own in (layout, layout.of_trials):
        for record in own.every_run():
            yield from _damage(record, _check_record)
        for path in own.every_landscape():
            yield from _damage(path, landscape_in)
        for path in own.every_named_files():
            yield from _damage(path, lambda found: read_sealed(found, found, dict))
        for path in own.under_way():
            place = Unfinished(path)
            with suppress(OSError, Timeout), place.lock().acquire(timeout=0):  # else worked on
                yield from _damaged_states(place)


def stale_files(folder: Path) -> list[Path]:
    """Temporary files and folders below a folder whose writers are gone."""
    parents = {path.parent for path in folder.rglob(".writing-*")}
    found = [path for parent in sorted(parents) for path in leftovers(parent)]
    return [path for path in found if not set(path.parents) & set(found)]


def _damage(path: Path, read: Callable[[Path], object]) -> Iterator[Damage]:
    try:
        read(path)
    except (InputError, OSError, ValueError) as error:
        yield Damage(path, str(error))


def _check_record(folder: Path) -> None:
    record = record_in(folder)
    if sha256_of_file(record.folder / ARRAYS) != record.arrays_sha256:
        raise ValueError(f"{ARRAYS} is altered or truncated")


def _damaged_states(place: Unfinished) -> Iterator[Damage]:
    """A group whose every state is damaged has to begin anew; else its newest whole one serves."""
    said: list[str] = []
    try:
        place.worker()
    except InputError as error:
        yield Damage(place.folder / WORKER, str(error))
    if place.load(said.append) is None and said:
        yield Damage(place.folder, "no state in it is whole")
