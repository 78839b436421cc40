"""What every claim draws on: the study, its records at the seeds asked for, the rules."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from swabench.analysis.evidence import Comparer, Values
from swabench.analysis.flatness import Flatness
from swabench.analysis.frame import Records
from swabench.records import Record
from swabench.study.study import Study
from swabench.training.measurement import Predictor

Measure = Literal["accuracy", "loss"]
UNITS: Mapping[Measure, str] = {"accuracy": "points", "loss": "nats"}


class ClaimContext:
    """What every claim draws on: the study, its records at the seeds asked for, the rules."""

    def __init__(
        self, study: Study, records: Records, seeds: Sequence[int], flatness: Flatness
    ) -> None:
        self.study = study
        self.rules = study.claims
        self.records = records
        self.seeds = list(seeds)
        self.flatness = flatness
        self.compare = Comparer(study, np.random.default_rng(study.claims.sign_flip_seed))
        self._tensors: dict[tuple[str, int], dict[str, NDArray[np.float32]]] = {}

    def final(
        self,
        name: str,
        measure: Measure,
        predictor: Predictor | None = None,
        split: Literal["validation", "test"] = "test",
    ) -> Values:
        """A final measurement at every seed; by default of the method's own result."""
        found = self.records.final(name, measure, predictor, split)
        return {seed: found[seed] for seed in self.seeds}

    def course(self, name: str, measure: Measure, predictor: Predictor, seed: int) -> list[float]:
        """A predictor's test measurements over the epochs, those of the transient left out."""
        first = math.floor(self.rules.transient * self.study.finetune.epochs)
        found = self.records.course(name, measure, predictor)[seed]
        return [float(value) for value in found[found.index >= first].dropna()]

    def probabilities(self, name: str, seed: int, predictor: Predictor) -> NDArray[np.float64]:
        """Predicted probabilities of the test images, shape (N, C)."""
        return np.exp(self._kept(name, seed)[predictor].astype(np.float64))

    def correct(self, name: str, seed: int) -> NDArray[np.bool_] | None:
        """Which test images the method's result gets right, (N,); None without labels."""
        kept = self._kept(name, seed)
        if "labels" not in kept:
            return None
        right = kept[self.records[name][seed].result].argmax(-1) == kept["labels"]
        return np.asarray(right, dtype=np.bool_)

    def _kept(self, name: str, seed: int) -> dict[str, NDArray[np.float32]]:
        if (name, seed) not in self._tensors:
            self._tensors[name, seed] = _test_predictions(self.records[name][seed])
        return self._tensors[name, seed]


def _test_predictions(record: Record) -> dict[str, NDArray[np.float32]]:
    """Predictions and labels of the test images: the rest of the arrays is not kept."""
    prefix, suffix = "log_probabilities/", "/test"
    arrays = record.arrays()
    kept = {
        name.removeprefix(prefix).removesuffix(suffix): array
        for name, array in arrays.items()
        if name.startswith(prefix) and name.endswith(suffix)
    }
    if "labels/test" in arrays:
        kept["labels"] = arrays["labels/test"]
    return kept
