"""What every run of a study shares: images split, frozen features, standardised, on the device."""

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import ResNet

from swabench.data.datasets import load_dataset
from swabench.data.splits import choose_rows
from swabench.records import Provenance
from swabench.runs.features import batchnorm_statistics, frozen_features
from swabench.study.inputs import SplitName
from swabench.study.stages import Boundary
from swabench.study.study import Study
from swabench.system.device import memory_for
from swabench.system.files import in_bytes
from swabench.system.pausing import SAVE_EVERY
from swabench.system.progress import Progress
from swabench.training.backbone import (
    IMAGENET_NORMALIZATION,
    Normalization,
    Preprocess,
    Standardize,
    frozen_part,
    load_backbone,
    trained_part,
    weights_digest,
)
from swabench.training.flat import assign, flatten
from swabench.training.learner import Split, Splits
from swabench.training.loop import MEASURED


class Materials:
    """What every run of a study shares, each part loaded or computed when first asked for.

    Args:
        study: The study.
        device: Where splits lie.
        cache: The user's cache folder.
        progress: Takes notes and counts of what is done.
        measured: Splits that are there to be measured on; other images of the kind (the test
            images of a tuning) are left alone.
        save_every: Seconds of work that an interruption may cost.
        keep_features: Whether features that are computed here stay in the cache for later runs.
        state: The backbone's tensors by torchvision's names, where it is another study's run.

    Attributes:
        classes: Number of classes.

    Raises:
        InputError: Data, weights or cache cannot be used; says which and why.
    """

    def __init__(
        self,
        study: Study,
        device: torch.device,
        cache: Path,
        progress: Progress,
        measured: Sequence[SplitName] = MEASURED,
        *,
        save_every: float = SAVE_EVERY,
        keep_features: bool = True,
        state: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._study = study
        self._device = device
        self._cache = cache
        self._progress = progress
        self._save_every = save_every
        self._keep_features = keep_features
        self._dataset = load_dataset(study.data.dataset, study.data.folder, cache, progress.say)
        rows = choose_rows(study.data, self._dataset)
        wanted = {"train", "selection", *measured}
        self._rows = {split: own for split, own in rows.items() if split in wanted}
        self._backbone = load_backbone(study.backbone, state)
        self._backbone_sha256 = weights_digest(self._backbone)  # as its weights come
        if study.backbone.reestimate_batchnorm:
            self._reestimate_batchnorm()
        self._splits: dict[Boundary, Splits] = {}
        self._standardization: Standardize | None = None
        self._features_sha256: dict[Boundary, dict[str, str]] = {}
        self.classes = self._dataset.classes

    def splits(self, boundary: Boundary) -> Splits:
        """What training above the boundary takes, and labels, on the device.

        Standardised features (N, 2048) for `head`, layer 3's maps (N, 1024, h, w) for `layer4`;
        the images' bytes (N, C, H, W) for `all`, or where the study caches no features.
        """
        if boundary not in self._splits:
            inputs = self._images() if self._runs_whole(boundary) else self._features(boundary)
            backbone = self._study.backbone
            if boundary == "head" and backbone.cache_features and backbone.standardize_features:
                # Measured here, so that the features are not read twice.
                self._standardization = Standardize.measured_on(inputs["train"])
                for features in inputs.values():
                    self._standardization.apply_(features)
            self._splits[boundary] = self._on_the_device(inputs)
        return self._splits[boundary]

    def prepare(self, boundary: Boundary) -> None:
        """Load or compute now what training above a boundary will ask for.

        So that features show a progress of their own, before that of the training begins, and
        `provenance` is the same whatever is trained first.
        """
        self.splits(boundary)
        if boundary != "head" or self._runs_whole(boundary):
            _ = self.standardization

    def frozen_layers(self, boundary: Boundary) -> nn.Module | None:
        """What stands between `splits` and `trained_layers`; None where that is cached."""
        if not self._runs_whole(boundary):
            return None
        preprocess = Preprocess(self._study.data.image_size, self.normalization)
        if boundary == "all":
            return preprocess
        layers = nn.Sequential(preprocess, *frozen_part(self.backbone(), boundary))
        return layers.to(getattr(torch, self._study.backbone.precision))

    def trained_layers(self, boundary: Boundary, backbone: ResNet | None = None) -> nn.Sequential:
        """The layers above the boundary, with a new final layer.

        Args:
            boundary: Where training begins.
            backbone: Whose layers they are; without it a copy's of the study's own.
        """
        standardize = copy.deepcopy(self.standardization)  # a learner moves and casts its own
        return trained_part(backbone or self.backbone(), boundary, standardize, self.classes)

    def backbone(self) -> ResNet:
        """A copy of the study's ResNet-50, as it is before any training."""
        return copy.deepcopy(self._backbone)

    @property
    def standardization(self) -> Standardize:
        """Of the starting backbone's features, whatever trains; the identity if not wanted."""
        if self._standardization is None:
            if not self._study.backbone.standardize_features:
                return Standardize.identity()
            self._standardization = Standardize.measured_on(self._features("head")["train"])
        return self._standardization

    def provenance(self, boundary: Boundary) -> Provenance:
        """Digests of what training above a boundary is made from, as far as it is loaded."""
        used = {boundary, "head"} if self._study.backbone.standardize_features else {boundary}
        features = {name: dict(sha) for name, sha in self._features_sha256.items() if name in used}
        return {
            "data": dict(self._dataset.digests),
            "backbone": self._backbone_sha256,
            "features": features,
        }

    def _reestimate_batchnorm(self) -> None:
        """Put statistics of the study's training images in place of those that came along."""
        statistics = batchnorm_statistics(
            self._dataset.train_images[self._rows["train"]],
            self.backbone(),
            self._study.data.image_size,
            self.normalization,
            device=self._device,
            cache=self._cache,
            progress=self._progress,
        )
        assign(self._backbone, flatten(self._backbone)[0], statistics)

    @cached_property
    def normalization(self) -> Normalization:
        """Mean and deviation of each channel that images are normalised with."""
        if self._study.data.normalization == "imagenet":
            return IMAGENET_NORMALIZATION
        return self._dataset.normalization()

    def _runs_whole(self, boundary: Boundary) -> bool:
        return boundary == "all" or not self._study.backbone.cache_features

    def _on_the_device(self, inputs: Mapping[SplitName, Tensor]) -> Splits:
        size = in_bytes(sum(values.nbytes for values in inputs.values()))
        with memory_for(
            f"all images of the study ({size} as they are trained on) on "
            f"{self._device.type}; lower data.training_images, data.validation_images or "
            "data.test_images, or use --device cpu"
        ):
            return {
                name: Split(inputs[name].to(self._device), torch.from_numpy(own).to(self._device))
                for name, own in self._labels().items()
            }

    def _labels(self) -> dict[SplitName, NDArray[np.int64]]:
        dataset = self._dataset
        whole = {"test": dataset.test_labels}
        return {
            split: whole.get(split, dataset.train_labels)[rows]
            for split, rows in self._rows.items()
        }

    def _images(self) -> dict[SplitName, Tensor]:
        dataset = self._dataset
        whole = {"test": dataset.test_images}
        return {
            split: torch.from_numpy(whole.get(split, dataset.train_images)[rows])
            for split, rows in self._rows.items()
        }

    def _features(self, boundary: Boundary) -> dict[SplitName, Tensor]:
        """The frozen layers' outputs, float32, first dimension N each."""
        rows, dataset = dict(self._rows), self._dataset
        test_rows = rows.pop("test", None)
        # Features of whole arrays are shared by studies that split them differently; a study on
        # a few images computes those alone.
        used = np.arange(len(dataset.train_labels))
        if self._study.data.training_images is not None:
            used = np.sort(np.concatenate(list(rows.values())))
        train = self._frozen_features(dataset.train_images[used], boundary, "training")
        chosen = {split: train[np.searchsorted(used, own)] for split, own in rows.items()}
        if test_rows is None:
            return chosen
        test = self._frozen_features(dataset.test_images[test_rows], boundary, "test")
        return {**chosen, "test": test}

    def _frozen_features(self, images: NDArray[np.uint8], boundary: Boundary, name: str) -> Tensor:
        features = frozen_features(
            images,
            self.backbone(),
            boundary,
            self._study.data.image_size,
            self.normalization,
            self._study.backbone.precision,
            device=self._device,
            cache=self._cache,
            progress=self._progress,
            name=name,
            save_every=self._save_every,
            keep=self._keep_features,
        )
        self._features_sha256.setdefault(boundary, {})[name] = features.sha256
        return features.values.float()
