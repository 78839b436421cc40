"""About how long a study takes here: what its parts cost, times how often it does them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from swabench.data.datasets import Sizes, dataset_sizes
from swabench.runs.learners import in_lockstep
from swabench.runs.probes import Counts, LearnerCosts, Probes
from swabench.study.methods import Method
from swabench.study.study import Boundary, DataSettings, Stage, Study
from swabench.system.device import memory_for
from swabench.system.errors import InputError

Methods = tuple[Method, ...]


@dataclass(frozen=True)
class Estimate:
    """Seconds for the frozen layers, where any are computed once, and for training."""

    features_seconds: float
    training_seconds: float


def estimate(study: Study, missing: Sequence[tuple[str, int]], device: torch.device) -> Estimate:
    """Estimate the missing runs of a study on a device; takes seconds, whatever the study.

    Raises:
        InputError: The study asks for more images than its data set has, or a folder of the
            user's own cannot be read.
        SwabenchError: The device has not enough memory, so that the study would fail too.
    """
    sizes = dataset_sizes(study.data.dataset, study.data.folder)
    counts = count_images(study.data, sizes)
    probes = Probes(study, sizes, counts, device)
    learners = Counter(_learners(study, missing))
    extracted = counts.training + counts.scored
    with memory_for(
        f"a minibatch of the study on {device.type}; lower batch_size or evaluation_batch_size in "
        "its stages, or data.image_size"
    ):
        return Estimate(
            sum(extracted * probes.frozen(below) for below in _cached(study, set(learners))),
            sum(
                times * _stage_seconds(stage, methods, counts, probes.learner(stage, len(methods)))
                for (stage, methods), times in learners.items()
            ),
        )


def count_images(data: DataSettings, sizes: Sizes) -> Counts:
    """How many images a study uses of a data set.

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
    scored = data.validation_images + (data.test_images or sizes.test_images)
    return Counts(data.training_images or left, scored)


def _learners(study: Study, missing: Sequence[tuple[str, int]]) -> list[tuple[Stage, Methods]]:
    """The stage and the methods of every learner that the missing runs take."""
    groups: dict[tuple[bool, int], list[str]] = {}
    for name, seed in missing:
        groups.setdefault((name == study.pretrain.name, seed), []).append(name)
    found: list[tuple[Stage, Methods]] = []
    for (pretrains, _), names in groups.items():
        stage = study.pretrain if pretrains else study.finetune
        methods = tuple(study.row_method(name) for name in names)
        together = in_lockstep(study, stage.trainable)
        found += [(stage, methods)] if together else [(stage, (each,)) for each in methods]
    return found


def _cached(study: Study, learners: set[tuple[Stage, Methods]]) -> set[Boundary]:
    """The boundaries below which the frozen layers are computed once."""
    below = {stage.trainable for stage, _ in learners} - {"all"}
    found = below if study.backbone.cache_features else set()
    # The standardisation is measured on the final layer's features, whatever trains.
    return found | ({"head"} if study.backbone.standardize_features and learners else set())


def _stage_seconds(stage: Stage, methods: Methods, counts: Counts, cost: LearnerCosts) -> float:
    """Seconds that one learner takes for its runs; what the loop does, counted."""
    steps_per_epoch = -(-counts.training // stage.batch_size)
    timelines = [method.timeline(stage.epochs, steps_per_epoch) for method in methods]
    averages = sum(method.averaging is not None for method in methods)
    looked_at = np.any([timeline.captures for timeline in timelines], axis=0)
    looked_at[steps_per_epoch - 1 :: steps_per_epoch] = True
    looks = int(looked_at.sum()) + (averages > 0)  # ensembles begin with the start's predictions
    predictions = len(methods) * looks + averages * stage.epochs
    restarts = sum(int(timeline.restarts.sum()) for timeline in timelines)
    passes = averages * (stage.epochs + 1) + restarts
    seconds = predictions * counts.scored * cost.score + len(looked_at) * cost.step
    if stage.batchnorm == "train" and stage.trainable != "head" and passes:
        seconds += passes * counts.training * cost.reestimate
    return seconds
