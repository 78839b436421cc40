"""Features that were interrupted: what was kept is used, whole, in its place, and nothing else."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from swabench.runs import partial
from swabench.runs.features import extract
from swabench.runs.partial import PartialFeatures
from swabench.system.progress import Advance, SilentProgress

IMAGES = np.random.default_rng(3).integers(0, 256, (17, 1, 4, 4), dtype=np.uint8)
BATCH = 3


class Layers(nn.Module):
    """Makes other features of every image, and is interrupted at some batch."""

    def __init__(self, interrupted_at: int | None = None) -> None:
        super().__init__()
        self.calls = 0
        self._at = interrupted_at

    def forward(self, images: Tensor) -> Tensor:
        if self.calls == self._at:
            raise KeyboardInterrupt
        self.calls += 1
        return images.flatten(1).float() * 1.5 + 1


class Told(SilentProgress):
    def __init__(self) -> None:
        self.counts: list[tuple[int, bool]] = []

    @contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        yield lambda units, before=False: self.counts.append((units, before))


def features(
    layers: Layers, parts: PartialFeatures | None, progress: SilentProgress | None = None
) -> Tensor:
    told = progress or SilentProgress()
    return extract(IMAGES, layers, torch.device("cpu"), "float32", told, "some", BATCH, parts)


def interrupted(folder: Path, at: int = 4, save_every: float = 0) -> None:
    with pytest.raises(KeyboardInterrupt):
        features(Layers(at), PartialFeatures(folder, save_every))


def test_what_was_computed_is_not_computed_again(tmp_path: Path) -> None:
    whole = features(Layers(), None)
    interrupted(tmp_path / "parts")
    again, told = Layers(), Told()
    assert torch.equal(features(again, PartialFeatures(tmp_path / "parts", 0), told), whole)
    assert again.calls == 2  # of six
    assert told.counts == [*[(3, True)] * 4, (3, False), (2, False)]


def test_interrupted_at_every_batch_it_is_whole_in_the_end(tmp_path: Path) -> None:
    for _ in range(5):
        interrupted(tmp_path, at=1)
    last = Layers()
    assert torch.equal(features(last, PartialFeatures(tmp_path, 0)), features(Layers(), None))
    assert last.calls == 1


@pytest.mark.parametrize("how", ["gone", "cut", "flipped"])
@pytest.mark.parametrize("block", [0, 2, 3])
def test_a_damaged_block_and_what_follows_are_computed_anew(
    tmp_path: Path, block: int, how: str
) -> None:
    interrupted(tmp_path)
    (path,) = tmp_path.glob(f"{3 * block}-*")
    content = bytearray(path.read_bytes())
    path.unlink()
    content[-1] ^= 1
    if how != "gone":
        path.write_bytes(content if how == "flipped" else content[:-2])
    again = Layers()
    assert torch.equal(features(again, PartialFeatures(tmp_path, 0)), features(Layers(), None))
    assert again.calls == 6 - block


def test_blocks_are_as_far_apart_as_was_asked(tmp_path: Path) -> None:
    now = iter(range(0, 10_000, 10))
    parts = PartialFeatures(tmp_path, 25, lambda: next(now))
    with pytest.raises(KeyboardInterrupt):
        features(Layers(5), parts)
    assert sorted(path.name.split("-")[:2] for path in tmp_path.iterdir()) == [["0", "9"]]


def test_whole_features_are_not_kept_as_parts(tmp_path: Path) -> None:
    features(Layers(), PartialFeatures(tmp_path, 1e9))
    assert not list(tmp_path.iterdir())


def test_where_parts_cannot_be_kept_the_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(partial, "write_file", full)
    assert torch.equal(features(Layers(), PartialFeatures(tmp_path, 0)), features(Layers(), None))


def test_parts_leave_the_room_that_the_whole_will_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = features(Layers(), None)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=whole.nbytes))
    interrupted(tmp_path)
    assert not list(tmp_path.iterdir())
