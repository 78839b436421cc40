"""About how long a study takes here, from a probe of a few steps on made-up numbers."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from swabench.runs.features import extract
from swabench.runs.learners import in_lockstep
from swabench.study.study import BackboneSettings, Stage, Study
from swabench.system.progress import SilentProgress
from swabench.training.backbone import (
    FEATURES,
    Preprocess,
    Standardize,
    frozen_part,
    load_backbone,
    trained_part,
)
from swabench.training.flat import flatten
from swabench.training.heads import StackedHeads, initial_head
from swabench.training.learner import Learner, Split, Splits
from swabench.training.measurement import SplitName
from swabench.training.network import NetworkLearner

# The probe needs no data: these are MNIST's sizes.
TRAINING_IMAGES, TEST_IMAGES, CLASSES = 60_000, 10_000, 10


@dataclass(frozen=True)
class Estimate:
    """Seconds for the frozen layers, where any are computed once, and for training."""

    features_seconds: float
    training_seconds: float


def estimate(study: Study, missing: Sequence[tuple[str, int]], device: torch.device) -> Estimate:
    """Estimate the missing runs of a study on a device; takes about a second."""
    data = study.data
    held_out = data.validation_images
    training = data.training_images or TRAINING_IMAGES - held_out
    scored = held_out + (data.test_images or TEST_IMAGES)
    images = scored + training
    stages = (study.pretrain, study.finetune)
    has_frozen = any(stage.trainable != "all" for stage in stages)
    features = images * _seconds_per_image(data.image_size, device) if has_frozen else 0.0
    training_seconds = 0.0
    for seed in {seed for _, seed in missing}:
        rows = [name for name, at in missing if at == seed]
        methods = [name for name in rows if name != study.pretrain.name]
        if study.pretrain.name in rows:
            training_seconds += _stage_seconds(study, study.pretrain, 1, training, scored, device)
        if methods:
            training_seconds += _stage_seconds(
                study, study.finetune, len(methods), training, scored, device
            )
    return Estimate(features, training_seconds)


def _seconds_per_image(size: int, device: torch.device) -> float:
    """Seconds an image through all frozen layers."""
    network = load_backbone(BackboneSettings())
    layers = nn.Sequential(Preprocess(size, ((0.5,), (0.5,))), *frozen_part(network, "head"))
    images = np.zeros((64, 1, size, size), dtype=np.uint8)
    silent = SilentProgress()
    return _best(lambda: extract(images, layers, device, "float32", silent, "probe", 64)) / 64


def _stage_seconds(
    study: Study, stage: Stage, runs: int, training: int, scored: int, device: torch.device
) -> float:
    """Seconds for `runs` runs of a stage."""
    steps = -(-training // stage.batch_size)
    if in_lockstep(study, stage.trainable):
        step, score = _head_seconds(stage, runs, device)
        return stage.epochs * (steps * step + 2 * scored * score)
    step, score = _network_seconds(
        stage, study.data.image_size, study.backbone.cache_features, device
    )
    # An average is scored too, after a pass over the training images for BatchNorm.
    return runs * stage.epochs * (steps * step + (2 * scored + training) * score)


@lru_cache
def _head_seconds(stage: Stage, runs: int, device: torch.device) -> tuple[float, float]:
    """Seconds of a step of `runs` heads in lockstep, and of scoring an image."""
    rows = 4096
    split = Split(
        torch.randn(rows, FEATURES, device=device),
        torch.zeros(rows, dtype=torch.long, device=device),
    )
    start = initial_head(FEATURES, CLASSES, 0).to(device).expand(runs, -1)
    splits: dict[SplitName, Split] = {"train": split, "validation": split, "test": split}
    return _probe(StackedHeads(splits, start, stage.optimizer, CLASSES), stage, splits, 20)


@lru_cache
def _network_seconds(
    stage: Stage, image_size: int, cached: bool, device: torch.device
) -> tuple[float, float]:
    """Seconds of a step of a network, and of scoring an image."""
    network = load_backbone(BackboneSettings())
    standardize = Standardize(torch.zeros(FEATURES), torch.ones(FEATURES))
    part = trained_part(network, stage.trainable, standardize, CLASSES)
    preprocess = Preprocess(image_size, ((0.5,), (0.5,)))
    inputs = torch.zeros(stage.batch_size, 1, image_size, image_size, dtype=torch.uint8)
    frozen: nn.Module | None = preprocess
    if stage.trainable != "all":
        below = frozen_part(load_backbone(BackboneSettings()), stage.trainable)
        frozen = nn.Sequential(preprocess, *below)
        if cached:
            with torch.no_grad():
                one = frozen(inputs[:1])
            inputs, frozen = torch.randn(stage.batch_size, *one.shape[1:]), None
    split = Split(inputs.to(device), torch.zeros(stage.batch_size, dtype=torch.long, device=device))
    splits: dict[SplitName, Split] = {"train": split, "validation": split, "test": split}
    weights, statistics = flatten(part)
    learner = NetworkLearner(
        part,
        splits,
        weights,
        statistics,
        stage.optimizer,
        frozen=frozen,
        batchnorm_steps=stage.batchnorm_steps(1),
        precision=stage.precision,
    )
    return _probe(learner, stage, splits, 1)


def _probe(learner: Learner, stage: Stage, splits: Splits, steps: int) -> tuple[float, float]:
    """Seconds of a step, and of scoring an image."""
    labels = splits["train"].labels
    batch = torch.randint(len(labels), (stage.batch_size,), device=labels.device)
    rates = torch.full((learner.runs,), 1e-3, device=labels.device)

    def several() -> None:
        for _ in range(steps):
            learner.step(batch, rates)
        learner.weights().sum().item()  # waits for the device

    step = _best(several) / steps
    score = _best(lambda: [scores.sum().item() for scores in learner.predict(["test"])[0]])
    return step, score / len(splits["test"])


def _best(work: Callable[[], object], tries: int = 3) -> float:
    """Seconds of the fastest of a few tries after a warm-up."""
    work()
    times = []
    for _ in range(tries):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
