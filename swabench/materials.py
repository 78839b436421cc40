"""What every run of a study shares: images split, frozen features, standardised, on the device."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swabench.backbone import (
    IMAGENET_NORMALIZATION,
    load_backbone,
    weights_digest,
)
from swabench.config import DataSettings, Study
from swabench.data import Dataset, load_dataset, stratified_split
from swabench.features import frozen_features
from swabench.progress import Progress
from swabench.training.learner import Split, SplitName, Splits

Rows = Mapping[SplitName, NDArray[np.int64]]


@dataclass(frozen=True)
class Standardization:
    """The training set's mean and deviation of every feature, shape (D,) each."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Standardization":
        """Measured on features (N, D); a feature that never varies keeps its scale."""
        variance, mean = torch.var_mean(features, dim=0, correction=0)
        deviation = variance.sqrt()
        return cls(mean, torch.where(deviation > 0, deviation, 1.0))

    def apply_(self, features: Tensor) -> Tensor:
        """Standardise (N, D) in place: half a gigabyte is not copied for nothing."""
        return features.sub_(self.mean).div_(self.deviation)


@dataclass(frozen=True)
class Materials:
    """What every run of a study shares.

    Attributes:
        splits: Inputs of the trained part, and labels, on the device.
        classes: Number of classes.
        provenance: Digests of the data and the backbone, for records.
    """

    splits: Splits
    classes: int
    provenance: Mapping[str, Any]


def load_materials(
    study: Study, device: torch.device, cache: Path, progress: Progress
) -> Materials:
    """Find the data, compute or read the features, split and standardise them.

    Raises:
        InputError: Data, weights or cache cannot be used; says which and why.
    """
    dataset = load_dataset(study.data.dataset, study.data.folder, cache, progress.say)
    rows = choose_rows(study.data, dataset)
    network = load_backbone(study.backbone)
    provenance = {
        "data": dict(dataset.digests),
        "backbone": weights_digest(network),
    }
    inputs = _head_inputs(study, dataset, rows, device, cache, progress)
    if study.backbone.standardize_features:
        standardization = Standardization.of(inputs["train"])
        for features in inputs.values():
            standardization.apply_(features)
    labels = {
        "train": dataset.train_labels[rows["train"]],
        "validation": dataset.train_labels[rows["validation"]],
        "test": dataset.test_labels[rows["test"]],
    }
    splits: dict[SplitName, Split] = {
        name: Split(inputs[name].to(device), torch.from_numpy(labels[name]).to(device))
        for name in inputs
    }
    return Materials(splits, dataset.classes, provenance)


def choose_rows(settings: DataSettings, dataset: Dataset) -> Rows:
    """Rows of each split: of the training arrays for two, of the test arrays for the third.

    Validation is held out first, so that it is the same whatever `training_images` says.

    Raises:
        InputError: More images are asked for than there are.
    """
    train, validation = stratified_split(
        dataset.train_labels, settings.validation_images, settings.split_seed
    )
    test = np.arange(len(dataset.test_labels))
    return {
        "train": _draw(dataset.train_labels, train, settings.training_images, settings.split_seed),
        "validation": validation,
        "test": _draw(dataset.test_labels, test, settings.test_images, settings.split_seed),
    }


def _draw(
    labels: NDArray[np.int64], rows: NDArray[np.int64], count: int | None, seed: int
) -> NDArray[np.int64]:
    if count is None or count == len(rows):
        return rows
    _, drawn = stratified_split(labels[rows], count, seed)
    return rows[drawn]


def _head_inputs(
    study: Study,
    dataset: Dataset,
    rows: Rows,
    device: torch.device,
    cache: Path,
    progress: Progress,
) -> dict[SplitName, Tensor]:
    """Features of each split, float32, shape (N, 2048) each."""
    normalization = (
        IMAGENET_NORMALIZATION
        if study.data.normalization == "imagenet"
        else dataset.normalization()
    )

    def features(images: NDArray[np.uint8], name: str) -> Tensor:
        return frozen_features(
            images,
            load_backbone(study.backbone),
            "head",
            study.data.image_size,
            normalization,
            study.backbone.precision,
            device=device,
            cache=cache,
            progress=progress,
            name=name,
        ).float()

    # Features of whole arrays are shared by studies that split them differently; a study on a
    # few images computes those alone.
    used = np.arange(len(dataset.train_labels))
    if study.data.training_images is not None:
        used = np.sort(np.concatenate([rows["train"], rows["validation"]]))
    train = features(dataset.train_images[used], "training")
    test = features(dataset.test_images[rows["test"]], "test")
    return {
        "train": train[np.searchsorted(used, rows["train"])],
        "validation": train[np.searchsorted(used, rows["validation"])],
        "test": test,
    }
