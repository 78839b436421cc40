"""About how long a study takes here: what its parts cost, times how often it does them."""

from collections import Counter
from collections.abc import Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch

from swabench.data.datasets import dataset_sizes
from swabench.runs.learners import in_lockstep
from swabench.runs.probes import Counts, LearnerCosts, Probes
from swabench.study.averaging import NEEDS_SELECTION, GreedySoup
from swabench.study.inputs import DataSettings, SplitName
from swabench.study.methods import Method
from swabench.study.published import Sizes
from swabench.study.stages import Boundary, Stage
from swabench.study.study import Study
from swabench.study.trajectories import trajectories
from swabench.system.device import memory_for
from swabench.system.errors import InputError
from swabench.training.loop import MEASURED, run_plans, scored_epochs
from swabench.training.observers import RunPlan, keeps_ensemble

Methods = tuple[Method, ...]


@dataclass(frozen=True)
class Estimate:
    """Seconds for the frozen layers, where any are computed once, and for training."""

    features_seconds: float
    training_seconds: float


def estimate(
    study: Study,
    missing: Sequence[tuple[str, int]],
    device: torch.device,
    measured: Sequence[SplitName] = MEASURED,
) -> Estimate:
    """Estimate the missing runs of a study on a device; takes seconds, whatever the study.

    Args:
        study: The study.
        missing: Its runs to do, as (name, seed).
        device: Where they would run.
        measured: On which images they are measured.

    Raises:
        InputError: The study asks for more images than its data set has, or a folder of the
            user's own cannot be read.
        SwabenchError: The device has not enough memory, so that the study would fail too.
    """
    costs = Costs(study, device, measured)
    return Estimate(costs.features_seconds(missing), costs.training_seconds(missing))


class Costs:
    """What runs of a study cost on a device; each kind of work is tried once.

    Args:
        study: The study.
        device: Where it would run.
        measured: On which images its runs are measured.

    Raises:
        InputError: See `estimate`.
    """

    def __init__(
        self, study: Study, device: torch.device, measured: Sequence[SplitName] = MEASURED
    ) -> None:
        sizes = dataset_sizes(study.data.dataset, study.data.folder)
        self._study = study
        self.device = device
        self._counts = count_images(study.data, sizes, measured)
        self._probes = Probes(study, sizes, self._counts, device)
        self._known: dict[tuple[Stage, Methods], float] = {}  # seconds of a learner

    def features_seconds(self, missing: Sequence[tuple[str, int]]) -> float:
        """What the frozen layers of some runs cost, where they are computed once.

        Raises:
            SwabenchError: The device has not enough memory.
        """
        counts = self._counts
        extracted = counts.training + counts.measured + counts.selection
        with self._memory():
            return sum(
                times * extracted * self._probes.frozen(below)
                for below, times in _frozen(self._study, missing).items()
            )

    def training_seconds(self, missing: Sequence[tuple[str, int]]) -> float:
        """What the training of some runs costs.

        Raises:
            SwabenchError: The device has not enough memory.
        """
        with self._memory():
            return sum(self._seconds(*learner) for learner in _learners(self._study, missing))

    def _seconds(self, stage: Stage, methods: Methods) -> float:
        if (stage, methods) not in self._known:
            cost = self._probes.learner(stage, _trajectories(methods))
            self._known[stage, methods] = _stage_seconds(stage, methods, self._counts, cost)
        return self._known[stage, methods]

    def _memory(self) -> AbstractContextManager[None]:
        return memory_for(
            f"a minibatch of the study on {self.device.type}; lower batch_size or "
            "evaluation_batch_size in its stages, or data.image_size"
        )


def count_images(
    data: DataSettings, sizes: Sizes, measured: Sequence[SplitName] = MEASURED
) -> Counts:
    """How many images a study uses of a data set, to train and to measure on.

    Raises:
        InputError: More than there are.
    """
    left = sizes.training_images - data.validation_images
    asked = (
        ("validation_images", data.validation_images, sizes.training_images - 1),
        ("training_images", data.training_images or left, left),
        ("test_images", data.test_images or sizes.test_images, sizes.test_images),
    )
    for key, count, most in asked:
        if count > most:
            raise InputError(f"data.{key}: {count:,} images, where there are {most:,}; lower it")
    tested = (data.test_images or sizes.test_images) if "test" in measured else 0
    held_out = data.validation_images - data.selection_images
    return Counts(data.training_images or left, held_out + tested, data.selection_images)


def _learners(study: Study, missing: Sequence[tuple[str, int]]) -> list[tuple[Stage, Methods]]:
    """The stage and the methods of every learner that the missing runs take."""
    groups: dict[tuple[bool, int], list[str]] = {}
    for name, seed in missing:
        groups.setdefault((name == study.pretrain.name, seed), []).append(name)
    found: list[tuple[Stage, Methods]] = []
    for (pretrains, _), names in groups.items():
        stage = study.pretrain if pretrains else study.finetune
        methods = {name: study.row_method(name) for name in names}
        together = in_lockstep(study, stage.trainable)
        for group in [names] if together else trajectories(methods):
            found.append((stage, tuple(methods[name] for name in group)))
    return found


def _frozen(study: Study, missing: Sequence[tuple[str, int]]) -> Counter[Boundary]:
    """How often the frozen layers below a boundary are computed: once for each backbone.

    A study on a few training images computes those of each split.
    """
    found: dict[tuple[int, int | None], set[Boundary]] = {}
    for name, seed in missing:
        draws = study.draws(seed)
        images = None if study.data.training_images is None else draws.split
        below = found.setdefault((draws.backbone, images), set())
        below.add(study.row_stage(name).trainable)
    return Counter(boundary for below in found.values() for boundary in _cached(study, below))


def _cached(study: Study, trainable: set[Boundary]) -> set[Boundary]:
    """The boundaries below which the frozen layers are computed once."""
    found = trainable - {"all"} if study.backbone.cache_features else set()
    # The standardisation is measured on the final layer's features, whatever trains.
    return found | ({"head"} if study.backbone.standardize_features else set())


def _stage_seconds(stage: Stage, methods: Methods, counts: Counts, cost: LearnerCosts) -> float:
    """Seconds that one learner takes for its runs; what the loop does, counted."""
    steps_per_epoch = -(-counts.training // stage.batch_size)
    named = {str(number): method for number, method in enumerate(methods)}
    plans = run_plans(named, stage.epochs, steps_per_epoch)
    scored = scored_epochs(stage.epochs, stage.score_every_epochs)
    ends = {epoch * steps_per_epoch - 1 for epoch in scored}
    ensembles = [plan for plan in plans if keeps_ensemble(plan, ends)]
    selecting = [plan for plan in plans if isinstance(plan.averaging, NEEDS_SELECTION)]
    asking = [*ensembles, *selecting]
    captures = (np.flatnonzero(plan.timeline.captures).tolist() for plan in asking)
    # The members of an ensemble, or of a choice, are predicted from the start on.
    looks = len(ends.union(*captures)) + bool(asking)
    iterates, averages = _trajectories(methods), sum(p.averaging is not None for p in plans)
    restarts, restarted_ensembles = (
        sum(int(plan.timeline.restarts.sum()) for plan in some) for some in (plans, ensembles)
    )
    predicted = iterates * looks + averages * len(scored) + restarted_ensembles
    candidates = sum(_candidates(plan, ends) for plan in plans)
    # Of the selection images: iterates where a plan asks for them, and a soup's mixtures.
    selections = candidates + iterates * looks * bool(selecting)
    seconds = len(plans[0].timeline.rates) * cost.step
    seconds += (predicted * counts.measured + selections * counts.selection) * cost.score
    if stage.batchnorm == "train" and stage.trainable != "head":
        seconds += (predicted + restarts + candidates) * counts.training * cost.reestimate
        # At the end with running statistics, too.
        seconds += (iterates + averages) * counts.measured * cost.score
    return seconds


def _candidates(plan: RunPlan, scored_steps: Set[int]) -> int:
    """How many mixtures a greedy soup scores: at every look, one for each capture but the first."""
    if not isinstance(plan.averaging, GreedySoup):
        return 0
    captures = np.cumsum(plan.timeline.captures)
    return int(sum(max(0, captures[step] - 1) for step in scored_steps))


def _trajectories(methods: Methods) -> int:
    return len(trajectories({str(number): method for number, method in enumerate(methods)}))
