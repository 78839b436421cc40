"""What a stage of a study trains: its starting point, and the learner that fits its boundary."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from swabench.runs.materials import Materials
from swabench.study.stages import Boundary, Stage
from swabench.study.study import Study
from swabench.system.errors import InputError
from swabench.training.flat import flatten, with_end
from swabench.training.heads import StackedHeads
from swabench.training.learner import Learner
from swabench.training.network import NetworkLearner


@dataclass(frozen=True)
class Start:
    """Where a run starts: weights (P,) and BatchNorm statistics (S,)."""

    weights: Tensor
    statistics: Tensor = field(default_factory=lambda: torch.empty(0))


def in_lockstep(study: Study, boundary: Boundary) -> bool:
    """Whether methods of a seed train together: linear heads on cached features do."""
    return boundary == "head" and study.backbone.cache_features


def complete(trained_above: Start, boundary: Boundary, materials: Materials) -> Start:
    """The backbone above the boundary, ending in what was trained before.

    Pretraining trains the same layers or fewer, from a higher boundary on, and vectors are
    ordered from the image upwards: what it trained is the tail.
    """
    if boundary == "head":
        return trained_above
    weights, statistics = flatten(materials.trained_layers(boundary))
    return Start(
        with_end(weights, trained_above.weights), with_end(statistics, trained_above.statistics)
    )


def make_learner(
    study: Study,
    stage: Stage,
    materials: Materials,
    start: Start,
    trajectories: int,
    say: Callable[[str], None] = lambda line: None,
) -> Learner:
    """The learner of a stage, with so many trajectories at the same start.

    Args:
        study: The study.
        stage: Its stage.
        materials: What is trained on.
        start: Where all begin.
        trajectories: How many there are; a network has one.
        say: Takes lines for the user.

    Raises:
        InputError: The last minibatch would be a single image, which BatchNorm cannot normalise.
    """
    boundary = stage.trainable
    splits = materials.splits(boundary)
    if in_lockstep(study, boundary):
        weights = start.weights.to(splits["train"].labels.device).expand(trajectories, -1)
        return StackedHeads(splits, weights, stage.optimizer, materials.classes)
    if trajectories != 1:
        raise ValueError(f"a network learner has one trajectory, not {trajectories}")
    images = len(splits["train"])
    steps_per_epoch = -(-images // stage.batch_size)
    if boundary != "head" and stage.batchnorm != "frozen" and images % stage.batch_size == 1:
        raise InputError(
            f"batch_size: {images} training images in minibatches of {stage.batch_size} leave a "
            "last one of a single image, which BatchNorm cannot normalise; choose another size"
        )
    return NetworkLearner(
        materials.trained_layers(boundary),
        splits,
        start.weights,
        start.statistics,
        stage.optimizer,
        frozen=materials.frozen_layers(boundary),
        batchnorm_steps=stage.batchnorm_steps(steps_per_epoch),
        precision="float32" if boundary == "head" else stage.precision,
        evaluation_batch=stage.evaluation_batch_size,
        minibatch=min(stage.batch_size, images),
        say=say,
    )
