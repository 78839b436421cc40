"""About how long a study takes here, from a probe of a few steps on made-up numbers."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from swabench.backbone import FEATURES, Preprocess, frozen_part, load_backbone
from swabench.config import BackboneSettings, Stage, Study
from swabench.features import extract
from swabench.progress import SilentProgress
from swabench.training.heads import StackedHeads, initial_head
from swabench.training.learner import Split, SplitName

# The probe needs no data: these are MNIST's sizes.
TRAINING_IMAGES, TEST_IMAGES, CLASSES = 60_000, 10_000, 10


@dataclass(frozen=True)
class Estimate:
    """Seconds for the frozen layers, where they are not cached, and for training."""

    features_seconds: float
    training_seconds: float


def estimate(study: Study, missing: Sequence[tuple[str, int]], device: torch.device) -> Estimate:
    """Estimate the missing runs of a study on a device; takes about a second."""
    data = study.data
    held_out = data.validation_images
    training = data.training_images or TRAINING_IMAGES - held_out
    scored = held_out + (data.test_images or TEST_IMAGES)
    images = scored + training
    features = images * _seconds_per_image(data.image_size, device)
    training_seconds = 0.0
    for seed in {seed for _, seed in missing}:
        rows = [name for name, at in missing if at == seed]
        methods = [name for name in rows if name != study.pretrain.name]
        if study.pretrain.name in rows:
            training_seconds += _stage_seconds(study.pretrain, 1, training, scored, device)
        if methods:
            training_seconds += _stage_seconds(
                study.finetune, len(methods), training, scored, device
            )
    return Estimate(features, training_seconds)


def _seconds_per_image(size: int, device: torch.device) -> float:
    """Seconds an image through all frozen layers."""
    network = load_backbone(BackboneSettings())
    layers = nn.Sequential(Preprocess(size, ((0.5,), (0.5,))), *frozen_part(network, "head"))
    images = np.zeros((64, 1, size, size), dtype=np.uint8)
    silent = SilentProgress()
    return _best(lambda: extract(images, layers, device, "float32", silent, "probe")) / 64


@lru_cache
def _stage_seconds(
    stage: Stage, runs: int, training: int, scored: int, device: torch.device
) -> float:
    """Seconds for `runs` runs of a stage in lockstep: its steps, and two scorings an epoch."""
    rows = 4096
    split = Split(
        torch.randn(rows, FEATURES, device=device),
        torch.zeros(rows, dtype=torch.long, device=device),
    )
    start = initial_head(FEATURES, CLASSES, 0).to(device).expand(runs, -1)
    splits: dict[SplitName, Split] = {"train": split, "validation": split, "test": split}
    learner = StackedHeads(splits, start, stage.optimizer, CLASSES)
    batch = torch.randint(rows, (stage.batch_size,), device=device)
    rates = torch.full((runs,), 1e-3, device=device)

    def steps() -> None:
        for _ in range(20):
            learner.step(batch, rates)
        learner.weights().sum().item()  # waits for the device

    step = _best(steps) / 20
    score = _best(lambda: [x.sum().item() for x in learner.logits(["test"])]) * scored / rows
    return stage.epochs * (-(-training // stage.batch_size) * step + 2 * score)


def _best(work: Callable[[], object], tries: int = 3) -> float:
    """Seconds of the fastest of a few tries after a warm-up."""
    work()
    times = []
    for _ in range(tries):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
