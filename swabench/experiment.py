"""Carries a study out: data → features → pretrained heads → runs → records.

What is done already (a record exists) is not done again, and nothing is loaded until something
is to be trained.
"""

import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swabench.config import Stage, Study
from swabench.environment import environment
from swabench.errors import InputError, SwabenchError
from swabench.materials import Materials, load_materials
from swabench.methods import Method
from swabench.progress import Advance, Progress
from swabench.records import Record, RecordStore
from swabench.survey import Surveyor, check_surveyable, missing_parts
from swabench.training.heads import StackedHeads, initial_head
from swabench.training.loop import DataOrder, Outcome, RunPlan, train

# Stages draw their data orders from different streams of the same seed.
PRETRAINING, FINETUNING = 0, 1


class Experiment:
    """One study on one device.

    Args:
        study: What to run.
        results: The results folder.
        device: Where to run it.
        cache: The user's cache folder, for data and features.
        progress: Told how far things are.
    """

    def __init__(
        self, study: Study, results: Path, device: torch.device, cache: Path, progress: Progress
    ) -> None:
        self.study = study
        self.store = RecordStore(results, study)
        self._device = device
        self._cache = cache
        self._progress = progress

    def pretrain(self, seeds: list[int]) -> int:
        """Pretrain every seed that has no record yet; returns how many that were."""
        study = self.study
        name = study.pretrain.name
        missing = [seed for _, seed in self.store.missing([name], seeds)]
        if not missing:
            return 0
        self.store.check_writable()
        inputs = self._materials.splits["train"].inputs
        with self._progress.task(
            "pretraining", len(missing) * study.pretrain.epochs, "epochs"
        ) as advance:
            for seed in missing:
                start = initial_head(inputs.shape[1], self._materials.classes, seed)
                self._run(
                    study.pretrain,
                    PRETRAINING,
                    {name: study.pretrain.method},
                    seed,
                    start,
                    advance,
                )
        return len(missing)

    def finetune(self, methods: list[str], seeds: list[int]) -> int:
        """Run every method at every seed that has no record yet; returns how many that were.

        Pretrains first where that is missing. Diverged runs are reported at the end, after the
        others have been recorded.

        Raises:
            SwabenchError: Some runs diverged; names them.
        """
        study = self.study
        missing = self.store.missing(methods, seeds)
        if not missing:
            return 0
        self.store.check_writable()
        self.pretrain(sorted({seed for _, seed in missing}))
        total = len(missing) * study.finetune.epochs
        diverged: list[str] = []
        with self._progress.task("fine-tuning", total, "epochs") as advance:
            for seed in seeds:
                group = {m: study.methods[m] for m, at in missing if at == seed}
                if group:
                    start = self._pretrained(seed).tensors()["weights/iterate"]
                    diverged += self._run(study.finetune, FINETUNING, group, seed, start, advance)
        if diverged:
            raise SwabenchError(
                "diverged, and were not recorded: " + "; ".join(diverged) + ". Lower their rates"
            )
        return len(missing)

    def survey(self, seeds: list[int]) -> int:
        """Measure the loss landscape where that is not done; returns how many parts were.

        Raises:
            InputError: Runs are missing, or the study trains more than the final layer.
        """
        missing = missing_parts(self.study, self.store, seeds)
        check_surveyable(self.study, self.store, missing)
        if not missing:
            return 0
        self.store.check_writable()
        materials = self._materials
        surveyor = Surveyor(self.study, self.store, materials)
        with self._progress.task("landscape", len(missing), "parts") as advance:
            for part, seed in missing:
                began = time.monotonic()
                tables = surveyor.measure(part, seed)
                self.store.write_landscape(
                    part,
                    seed,
                    tables,
                    provenance=materials.provenance,
                    environment=self._environment,
                    seconds=time.monotonic() - began,
                )
                advance(1)
        return len(missing)

    def _pretrained(self, seed: int) -> Record:
        record = self.store.find(self.study.pretrain.name, seed)
        if record is None:
            raise SwabenchError(f"pretraining at seed {seed} left no record; run it first")
        if record.provenance != self._materials.provenance:
            raise InputError(
                f"{record.folder}: was made from other data or backbone weights than those at "
                "hand; choose another folder with --results, or delete it and run again"
            )
        return record

    def _run(
        self,
        stage: Stage,
        stage_number: int,
        methods: Mapping[str, Method],
        seed: int,
        start: Tensor,
        advance: Advance,
    ) -> list[str]:
        """Run methods of one seed in lockstep and record them; returns which diverged."""
        materials = self._materials
        splits = materials.splits
        order = DataOrder(len(splits["train"]), stage.batch_size, seed, stage_number)
        plans = [
            RunPlan(method.timeline(stage.epochs, order.steps_per_epoch), method.averaging)
            for method in methods.values()
        ]
        weights = start.to(self._device).expand(len(plans), -1)
        learner = StackedHeads(splits, weights, stage.optimizer, materials.classes)
        began = time.monotonic()
        outcomes = train(
            learner,
            plans,
            splits,
            order,
            stage.epochs,
            keep_trajectory=True,
            after_epoch=lambda: advance(len(plans)),
        )
        seconds = (time.monotonic() - began) / len(plans)
        diverged = []
        for name, outcome in zip(methods, outcomes, strict=True):
            if outcome.diverged_epoch is not None:
                diverged.append(_divergence(name, seed, outcome))
                continue
            self.store.write(
                name,
                seed,
                outcome,
                provenance=materials.provenance,
                environment=self._environment,
                seconds=seconds,
            )
        return diverged

    @cached_property
    def _environment(self) -> dict[str, Any]:
        return environment(self._device)

    @cached_property
    def _materials(self) -> Materials:
        """Loaded when first needed, so that a finished study loads nothing."""
        return load_materials(self.study, self._device, self._cache, self._progress)


def _divergence(method: str, seed: int, outcome: Outcome) -> str:
    return f"{method} at seed {seed} (loss not finite after epoch {outcome.diverged_epoch})"
