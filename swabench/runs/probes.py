"""What a study's parts cost on a device, measured on made-up images in little time.

A probe is limited in time, whatever the study: it begins with a few images at the study's own
size and takes more of them until that takes long enough to be measured, or they are as many as the
study takes at once. What each of them took is scaled by images.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import ResNet

from swabench.runs.features import batch_size, extract
from swabench.runs.learners import in_lockstep
from swabench.study.inputs import BackboneSettings, SplitName
from swabench.study.published import Sizes
from swabench.study.stages import Boundary, Stage
from swabench.study.study import Study
from swabench.system.device import synchronize
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
from swabench.training.learner import Learner, Split, accuracy_and_loss, log_probabilities
from swabench.training.network import NetworkLearner

Work = Callable[[int], None]

ENOUGH = 0.3  # seconds; still more images are tried only if they should take no longer
SHORT = 0.1  # seconds in which a number of images is tried again and again
TOO_LONG = 2.0  # seconds; what is longer is not tried twice
SLOW = 0.25  # seconds; where predicting one image takes longer, nothing else is tried
HEAD_ROWS = 4096  # features at a time where heads are probed: more than a processor caches
SOME = 16  # images of 28 pixels whose passes take longer than the update of all weights
DIFFERENT = 16  # made-up images that differ; more would take time to make


@dataclass(frozen=True)
class Counts:
    """How many images a study uses.

    Attributes:
        training: Those that train.
        measured: What is measured on: of the test, and those held out but for the next.
        selection: Those held out for plans that weigh or choose captures.
    """

    training: int
    measured: int
    selection: int = 0


class LearnerCosts:
    """What a learner's work costs, each part measured when first asked for.

    Args:
        learner: The learner.
        splits: The splits that it looks at; made-up images, replaced by more of them.
        batch: Images of a step.
        evaluation: Images at a time where nothing trains.
        seconds: Measures some work for a number of images.
    """

    def __init__(
        self,
        learner: Learner,
        splits: dict[SplitName, Split],
        batch: int,
        evaluation: int,
        seconds: Callable[[Work, int], float],
    ) -> None:
        self._learner = learner
        self._splits = splits
        self._made_up = splits["train"]
        self._batch = batch
        self._evaluation = evaluation
        self._seconds = seconds

    @cached_property
    def step(self) -> float:
        """Seconds of a step of all trajectories."""
        if self._slow:  # backward is twice forward's arithmetic
            return 3 * self.score * self._learner.trajectories * self._batch
        self._splits["train"] = self._made_up
        rates = torch.full((self._learner.trajectories,), 1e-6, device=self._made_up.labels.device)
        seen = 0

        def work(images: int) -> None:
            nonlocal seen  # no minibatch twice, which a processor's cache would hold
            self._learner.step(_rows(self._made_up, images, seen), rates)
            seen += images

        return self._seconds(work, self._batch)

    @cached_property
    def score(self) -> float:
        """Seconds of predicting an image by one trajectory's weights, and comparing it."""

        def work(images: int) -> None:
            self._splits["test"] = _some(self._made_up, images)
            for scores in self._learner.predict(["test"], running=True)[0]:
                accuracy_and_loss(log_probabilities(scores), self._splits["test"].labels)

        return self._seconds(work, self._evaluation) / self._evaluation / self._learner.trajectories

    @cached_property
    def reestimate(self) -> float:
        """Seconds of passing one training image through for BatchNorm's statistics."""
        if self._slow:
            return self.score
        weights = self._learner.weights()

        def work(images: int) -> None:
            self._splits["train"] = _some(self._made_up, images)
            self._learner.predict([], weights)

        return self._seconds(work, self._evaluation) / self._evaluation

    @property
    def _slow(self) -> bool:
        """Whether a step could take many seconds, as bfloat16 does on processors without it."""
        return self.score * self._learner.trajectories > SLOW


class Probes:
    """Measures what a study's parts cost on a device, each once.

    Args:
        study: The study.
        sizes: Its data set's.
        counts: Its images.
        device: Where to measure.

    Raises:
        SwabenchError: The device has not enough memory.
    """

    def __init__(self, study: Study, sizes: Sizes, counts: Counts, device: torch.device) -> None:
        self._study = study
        self._sizes = sizes
        self._counts = counts
        self._device = device
        self._networks: dict[tuple[object, ...], LearnerCosts] = {}
        self._gains: dict[str, float] = {}  # by threads, which networks and heads share alike

    def frozen(self, boundary: Boundary) -> float:
        """Seconds an image through the layers below a boundary."""
        layers = nn.Sequential(self._preprocess, *frozen_part(_backbone(), boundary))
        precision, silent = self._study.backbone.precision, SilentProgress()
        pixels = self._images().numpy()

        def work(images: int) -> None:
            some = pixels[np.arange(images) % len(pixels)]
            extract(some, layers, self._device, precision, silent, "probe", images)

        batch = batch_size(self._device, self._study.data.image_size)
        return self._seconds("network", work, batch) / batch

    def learner(self, stage: Stage, trajectories: int) -> LearnerCosts:
        """What so many trajectories of a stage cost that share a learner."""
        if in_lockstep(self._study, stage.trainable):
            return self._heads(stage, trajectories)
        # Optimizers and BatchNorm's modes hardly differ in time, beside the passes.
        key = (stage.trainable, stage.batch_size, stage.evaluation_batch_size, stage.precision)
        if key not in self._networks:
            self._networks[key] = self._network(stage)
        return self._networks[key]

    def _heads(self, stage: Stage, trajectories: int) -> LearnerCosts:
        rows = min(HEAD_ROWS, self._counts.training)
        splits = self._splits(torch.randn(rows, FEATURES, device=self._device))
        start = (
            initial_head(FEATURES, self._sizes.classes, 0).to(self._device).expand(trajectories, -1)
        )
        learner = StackedHeads(splits, start, stage.optimizer, self._sizes.classes)
        return self._costs("heads", learner, splits, stage.batch_size, HEAD_ROWS)

    def _network(self, stage: Stage) -> LearnerCosts:
        boundary, cached = stage.trainable, self._study.backbone.cache_features
        standardize = Standardize.identity()
        part = trained_part(_backbone(), boundary, standardize, self._sizes.classes)
        inputs = self._images()
        frozen: nn.Module | None = self._preprocess
        if boundary == "layer4" and cached:
            inputs, frozen = self._maps(), None
        elif boundary != "all":
            frozen = nn.Sequential(self._preprocess, *frozen_part(_backbone(), boundary))
            frozen.to(getattr(torch, self._study.backbone.precision))
        splits = self._splits(inputs.to(self._device))
        learner = NetworkLearner(
            part,
            splits,
            *flatten(part),
            stage.optimizer,
            frozen=frozen,
            precision=stage.precision,
            evaluation_batch=stage.evaluation_batch_size,
        )
        evaluation = stage.evaluation_batch_size
        return self._costs("network", learner, splits, stage.batch_size, evaluation)

    def _costs(
        self,
        kind: str,
        learner: Learner,
        splits: dict[SplitName, Split],
        batch: int,
        evaluation: int,
    ) -> LearnerCosts:
        batch = min(batch, self._counts.training)
        evaluation = min(evaluation, self._counts.measured, self._counts.training)
        return LearnerCosts(learner, splits, batch, evaluation, partial(self._seconds, kind))

    def _seconds(self, kind: str, work: Work, most: int) -> float:
        """Seconds of some work for `most` images."""
        size = self._study.data.image_size
        # BatchNorm wants several values of each channel: more than a pixel, or an image.
        fewest = 1 if size > 32 else 2
        some = max(2 * fewest, SOME * 28**2 // size**2)
        if self._device.type == "cuda":
            # A CUDA graph is made for one size; and a GPU is soon done with the most there are.
            fewest = some = most
        trial = try_out(work, fewest, some, most, self._device)
        if kind not in self._gains:
            self._gains[kind] = gain_by_threads(work, trial, self._device)
        return trial.of(most) / self._gains[kind]

    @property
    def _preprocess(self) -> Preprocess:
        grey = (0.5,) * self._sizes.channels
        return Preprocess(self._study.data.image_size, (grey, grey))

    def _images(self) -> Tensor:
        """Made-up images (16, C, H, W) of the data set's own size."""
        shape = (DIFFERENT, self._sizes.channels, self._sizes.height, self._sizes.width)
        return torch.randint(256, shape, dtype=torch.uint8)

    def _maps(self) -> Tensor:
        """What layer 3 makes of images: a sixteenth of their side."""
        side = -(-self._study.data.image_size // 16)
        return torch.randn(DIFFERENT, 1024, side, side)

    def _splits(self, inputs: Tensor) -> dict[SplitName, Split]:
        labels = torch.zeros(len(inputs), dtype=torch.long, device=self._device)
        split = Split(inputs, labels)
        return {"train": split, "validation": split, "test": split}


@dataclass(frozen=True)
class Trial:
    """What some work took by one thread.

    Attributes:
        images: The most that were tried.
        seconds: What they took.
        each: What every further image takes, in seconds.
    """

    images: int
    seconds: float
    each: float

    def of(self, images: int) -> float:
        """Seconds that so many images take, at least those that were tried."""
        return self.seconds + (images - self.images) * self.each


def try_out(work: Work, fewest: int, some: int, most: int, device: torch.device) -> Trial:
    """Time some work for as many images as can be tried in little time.

    By one thread: where other processes keep the cores busy, several wait for each other many
    times as long as they work.

    Args:
        work: Does the work for a number of images.
        fewest: Images to begin with.
        some: Images to go on with: so many that they count beside what is done once.
        most: Images that are not exceeded.
        device: Where the work is done.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        few, more = min(fewest, most), min(some, most)
        at_few = _second(work, few, device)
        trial, due = Trial(few, at_few, at_few / few), at_few <= 2 * ENOUGH
        while trial.images < more and due:
            at_more = _once(work, more, device)
            # What does not grow with the images, such as the weights' update, counts once.
            each = max((at_more - at_few) / (more - few), at_more / more / 4)
            trial = Trial(more, at_more, each)
            more = min(most, more * (4 if trial.of(4 * more) <= ENOUGH else 2))
            due = trial.of(more) <= ENOUGH
        return replace(trial, seconds=_again(work, trial.images, device, trial.seconds))
    finally:
        torch.set_num_threads(threads)


def gain_by_threads(work: Work, trial: Trial, device: torch.device) -> float:
    """How many times faster all threads are than one; at least 1."""
    if device.type != "cpu" or torch.get_num_threads() == 1:
        return 1.0
    by_all = _once(work, trial.images, device)
    if by_all < max(2 * trial.seconds, SHORT):  # else the cores are busy elsewhere
        by_all = _again(work, trial.images, device, _once(work, trial.images, device))
    return max(1.0, trial.seconds / by_all)


def _second(work: Work, images: int, device: torch.device) -> float:
    """Seconds of a second call, for the first one prepares; of the first where that is long."""
    first = _once(work, images, device)
    return first if first > TOO_LONG else _once(work, images, device)


def _again(work: Work, images: int, device: torch.device, seconds: float) -> float:
    """The least that tries take, where some more are short: other work only makes them longer."""
    end = time.perf_counter() + SHORT
    while time.perf_counter() + seconds < end:
        seconds = min(seconds, _once(work, images, device))
    return seconds


def _once(work: Work, images: int, device: torch.device) -> float:
    synchronize(device)
    began = time.perf_counter()
    work(images)
    synchronize(device)
    return time.perf_counter() - began


def _backbone() -> ResNet:
    """Whatever weights a study names, they take the same time. Made anew, which a copy is, too."""
    return load_backbone(BackboneSettings())


def _rows(split: Split, images: int, begin: int = 0) -> Tensor:
    """As many rows, in a mixed order; some of them several times where there are fewer."""
    order = torch.arange(begin, begin + images, device=split.labels.device) * 997  # a prime
    return order % len(split)


def _some(split: Split, images: int) -> Split:
    rows = _rows(split, images)
    return Split(split.inputs.index_select(0, rows), split.labels.index_select(0, rows))
