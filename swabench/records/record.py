"""One record: what a run, or a look at the landscape, left behind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.numpy import load

from swabench.records.arrays import TRAJECTORY, RunArrays, weights_key
from swabench.records.layout import ARRAYS
from swabench.study.inputs import SplitName
from swabench.study.landscape import Part
from swabench.system.errors import InputError
from swabench.system.files import sha256
from swabench.training.measurement import Divergence, Measurement, Predictor

Provenance = Mapping[str, Any]
"""SHA-256 of what went in: `data` (by file), `backbone`, and `features` by boundary and images."""


@dataclass(frozen=True)
class Record:
    """One finished run.

    Attributes:
        method: Name of the table's row, or of a run of the rate sweep.
        seed: The run's seed.
        identity: Digest of everything that the run depends on.
        trained_with: The runs that took every step together with it, itself included: their
            identities by name, in their order. Another composition rounds otherwise.
        holds: Names of its arrays.
        averages: Whether the method's result is its average (else the iterate).
        history: Measurements after every scored epoch.
        provenance: Digests of the data, the backbone and the features that went in.
        environment: Versions, device and commit it ran on.
        seconds: Wall time of the training it was part of, divided by all that trained meanwhile:
            the runs in lockstep, and on a GPU the trajectories side by side.
        folder: Where it lies.
        arrays_sha256: Digest of its file of arrays.
        diverged: Where its loss left the finite numbers; None where it did not. Of a run that
            diverged there are neither weights nor predictions, and the history ends before.
    """

    method: str
    seed: int
    identity: str
    trained_with: Mapping[str, str]
    holds: Sequence[str]
    averages: bool
    history: tuple[Measurement, ...]
    provenance: Provenance
    environment: Mapping[str, Any]
    seconds: float
    folder: Path
    arrays_sha256: str
    diverged: Divergence | None = None

    def __str__(self) -> str:
        reason = f" ({self.diverged})" if self.diverged else ""
        return f"{self.method} at seed {self.seed}{reason}"

    @property
    def result(self) -> Predictor:
        """The predictor that the method hands over at the end."""
        return "average" if self.averages else "iterate"

    def final_accuracy(self, split: SplitName) -> float:
        """The result's last accuracy on a split, in percent; where BatchNorm trains, the table's.

        Raises:
            ValueError: It was not measured on that split.
        """
        found = [
            m.accuracy
            for m in self.history
            if (m.predictor, m.split) == (self.result, split) and m.batchnorm != "running"
        ]
        if not found:
            raise ValueError(f"{self.method} was not measured on the {split} images")
        return found[-1]

    @property
    def holds_weights(self) -> bool:
        """Whether the result's weights were kept."""
        return weights_key(self.result) in self.holds

    @property
    def holds_trajectory(self) -> bool:
        """Whether the weights of every epoch were kept."""
        return TRAJECTORY in self.holds

    def arrays(self) -> RunArrays:
        """Weights, predictions and trajectory, verified.

        Raises:
            InputError: The file is missing or not as it was written.
        """
        path = self.folder / ARRAYS
        remedy = f"delete {self.folder} and run again"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
        found = sha256(content)
        if found != self.arrays_sha256:
            raise InputError(
                f"{path}: altered or truncated, sha256 {found[:12]}… where "
                f"{self.arrays_sha256[:12]}… was written; {remedy}"
            )
        return RunArrays(load(content))


@dataclass(frozen=True)
class LandscapeRecord:
    """One part of the loss landscape at one seed.

    Attributes:
        part: Which part.
        seed: The runs' seed.
        identity: Digest of everything that it depends on.
        weights: The runs that it looked at: digests of their arrays, by name.
        tables: What was measured, in long form, by name.
        provenance: Digests of the data, the backbone and the features that went in.
        environment: Versions, device and commit it was measured with.
        seconds: Wall time.
    """

    part: Part
    seed: int
    identity: str
    weights: Mapping[str, str]
    tables: Mapping[str, pd.DataFrame]
    provenance: Provenance
    environment: Mapping[str, Any]
    seconds: float


def check_made_from(record: Record, provenance: Provenance) -> None:
    """Refuse a record of other data or another backbone than what is at hand.

    Raises:
        InputError: It is.
    """
    if not agree(record.provenance, provenance):
        raise InputError(
            f"{record.folder}: was made from other data, backbone weights or features than "
            "those at hand; choose another folder with --results, or delete it and run again"
        )


def agree(
    one: Provenance,
    other: Provenance,
    parts: Sequence[str] = ("data", "backbone", "features"),
) -> bool:
    """Whether two records were made from the same: of features, those that both have count."""
    for part in parts:
        a, b = one.get(part, {}), other.get(part, {})
        if part == "features":
            both = a.keys() & b.keys()
            a, b = ({name: found[name] for name in both} for found in (a, b))
        if a != b:
            return False
    return True
