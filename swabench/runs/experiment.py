"""Carries a study out: data → features → pretrained heads → runs → records.

What is done already (a record exists) is not done again, and nothing is loaded until something
is to be trained.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swabench.data.inputs import starting_run
from swabench.landscape.survey import missing_parts, unsurveyable
from swabench.records import RecordStore, agree
from swabench.runs.export import plain_state
from swabench.runs.groups import Group, groups_of
from swabench.runs.learners import Start, complete, in_lockstep, make_learner
from swabench.runs.materials import Materials
from swabench.runs.surveying import make_surveyor
from swabench.study.study import SplitName, Stage, Study
from swabench.study.trajectories import trajectories
from swabench.system.device import memory_for
from swabench.system.environment import environment
from swabench.system.errors import DivergedError, InputError, SwabenchError
from swabench.system.progress import Advance, Progress
from swabench.training.backbone import FEATURES, Normalization
from swabench.training.heads import initial_head
from swabench.training.learner import Learner
from swabench.training.loop import MEASURED, DataOrder, Outcome, run_plans, train
from swabench.training.replay import ReplayedHead, at_the_ends_of_epochs

# Stages draw their data orders from different streams of the same seed.
PRETRAINING, FINETUNING = 0, 1


class Experiment:
    """One study on one device.

    Args:
        study: What to run.
        results: The results folder.
        device: Where to run it.
        cache: The user's cache folder, for data and features.
        progress: Takes notes and counts of what is done.
        measured: On which images runs are measured; those of other splits are not looked at.
        other_results: Where the studies lie that this one starts from; `results` by default.
    """

    def __init__(
        self,
        study: Study,
        results: Path,
        device: torch.device,
        cache: Path,
        progress: Progress,
        measured: Sequence[SplitName] = MEASURED,
        other_results: Path | None = None,
    ) -> None:
        self.study = study
        self._other_results = other_results or results
        self.store = RecordStore(results, study)
        self._device = device
        self._cache = cache
        self._progress = progress
        self._held: dict[tuple[int, int], Materials] = {}  # by split and backbone; one at most
        self._measured = measured

    def pretrain(self, seeds: list[int]) -> int:
        """Pretrain every seed that has no record yet; returns how many runs were recorded.

        Raises:
            DivergedError: Some seeds diverged; names them, after the others have been recorded.
        """
        name = self.study.pretrain.name
        missing = [seed for _, seed in self.store.missing([name], seeds)]
        if not missing:
            return 0
        self.store.prepare()
        diverged: list[str] = []
        for alike, part in self._by_materials(missing):
            diverged += self._pretrain(alike, part)
        _raise_if_any(diverged)
        return len(missing)

    def finetune(self, methods: list[str], seeds: list[int]) -> int:
        """Run every method at every seed that has no record yet; returns how many were recorded.

        Pretrains first where that is missing. Heads of a seed train together (`lockstep_groups`):
        all of a group are trained, and all that have no record are recorded.

        Raises:
            DivergedError: Some runs diverged; names them, after the others have been recorded.
        """
        missing = self.store.missing(methods, seeds)
        if not missing:
            return 0
        self.store.prepare()
        wanted = {seed: [name for name, at in missing if at == seed] for _, seed in missing}
        before = self._recorded(list(wanted))
        diverged: list[str] = []
        # Both stages of some seeds before the next: features of a drawn backbone are not kept.
        for alike, part in self._by_materials(list(wanted)):
            start = self.study.pretrain.name
            bare = [seed for _, seed in self.store.missing([start], alike)]
            diverged += self._pretrain(bare, part)
            started = [seed for seed in alike if self.store.find(start, seed)]
            self._check_starts(started)
            if started:
                diverged += self._finetune({seed: wanted[seed] for seed in started}, part)
        _raise_if_any(diverged)
        return self._recorded(list(wanted)) - before

    def survey(self, seeds: list[int]) -> int:
        """Measure the loss landscape where that is not done; returns how many parts were.

        Raises:
            InputError: Runs are missing, or the study is none that has a landscape.
        """
        if reason := unsurveyable(self.study, self.store, seeds):
            raise InputError(f"landscape: {reason}")
        missing = missing_parts(self.study, self.store, seeds)
        if not missing:
            return 0
        self.store.prepare()
        materials = self._materials(seeds[0])  # what is surveyed has one split and one backbone
        memory = memory_for(
            f"the landscape on {self._device.type}; lower landscape.training_images "
            f"({self.study.landscape.training_images})"
        )
        with memory, self._progress.task("landscape", len(missing), "parts") as advance:
            surveyor = make_surveyor(self.study, self.store, materials)
            for part, seed in missing:
                began = time.monotonic()
                tables = surveyor.measure(part, seed)
                self.store.write_landscape(
                    part,
                    seed,
                    tables,
                    provenance=materials.provenance(self.study.finetune.trainable),
                    environment=self._environment,
                    seconds=time.monotonic() - began,
                )
                advance(1)
        return len(missing)

    def export(self, method: str, seed: int) -> dict[str, Tensor]:
        """A run's result, under the names of a plain torchvision `resnet50`.

        Raises:
            InputError: There is no record of that run.
        """
        if method not in self.study.row_names:
            raise InputError(
                f"--method: {method!r} is not a row of study {self.study.name!r}; "
                f"choose from {', '.join(self.study.row_names)}"
            )
        materials = self._materials(seed)
        _ = materials.standardization  # so that its features are compared with the record's
        trained = self._trained(method, seed)
        return plain_state(materials, self.study.row_stage(method).trainable, trained)

    def normalization(self) -> Normalization:
        """Mean and deviation of each channel that the study normalises images with."""
        # The same whatever seeds draw, so those that are there will do.
        held = next(iter(self._held.values()), None) or self._materials(self.study.seeds[0])
        return held.normalization

    def _check_starts(self, seeds: Sequence[int]) -> None:
        """Stop before methods start from weights that are no good; no seed is left out for it.

        Raises:
            SwabenchError: Some seeds' pretraining is below the study's `minimum_accuracy`.
        """
        least, name = self.study.pretrain.minimum_accuracy, self.study.pretrain.name
        if least is None:
            return
        records = {seed: self.store.find(name, seed) for seed in seeds}
        reached = {s: r.final_accuracy("validation") for s, r in records.items() if r}
        if low := [f"{value:.1f} % at seed {s}" for s, value in reached.items() if value < least]:
            raise SwabenchError(
                f"{name} reaches {', '.join(low)} on the validation images, and "
                f"pretrain.minimum_accuracy is {least:g} %; a comparison from such a start says "
                "nothing. Train it longer or at another rate"
            )

    def _trained(self, name: str, seed: int) -> Start:
        """A recorded run's result."""
        record = self.store.find(name, seed)
        if record is None:
            raise InputError(
                f"{self.store.folder}: holds no record of {name} at seed {seed}; run it first"
            )
        boundary = self.study.row_stage(name).trainable
        if not agree(record.provenance, self._materials(seed).provenance(boundary)):
            raise InputError(
                f"{record.folder}: was made from other data, backbone weights or features than "
                "those at hand; choose another folder with --results, or delete it and run again"
            )
        arrays = record.arrays()
        if f"weights/{record.result}" not in arrays:
            raise InputError(
                f"{record.folder}: holds no weights; set finetune.keep_weights to result, delete "
                "it and run again"
            )
        weights = torch.tensor(arrays[f"weights/{record.result}"])
        return Start(weights, torch.tensor(arrays.get(f"statistics/{record.result}", [])))

    def _recorded(self, seeds: Sequence[int]) -> int:
        names = list(self.study.all_methods)
        return len(names) * len(seeds) - len(self.store.missing(names, seeds))

    def _by_materials(self, seeds: Sequence[int]) -> list[tuple[list[int], str]]:
        """Seeds that share a split and a backbone, and which of how many such parts they are."""
        found: dict[tuple[int, int], list[int]] = {}
        for seed in seeds:
            draws = self.study.draws(seed)
            found.setdefault((draws.split, draws.backbone), []).append(seed)
        parts = len(found)
        return [
            (alike, f", part {number} of {parts}" if parts > 1 else "")
            for number, alike in enumerate(found.values(), start=1)
        ]

    def _pretrain(self, seeds: Sequence[int], part: str) -> list[str]:
        """Pretrain seeds that share a split and a backbone; returns which diverged, in words."""
        if not seeds:
            return []
        stage = self.study.pretrain
        self._materials(seeds[0]).prepare(stage.trainable)
        diverged: list[str] = []
        total = len(seeds) * stage.epochs
        with self._progress.task(f"pretraining{part}", total, "epochs") as advance:
            for seed in seeds:
                classes = self._materials(seed).classes
                start = Start(initial_head(FEATURES, classes, self.study.draws(seed).head))
                diverged += self._run(stage, seed, start, [Group([stage.name])], advance)
        return diverged

    def _finetune(self, wanted: Mapping[int, Sequence[str]], part: str) -> list[str]:
        """Fine-tune runs of seeds that share a split and a backbone, by seed; as `_pretrain`."""
        study, first = self.study, next(iter(wanted))
        self._materials(first).prepare(study.finetune.trainable)
        steps = self._order(study.finetune, first).steps_per_epoch
        groups = {s: groups_of(study, self.store, names, s, steps) for s, names in wanted.items()}
        runs = sum(len(group.names) for of_seed in groups.values() for group in of_seed)
        total = runs * study.finetune.epochs
        diverged: list[str] = []
        with self._progress.task(f"fine-tuning{part}", total, "epochs") as advance:
            for seed, of_seed in groups.items():
                start = self._trained(study.pretrain.name, seed)
                diverged += self._run(study.finetune, seed, start, of_seed, advance)
        return diverged

    def _run(
        self, stage: Stage, seed: int, trained: Start, groups: Sequence[Group], advance: Advance
    ) -> list[str]:
        """Run groups of one seed from one start, and record the runs that have no record.

        Returns:
            Which diverged, in words.
        """
        start = complete(trained, stage.trainable, self._materials(seed))
        diverged: list[str] = []
        for group in groups:
            began = time.monotonic()
            with memory_for(self._what_to_lower(stage)):
                outcomes = self._outcomes(stage, seed, start, group, advance)
            seconds = (time.monotonic() - began) / len(group.names)
            for name, outcome in zip(group.names, outcomes, strict=True):
                if outcome.diverged_epoch is None:
                    self._record(stage, name, seed, outcome, group, seconds)
                else:
                    diverged.append(_divergence(name, seed, outcome))
        return diverged

    def _outcomes(
        self, stage: Stage, seed: int, start: Start, group: Group, advance: Advance
    ) -> list[Outcome]:
        """What a group's runs leave behind: trained, or made from a recorded trajectory."""
        materials = self._materials(seed)
        methods = {name: self.study.row_method(name) for name in group.names}
        splits = materials.splits(stage.trainable)
        order = self._order(stage, seed)
        steps = order.steps_per_epoch
        plans = run_plans(methods, stage.epochs, steps)
        learner: Learner
        if group.source:
            snapshots = torch.tensor(group.source.arrays()["trajectory"])
            learner = ReplayedHead(splits, snapshots, materials.classes)
            plans = [replace(p, timeline=at_the_ends_of_epochs(p.timeline, steps)) for p in plans]
            order = DataOrder(1, 1, seed, FINETUNING)  # a step an epoch
        else:
            paths = len(trajectories(methods))
            own = next(iter(methods.values())).optimizer  # a group shares one
            optimized = stage.model_copy(update={"optimizer": own}) if own else stage
            say = self._progress.say
            learner = make_learner(self.study, optimized, materials, start, paths, say)
        return train(
            learner,
            plans,
            splits,
            order,
            stage.epochs,
            score_every=stage.score_every_epochs,
            measured=self._measured,
            # A whole network's weights of every epoch would fill a disk.
            keep_trajectory=in_lockstep(self.study, stage.trainable),
            after_epoch=lambda: advance(len(methods)),
        )

    def _order(self, stage: Stage, seed: int) -> DataOrder:
        """The minibatches of a seed in a stage."""
        number = PRETRAINING if stage is self.study.pretrain else FINETUNING
        images = len(self._materials(seed).splits(stage.trainable)["train"])
        return DataOrder(images, stage.batch_size, self.study.draws(seed).order, number)

    def _record(
        self, stage: Stage, name: str, seed: int, outcome: Outcome, group: Group, seconds: float
    ) -> None:
        """Write a run's record, with its weights where the stage keeps them."""
        if stage is self.study.finetune and stage.keep_weights == "none":
            outcome = replace(outcome, weights={}, statistics={}, trajectory=None)
        provenance = dict(self._materials(seed).provenance(stage.trainable))
        if group.source:
            provenance["snapshots"] = group.source.arrays_sha256
        self.store.write(
            name,
            seed,
            outcome,
            trained_with=group.names,
            provenance=provenance,
            environment=self._environment,
            seconds=seconds,
        )

    def _what_to_lower(self, stage: Stage) -> str:
        key = "pretrain" if stage is self.study.pretrain else "finetune"
        return (
            f"training {stage.trainable!r} on {self._device.type}; lower "
            f"{key}.batch_size ({stage.batch_size}), {key}.evaluation_batch_size "
            f"({stage.evaluation_batch_size}) or data.image_size"
        )

    @cached_property
    def _environment(self) -> dict[str, Any]:
        return environment(self._device)

    def _materials(self, seed: int) -> Materials:
        """What a seed's runs are made from: loaded when needed, and held until others are."""
        draws = self.study.draws(seed)
        wanted = (draws.split, draws.backbone)
        if wanted not in self._held:
            self._held.clear()  # first: the features of two would not fit everywhere
            self._held[wanted] = Materials(
                self.study.as_drawn(seed),
                self._device,
                self._cache,
                self._progress,
                self._measured,
                # Others than the study's own serve one seed, and take half a gigabyte each.
                keep_features=draws.backbone == self.study.backbone.seed,
                state=self._starting_state(),
            )
        return self._held[wanted]

    def _starting_state(self) -> dict[str, Tensor] | None:
        """The other study's run that the backbone is, run now if it is missing; None without."""
        if not (found := starting_run(self.study)):
            return None
        study, run = found
        other = Experiment(study, self._other_results, self._device, self._cache, self._progress)
        if not other.store.find(run.method, run.seed):
            self._progress.say(f"{self.study.name} starts from {run}, which runs first")
        if run.method == study.pretrain.name:
            other.pretrain([run.seed])
        else:
            other.finetune([run.method], [run.seed])
        return other.export(run.method, run.seed)


def _raise_if_any(diverged: list[str]) -> None:
    if diverged:
        raise DivergedError(
            f"diverged, and not recorded: {'; '.join(diverged)}; lower the learning rate"
        )


def _divergence(method: str, seed: int, outcome: Outcome) -> str:
    return f"{method} at seed {seed} (loss not finite after epoch {outcome.diverged_epoch})"
