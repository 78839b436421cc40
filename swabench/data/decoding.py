"""Images and labels, from the verified bytes of a data set's files.

torchvision downloads the known data sets; its readers are not used, because calling them would
take more code and check less. They open the files again, under fixed paths; MNIST's cannot read
.gz in place and prefers `processed/*.pt` to the raw files; CIFAR10's needs batches.meta, digests
every file twice more, and unpickles whatever a pickle names.
"""

import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from swabench.data.idx import parse_idx
from swabench.data.reading import RawFile
from swabench.data.unpickling import load_arrays
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
    (image_path, image_bytes), (label_path, label_bytes) = files[image_file], files[label_file]
    images, labels = parse_idx(image_bytes, image_path), parse_idx(label_bytes, label_path)
    if len(images) != len(labels):
        raise InputError(
            f"{label_path}: {len(labels):,} labels for the {len(images):,} images of {image_path}"
        )
    channels_first = images.reshape(*images.shape[:3], -1).transpose(0, 3, 1, 2)
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
