"""What a run depends on, as a digest: records are found by it.

A changed study never picks up the records of another one. Titles, paths and the study's other
methods are no part of an identity, so adding a method leaves the runs of the others valid; a
setting that was added later is left out while it is neutral (`settings.AddedLater`). Files that a
study names by their paths count by their bytes. Of a seed its draws count: where two studies draw
the same, their runs are the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from swabench.study.landscape import Part
from swabench.study.settings import what_results_depend_on
from swabench.study.stages import Stage
from swabench.study.study import Study
from swabench.system.files import sha256_of_json

VERSION = 2
"""Raised when the meaning of settings changes, so that no older record is found any more."""

_IDLE_IN_A_HEAD = ("batchnorm", "precision", "evaluation_batch_size")
"""Settings of a stage that mean nothing for a final layer: no BatchNorm, always float32."""


@dataclass(frozen=True)
class NamedFiles:
    """SHA-256 of what a study names by a path; None where it names none.

    Attributes:
        data: Of the files of `data.folder`, where they are a data set of the user's own.
        weights: Of the file `backbone.weights`, or the identity of the run that it names.
    """

    data: str | None = None
    weights: str | None = None


@dataclass(frozen=True)
class Identities:
    """Names the runs of a study by what they depend on: 16 hexadecimal digits each."""

    study: Study
    files: NamedFiles

    def pretraining(self, seed: int) -> str:
        """Of everything that a seed's pretraining depends on."""
        draws, shared = self.study.draws(seed), self._of_all_seeds
        return _digest(
            {
                "version": VERSION,
                "data": {**shared["data"], "split_seed": draws.split},
                "backbone": {**shared["backbone"], "seed": draws.backbone},
                "pretrain": shared["pretrain"],
                # One number where both are the same, as in records from before they could differ.
                "seed": draws.head if draws.head == draws.order else [draws.head, draws.order],
            }
        )

    def run(self, name: str, seed: int) -> str:
        """Of everything that a run at a seed depends on; its name is a row's or the sweep's."""
        if name == self.study.pretrain.name:
            return self.pretraining(seed)
        return _digest(
            {
                "pretrain": self.pretraining(seed),
                "finetune": self._of_all_seeds["finetune"],
                "method": self._methods[name],
            }
        )

    @cached_property
    def _of_all_seeds(self) -> dict[str, dict[str, Any]]:
        """What runs depend on beside their seed and method: a study may have 10,000 seeds."""
        study, files = self.study, self.files
        data, backbone = map(what_results_depend_on, (study.data, study.backbone))
        if files.data is not None:
            data["folder"] = files.data
        if files.weights is not None:
            backbone["weights"] = files.weights
        stages = {"pretrain": _stage(study.pretrain), "finetune": _stage(study.finetune)}
        return {"data": data, "backbone": backbone, **stages}

    @cached_property
    def _methods(self) -> dict[str, dict[str, Any]]:
        return {name: what_results_depend_on(m) for name, m in self.study.all_methods.items()}

    def landscape(self, part: Part, seed: int, weights: Mapping[str, str]) -> str:
        """Of everything that a part of the landscape depends on at a seed.

        Args:
            part: Which part.
            seed: The runs' seed.
            weights: SHA-256 of the arrays of each run that it looks at, by name, in order.
        """
        landscape = self.study.landscape
        settings = what_results_depend_on(landscape.part(part))
        test_images = landscape.test_images
        return _digest(
            {
                "version": VERSION,
                "part": part,
                "settings": settings,
                "training_images": landscape.training_images,
                **({} if test_images is None else {"test_images": test_images}),
                "seed": landscape.seed,
                "run_seed": seed,
                "weights": list(weights.items()),
            }
        )


def _stage(stage: Stage) -> dict[str, Any]:
    kept = what_results_depend_on(stage)
    if stage.trainable == "head":
        for name in _IDLE_IN_A_HEAD:
            kept.pop(name, None)
    return kept


def _digest(value: Mapping[str, Any]) -> str:
    return sha256_of_json(value)[:16]
