"""The data sets that a study can name, one entry each, and what is published of them.

A data set with a class in torchvision.datasets whose files are IDX files or CIFAR's pickled
batches needs an entry here and nothing else. Digests are those of the uncompressed files:
`sha256sum` gives them once the files are there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


class Sizes(NamedTuple):
    """How many images a data set has, and what they are."""

    training_images: int  # with those to be held out
    test_images: int
    channels: int  # one (grey) or three
    height: int  # of every image, in pixels
    width: int
    classes: int


class PublishedFile(NamedTuple):
    """Size in bytes and digest of a file, uncompressed; a digest is a SHA-256 or an MD5."""

    size: int
    digest: str


@dataclass(frozen=True)
class KnownDataset:
    """What is known of a data set before it is read.

    Attributes:
        title: Its name in messages and reports.
        torchvision: Its class in torchvision.datasets; None for a data set of the user's own.
        folder: Where that class puts the files, below its root.
        format: IDX files, or batches pickled as CIFAR's are.
        sizes: None for a data set of the user's own.
        files: What is published of each file; None for a file of the user's own.
    """

    title: str
    torchvision: str | None
    folder: str
    format: Literal["idx", "cifar"]
    sizes: Sizes | None
    files: Mapping[str, PublishedFile | None]


def _idx(title: str, torchvision: str, sizes: Sizes, *digests: str) -> KnownDataset:
    """A data set of four IDX files, digests in the order of `IDX_FILES`."""
    pixels = sizes.channels * sizes.height * sizes.width
    counts = (sizes.training_images, sizes.test_images)
    lengths = [length for images in counts for length in (16 + images * pixels, 8 + images)]
    files = map(PublishedFile, lengths, digests)
    return KnownDataset(
        title,
        torchvision,
        f"{torchvision}/raw",
        "idx",
        sizes,
        dict(zip(IDX_FILES, files, strict=True)),
    )


KNOWN: dict[str, KnownDataset] = {
    "mnist": _idx(
        "MNIST",
        "MNIST",
        Sizes(60_000, 10_000, 1, 28, 28, 10),
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion-mnist": _idx(
        "Fashion-MNIST",
        "FashionMNIST",
        Sizes(60_000, 10_000, 1, 28, 28, 10),
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    "cifar10": KnownDataset(
        "CIFAR-10",
        "CIFAR10",
        "cifar-10-batches-py",
        "cifar",
        Sizes(50_000, 10_000, 3, 32, 32, 10),
        {
            "data_batch_1": PublishedFile(31_035_704, "c99cafc152244af753f735de768cd75f"),
            "data_batch_2": PublishedFile(31_035_320, "d4bba439e000b95fd0a9bffe97cbabec"),
            "data_batch_3": PublishedFile(31_035_999, "54ebc095f3ab1f0389bbae665268c751"),
            "data_batch_4": PublishedFile(31_035_696, "634d18415352ddfa80567beed471001a"),
            "data_batch_5": PublishedFile(31_035_623, "482c414d41f54cd18b22e5b47cb7c3cb"),
            "test_batch": PublishedFile(31_035_526, "40351d587109b95175f43aff81a1287e"),
        },
    ),
    "folder": KnownDataset("Folder data set", None, "raw", "idx", None, dict.fromkeys(IDX_FILES)),
}

PUBLISHED_SIZES: Mapping[str, Sizes] = {
    name: known.sizes for name, known in KNOWN.items() if known.sizes
}

if TYPE_CHECKING:
    DatasetName = str
else:  # computed, so that a new data set is one entry above and nothing else
    DatasetName = Literal[tuple(KNOWN)]
