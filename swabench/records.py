"""Records: where runs lie, written whole or not at all, found again, verified.

Only this module knows where files lie. Under a study's results folder:

    runs/<method>/seed-<seed>-<identity>/record.json         measurements and provenance
    runs/<method>/seed-<seed>-<identity>/arrays.safetensors  weights and predictions
    landscape/<part>/seed-<seed>-<identity>.json              what was measured around the weights
    figures/<name>.<format>                                   pictures, drawn from the above

The identity is a digest of everything that the run depends on (`Study.run_identity`), so the
records of a changed study are not found and not touched.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import load, save

from swabench.study.landscape import Part
from swabench.study.study import Study
from swabench.system.errors import InputError
from swabench.training.measurement import Measurement, Predictor

if TYPE_CHECKING:  # tables are made from records in moments, and torch takes seconds to import
    from swabench.training.loop import Outcome

Found = TypeVar("Found")

_RECORD = "record.json"
_ARRAYS = "arrays.safetensors"
_FIGURES = "figures"


@dataclass(frozen=True)
class Record:
    """One finished run.

    Attributes:
        method: Name of the table's row.
        seed: The run's seed.
        identity: Digest of everything that the run depends on.
        averages: Whether the method's result is its average (else the iterate).
        history: Measurements after every epoch.
        provenance: Digests of the data and the backbone that went in.
        environment: Versions, device and commit it ran on.
        seconds: Wall time of the training it was part of, divided by the runs in lockstep.
        folder: Where it lies.
        arrays_sha256: Digest of its file of arrays.
    """

    method: str
    seed: int
    identity: str
    averages: bool
    history: tuple[Measurement, ...]
    provenance: Mapping[str, Any]
    environment: Mapping[str, Any]
    seconds: float
    folder: Path
    arrays_sha256: str

    @property
    def result(self) -> Predictor:
        """The predictor that the method hands over at the end."""
        return "average" if self.averages else "iterate"

    def final(self, predictor: Predictor, split: str) -> Measurement:
        """The last measurement of a predictor on a split."""
        return [m for m in self.history if m.predictor == predictor and m.split == split][-1]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Weights, predictions and trajectory, verified.

        Keys: `weights/<predictor>` (P,), `log_probabilities/<predictor>/<split>` (N, C),
        `labels/<split>` (N,) and, where there is BatchNorm, `statistics/<predictor>` (S,); where
        it was kept, `trajectory` (epochs + 1, P).

        Raises:
            InputError: The file is missing or not as it was written.
        """
        path = self.folder / _ARRAYS
        remedy = f"delete {self.folder} and run again"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
        found = hashlib.sha256(content).hexdigest()
        if found != self.arrays_sha256:
            raise InputError(
                f"{path}: altered or truncated, sha256 {found[:12]}… where "
                f"{self.arrays_sha256[:12]}… was written; {remedy}"
            )
        return load(content)


@dataclass(frozen=True)
class LandscapeRecord:
    """One part of the loss landscape at one seed.

    Attributes:
        part: Which part.
        seed: The runs' seed.
        identity: Digest of everything that it depends on.
        tables: What was measured, in long form, by name.
        provenance: Digests of the data and the backbone that went in.
        environment: Versions, device and commit it was measured with.
        seconds: Wall time.
    """

    part: Part
    seed: int
    identity: str
    tables: Mapping[str, pd.DataFrame]
    provenance: Mapping[str, Any]
    environment: Mapping[str, Any]
    seconds: float


class RecordStore:
    """The records of one study.

    Args:
        results: The results folder; the study's own lies in it by name.
        study: The study whose records are meant.
    """

    def __init__(self, results: Path, study: Study) -> None:
        self.folder = results / study.name
        self._study = study

    def find(self, method: str, seed: int) -> Record | None:
        """The record of a run of this study, as it is now; None where there is none.

        Raises:
            InputError: There is one and it cannot be read.
        """
        folder = self._run_folder(method, seed)
        if not folder.is_dir():
            return None
        return _read(folder / _RECORD, folder, lambda content: _record(content, folder))

    def missing(self, methods: list[str], seeds: list[int]) -> list[tuple[str, int]]:
        """Runs that have no record, as (method, seed)."""
        return [(m, s) for s in seeds for m in methods if self.find(m, s) is None]

    def write(
        self,
        method: str,
        seed: int,
        outcome: "Outcome",
        *,
        provenance: Mapping[str, Any],
        environment: Mapping[str, Any],
        seconds: float,
    ) -> None:
        """Write a finished run, whole or not at all.

        Raises:
            InputError: The results folder cannot be written.
        """
        folder = self._run_folder(method, seed)
        arrays = save(_named_arrays(outcome))
        content = {
            "method": method,
            "seed": seed,
            "identity": self._study.run_identity(method, seed),
            "averages": "average" in outcome.weights,
            "provenance": dict(provenance),
            "environment": dict(environment),
            "seconds": round(seconds, 3),
            "history": [dataclasses.asdict(measurement) for measurement in outcome.history],
            "arrays_sha256": hashlib.sha256(arrays).hexdigest(),
        }
        with self._told_if_unwritable():
            self._write_folder(folder, {_ARRAYS: arrays, _RECORD: _sealed(content)})

    def find_landscape(self, part: Part, seed: int) -> LandscapeRecord | None:
        """What was measured around the weights of a seed's runs; None where nothing was.

        Raises:
            InputError: It cannot be read, or is not as it was written.
        """
        path = self._landscape_path(part, seed)
        if not path.is_file():
            return None
        return _read(path, path, _landscape_record)

    def write_landscape(
        self,
        part: Part,
        seed: int,
        tables: Mapping[str, pd.DataFrame],
        *,
        provenance: Mapping[str, Any],
        environment: Mapping[str, Any],
        seconds: float,
    ) -> None:
        """Write one part of the landscape, whole or not at all.

        Raises:
            InputError: The results folder cannot be written.
        """
        content = {
            "part": part,
            "seed": seed,
            "identity": self._study.landscape_identity(part, seed),
            "tables": {name: frame.to_dict(orient="list") for name, frame in tables.items()},
            "provenance": dict(provenance),
            "environment": dict(environment),
            "seconds": round(seconds, 3),
        }
        self._write_file(self._landscape_path(part, seed), _sealed(content))

    def check_writable(self) -> None:
        """Find out before any work is done whether results can be written.

        Raises:
            InputError: They cannot; nothing was changed.
        """
        with self._told_if_unwritable():
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass

    def write_text(self, name: str, text: str) -> str:
        """Write a small file of the study (a table, a manifest); returns its name."""
        self._write_file(self.folder / name, text.encode())
        return name

    def write_figure(self, name: str, content: bytes) -> str:
        """Write a picture of the study under its file name; returns its name in the folder."""
        self._write_file(self.folder / _FIGURES / name, content)
        return f"{_FIGURES}/{name}"

    def remove_figure(self, name: str) -> None:
        """Take away a picture of records that are no longer these."""
        (self.folder / _FIGURES / name).unlink(missing_ok=True)

    @contextmanager
    def _told_if_unwritable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"{error.filename or self.folder}: cannot be written ({error.strerror}); "
                "make room or choose another folder with --results"
            ) from None

    def _write_file(self, path: Path, content: bytes) -> None:
        """Write one file whole or not at all."""
        temporary = path.with_name(f".writing-{os.getpid()}-{path.name}")
        with self._told_if_unwritable():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(content)
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)

    def _write_folder(self, folder: Path, files: Mapping[str, bytes]) -> None:
        """Write a folder of files whole or not at all."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
        try:
            for name, content in files.items():
                (temporary / name).write_bytes(content)
            temporary.chmod(0o755)  # mkdtemp's folders are private
            os.replace(temporary, folder)
        except OSError:
            if not folder.is_dir():  # else another process has just written the same run
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _landscape_path(self, part: Part, seed: int) -> Path:
        identity = self._study.landscape_identity(part, seed)
        return self.folder / "landscape" / part / f"seed-{seed}-{identity}.json"

    def _run_folder(self, method: str, seed: int) -> Path:
        identity = self._study.run_identity(method, seed)
        return self.folder / "runs" / method / f"seed-{seed}-{identity}"


def _sealed(content: Mapping[str, Any]) -> bytes:
    """A record as JSON that carries its own digest."""
    return json.dumps({**content, "sha256": _json_digest(content)}, indent=1).encode()


def _json_digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read(path: Path, whole: Path, make: Callable[[dict[str, Any]], Found]) -> Found:
    """Read a sealed record and make something of it; `whole` is what to delete if it is bad."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is no mapping of keys")
        if content.pop("sha256", None) != _json_digest(content):
            raise ValueError("altered since it was written")
        return make(content)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path}: no readable record ({error}); delete {whole} and run again"
        ) from None


def _record(content: dict[str, Any], folder: Path) -> Record:
    history = tuple(Measurement(**row) for row in content.pop("history"))
    return Record(**content, history=history, folder=folder)


def _landscape_record(content: dict[str, Any]) -> LandscapeRecord:
    tables = {name: pd.DataFrame(columns) for name, columns in content["tables"].items()}
    return LandscapeRecord(**{**content, "tables": tables})


def _named_arrays(outcome: "Outcome") -> dict[str, NDArray[Any]]:
    named = {f"weights/{name}": weights for name, weights in outcome.weights.items()}
    for name, statistics in outcome.statistics.items():
        if len(statistics):
            named[f"statistics/{name}"] = statistics
    for (predictor, split), values in outcome.log_probabilities.items():
        named[f"log_probabilities/{predictor}/{split}"] = values.float()
    for split, labels in outcome.labels.items():
        named[f"labels/{split}"] = labels.short()
    if outcome.trajectory is not None:
        named["trajectory"] = outcome.trajectory
    return {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in named.items()}
