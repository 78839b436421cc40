"""Images and labels, from the verified bytes of a data set's files.

torchvision downloads the known data sets; its readers are not used, because they would be longer
to call and check less: they open the files again under fixed paths, cannot read .gz in place,
prefer a `processed` folder to the raw files where there is one (MNIST), want a file that holds no
images and unpickle whatever a pickle names (CIFAR10).
"""

import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from swabench.data.idx import idx_ranks, image_shape, parse_idx
from swabench.data.mirror import load_arrays
from swabench.data.reading import RawFile
from swabench.study.published import IDX_FILES
from swabench.system.errors import InputError

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Arrays = tuple[Images, Labels, Images, Labels]
"""Of training and of testing: images, uint8, (N, C, H, W), and labels, int64, (N,)."""


def decode_idx(files: Mapping[str, RawFile]) -> Arrays:
    """Decode four IDX files.

    Raises:
        InputError: A file is not what its header says, or they do not fit together; names it.
    """
    train_images, train_labels = _images_and_labels(files, *IDX_FILES[:2])
    test_images, test_labels = _images_and_labels(files, *IDX_FILES[2:])
    if train_images.shape[1:] != test_images.shape[1:]:
        train, test = (files[file].path for file in (IDX_FILES[0], IDX_FILES[2]))
        raise InputError(
            f"{test}: images of channels, height, width {test_images.shape[1:]} beside "
            f"{train_images.shape[1:]} in {train}, where all must have one shape"
        )
    return train_images, train_labels, test_images, test_labels


def _images_and_labels(
    files: Mapping[str, RawFile], image_file: str, label_file: str
) -> tuple[Images, Labels]:
    (image_path, _), (label_path, _) = files[image_file], files[label_file]
    images, labels = (
        parse_idx(files[file].raw, files[file].path, idx_ranks(file))
        for file in (image_file, label_file)
    )
    channels, height, width = image_shape(images.shape, image_path)
    if len(images) != len(labels):
        raise InputError(
            f"{label_path}: {len(labels):,} labels for the {len(images):,} images of {image_path}"
        )
    channels_first = images.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
    # Copied, because torch.from_numpy warns of arrays that cannot be written.
    return channels_first.copy(order="C"), labels.astype(np.int64)


def decode_cifar(files: Mapping[str, RawFile]) -> Arrays:
    """Decode CIFAR's pickled batches, test batches by their name, with no code of a pickle's own.

    Raises:
        SwabenchError: A pickle names anything but arrays.
    """
    batches = {file: load_arrays(io.BytesIO(found.raw)) for file, found in files.items()}
    train = [batch for file, batch in batches.items() if not file.startswith("test")]
    test = [batch for file, batch in batches.items() if file.startswith("test")]
    return *_stacked(train), *_stacked(test)


def _stacked(batches: list[dict[str, Images]]) -> tuple[Images, Labels]:
    images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
    # CIFAR-100's batches have coarse and fine labels.
    labels = [batch["labels" if "labels" in batch else "fine_labels"] for batch in batches]
    return images, np.concatenate(labels).astype(np.int64)
