"""The feature cache and the frozen layers, on real ResNet-50 and few images."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from swabench.runs import features
from swabench.runs.features import batch_size, extract, frozen_features
from swabench.study.study import BackboneSettings, Boundary
from swabench.system.errors import InputError, SwabenchError
from swabench.system.progress import SilentProgress
from swabench.training.backbone import Preprocess, frozen_part, load_backbone, weights_digest

NORMALIZATION = ((0.13,), (0.31,))
SETTINGS = BackboneSettings()


def images(count: int = 4) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 1, 28, 28), dtype=np.uint8)


def compute(cache: Path, boundary: Boundary = "head", size: int = 28) -> torch.Tensor:
    return frozen_features(
        images(),
        load_backbone(SETTINGS),
        boundary,
        size,
        NORMALIZATION,
        "float32",
        device=torch.device("cpu"),
        cache=cache,
        progress=SilentProgress(),
        name="few",
    ).values


def entries(cache: Path) -> list[Path]:
    return [path for path in (cache / "features").iterdir() if path.is_dir()]


@pytest.mark.parametrize("size", [28, 40])
def test_features_are_those_of_torchvisions_network(tmp_path: Path, size: int) -> None:
    network = load_backbone(SETTINGS)
    network.fc = nn.Identity()
    with torch.inference_mode():
        expected = network(Preprocess(size, NORMALIZATION)(torch.from_numpy(images())))
    found = compute(tmp_path, size=size)
    assert found.shape == (4, 2048)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.std().item())


def test_preprocessing_scales_repeats_and_normalises() -> None:
    found = Preprocess(28, NORMALIZATION)(torch.from_numpy(images()))
    expected = (images().astype(np.float64) / 255 - 0.13) / 0.31
    assert found.shape == (4, 3, 28, 28)
    np.testing.assert_allclose(found.numpy(), np.repeat(expected, 3, axis=1), atol=1e-5)


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


def test_nothing_is_frozen_below_all() -> None:
    with pytest.raises(ValueError, match="nothing is frozen"):
        frozen_part(load_backbone(SETTINGS), "all")


class TestCache:
    def test_a_second_read_gives_the_same_and_computes_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = compute(tmp_path)
        monkeypatch.setattr("swabench.runs.features.extract", None)
        assert torch.equal(compute(tmp_path), first)
        assert len(entries(tmp_path)) == 1

    def test_the_slower_of_two_processes_uses_the_features_of_the_faster(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On a shared disk whose locks do not hold, two may compute the same entry."""
        compute(tmp_path / "faster")
        (faster,) = entries(tmp_path / "faster")
        extract = features.extract

        def overtaken(*given: Any) -> torch.Tensor:
            shutil.copytree(faster, tmp_path / "shared" / "features" / faster.name)
            return extract(*given) + 1  # told apart from the other's

        monkeypatch.setattr(features, "FileLock", lambda path: contextlib.nullcontext())
        monkeypatch.setattr(features, "extract", overtaken)
        found = compute(tmp_path / "shared")
        assert torch.equal(found, load_file(faster / "features.safetensors")["features"])
        assert len(entries(tmp_path / "shared")) == 1

    def test_another_boundary_or_size_is_another_entry(self, tmp_path: Path) -> None:
        compute(tmp_path)
        compute(tmp_path, size=32)
        compute(tmp_path, "layer4")
        assert len(entries(tmp_path)) == 3

    @pytest.mark.parametrize("damage", ["altered", "truncated", "another key", "no meta"])
    def test_what_is_not_as_written_is_refused_and_left_alone(
        self, tmp_path: Path, damage: str
    ) -> None:
        compute(tmp_path)
        [entry] = entries(tmp_path)
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
            compute(tmp_path)
        assert str(entry) in str(error.value)
        assert array.read_bytes() == before

    def test_a_cache_that_cannot_be_written_names_the_setting(self, tmp_path: Path) -> None:
        (tmp_path / "features").write_text("a file where the folder should be")
        with pytest.raises(InputError, match="SWABENCH_CACHE"):
            compute(tmp_path)

    def test_an_interrupted_write_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*args: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("swabench.runs.features.save_file", interrupted)
            with pytest.raises(KeyboardInterrupt):
                compute(tmp_path)
        assert entries(tmp_path) == []
        assert compute(tmp_path).shape == (4, 2048)
