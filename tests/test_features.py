"""The feature cache and the frozen layers, on real ResNet-50 and few images."""

import contextlib
import copy
import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from filelock import Timeout
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights
from torchvision.transforms.v2 import functional

from swabench.runs import cache as cache_module
from swabench.runs import features
from swabench.runs.features import batch_size, batchnorm_statistics, extract, frozen_features
from swabench.study.inputs import BackboneSettings, Precision
from swabench.study.stages import Boundary
from swabench.system import files
from swabench.system.errors import InputError, SwabenchError
from swabench.system.progress import Advance, Progress, SilentProgress
from swabench.training.backbone import (
    IMAGENET_NORMALIZATION,
    Normalization,
    Preprocess,
    frozen_part,
    load_backbone,
    weights_digest,
)
from swabench.training.batchnorm import mixed_batches

CPU = torch.device("cpu")
NORMALIZATION: Normalization = ((0.13,), (0.31,))
COLOURED: Normalization = ((0.1, 0.2, 0.4), (0.2, 0.3, 0.5))
SETTINGS = BackboneSettings()


def images(count: int = 4, shape: tuple[int, ...] = (1, 28, 28)) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def compute(
    cache: Path,
    boundary: Boundary = "head",
    size: int = 28,
    progress: Progress | None = None,
    save_every: float = 0,
) -> torch.Tensor:
    return frozen_features(
        images(),
        load_backbone(SETTINGS),
        boundary,
        size,
        NORMALIZATION,
        "float32",
        device=torch.device("cpu"),
        cache=cache,
        progress=progress or SilentProgress(),
        name="few",
        save_every=save_every,
    ).values


class Interrupting(SilentProgress):
    """Notes what is counted, and interrupts at the first count if it is to."""

    def __init__(self, interrupts: bool) -> None:
        self.counts: list[tuple[int, bool]] = []
        self._interrupts = interrupts

    @contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        def advance(units: int, before: bool = False) -> None:
            self.counts.append((units, before))
            if self._interrupts:
                raise KeyboardInterrupt

        yield advance


def test_an_interruption_loses_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "BATCH", {"cpu": 1})
    whole = compute(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        compute(tmp_path, progress=Interrupting(True))
    again = Interrupting(False)
    assert torch.equal(compute(tmp_path, progress=again), whole)
    assert again.counts == [(1, True), (1, False), (1, False), (1, False)]
    assert not list((tmp_path / "features").glob(".parts-*"))


def entries(cache: Path) -> list[Path]:
    return [path for path in (cache / "features").iterdir() if path.is_dir()]


def as_published(pixels: NDArray[np.uint8], size: int, normalization: Normalization) -> Tensor:
    """What a network takes, by Pillow and torchvision: resized, three channels, normalised."""
    prepared = []
    for image in pixels:
        # Mode F holds floats, so that nothing is rounded to bytes; Pillow's filter is antialiased.
        channels = [Image.fromarray(channel.astype(np.float32)) for channel in image]
        resized = [np.array(c.resize((size, size), Image.Resampling.BILINEAR)) for c in channels]
        colours = torch.from_numpy(np.stack(resized)) / 255
        mean, deviation = (3 // len(v) * v for v in normalization)
        prepared.append(functional.normalize(colours.expand(3, -1, -1), mean, deviation))
    return torch.stack(prepared)


@pytest.mark.parametrize("size", [28, 40, 20])
def test_features_are_those_of_torchvisions_network(tmp_path: Path, size: int) -> None:
    network = load_backbone(SETTINGS)
    network.fc = nn.Identity()
    with torch.inference_mode():
        expected = network(as_published(images(), size, NORMALIZATION))
    found = compute(tmp_path, size=size)
    assert found.shape == (4, 2048)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.std().item())


@pytest.mark.parametrize("size", [28, 40, 20, 8])
@pytest.mark.parametrize(
    ("channels", "normalization"), [(1, NORMALIZATION), (3, IMAGENET_NORMALIZATION), (1, COLOURED)]
)
def test_preprocessing_scales_resizes_repeats_and_normalises(
    size: int, channels: int, normalization: Normalization
) -> None:
    pixels = images(3, (channels, 28, 28))
    found = Preprocess(size, normalization)(torch.from_numpy(pixels))
    assert found.shape == (3, 3, size, size)
    expected = as_published(pixels, size, normalization)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_imagenets_normalisation_is_the_published_one() -> None:
    for weights in ResNet50_Weights:
        published = weights.transforms()
        assert (tuple(published.mean), tuple(published.std)) == IMAGENET_NORMALIZATION


# --- extraction ----------------------------------------------------------------------------


def small_layers(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Conv2d(3, 4, 5, stride=2), nn.BatchNorm2d(4), nn.Flatten())
    layers[1].get_buffer("running_mean").uniform_()
    return layers.eval()


@pytest.mark.parametrize("count", [1, 3, 7, 9])
def test_every_batch_is_extracted_in_its_place(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    layers = nn.Sequential(Preprocess(12, NORMALIZATION), *small_layers())
    pixels = images(count)
    found = features.extract(pixels, layers, CPU, "float32", SilentProgress(), "few", 3)
    with torch.no_grad():
        expected = small_layers()(as_published(pixels, 12, NORMALIZATION))
    assert len(expected.unique(dim=0)) == count
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert found.is_contiguous()
    assert not found.is_inference()


def test_progress_counts_every_image(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []

    class Counting(SilentProgress):
        @contextmanager
        def task(self, name: str, total: int, unit: str) -> Iterator[Advance]:
            assert total == 7
            yield lambda units, before=False: done.append(units)

    layers = nn.Sequential(Preprocess(12, NORMALIZATION), *small_layers())
    features.extract(images(7), layers, CPU, "float32", Counting(), "few", 3)
    assert done == [3, 3, 1]


@pytest.mark.parametrize("size", [28, 20])
def test_bfloat16_features_are_computed_and_kept_in_bfloat16(
    few_layers: None, tmp_path: Path, size: int
) -> None:
    exact, rough = (
        frozen(tmp_path, {**arguments(), "image_size": size, "precision": precision})
        for precision in ("float32", "bfloat16")
    )
    assert (exact.dtype, rough.dtype) == (torch.float32, torch.bfloat16)
    with torch.no_grad():
        expected = small_layers()(as_published(images(), size, NORMALIZATION))
    torch.testing.assert_close(exact, expected, rtol=1e-4, atol=1e-4)
    # Half a percent is what eight bits of a factor leave, summed up over a convolution.
    torch.testing.assert_close(rough.float(), exact, rtol=0.05, atol=0.05)
    assert not torch.equal(rough, exact.bfloat16())  # the arithmetic is rough, not the end alone


def test_features_are_computed_in_full_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU convolutions use TF32 by default, and features then move by two percent."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen: list[bool] = []

    class Witness(nn.Flatten):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            seen.append(torch.backends.cudnn.allow_tf32)
            return super().forward(inputs)

    extract(images(), Witness(), torch.device("cpu"), "float32", SilentProgress(), "few", 4)
    assert seen == [False]
    assert torch.backends.cudnn.allow_tf32


def test_features_serve_training() -> None:
    layers = nn.Flatten()
    found = extract(images(), layers, torch.device("cpu"), "float32", SilentProgress(), "few", 3)
    assert not found.is_inference()
    np.testing.assert_array_equal(found.numpy(), images().reshape(4, -1))


@pytest.mark.parametrize(
    ("device", "size", "expected"),
    [
        ("cpu", 28, 256), ("cuda", 28, 4096), ("mps", 28, 1024),
        ("cpu", 8, 256), ("cuda", 56, 1024), ("cuda", 224, 64), ("cpu", 1000, 1),
    ],
)  # fmt: skip
def test_fewer_images_at_a_time_the_larger_they_are(device: str, size: int, expected: int) -> None:
    assert batch_size(torch.device(device), size) == expected


def test_images_go_through_in_batches_of_the_size_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "BATCH", {"cpu": 12})
    monkeypatch.setattr(features, "frozen_part", lambda network, boundary: [Witness()])
    seen: list[int] = []

    class Witness(nn.Flatten):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            seen.append(len(inputs))
            return super().forward(inputs)

    found = compute(tmp_path, size=56)
    assert seen == [1, 3, 1]  # one to see how large the result will be
    assert found.shape == (4, 3 * 56 * 56)


def test_features_that_do_not_fit_say_what_to_lower() -> None:
    class Full(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(SwabenchError, match=r"out of memory.* 2 images .*lower data\.image_size"):
        extract(images(), Full(), torch.device("cpu"), "float32", SilentProgress(), "few", 2)


def test_layer4s_inputs_lead_to_the_same_features(tmp_path: Path) -> None:
    maps = compute(tmp_path, "layer4")
    network = load_backbone(SETTINGS)
    with torch.inference_mode():
        features = torch.flatten(network.avgpool(network.layer4(maps)), 1)
    expected = compute(tmp_path)
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-3 * expected.std().item())


def test_random_weights_are_the_same_for_everyone_and_leave_torchs_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = weights_digest(load_backbone(SETTINGS))
    assert torch.equal(torch.rand(1), expected)
    assert first == weights_digest(load_backbone(SETTINGS))
    assert first != weights_digest(load_backbone(BackboneSettings(seed=1)))


def test_the_weights_digest_is_of_every_tensor_but_the_final_layers() -> None:
    def digest(edit: str | None = None) -> str:
        network = small_layers()
        network.add_module("fc", nn.Linear(2, 2))
        state = network.state_dict()
        for name, values in state.items():
            values.copy_(torch.arange(values.numel()).view(values.shape))
            if name == edit:
                values.view(-1)[-1:].add_(1)
        return weights_digest(network)

    names = [*small_layers().state_dict(), "fc.weight", "fc.bias"]
    found = {name: digest(name) for name in names}
    assert {name for name in names if found[name] == digest()} == {"fc.weight", "fc.bias"}
    assert len(set(found.values())) == len(names) - 1


def test_nothing_is_frozen_below_all() -> None:
    with pytest.raises(ValueError, match="nothing is frozen"):
        frozen_part(load_backbone(SETTINGS), "all")


Arguments = dict[str, Any]


def arguments() -> Arguments:
    return {
        "images": images(),
        "network": small_layers(),
        "boundary": "head",
        "image_size": 28,
        "normalization": NORMALIZATION,
        "precision": "float32",
    }


def another_pixel(base: Arguments) -> Arguments:
    changed = base["images"].copy()
    changed[-1, 0, 27, 27] ^= 1
    return {"images": changed}


def with_state(name: str) -> Callable[[Arguments], Arguments]:
    def change(base: Arguments) -> Arguments:
        network = small_layers()
        with torch.no_grad():
            network.state_dict()[name].view(-1)[-1:].add_(0.5)
        return {"network": network}

    return change


CHANGES: dict[str, Callable[[Arguments], Arguments]] = {
    "a pixel": another_pixel,
    "the order of the images": lambda base: {"images": base["images"][::-1].copy()},
    "the shape": lambda base: {"images": base["images"].reshape(4, 1, 14, 56)},
    "a weight": with_state("0.weight"),
    "a bias": with_state("0.bias"),
    "BatchNorm's weight": with_state("1.weight"),
    "BatchNorm's statistics": with_state("1.running_var"),
    "the boundary": lambda _: {"boundary": "layer4"},
    "the image size": lambda _: {"image_size": 20},
    "the mean": lambda _: {"normalization": ((0.14,), (0.31,))},
    "the deviation": lambda _: {"normalization": ((0.13,), (0.32,))},
    "the precision": lambda _: {"precision": "bfloat16"},
}


def frozen(cache: Path, given: Arguments) -> Tensor:
    given = {"name": "few", **given, "network": copy.deepcopy(given["network"])}
    return frozen_features(**given, device=CPU, cache=cache, progress=SilentProgress()).values


@pytest.fixture
def few_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three small layers in place of ResNet-50's; one fewer below `layer4`."""

    def frozen_part(network: nn.Sequential, boundary: Boundary) -> nn.Sequential:
        return network if boundary == "head" else network[:-1]

    monkeypatch.setattr(features, "frozen_part", frozen_part)


@pytest.mark.usefixtures("few_layers")
class TestCache:
    def test_a_second_read_gives_the_same_and_computes_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = frozen(tmp_path, arguments())
        monkeypatch.setattr("swabench.runs.features.extract", None)
        assert torch.equal(frozen(tmp_path, arguments()), first)
        assert len(entries(tmp_path)) == 1

    def test_the_slower_of_two_processes_uses_the_features_of_the_faster(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On a shared disk whose locks do not hold, two may compute the same entry."""
        frozen(tmp_path / "faster", arguments())
        (faster,) = entries(tmp_path / "faster")
        extract = features.extract

        def overtaken(*given: Any) -> torch.Tensor:
            shutil.copytree(faster, tmp_path / "shared" / "features" / faster.name)
            return extract(*given) + 1  # told apart from the other's

        monkeypatch.setattr(cache_module, "_held", lambda lock, say: contextlib.nullcontext())
        monkeypatch.setattr(features, "extract", overtaken)
        found = frozen(tmp_path / "shared", arguments())
        assert torch.equal(found, load_file(faster / "features.safetensors")["features"])
        assert len(entries(tmp_path / "shared")) == 1

    def test_waiting_for_another_process_is_said(self, tmp_path: Path) -> None:
        told: list[str] = []
        events: list[str] = []

        def lock(busy: bool) -> Any:
            def acquire(timeout: float = -1) -> None:
                events.append("tried" if timeout == 0 else "waited")
                if timeout == 0 and busy:
                    raise Timeout(str(tmp_path))

            return SimpleNamespace(acquire=acquire, release=lambda: events.append("released"))

        for busy in (True, False):
            with cache_module._held(lock(busy), told.append):
                events.append("works")
        assert events == ["tried", "waited", "works", "released", "tried", "works", "released"]
        assert told == ["waiting for another process, which computes them"]

    @pytest.mark.parametrize("change", CHANGES)
    def test_whatever_determines_features_is_part_of_their_key(
        self, tmp_path: Path, change: str
    ) -> None:
        """Another entry, with the right content, and the old one is still there."""
        base = arguments()
        other = {**base, **CHANGES[change](base)}
        first = frozen(tmp_path / "both", base)
        second = frozen(tmp_path / "both", other)
        assert len(entries(tmp_path / "both")) == 2
        assert torch.equal(second, frozen(tmp_path / "alone", other))
        assert torch.equal(first, frozen(tmp_path / "both", base))
        assert len(entries(tmp_path / "both")) == 2

    def test_what_does_not_determine_features_shares_an_entry(self, tmp_path: Path) -> None:
        base = arguments()
        first = frozen(tmp_path, base)
        again = frozen(tmp_path, {**base, "images": base["images"].copy(), "name": "others"})
        assert torch.equal(first, again)
        assert len(entries(tmp_path)) == 1

    @pytest.mark.parametrize("damage", ["altered", "truncated", "another key", "no meta"])
    def test_what_is_not_as_written_is_refused_and_left_alone(
        self, tmp_path: Path, damage: str
    ) -> None:
        frozen(tmp_path, arguments())
        [entry] = entries(tmp_path)
        assert not list(cache_module.damaged_entries(tmp_path))
        array, meta = entry / "features.safetensors", entry / "features.json"
        if damage == "altered":
            content = bytearray(array.read_bytes())
            content[-1] ^= 1
            array.write_bytes(content)
        elif damage == "truncated":
            array.write_bytes(array.read_bytes()[:-100])
        elif damage == "another key":
            content = json.loads(meta.read_text())
            content["key"]["precision"] = "bfloat16"
            meta.write_text(json.dumps(content))
        else:
            meta.unlink()
        before = array.read_bytes()
        with pytest.raises(InputError, match="delete") as error:
            frozen(tmp_path, arguments())
        assert str(entry) in str(error.value)
        assert array.read_bytes() == before
        (damaged,) = cache_module.damaged_entries(tmp_path)  # so that `repair` removes it
        assert damaged.path == entry

    def test_a_cache_that_cannot_be_written_names_the_setting(self, tmp_path: Path) -> None:
        (tmp_path / "features").write_text("a file where the folder should be")
        with pytest.raises(InputError, match="SWABENCH_CACHE"):
            frozen(tmp_path, arguments())

    def test_an_interrupted_write_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*args: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("swabench.runs.cache.save_file", interrupted)
            with pytest.raises(KeyboardInterrupt):
                frozen(tmp_path, arguments())
        assert entries(tmp_path) == []
        assert len(frozen(tmp_path, arguments())) == 4


@pytest.mark.usefixtures("few_layers")
def test_what_a_killed_process_left_in_the_cache_is_taken_away(tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          check=True, capture_output=True, text=True).stdout.strip()  # fmt: skip
    left = tmp_path / "features" / f".writing-{files.host()}-{gone}-0123abcd"
    left.mkdir(parents=True)
    frozen(tmp_path, arguments())
    assert not left.exists()


# --- room ------------------------------------------------------------------------------------


def room(monkeypatch: pytest.MonkeyPatch, *, memory: float, disk: float) -> None:
    monkeypatch.setattr(features, "physical_memory", lambda: memory)
    usage = SimpleNamespace(free=disk)
    monkeypatch.setattr(features, "shutil", SimpleNamespace(disk_usage=lambda folder: usage))


@pytest.mark.parametrize(("precision", "size"), [("float32", 4), ("bfloat16", 2)])
def test_what_would_not_fit_into_half_the_memory_or_the_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision, size: int
) -> None:
    pixels, layers = images(5), nn.Flatten()  # 28 · 28 numbers each
    needed = 5 * 28 * 28 * size

    def check() -> None:
        features._check_room(pixels, layers, precision, tmp_path)

    room(monkeypatch, memory=2 * needed, disk=needed)
    check()
    room(monkeypatch, memory=2 * needed - 2, disk=needed)
    with pytest.raises(InputError, match=r"for 5 images .*more than half of this machine's memory"):
        check()
    room(monkeypatch, memory=2 * needed, disk=needed - 1)
    with pytest.raises(
        SwabenchError, match=r"kB are free; set SWABENCH_CACHE to a larger d"
    ) as error:
        check()
    assert error.value.exit_code == 1


def refuse(monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    """Let the cache's lock fail, as in a folder of somebody else's; a superuser may lock all."""

    def fail(path: Path) -> None:
        raise OSError(number, words, str(path))

    monkeypatch.setattr(cache_module, "FileLock", fail)


@pytest.mark.usefixtures("few_layers")
@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_cache_that_must_not_be_written_to_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    first = frozen(tmp_path, arguments())
    refuse(monkeypatch, number, "no")
    assert torch.equal(frozen(tmp_path, arguments()), first)
    with pytest.raises(
        SwabenchError, match=r"cannot be written \(no\); set SWABENCH_CACHE"
    ) as error:
        frozen(tmp_path, {**arguments(), **another_pixel(arguments())})
    assert "make room" not in str(error.value)


@pytest.mark.usefixtures("few_layers")
def test_a_cache_that_must_not_be_looked_into_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    refuse(monkeypatch, errno.EACCES, "Permission denied")
    monkeypatch.setattr(Path, "is_dir", locked)
    with pytest.raises(
        SwabenchError, match=r"cannot be written \(Permission denied\); set SWABENCH"
    ):
        frozen(tmp_path, arguments())


@pytest.mark.usefixtures("few_layers")
def test_a_full_disk_is_a_failure_even_where_the_entry_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, errno.ENOSPC, "No space left on device")
    with pytest.raises(SwabenchError, match=r"cannot be written .*; make room, or set") as error:
        frozen(tmp_path, arguments())
    assert error.value.exit_code == 1


@pytest.mark.usefixtures("few_layers")
def test_an_entry_is_as_open_to_others_as_the_user_lets_files_be(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        frozen(tmp_path, arguments())
    finally:
        os.umask(before)
    (entry,) = entries(tmp_path)
    assert stat.S_IMODE(entry.stat().st_mode) == 0o750
    for path in entry.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o640, path.name


# --- BatchNorm's statistics ------------------------------------------------------------------


def statistics(cache: Path, given: Arguments) -> Tensor:
    keys = ("images", "network", "image_size", "normalization")
    own = {key: copy.deepcopy(given[key]) for key in keys}
    return batchnorm_statistics(**own, device=CPU, cache=cache, progress=SilentProgress())


OF_STATISTICS = [name for name in CHANGES if name not in ("the boundary", "the precision")]


@pytest.mark.parametrize("change", OF_STATISTICS)
def test_whatever_determines_statistics_is_part_of_their_key(tmp_path: Path, change: str) -> None:
    base = arguments()
    other = {**base, **CHANGES[change](base)}
    first = statistics(tmp_path / "both", base)
    assert torch.equal(statistics(tmp_path / "both", other), statistics(tmp_path / "alone", other))
    assert torch.equal(statistics(tmp_path / "both", base), first)
    assert len(list((tmp_path / "both" / "statistics").glob("*/features.json"))) == 2


@pytest.mark.parametrize("size", [28, 20])
def test_statistics_are_of_images_as_the_study_sees_them(tmp_path: Path, size: int) -> None:
    found = statistics(tmp_path, {**arguments(), "image_size": size})
    with torch.no_grad():
        maps = small_layers()[0](as_published(images(), size, NORMALIZATION))
    variance, mean = torch.var_mean(maps, dim=(0, 2, 3))
    torch.testing.assert_close(found, torch.cat([mean, variance]), rtol=1e-3, atol=1e-4)


def test_the_size_of_batches_is_part_of_the_key_of_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network's deeper layers see what batches were normalised by."""
    asked: list[int] = []

    def noting(images: int, size: int) -> list[Tensor]:
        asked.append(size)
        return list(mixed_batches(images, size))

    monkeypatch.setattr(features, "mixed_batches", noting)
    given = arguments()
    for size in (features.BATCH["cpu"], 3):
        monkeypatch.setitem(features.BATCH, "cpu", size)
        statistics(tmp_path, given)
        assert asked[-1] == features.batch_size(CPU, given["image_size"])
    assert len(list((tmp_path / "statistics").glob("*/features.json"))) == 2


def test_what_is_not_to_be_kept_is_the_same_and_leaves_no_entry(tmp_path: Path) -> None:
    def found(keep: bool) -> cache_module.Features:
        return frozen_features(
            images(), load_backbone(SETTINGS), "head", 28, NORMALIZATION, "float32",
            device=CPU, cache=tmp_path, progress=SilentProgress(), name="few", keep=keep,
        )  # fmt: skip

    passing = found(keep=False)
    assert entries(tmp_path) == []
    kept = found(keep=True)
    assert passing.sha256 == kept.sha256
    assert torch.equal(passing.values, kept.values)
    # What others need stays.
    assert found(keep=False).sha256 == kept.sha256
    assert len(entries(tmp_path)) == 1
