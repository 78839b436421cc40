"""Which images a study trains on, chooses by, validates on and tests on."""

import numpy as np
from numpy.typing import NDArray

from swabench.data.datasets import Dataset
from swabench.study.inputs import DataSettings, SplitName
from swabench.system.errors import InputError

Rows = dict[SplitName, NDArray[np.int64]]


def choose_rows(settings: DataSettings, dataset: Dataset) -> Rows:
    """Rows of each split: of the test arrays for `test`, of the training arrays for the others.

    Images are held out first, so that they are the same whatever `training_images` says.

    Raises:
        InputError: More images are asked for than there are.
    """
    train, held_out = stratified_split(
        dataset.train_labels, settings.validation_images, settings.split_seed
    )
    validation, selection = stratified_split(
        dataset.train_labels[held_out],
        settings.selection_images,
        settings.split_seed,
        "data.selection_images",
    )
    test = np.arange(len(dataset.test_labels))
    rows: Rows = {
        "train": _draw(dataset.train_labels, train, settings, "training_images"),
        "validation": held_out[validation],
        "test": _draw(dataset.test_labels, test, settings, "test_images"),
    }
    return rows | ({"selection": held_out[selection]} if len(selection) else {})


def _draw(
    labels: NDArray[np.int64], rows: NDArray[np.int64], settings: DataSettings, key: str
) -> NDArray[np.int64]:
    count = getattr(settings, key)
    if count is None or count == len(rows):
        return rows
    _, drawn = stratified_split(labels[rows], count, settings.split_seed, f"data.{key}")
    return rows[drawn]


def stratified_split(
    labels: NDArray[np.int64], held_out: int, seed: int, key: str = "data.validation_images"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split images into those held out (for validation, selection, tests) and the rest.

    Each class keeps its share. The images held out are allotted to the classes by largest
    remainder (of equal remainders the lower label first); which of a class are held out is drawn
    from the seed.

    Args:
        labels: Shape (N,).
        held_out: How many are held out.
        seed: Of the NumPy generator that draws.
        key: The study's key behind `held_out`, for the error.

    Returns:
        Indices of the rest (N - held_out,) and of those held out (held_out,), both sorted.

    Raises:
        InputError: `held_out` is negative, or leaves none.
    """
    if not 0 <= held_out < len(labels):
        raise InputError(
            f"{key}: {held_out:,} of {len(labels):,} images; "
            "give a number that leaves some for the rest"
        )
    present, counts = np.unique(labels, return_counts=True)
    seats, remainders = np.divmod(counts * held_out, len(labels))
    by_remainder = np.argsort(-remainders, kind="stable")
    seats[by_remainder[: held_out - seats.sum()]] += 1

    generator = np.random.default_rng(seed)
    drawn = [
        generator.choice(np.flatnonzero(labels == label), size=count, replace=False)
        for label, count in zip(present, seats, strict=True)
    ]
    validation = np.sort(np.concatenate(drawn))
    return np.setdiff1d(np.arange(len(labels)), validation, assume_unique=True), validation
