"""Data sets: found or fetched, verified, decoded.

A published data set must have the published digests, wherever it comes from; a folder of the
user's own is checked for its structure and its digests are recorded.
"""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs
from numpy.typing import NDArray

from swabench.data.decoding import decode_cifar, decode_idx
from swabench.data.fetching import Report, fetch_once, origin
from swabench.data.idx import parse_idx
from swabench.data.reading import find_files, read_file, read_files, read_idx_shape
from swabench.study.published import IDX_FILES, KNOWN, DatasetName, Sizes
from swabench.system.errors import InputError
from swabench.system.files import sha256, sha256_of_json

OWN_IMAGES = "data.folder must contain four IDX files that belong together"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels, and what they are made of.

    Attributes:
        name: One of `KNOWN`.
        train_images, test_images: uint8, shape (N, C, H, W).
        train_labels, test_labels: int64, shape (N,), each in [0, classes).
        classes: Number of classes.
        digests: File name to sha256 of the file's raw, uncompressed bytes.
        source: In words, where the bytes came from.
    """

    name: DatasetName
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    classes: int
    digests: Mapping[str, str]
    source: str

    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and (population) standard deviation of each channel of the training images.

        Of pixels scaled to [0, 1], and exact to float64's rounding: computed from the counts of
        the 256 pixel values, so that no long sum is rounded.

        Raises:
            InputError: A channel is constant, so that nothing can be divided by its deviation.
        """
        values = np.arange(256) / 255
        means, deviations = [], []
        for channel in range(self.train_images.shape[1]):
            counts = _pixel_counts(self.train_images[:, channel])
            if np.count_nonzero(counts) == 1:
                raise InputError(
                    f"Channel {channel} of the training images ({self.source}) has one value in "
                    "every pixel; give images that differ."
                )
            means.append(float(counts @ values / counts.sum()))
            variance = counts @ (values - means[-1]) ** 2 / counts.sum()
            deviations.append(math.sqrt(variance))
        return tuple(means), tuple(deviations)


def _pixel_counts(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    counts = np.zeros(256, dtype=np.int64)
    # In blocks, because bincount widens what it counts to eight bytes a pixel.
    for start in range(0, len(pixels), 1000):
        counts += np.bincount(pixels[start : start + 1000].ravel(), minlength=256)
    return counts


def user_cache() -> Path:
    """The user's cache folder: SWABENCH_CACHE where that is set, else the platform's own.

    Raises:
        InputError: SWABENCH_CACHE begins with '~' and the name of an unknown user.
    """
    chosen = os.environ.get("SWABENCH_CACHE")
    return _expanded(Path(chosen)) if chosen else platformdirs.user_cache_path("swabench")


def load_dataset(name: DatasetName, folder: Path | None, cache: Path, report: Report) -> Dataset:
    """Find a data set, fetch it if necessary, and verify every byte of it.

    Args:
        name: One of `KNOWN`.
        folder: A folder that contains the data set, which is only read; None for the cache.
        cache: The user's cache folder; a data set that it lacks is fetched, once, and written
            atomically.
        report: Takes one-line messages on where the data set comes from.

    Raises:
        InputError: The data set cannot be found or fetched, or a file of it is not what it must be.
    """
    known = KNOWN[name]
    if folder is not None or known.sizes is None:
        home, source = _own(folder), "a folder named in the study"
        remedy = "data.folder must contain the original files" if known.sizes else OWN_IMAGES
    else:
        home = cache / name
        fetch_once(name, home, report)
        source, remedy = origin(home), f"delete {home} to have it fetched again"
    with _explained(home, remedy):
        files = read_files(known, home)
        arrays = (decode_idx if known.format == "idx" else decode_cifar)(files)
    report(f"{known.title}: verified in {home} ({source})")
    classes = int(max(arrays[1].max(), arrays[3].max())) + 1
    digests = {file: sha256(found.raw) for file, found in files.items()}
    return Dataset(name, *arrays, classes, digests, source)


def dataset_sizes(name: DatasetName, folder: Path | None) -> Sizes:
    """The sizes of a data set, with no image read or fetched.

    Args:
        name: One of `KNOWN`.
        folder: Where a data set of the user's own lies; looked at for that one alone.

    Raises:
        InputError: The files of the user's own data set are missing or not what they must be.
    """
    known = KNOWN[name]
    if known.sizes is not None:
        return known.sizes
    home = _own(folder)
    with _explained(home, OWN_IMAGES):
        paths = find_files(known, home)
        height, width, channels = (*read_idx_shape(paths[IDX_FILES[0]]), 1)[1:4]
        labels = [read_file(known, file, paths[file]) for file in IDX_FILES[1::2]]
        train, test = (parse_idx(raw, path) for path, raw in labels)
    classes = int(max(train.max(), test.max())) + 1
    return Sizes(len(train), len(test), channels, height, width, classes)


def folder_digest(folder: Path | None) -> str:
    """A digest of the bytes of a folder data set, however they are packed.

    Raises:
        InputError: No folder is given, or its files are missing or cannot be read.
    """
    home = _own(folder)
    with _explained(home, OWN_IMAGES):
        files = read_files(KNOWN["folder"], home)
    return sha256_of_json({file: sha256(found.raw) for file, found in files.items()})


def _own(folder: Path | None) -> Path:
    if folder is None:
        raise InputError("data.folder: nothing given; name the folder that contains the data set.")
    return _expanded(folder)


def _expanded(folder: Path) -> Path:
    try:
        return folder.expanduser()
    except RuntimeError:
        raise InputError(f"{folder}: '~' names an unknown user; give another path.") from None


@contextmanager
def _explained(folder: Path, remedy: str) -> Iterator[None]:
    """Adds what to do to the message of an error about a folder's files."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{error}; {remedy}.") from error
    except OSError as error:
        place = error.filename or folder
        raise InputError(f"{place}: cannot be read ({error.strerror}); {remedy}.") from error
