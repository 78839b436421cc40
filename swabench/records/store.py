"""The store of a study's records: how they are written and found, where `layout.py` says.

An identity is a digest of everything that a run depends on (`study/identity.py`), so the records
of a changed study are not found and not touched. A record that lies in a folder of another
method, seed or identity is refused. What is derived from weights carries their digest: a
landscape of other weights than those that are there is not found.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from filelock import FileLock
from safetensors.numpy import save

from swabench.data.inputs import named_files
from swabench.records.arrays import arrays_of
from swabench.records.choices import choices_text, read_choices
from swabench.records.layout import ARRAYS, RECORD, Layout, named_by
from swabench.records.record import LandscapeRecord, Provenance, Record
from swabench.records.sealing import read_sealed, sealed
from swabench.records.unfinished import Unfinished
from swabench.study.identity import Identities, NamedFiles
from swabench.study.landscape import Part
from swabench.study.search_space import search_space_digest, trial_study, tuned
from swabench.study.study import Study
from swabench.study.tuning import Choices
from swabench.system.errors import InputError, not_written
from swabench.system.files import (
    new_folder,
    sha256,
    sha256_of_json,
    try_writing,
    write_file,
)
from swabench.training.measurement import Divergence, Measurement

if TYPE_CHECKING:  # tables are made from records in moments, and torch takes seconds to import
    from swabench.training.observers import Outcome


Find = Callable[[str, int], Record | None]
"""Finds a run's record by name and seed."""


class RecordStore:
    """The records of one study.

    Args:
        results: The results folder; the study's own lies in it by name.
        study: The study whose records are meant.
        files: Digests of the files that the study names by a path; by default they are read.

    Raises:
        InputError: Such a file is missing or cannot be read.
    """

    def __init__(self, results: Path, study: Study, files: NamedFiles | None = None) -> None:
        self.folder = results / study.name
        self.layout = Layout(self.folder)
        self._study = study
        self._files = named_files(study) if files is None else files
        self._identities = Identities(study, self._files)
        self._identity = cache(self._identities.run)  # asked for thousands of times

    @classmethod
    def to_read(cls, results: Path, study: Study) -> "RecordStore":
        """The records of a study whose data or weights may lie on another machine.

        Where these files cannot be read, those are meant that the last run was made from.
        """
        try:
            return cls(results, study)
        except InputError:
            path = Layout(results / study.name).named_files
            if not path.is_file():
                raise
            return cls(results, study, read_sealed(path, path, lambda found: NamedFiles(**found)))

    def identity(self, method: str, seed: int) -> str:
        """A digest of everything that a run depends on."""
        return self._identity(method, seed)

    def find(self, method: str, seed: int) -> Record | None:
        """The record of a run of this study, as it is now; None where there is none.

        Raises:
            InputError: There is one and it cannot be read, or is another run's.
        """
        folder = self._run_folder(method, seed)
        if not folder.is_dir():
            return None
        expected = {"method": method, "seed": seed, "identity": self.identity(method, seed)}
        return read_sealed(folder / RECORD, folder, lambda found: _record(found, folder, expected))

    def missing(self, methods: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, int]]:
        """Runs that have no record, as (method, seed)."""
        begun = {method: set(self.begun(method, seeds)) for method in methods}
        return [
            (m, s) for s in seeds for m in methods if s not in begun[m] or self.find(m, s) is None
        ]

    def begun(self, method: str, seeds: Sequence[int]) -> list[int]:
        """Of some seeds those at which there is a run of that name, of whatever settings.

        One look at a folder, where `find` is one for each of maybe 10,000 seeds.
        """
        there = self.layout.seeds_of(method)
        return [seed for seed in seeds if str(seed) in there]

    def diverged(self, methods: Sequence[str], seeds: Sequence[int]) -> list[Record]:
        """The records of runs that diverged, of those that are there."""
        found = (self.find(m, s) for m in methods for s in seeds)
        return [record for record in found if record and record.diverged]

    def write(
        self,
        method: str,
        seed: int,
        outcome: "Outcome",
        *,
        trained_with: Sequence[str] = (),
        provenance: Provenance,
        environment: Mapping[str, Any],
        seconds: float,
    ) -> None:
        """Write a finished run atomically; one that is there already stays.

        Of a run that diverged there stays what was measured before, and that it did.

        Args:
            method: The run's name.
            seed: Its seed.
            outcome: What it left behind.
            trained_with: Names of the runs in lockstep with it; without any it ran alone.
            provenance: Digests of what went in.
            environment: Versions, device and commit.
            seconds: Its share of the training's wall time.

        Raises:
            SwabenchError: The results folder cannot be written.
        """
        diverged = outcome.diverged
        named = {} if diverged else arrays_of(outcome)
        kept = [m for m in outcome.history if not diverged or m.epoch < diverged.epoch]
        arrays = save(named)
        content = {
            "method": method,
            "seed": seed,
            "identity": self.identity(method, seed),
            "trained_with": {name: self.identity(name, seed) for name in trained_with or (method,)},
            "holds": sorted(named),
            "averages": any(m.predictor == "average" for m in outcome.history),
            "provenance": dict(provenance),
            "environment": dict(environment),
            "seconds": round(seconds, 3),
            "history": [dataclasses.asdict(measurement) for measurement in kept],
            "arrays_sha256": sha256(arrays),
            **({"diverged": diverged.plain()} if diverged else {}),
        }
        with self._told_if_unwritable(), new_folder(self._run_folder(method, seed)) as folder:
            (folder / ARRAYS).write_bytes(arrays)
            (folder / RECORD).write_bytes(sealed(content))
        if self._files != NamedFiles():
            self._write_file(self.layout.named_files, sealed(dataclasses.asdict(self._files)))

    def unfinished(self, names: Sequence[str], seed: int, source: str | None = None) -> Unfinished:
        """Where a group of runs is kept while it is under way.

        Args:
            names: The runs.
            seed: Their seed.
            source: Digest of the recorded arrays that they are made from, if they are.
        """
        runs = {name: self.identity(name, seed) for name in names}
        group = sha256_of_json({"runs": list(runs.items()), "seed": seed, "source": source})
        return Unfinished(self.layout.unfinished(group[:16]))

    def under_way(self) -> list[Unfinished]:
        """The places of groups that were begun, also of those that killed processes left."""
        return [Unfinished(folder) for folder in self.layout.under_way()]

    def of_trials(self) -> "RecordStore":
        """Where the trials of the study's tuning lie: in its own folder, apart."""
        return RecordStore(self.folder, trial_study(self._study), self._files)

    def search_space(self) -> str:
        """A digest of all that the study's tuning depends on."""
        return search_space_digest(self._study, self._files)

    def choices(self) -> Choices | None:
        """What tuning chose; None where there is nothing, or of another search space.

        Raises:
            InputError: The file cannot be read.
        """
        path = self.layout.choices
        found = read_choices(path) if path.is_file() else None
        return found if found and found.search_space == self.search_space() else None

    def write_choices(self, choices: Choices) -> str:
        """Write what tuning chose; returns the file's name."""
        self._write_file(self.layout.choices, choices_text(choices).encode())
        return self.layout.choices.name

    def find_landscape(
        self, part: Part, seed: int, find: Find | None = None
    ) -> LandscapeRecord | None:
        """What was measured around the weights of a seed's runs; None where nothing was.

        Args:
            part: Which part.
            seed: The seed.
            find: What finds the runs, where they were read before; `find` by default.

        Raises:
            InputError: It cannot be read, or is not as it was written.
        """
        weights = self._weights(part, seed, find or self.find)
        if weights is None:
            return None
        path = self._landscape_path(part, seed, weights)
        if not path.is_file():
            return None
        identity = self._identities.landscape(part, seed, weights)
        expected = {"part": part, "seed": seed, "identity": identity}
        return read_sealed(path, path, lambda found: _landscape_record(found, expected))

    def write_landscape(
        self,
        part: Part,
        seed: int,
        tables: Mapping[str, pd.DataFrame],
        *,
        provenance: Provenance,
        environment: Mapping[str, Any],
        seconds: float,
    ) -> None:
        """Write one part of the landscape atomically.

        Raises:
            SwabenchError: The results folder cannot be written, or runs that it looked at are gone.
        """
        weights = self._weights(part, seed, self.find)
        if weights is None:
            raise InputError(f"{self.folder}: runs of seed {seed} went away while looked at")
        content = {
            "part": part,
            "seed": seed,
            "identity": self._identities.landscape(part, seed, weights),
            "weights": weights,
            "tables": {name: frame.to_dict(orient="list") for name, frame in tables.items()},
            "provenance": dict(provenance),
            "environment": dict(environment),
            "seconds": round(seconds, 3),
        }
        self._write_file(self._landscape_path(part, seed, weights), sealed(content))

    def landscape_lock(self, part: Part, seed: int) -> FileLock:
        """Held by the one process of a machine that measures a part of the landscape."""
        path = self.layout.landscape_lock(part, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path)

    def prepare(self) -> None:
        """Find out before any work is done whether results can be written.

        Raises:
            SwabenchError: They cannot; nothing was changed.
        """
        with self._told_if_unwritable():
            self.folder.mkdir(parents=True, exist_ok=True)
            try_writing(self.folder)

    def write_text(self, name: str, text: str) -> str:
        """Write a small file of the study (a table, a manifest); returns its name."""
        self._write_file(self.folder / name, text.encode())
        return name

    def remove_texts(self, pattern: str) -> None:
        """Take away small files of records that are no longer these, by their names' pattern."""
        for path in self.folder.glob(pattern):
            path.unlink(missing_ok=True)

    def write_figure(self, name: str, content: bytes) -> str:
        """Write a picture of the study under its file name; returns its name in the folder."""
        path = self.layout.figure(name)
        self._write_file(path, content)
        return path.relative_to(self.folder).as_posix()

    def remove_figure(self, name: str) -> None:
        """Take away a picture of records that are no longer these."""
        self.layout.figure(name).unlink(missing_ok=True)

    @contextmanager
    def _told_if_unwritable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            elsewhere = "choose another folder with --results"
            raise not_written(error, self.folder, elsewhere) from None

    def _write_file(self, path: Path, content: bytes) -> None:
        with self._told_if_unwritable():
            write_file(path, content)

    def _weights(self, part: Part, seed: int, find: Find) -> dict[str, str] | None:
        """Digests of the weights that a part looks at, by name; None where some are missing."""
        rows = self._study.landscape_rows(part)
        records = {name: find(name, seed) for name in rows}
        weights = {n: r.arrays_sha256 for n, r in records.items() if r and not r.diverged}
        return weights if rows and len(weights) == len(rows) else None

    def _landscape_path(self, part: Part, seed: int, weights: Mapping[str, str]) -> Path:
        identity = self._identities.landscape(part, seed, weights)
        return self.layout.landscape(part, seed, identity)

    def _run_folder(self, method: str, seed: int) -> Path:
        return self.layout.run(method, seed, self.identity(method, seed))


def tuned_study(results: Path, study: Study) -> Study | None:
    """The study that runs: its settings as tuning chose them, where it is to be tuned.

    Returns:
        None where nothing was chosen yet in the study's present search space.

    Raises:
        InputError: What was chosen cannot be read, or does not fit.
    """
    if study.tuning is None:
        return study
    store = RecordStore.to_read(results, study)
    choices = store.choices()
    try:
        return tuned(study, choices) if choices else None
    except InputError as error:
        path = store.layout.choices
        raise InputError(f"{path}: {error}; delete it and run `swabench tune` again") from None


def has_runs(folder: Path) -> bool:
    """Whether a study's results folder holds any run, of whatever settings."""
    return Layout(folder).runs.is_dir()


def _check_place(content: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse a record that was copied over another one's."""
    for key, value in expected.items():
        if content[key] != value:
            raise ValueError(f"it is of {key} {content[key]!r}, and lies where {value!r} belongs")


def record_in(folder: Path) -> Record:
    """The record in a folder, which must be of the seed and the identity that the folder names.

    Raises:
        InputError: It cannot be read, or is of others.
    """
    named = named_by(folder)
    return read_sealed(folder / RECORD, folder, lambda found: _record(found, folder, named))


def landscape_in(path: Path) -> LandscapeRecord:
    """The part of a landscape in a file, likewise.

    Raises:
        InputError: It cannot be read, or is of others.
    """
    named = named_by(path)
    return read_sealed(path, path, lambda found: _landscape_record(found, named))


def _record(content: dict[str, Any], folder: Path, expected: Mapping[str, Any]) -> Record:
    _check_place(content, expected)
    history = tuple(Measurement(**row) for row in content.pop("history"))
    diverged = content.pop("diverged", None)
    if diverged is not None:
        diverged = Divergence(**{**diverged, "loss": float(diverged["loss"])})
    return Record(**content, history=history, folder=folder, diverged=diverged)


def _landscape_record(content: dict[str, Any], expected: Mapping[str, Any]) -> LandscapeRecord:
    _check_place(content, expected)
    tables = {name: pd.DataFrame(columns) for name, columns in content["tables"].items()}
    return LandscapeRecord(**{**content, "tables": tables})
