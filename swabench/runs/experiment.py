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

from swabench.landscape.survey import Surveyor, missing_parts, unsurveyable
from swabench.records import RecordStore
from swabench.runs.export import plain_state
from swabench.runs.learners import Start, complete, in_lockstep, make_learner
from swabench.runs.materials import Materials
from swabench.study.methods import Method
from swabench.study.study import Stage, Study
from swabench.system.device import is_out_of_memory
from swabench.system.environment import environment
from swabench.system.errors import DivergedError, InputError, SwabenchError
from swabench.system.progress import Advance, Progress
from swabench.training.backbone import FEATURES, Normalization
from swabench.training.heads import initial_head
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
        """Pretrain every seed that has no record yet; returns how many that were.

        Raises:
            DivergedError: Some seeds diverged; names them, after the others have been recorded.
        """
        study = self.study
        name = study.pretrain.name
        missing = [seed for _, seed in self.store.missing([name], seeds)]
        if not missing:
            return 0
        self.store.check_writable()
        self._materials.prepare(study.pretrain.trainable)
        with self._progress.task(
            "pretraining", len(missing) * study.pretrain.epochs, "epochs"
        ) as advance:
            diverged: list[str] = []
            for seed in missing:
                start = Start(initial_head(FEATURES, self._materials.classes, seed))
                group = {name: study.pretrain.method}
                diverged += self._run(study.pretrain, PRETRAINING, group, seed, start, advance)
        _raise_if_any(diverged)
        return len(missing)

    def finetune(self, methods: list[str], seeds: list[int]) -> int:
        """Run every method at every seed that has no record yet; returns how many that were.

        Pretrains first where that is missing.

        Raises:
            DivergedError: Some runs diverged; names them, after the others have been recorded.
        """
        study = self.study
        missing = self.store.missing(methods, seeds)
        if not missing:
            return 0
        self.store.check_writable()
        self.pretrain(sorted({seed for _, seed in missing}))
        self._materials.prepare(study.finetune.trainable)
        total = len(missing) * study.finetune.epochs
        diverged: list[str] = []
        with self._progress.task("fine-tuning", total, "epochs") as advance:
            for seed in seeds:
                group = {m: study.every_method[m] for m, at in missing if at == seed}
                if group:
                    start = self._trained(study.pretrain.name, seed)
                    diverged += self._run(study.finetune, FINETUNING, group, seed, start, advance)
        _raise_if_any(diverged)
        return len(missing)

    def survey(self, seeds: list[int]) -> int:
        """Measure the loss landscape where that is not done; returns how many parts were.

        Raises:
            InputError: Runs are missing, or the study trains more than the final layer.
        """
        if reason := unsurveyable(self.study, self.store, seeds):
            raise InputError(f"landscape: {reason}")
        missing = missing_parts(self.study, self.store, seeds)
        if not missing:
            return 0
        self.store.check_writable()
        materials = self._materials
        surveyor = Surveyor(
            self.study,
            self.store,
            materials.splits("head"),
            materials.classes,
            materials.provenance,
        )
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

    def export(self, method: str, seed: int) -> dict[str, Tensor]:
        """What a run handed over, under the names of a plain torchvision `resnet50`.

        Raises:
            InputError: There is no record of that run.
        """
        if method not in self.study.row_names:
            raise InputError(
                f"--method: {method!r} is no row of study {self.study.name!r}; "
                f"there are {', '.join(self.study.row_names)}"
            )
        trained = self._trained(method, seed)
        return plain_state(self._materials, self.study.row_stage(method).trainable, trained)

    def normalization(self) -> Normalization:
        """Mean and deviation of each channel that the study normalises images with."""
        return self._materials.normalization

    def _trained(self, name: str, seed: int) -> Start:
        """What a recorded run handed over."""
        record = self.store.find(name, seed)
        if record is None:
            raise InputError(
                f"{self.store.folder}: holds no record of {name} at seed {seed}; run it first"
            )
        if record.provenance != self._materials.provenance:
            raise InputError(
                f"{record.folder}: was made from other data or backbone weights than those at "
                "hand; choose another folder with --results, or delete it and run again"
            )
        arrays = record.arrays()
        weights = torch.tensor(arrays[f"weights/{record.result}"])
        return Start(weights, torch.tensor(arrays.get(f"statistics/{record.result}", [])))

    def _run(
        self,
        stage: Stage,
        stage_number: int,
        methods: Mapping[str, Method],
        seed: int,
        trained: Start,
        advance: Advance,
    ) -> list[str]:
        """Run methods of one seed from one start and record them; returns which diverged.

        Args:
            stage: What trains, and how.
            stage_number: Tells the stages' data orders apart.
            methods: By name.
            seed: The runs' seed.
            trained: What was trained before.
            advance: Told of every epoch done.
        """
        start = complete(trained, stage.trainable, self._materials)
        groups = [methods]
        if not in_lockstep(self.study, stage.trainable):
            groups = [{name: method} for name, method in methods.items()]
        diverged: list[str] = []
        for group in groups:
            diverged += self._run_group(stage, stage_number, group, seed, start, advance)
        return diverged

    def _run_group(
        self,
        stage: Stage,
        stage_number: int,
        methods: Mapping[str, Method],
        seed: int,
        start: Start,
        advance: Advance,
    ) -> list[str]:
        """Run methods together, as one learner."""
        materials = self._materials
        began = time.monotonic()
        try:
            learner = make_learner(self.study, stage, materials, start, len(methods))
            splits = materials.splits(stage.trainable)
            order = DataOrder(len(splits["train"]), stage.batch_size, seed, stage_number)
            outcomes = train(
                learner,
                [
                    RunPlan(method.timeline(stage.epochs, order.steps_per_epoch), method.averaging)
                    for method in methods.values()
                ],
                splits,
                order,
                stage.epochs,
                # A whole network's weights of every epoch would fill a disk.
                keep_trajectory=in_lockstep(self.study, stage.trainable),
                after_epoch=lambda: advance(len(methods)),
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise SwabenchError(self._what_to_lower(stage)) from None
        seconds = (time.monotonic() - began) / len(methods)
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

    def _what_to_lower(self, stage: Stage) -> str:
        key = "pretrain" if stage is self.study.pretrain else "finetune"
        return (
            f"{self._device.type}: out of memory while training {stage.trainable!r}; lower "
            f"{key}.batch_size ({stage.batch_size}), {key}.evaluation_batch_size "
            f"({stage.evaluation_batch_size}) or data.image_size"
        )

    @cached_property
    def _environment(self) -> dict[str, Any]:
        return environment(self._device)

    @cached_property
    def _materials(self) -> Materials:
        """Loaded when first needed, so that a finished study loads nothing."""
        return Materials(self.study, self._device, self._cache, self._progress)


def _raise_if_any(diverged: list[str]) -> None:
    if diverged:
        raise DivergedError(
            f"diverged, and not recorded: {'; '.join(diverged)}; lower the learning rate"
        )


def _divergence(method: str, seed: int, outcome: Outcome) -> str:
    return f"{method} at seed {seed} (loss not finite after epoch {outcome.diverged_epoch})"
