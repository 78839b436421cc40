"""Records: where runs lie, written whole or not at all, found again, verified.

Only this module knows where files lie. Under a study's results folder:

    runs/<method>/seed-<seed>-<identity>/record.json         measurements and provenance
    runs/<method>/seed-<seed>-<identity>/tensors.safetensors  weights and predictions
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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import load, save_file

from swabench.config import Study
from swabench.errors import InputError
from swabench.landscape_settings import Part
from swabench.measurement import Measurement, Predictor

if TYPE_CHECKING:  # tables are made from records in moments, and torch takes seconds to import
    from swabench.training.loop import Outcome

_RECORD = "record.json"
_TENSORS = "tensors.safetensors"
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
        sha256: Digest of its tensor file.
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
    sha256: str

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
        path = self.folder / _TENSORS
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise InputError(
                f"{path}: altered or truncated, sha256 {found[:12]}… where {self.sha256[:12]}… "
                f"was written; delete {self.folder} and run again"
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
        path = folder / _RECORD
        if not folder.is_dir():
            return None
        try:
            content = json.loads(path.read_text())
            history = tuple(Measurement(**row) for row in content.pop("history"))
            # The row may have been renamed since: the study's name for it counts.
            return Record(
                **{**content, "method": method, "seed": seed}, history=history, folder=folder
            )
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{path}: no readable record ({error}); delete {folder} and run again"
            ) from None

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
        content = {
            "method": method,
            "seed": seed,
            "identity": self._study.run_identity(method, seed),
            "averages": "average" in outcome.weights,
            "provenance": dict(provenance),
            "environment": dict(environment),
            "seconds": round(seconds, 3),
            "history": [dataclasses.asdict(measurement) for measurement in outcome.history],
        }
        self.check_writable()
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
        try:
            save_file(_named_arrays(outcome), temporary / _TENSORS)
            digest = hashlib.sha256((temporary / _TENSORS).read_bytes()).hexdigest()
            (temporary / _RECORD).write_text(json.dumps({**content, "sha256": digest}, indent=1))
            temporary.chmod(0o755)  # mkdtemp's folders are private
            os.replace(temporary, folder)
        except OSError:
            if not folder.is_dir():  # else another process has just written the same run
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def find_landscape(self, part: Part, seed: int) -> LandscapeRecord | None:
        """What was measured around the weights of a seed's runs; None where nothing was.

        Raises:
            InputError: It cannot be read, or is not as it was written.
        """
        path = self._landscape_path(part, seed)
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text())
            if content.pop("sha256") != _json_digest(content):
                raise ValueError("altered since it was written")
            tables = {name: pd.DataFrame(columns) for name, columns in content["tables"].items()}
            return LandscapeRecord(**{**content, "tables": tables})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{path}: no readable record ({error}); delete it and run again"
            ) from None

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
        text = json.dumps({**content, "sha256": _json_digest(content)})
        self._write(self._landscape_path(part, seed), text.encode())

    def check_writable(self) -> None:
        """Find out before any work is done whether results can be written.

        Raises:
            InputError: They cannot; nothing was changed.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise InputError(
                f"{self.folder}: cannot be written ({error.strerror}); "
                "choose another folder with --results"
            ) from None

    def write_text(self, name: str, text: str) -> Path:
        """Write a small file of the study (a table, a manifest), whole or not at all."""
        return self._write(self.folder / name, text.encode())

    def write_figure(self, name: str, content: bytes) -> Path:
        """Write a picture of the study under its file name, whole or not at all."""
        return self._write(self.folder / "figures" / name, content)

    def _write(self, path: Path, content: bytes) -> Path:
        self.check_writable()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".writing-{os.getpid()}-{path.name}")
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def figures(self) -> dict[str, str]:
        """The SVG figures of the study that have been drawn, by name, in order."""
        paths = sorted((self.folder / _FIGURES).glob("*.svg"))
        return {path.stem: path.read_text(encoding="utf-8") for path in paths}

    def _landscape_path(self, part: Part, seed: int) -> Path:
        identity = self._study.landscape_identity(part, seed)
        return self.folder / "landscape" / part / f"seed-{seed}-{identity}.json"

    def _run_folder(self, method: str, seed: int) -> Path:
        identity = self._study.run_identity(method, seed)
        return self.folder / "runs" / method / f"seed-{seed}-{identity}"


def _json_digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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
