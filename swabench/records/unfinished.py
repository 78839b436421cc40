"""Runs that are under way: who trains them, and the state from which they can go on.

Under a study's results folder, for every group of runs that train together:

    unfinished/<group>/worker.json           who trains it, since when, and how far it is
    unfinished/<group>/state-<n>.json        a state: all but its arrays, which it names
    unfinished/<group>/<sha256>.safetensors  an array, named by its content
    unfinished/<group>.lock                  held by the process that works on it

An array that did not change is not written again. The two newest states are kept, so that there
is one if the other is damaged. All of it goes when the runs have their records.
"""

import dataclasses
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from safetensors.numpy import load, save

from swabench.records.sealing import read_sealed, sealed
from swabench.system.errors import InputError
from swabench.system.files import host, is_running, remove_leftovers, sha256, write_file

WORKER = "worker.json"
_STATE = re.compile(r"state-(\d+)\.json")
_ARRAY = ".safetensors"
_STATES_KEPT = 2


@dataclass(frozen=True)
class Worker:
    """Who trains a group of runs, or did last.

    Attributes:
        runs: Identities of the group's runs, by name.
        seed: Their seed.
        epochs: How many epochs they take.
        epoch: How many are done.
        kept: How many the newest state has behind it; None where there is no state.
        host: The machine.
        process: The process's number there.
        since: When it took the group up, in seconds since 1970.
    """

    runs: Mapping[str, str]
    seed: int
    epochs: int
    epoch: int
    kept: int | None
    host: str
    process: int
    since: float

    @property
    def may_live(self) -> bool:
        """Whether the process still runs; that of another machine is taken for living."""
        return self.host != host() or is_running(self.process)


class Unfinished:
    """The place of one group of runs.

    Args:
        folder: Its folder, which need not be there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # What this process wrote or verified; nothing else is relied on.
        self._sound_states: set[int] = set()
        self._sound_arrays: set[str] = set()

    def lock(self) -> FileLock:
        """Held by the one process of a machine that works on the group.

        Where a shared disk does not honour it, two machines may do the same work, and no harm.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.lock_file)

    @property
    def lock_file(self) -> Path:
        """Where the lock is; there while somebody works on the group."""
        return self.folder.with_suffix(".lock")

    def worker(self) -> Worker | None:
        """Who trains the group, or did last; None where nobody has begun."""
        path = self.folder / WORKER
        if not path.is_file():
            return None
        return read_sealed(path, path, lambda found: Worker(**found))

    def write_worker(self, worker: Worker) -> None:
        """Say who trains the group, and how far it is."""
        write_file(self.folder / WORKER, sealed(dataclasses.asdict(worker)))

    def keep(self, state: Any, facts: Mapping[str, Any]) -> None:
        """Write a state, and let go of all but the one before it.

        Args:
            state: Mappings, sequences, numbers, words, None and NumPy arrays, nested.
            facts: What it was made with and of, in JSON's types.

        Raises:
            OSError: It cannot be written; the states before are still there.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        number = max(self._states(), default=0) + 1
        content = {"facts": facts, "state": self._encoded(state)}
        write_file(self.folder / f"state-{number}.json", sealed(content, indent=None))
        self._sound_states.add(number)
        self._let_go()

    def load(self, say: Callable[[str], None]) -> tuple[Any, Mapping[str, Any]] | None:
        """The newest state that is whole, with its facts; None where there is none.

        Args:
            say: Takes a line about each that is damaged.
        """
        for number in sorted(self._states(), reverse=True):
            path = self.folder / f"state-{number}.json"
            try:
                found = read_sealed(path, self.folder, self._read)
            except InputError:
                say(f"{path}: damaged, and not used")
                continue
            self._sound_states.add(number)
            return found
        return None

    def drop(self) -> None:
        """Take all of it away: the runs have their records."""
        for path in self.folder.glob("*"):
            if path.name != WORKER:  # goes last: it says whose states these are
                path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _states(self) -> list[int]:
        names = (_STATE.fullmatch(path.name) for path in self.folder.glob("state-*.json"))
        return [int(name[1]) for name in names if name]

    def _let_go(self) -> None:
        """Remove all but the newest states, and arrays that none of these names."""
        newest = sorted(self._sound_states)[-_STATES_KEPT:]
        for number in set(self._states()) - set(newest):
            (self.folder / f"state-{number}.json").unlink(missing_ok=True)
        texts = [(self.folder / f"state-{number}.json").read_text() for number in newest]
        for path in self.folder.glob(f"*{_ARRAY}"):
            if not any(path.stem in text for text in texts):
                path.unlink(missing_ok=True)

    def _encoded(self, value: Any) -> Any:
        """A state as JSON has it, its arrays written."""
        if isinstance(value, np.ndarray):
            content = save({"array": np.asarray(value, order="C")})
            name = sha256(content)
            path = self.folder / f"{name}{_ARRAY}"
            if name not in self._sound_arrays or not path.is_file():
                write_file(path, content)
                self._sound_arrays.add(name)
            return {"array": name}
        if isinstance(value, Mapping):  # as pairs: JSON would make words of keys that are numbers
            return {"pairs": [[key, self._encoded(each)] for key, each in value.items()]}
        if isinstance(value, list | tuple):
            return [self._encoded(each) for each in value]
        return value

    def _read(self, content: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
        return _decoded(content["state"], cache(self._array)), content["facts"]

    def _array(self, name: str) -> NDArray[Any]:
        """An array by its digest.

        Raises:
            ValueError: It is not as it was written.
        """
        content = (self.folder / f"{name}{_ARRAY}").read_bytes()
        if sha256(content) != name:
            raise ValueError(f"{name[:12]}…{_ARRAY} was altered since it was written")
        self._sound_arrays.add(name)
        return np.array(load(content)["array"])


def _decoded(value: Any, array: Callable[[str], NDArray[Any]]) -> Any:
    """What was encoded; one array stands wherever its content did."""
    if isinstance(value, list):
        return [_decoded(each, array) for each in value]
    if not isinstance(value, dict):
        return value
    if "pairs" in value:
        return {key: _decoded(each, array) for key, each in value["pairs"]}
    return array(value["array"])
