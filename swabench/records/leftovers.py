"""What processes that were killed left among the records, and who they were."""

from collections.abc import Iterator
from contextlib import suppress

from filelock import FileLock, Timeout

from swabench.records.store import RecordStore
from swabench.records.unfinished import Unfinished, Worker
from swabench.system.errors import InputError
from swabench.system.files import remove_leftovers


def workers(store: RecordStore) -> list[Worker]:
    """Who began groups of runs that are under way, as far as that can be read."""
    return [worker for _, worker in _begun(store)]


def tidy(store: RecordStore) -> None:
    """Let go of what killed processes left: temporary files, and states of recorded runs."""
    for folder in store.layout.written_in():
        with suppress(OSError):  # a folder that cannot be written keeps them
            remove_leftovers(folder)
    for path in store.layout.locks():
        with suppress(OSError, Timeout), FileLock(path, timeout=0):
            path.unlink(missing_ok=True)
    for place, worker in _begun(store):
        if all(
            store.layout.run(name, worker.seed, identity).is_dir()
            for name, identity in worker.runs.items()
        ):
            place.drop()


def _begun(store: RecordStore) -> Iterator[tuple[Unfinished, Worker]]:
    for place in store.under_way():
        with suppress(InputError):  # a damaged one is told by whoever needs it
            if worker := place.worker():
                yield place, worker
