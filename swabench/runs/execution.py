"""Trains one group of runs, from where it was left if it was begun, and records them."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from swabench.records import RecordStore
from swabench.records.arrays import TRAJECTORY
from swabench.records.unfinished import Unfinished
from swabench.runs.checkpoints import GroupCheckpoints
from swabench.runs.groups import Group
from swabench.runs.hardware import check_hardware
from swabench.runs.learners import Start, in_lockstep, make_learner
from swabench.runs.materials import Materials
from swabench.study.inputs import SplitName
from swabench.study.stages import Stage
from swabench.study.study import Study
from swabench.study.trajectories import trajectories
from swabench.system.device import memory_for
from swabench.system.environment import environment
from swabench.system.pausing import SAVE_EVERY, Pause
from swabench.system.progress import Advance, Progress
from swabench.training.learner import Learner
from swabench.training.loop import DataOrder, run_plans, training
from swabench.training.observers import Outcome
from swabench.training.replay import ReplayedHead, at_the_ends_of_epochs

# Stages draw their data orders from different streams of the same seed.
PRETRAINING, FINETUNING = 0, 1


@dataclass(frozen=True)
class Execution:
    """How groups of a study's runs are carried out.

    Attributes:
        study: Whose runs they are.
        store: Where they are recorded.
        device: Where they train.
        progress: Takes notes.
        measured: On which images runs are measured.
        pause: Says when to pause.
        save_every: Seconds between kept states, at least.
    """

    study: Study
    store: RecordStore
    device: torch.device
    progress: Progress
    measured: Sequence[SplitName]
    pause: Pause = field(default_factory=Pause)
    save_every: float = SAVE_EVERY

    def place(self, group: Group, seed: int) -> Unfinished:
        """Where a group is kept while it is under way."""
        source = group.source.arrays_sha256 if group.source else None
        return self.store.unfinished(group.names, seed, source)

    def carry_out(
        self,
        stage: Stage,
        seed: int,
        group: Group,
        start_of: Callable[[], Start],
        materials: Materials,
        advance: Advance,
        clock: Callable[[], float] = time.monotonic,
    ) -> Generator[None, None, None]:
        """Train a group and record those of its runs that have no record.

        It stops after every step, so that others can take turns.

        Args:
            stage: Which stage it is of.
            seed: Its seed.
            group: The runs.
            start_of: Gives their start.
            materials: What they are made from.
            advance: Told of epochs that are done, counted once for each run.
            clock: Tells the seconds that go into the group.

        Raises:
            Interrupted: A pause was wished; the state is kept.
        """
        place = self.place(group, seed)
        if all(self.store.find(name, seed) for name in group.names):
            place.drop()  # another process was faster
            advance(len(group.names) * stage.epochs, before=True)
            return
        check_hardware(self.study, self.store, seed, self.environment["device_name"])
        start = start_of()
        materials.prepare(stage.trainable)  # loads what provenance is of
        provenance = self._provenance(stage, group, materials)
        checkpoints = GroupCheckpoints(
            place,
            {name: self.store.identity(name, seed) for name in group.names},
            seed,
            stage.epochs,
            provenance=provenance,
            environment=self.environment,
            pause=self.pause,
            save_every=self.save_every,
            progress=self.progress,
            count_before=lambda epochs: advance(len(group.names) * epochs, before=True),
            work_clock=clock,
        )
        with self.pause.at_safe_points():
            with memory_for(self._what_to_lower(stage)):
                outcomes = yield from self._outcomes(
                    stage, seed, group, start, materials, advance, checkpoints
                )
            seconds = checkpoints.seconds / len(group.names)
            self._record(stage, seed, group, outcomes, provenance, seconds)
            checkpoints.done()

    def order(self, stage: Stage, seed: int, materials: Materials) -> DataOrder:
        """The minibatches of a seed in a stage."""
        number = PRETRAINING if stage is self.study.pretrain else FINETUNING
        images = len(materials.splits(stage.trainable)["train"])
        return DataOrder(images, stage.batch_size, self.study.draws(seed).order, number)

    @cached_property
    def environment(self) -> Mapping[str, Any]:
        """What runs are made with."""
        return environment(self.device)

    def _outcomes(
        self,
        stage: Stage,
        seed: int,
        group: Group,
        start: Start,
        materials: Materials,
        advance: Advance,
        checkpoints: GroupCheckpoints,
    ) -> Generator[None, None, list[Outcome]]:
        """What a group's runs leave behind: trained, or made from a recorded trajectory."""
        methods = {name: self.study.row_method(name) for name in group.names}
        splits = materials.splits(stage.trainable)
        order = self.order(stage, seed, materials)
        steps = order.steps_per_epoch
        plans = run_plans(methods, stage.epochs, steps)
        learner: Learner
        if group.source:
            snapshots = torch.tensor(group.source.arrays()[TRAJECTORY])
            learner = ReplayedHead(splits, snapshots, materials.classes)
            plans = [replace(p, timeline=at_the_ends_of_epochs(p.timeline, steps)) for p in plans]
            order = DataOrder(1, 1, seed, FINETUNING)  # a step an epoch
        else:
            paths = len(trajectories(methods))
            own = next(iter(methods.values())).optimizer  # a group shares one
            optimized = stage.model_copy(update={"optimizer": own}) if own else stage
            say = self.progress.say
            learner = make_learner(self.study, optimized, materials, start, paths, say)
        return training(
            learner,
            plans,
            splits,
            order,
            stage.epochs,
            score_every=stage.score_every_epochs,
            measured=self.measured,
            # A whole network's weights of every epoch would fill a disk.
            keep_trajectory=in_lockstep(self.study, stage.trainable),
            after_epoch=lambda: advance(len(methods)),
            checkpoints=checkpoints,
        )

    def _provenance(self, stage: Stage, group: Group, materials: Materials) -> dict[str, Any]:
        provenance = dict(materials.provenance(stage.trainable))
        if group.source:
            provenance["snapshots"] = group.source.arrays_sha256
        return provenance

    def _record(
        self,
        stage: Stage,
        seed: int,
        group: Group,
        outcomes: Sequence[Outcome],
        provenance: Mapping[str, Any],
        seconds: float,
    ) -> None:
        """Write the runs' records, with their weights where the stage keeps them."""
        for name, outcome in zip(group.names, outcomes, strict=True):
            if stage is self.study.finetune and stage.keep_weights == "none":
                outcome = replace(outcome, weights={}, statistics={}, trajectory=None)
            self.store.write(
                name,
                seed,
                outcome,
                trained_with=group.names,
                provenance=provenance,
                environment=self.environment,
                seconds=seconds,
            )

    def _what_to_lower(self, stage: Stage) -> str:
        key = "pretrain" if stage is self.study.pretrain else "finetune"
        return (
            f"training {stage.trainable!r} on {self.device.type}; lower "
            f"{key}.batch_size ({stage.batch_size}), {key}.evaluation_batch_size "
            f"({stage.evaluation_batch_size}) or data.image_size"
        )
