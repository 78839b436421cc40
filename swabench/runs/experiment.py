"""Carries a study out: data → features → pretrained start → runs → records.

What is done already (a record exists) is not done again, and nothing is loaded until something
is to be trained.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from swabench.data.inputs import starting_run
from swabench.landscape.parts import missing_parts, unsurveyable
from swabench.records import Record, RecordStore
from swabench.records.leftovers import tidy, workers
from swabench.runs.diverged import not_allowed, without_start
from swabench.runs.execution import Execution
from swabench.runs.export import plain_state
from swabench.runs.groups import Group, groups_of
from swabench.runs.lanes import Lanes, Turns
from swabench.runs.learners import Start, complete, in_lockstep
from swabench.runs.materials import Materials
from swabench.runs.places.base import Job, Place, wait_until_seen
from swabench.runs.places.local import Local
from swabench.runs.sharing import share
from swabench.runs.starts import check_starts, result_of
from swabench.runs.surveying import make_surveyor
from swabench.runs.units import (
    Unit,
    finetuning_units,
    landscape_units,
    pretraining_units,
    starting_units,
)
from swabench.study.inputs import SplitName
from swabench.study.landscape import Part
from swabench.study.stages import Stage
from swabench.study.study import Study
from swabench.system.device import memory_for
from swabench.system.errors import DivergedError, InputError
from swabench.system.pausing import SAVE_EVERY, Pause
from swabench.system.progress import Progress
from swabench.training.backbone import FEATURES, Normalization
from swabench.training.heads import initial_head
from swabench.training.loop import MEASURED


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
        pause: Says when to pause; never without it.
        save_every: Seconds of work that an interruption may cost, unless an epoch takes longer.
        place: Where units are executed; here by default.
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
        pause: Pause | None = None,
        save_every: float = SAVE_EVERY,
        place: Place | None = None,
    ) -> None:
        self.study = study
        self._place = place or Local()
        self._other_results = other_results or results
        self.store = RecordStore(results, study)
        self._device = device
        self._cache = cache
        self._progress = progress
        self._held: dict[tuple[int, int], Materials] = {}  # by split and backbone; one at most
        self._measured = measured
        # Absolute: a worker may be at home elsewhere.
        at, others, kept = (p.absolute() for p in (results, self._other_results, cache))
        self._job = Job(study, at, others, kept, tuple(measured), save_every)
        self._execution = Execution(
            study, self.store, device, progress, measured, pause or Pause(), save_every
        )

    def pretrain(self, seeds: list[int]) -> int:
        """Pretrain every seed that has no record yet; returns how many runs were recorded.

        Raises:
            DivergedError: Some seeds diverged, now or before, and the study does not allow it;
                names them, after all have been recorded.
        """
        name = self.study.pretrain.name
        tidy(self.store)
        missing = self.store.missing([name], seeds)
        if missing:
            self.store.prepare()
        self._hand_out("pretraining", pretraining_units(self.study, missing))
        for alike, part in self._by_materials([seed for _, seed in self._starts(seeds)]):
            self._pretrain(alike, part)
        if problem := not_allowed(self.study, self.store.diverged([name], seeds)):
            raise DivergedError(problem)
        return len(missing)

    def finetune(self, methods: list[str], seeds: list[int]) -> int:
        """Run every method at every seed that has no record yet; returns how many were recorded.

        Pretrains first where that is missing. Heads of a seed train together (`groups_of`):
        all of a group are trained, and all that have no record are recorded.

        Raises:
            DivergedError: Some runs diverged, now or before, and the study does not allow it, or
                some seeds' pretraining did; names them, after all else has been recorded.
        """
        tidy(self.store)
        missing = self.store.missing(methods, seeds)
        missing = list(dict.fromkeys([*missing, *self._left_over(methods, seeds)]))
        if missing:
            self.store.prepare()
        concerned = list(dict.fromkeys(seed for _, seed in missing))
        before = self._recorded(concerned)
        self._hand_out("pretraining", starting_units(self.study, self._starts(concerned)))
        units = finetuning_units(self.study, missing, self._device.type)
        self._hand_out("fine-tuning", units)
        wanted: dict[int, list[str]] = {}
        for name, seed in missing:
            if not self.store.find(name, seed):
                wanted.setdefault(seed, []).append(name)
        # Both stages of some seeds before the next: features of a drawn backbone are not kept.
        for alike, part in self._by_materials(list(wanted)):
            start = self.study.pretrain.name
            self._pretrain([seed for _, seed in self._starts(alike)], part)
            lost = [record.seed for record in self.store.diverged([start], alike)]
            started = [seed for seed in alike if seed not in lost]
            check_starts(self.study, [self.store.find(start, seed) for seed in started])
            if started:
                self._finetune({seed: wanted[seed] for seed in started}, part)
        done = self._recorded(concerned) - before
        starts = self.store.diverged([self.study.pretrain.name], seeds)
        found = without_start(starts), not_allowed(self.study, self.store.diverged(methods, seeds))
        if problems := [problem for problem in found if problem]:
            raise DivergedError("\n".join(problems))
        return done

    def survey(self, seeds: list[int], own: Sequence[int] | None = None) -> int:
        """Measure the loss landscape where that is not done; returns how many parts were.

        Args:
            seeds: The study's seeds, of which each part looks at the first few.
            own: Those of them at which to measure; all by default.

        Raises:
            InputError: Runs are missing, or the study is none that has a landscape.
        """
        tidy(self.store)
        if reason := unsurveyable(self.study, self.store, seeds, own):
            raise InputError(f"landscape: {reason}")
        missing = missing_parts(self.study, self.store, seeds, own)
        if missing:
            self.store.prepare()
            self._hand_out("landscape", landscape_units(missing))
            self.measure(missing_parts(self.study, self.store, seeds, own))
        return len(missing)

    def measure(self, parts: Sequence[tuple[Part, int]]) -> None:
        """Measure parts of the landscape, as (part, seed), whose runs are there."""
        if not parts:
            return
        _, seed = parts[0]
        materials = self._materials(seed)  # what is surveyed has one split and one backbone
        memory = memory_for(
            f"the landscape on {self._device.type}; lower landscape.training_images "
            f"({self.study.landscape.training_images})"
        )
        with memory, self._progress.task("landscape", len(parts), "parts") as advance:
            surveyor = make_surveyor(self.study, self.store, materials)

            def look(part_and_seed: tuple[Part, int]) -> Turns:
                part, seed = part_and_seed
                if self.store.find_landscape(part, seed) is None:  # else another was faster
                    began = time.monotonic()
                    measured = surveyor.measure(part, seed)
                    seconds = time.monotonic() - began
                    self.store.write_landscape(
                        part,
                        seed,
                        measured,
                        provenance=materials.provenance(self.study.finetune.trainable),
                        environment=self._execution.environment,
                        seconds=seconds,
                    )
                    self._progress.tell_done(f"{part} of the landscape at seed {seed}", seconds)
                advance(1)
                yield from ()  # all in one turn

            share(parts, lambda own: self.store.landscape_lock(*own), look, self._say_waits)

    def prepare(self, seed: int) -> None:
        """Compute what a seed's runs are made from, as far as others share it."""
        materials = self._materials(seed)
        for stage in (self.study.pretrain, self.study.finetune):
            materials.prepare(stage.trainable)

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
        self._recorded_run(method, seed)  # before features are computed for nothing
        materials = self._materials(seed)
        _ = materials.standardization  # so that its features are compared with the record's
        trained = self._trained(method, seed)
        return plain_state(materials, self.study.row_stage(method).trainable, trained)

    def normalization(self) -> Normalization:
        """Mean and deviation of each channel that the study normalises images with."""
        # The same whatever seeds draw, so those that are there will do.
        held = next(iter(self._held.values()), None) or self._materials(self.study.seeds[0])
        return held.normalization

    def _hand_out(self, title: str, units: Sequence[Unit]) -> None:
        """Have units executed where the study runs; what is not done there is done here.

        Raises:
            InputError: What was recorded there is not seen here.
        """
        if units:
            written = self._place.carry_out(self._job, title, units)
            wait_until_seen(self.store, units[0].task, written)

    def _left_over(self, methods: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, int]]:
        """Runs without a record, of groups that stopped while they were recorded: all are to be."""
        found = []
        for worker in workers(self.store):
            if worker.seed in seeds and not set(methods).isdisjoint(worker.runs):
                names = [name for name in self.study.run_names if name in worker.runs]
                ours = {name: self.store.identity(name, worker.seed) for name in names}
                if ours == worker.runs:
                    found += self.store.missing(names, [worker.seed])
        return found

    def _starts(self, seeds: Sequence[int]) -> list[tuple[str, int]]:
        """Runs of the pretraining that have no record, as (name, seed)."""
        return self.store.missing([self.study.pretrain.name], seeds)

    def _recorded_run(self, name: str, seed: int) -> Record:
        record = self.store.find(name, seed)
        if record is None:
            raise InputError(
                f"{self.store.folder}: holds no record of {name} at seed {seed}; run it first"
            )
        return record

    def _trained(self, name: str, seed: int) -> Start:
        """A recorded run's result."""
        record = self._recorded_run(name, seed)
        boundary = self.study.row_stage(name).trainable
        return result_of(record, self._materials(seed).provenance(boundary))

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

    def _pretrain(self, seeds: Sequence[int], part: str) -> None:
        """Pretrain seeds that share a split and a backbone."""
        if not seeds:
            return
        stage = self.study.pretrain
        self._materials(seeds[0]).prepare(stage.trainable)

        def start_of(seed: int) -> Start:
            classes = self._materials(seed).classes
            return Start(initial_head(FEATURES, classes, self.study.draws(seed).head))

        groups = [(seed, Group([stage.name])) for seed in seeds]
        self._carry_out(stage, groups, start_of, f"pretraining{part}")

    def _finetune(self, wanted: Mapping[int, Sequence[str]], part: str) -> None:
        """Fine-tune runs of seeds that share a split and a backbone, by seed."""
        study, first = self.study, next(iter(wanted))
        self._materials(first).prepare(study.finetune.trainable)
        order = self._execution.order(study.finetune, first, self._materials(first))
        steps = order.steps_per_epoch
        groups = [
            (seed, group)
            for seed, names in wanted.items()
            for group in groups_of(study, self.store, names, seed, steps)
        ]

        def start_of(seed: int) -> Start:
            return self._trained(study.pretrain.name, seed)

        self._carry_out(study.finetune, groups, start_of, f"fine-tuning{part}")

    def _carry_out(
        self,
        stage: Stage,
        groups: Sequence[tuple[int, Group]],
        start_of: Callable[[int], Start],
        title: str,
    ) -> None:
        """Train groups of runs, each of a seed, and record them.

        Processes that work on the same results share the groups.
        """
        total = sum(len(group.names) for _, group in groups) * stage.epochs
        # Heads train together in any case; on a GPU networks do so on streams of their own.
        lanes = Lanes(None if in_lockstep(self.study, stage.trainable) else self._device)
        with self._progress.task(title, total, "epochs") as advance:

            def carry_out(seed_and_group: tuple[int, Group]) -> Turns:
                seed, group = seed_and_group
                materials = self._materials(seed)
                yield from self._execution.carry_out(
                    stage,
                    seed,
                    group,
                    lambda: complete(start_of(seed), stage.trainable, materials),
                    materials,
                    advance,
                    lanes.seconds,
                )

            def lock_of(seed_and_group: tuple[int, Group]) -> FileLock:
                seed, group = seed_and_group
                return self._execution.place(group, seed).lock()

            share(groups, lock_of, carry_out, self._say_waits, lanes)

    def _say_waits(self, _: object) -> None:
        self._progress.say("waiting for another process, which has the rest in hand")

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
                save_every=self._execution.save_every,
                keep_features=draws.backbone == self.study.backbone.seed,
                state=self._starting_state(),
            )
        return self._held[wanted]

    def _starting_state(self) -> dict[str, Tensor] | None:
        """The other study's run that the backbone is, run now if it is missing; None without."""
        if not (found := starting_run(self.study)):
            return None
        study, run = found
        other = Experiment(
            study,
            self._other_results,
            self._device,
            self._cache,
            self._progress,
            pause=self._execution.pause,
            save_every=self._execution.save_every,
        )
        if not other.store.find(run.method, run.seed):
            self._progress.say(f"{self.study.name} starts from {run}, which runs first")
        try:
            if run.method == study.pretrain.name:
                other.pretrain([run.seed])
                check_starts(study, [other.store.find(run.method, run.seed)])
            else:
                other.finetune([run.method], [run.seed])
        except DivergedError as error:  # no result of this study, which cannot begin
            raise InputError(f"backbone.weights: {run} cannot be had: {error}") from None
        return other.export(run.method, run.seed)
