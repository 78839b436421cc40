"""`swabench export`: the weights of the run that was asked for, at the seed that was asked for.

The backbone is a stand-in of two layers; that a plain ResNet-50 predicts the same with what is
exported is tested in `test_network.py`.
"""

import errno
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from typer.testing import CliRunner

from swabench.cli import app
from swabench.data.datasets import load_dataset
from swabench.data.splits import choose_rows
from swabench.records import Record
from swabench.runs import materials as module
from swabench.runs.cache import Features
from swabench.runs.experiment import Experiment
from swabench.runs.export import check_output, write_state
from swabench.study.study import Study
from swabench.system.errors import InputError, SwabenchError
from swabench.system.progress import SilentProgress
from tests.made_up import record_of
from tests.test_wiring import CLASSES, FEATURES, features_of, study_on, write_images

SEEDS = [0, 3]
METHODS = ["adam", "sgd", "swa", "pswa"]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Heads this small only lose by threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = {"conv1": nn.Conv2d(3, 2, 3), "bn1": nn.BatchNorm2d(2), "fc": nn.Linear(2, 7)}
    return nn.Sequential(OrderedDict(layers)).eval()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, network: nn.Module) -> Path:
    """A folder with a study, its images, and records of every method at two seeds."""
    folder = tmp_path_factory.mktemp("place")
    study = study_on(write_images(folder / "images"))
    (folder / "few.yaml").write_text(study.model_dump_json(exclude={"name"}))
    with pytest.MonkeyPatch.context() as patch:
        put_stand_in(patch, network)
        experiment = experiment_in(folder)
        experiment.finetune([m for m in METHODS if m != "adam"], SEEDS)
    for name in set(study.all_methods) - set(METHODS):  # they train in one group
        shutil.rmtree(experiment.store.folder / "runs" / name)
    return folder


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch, network: nn.Module) -> None:
    put_stand_in(monkeypatch, network)
    monkeypatch.setenv("COLUMNS", "200")


def put_stand_in(patch: pytest.MonkeyPatch, network: nn.Module) -> None:
    patch.setattr(module, "load_backbone", lambda *_: network)
    patch.setattr(
        module, "frozen_features", lambda images, *_, **__: Features(features_of(images), "none")
    )


def experiment_in(folder: Path) -> Experiment:
    study = Study.model_validate({**study_on(folder / "images").model_dump(), "name": "few"})
    return Experiment(study, folder / "results", CPU, folder / "cache", SilentProgress())


def export(place: Path, output: Path, *arguments: str) -> Any:
    options = ["--config", str(place / "few.yaml"), "--results", str(place / "results")]
    return CliRunner().invoke(app, ["export", *options, "--output", str(output), *arguments])


def head_of(record: Record, images: Path) -> tuple[np.ndarray, np.ndarray]:
    """The final layer that takes plain features, from one that takes standardised ones."""
    dataset = load_dataset("folder", images, images, SilentProgress().say)
    rows = choose_rows(study_on(images).data, dataset)
    train = features_of(dataset.train_images[rows["train"]]).double().numpy()
    weights = record.arrays()[f"weights/{record.result}"].astype(np.float64)
    matrix = weights[: CLASSES * FEATURES].reshape(CLASSES, FEATURES) / train.std(axis=0)
    return matrix, weights[CLASSES * FEATURES :] - matrix @ train.mean(axis=0)


def test_every_run_exports_its_own_result(place: Path, tmp_path: Path, network: nn.Module) -> None:
    store = experiment_in(place).store
    seen = set()
    for method in METHODS:
        for seed in SEEDS:
            output = tmp_path / f"{method}-{seed}.safetensors"
            done = export(place, output, "--method", method, "--seed", str(seed))
            assert done.exit_code == 0, done.output
            assert f"{method} at seed {seed}, {CLASSES} classes" in done.output
            state = load_file(output)
            matrix, bias = head_of(record_of(store, method, seed), place / "images")
            scale = np.abs(matrix).mean()
            np.testing.assert_allclose(state["fc.weight"], matrix, rtol=1e-3, atol=1e-3 * scale)
            np.testing.assert_allclose(state["fc.bias"], bias, rtol=1e-3, atol=1e-3)
            seen.add(state["fc.weight"].numpy().tobytes())
    assert len(seen) == len(METHODS) * len(SEEDS)
    # All below the final layer is the backbone's own.
    for name, values in network.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(state[name], values), name


def test_the_first_seed_is_exported_if_none_is_named(place: Path, tmp_path: Path) -> None:
    named, unnamed = tmp_path / "named.safetensors", tmp_path / "unnamed.safetensors"
    assert export(place, named, "--method", "swa", "--seed", "0").exit_code == 0
    assert export(place, unnamed, "--method", "swa").exit_code == 0
    assert named.read_bytes() == unnamed.read_bytes()


def test_both_kinds_of_file_hold_the_same(place: Path, tmp_path: Path) -> None:
    found = []
    read: dict[str, Callable[[Path], dict[str, Tensor]]] = {
        ".safetensors": load_file,
        ".pth": lambda path: torch.load(path, weights_only=True),
    }
    for suffix, load in read.items():
        output = tmp_path / f"swa{suffix}"
        assert export(place, output, "--method", "swa", "--seed", "3").exit_code == 0
        found.append(load(output))
    assert found[0].keys() == found[1].keys()
    for name, values in found[0].items():
        assert torch.equal(values, found[1][name]), name


def test_how_to_prepare_images_is_told(place: Path, tmp_path: Path) -> None:
    done = export(place, tmp_path / "a.pth", "--method", "sgd")
    (mean,), (deviation,) = experiment_in(place).normalization()
    pixels = np.frombuffer(
        (place / "images" / "train-images-idx3-ubyte").read_bytes()[16:], np.uint8
    )
    assert mean == pytest.approx((pixels / 255).mean())
    assert f"by mean {mean:.6f} and deviation {deviation:.6f}" in done.output
    assert "resized to 28 pixels" in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "swaa"], "'swaa' is not a row of study 'few'"),
        (["--method", "sgd-rate-0.05"], "'sgd-rate-0.05' is not a row"),
        (["--method", "swa", "--seed", "1"], "holds no record of swa at seed 1"),
        (["--method", "swa-cyclical"], "holds no record of swa-cyclical at seed 0"),
    ],
)
def test_what_is_not_there_is_named_and_nothing_is_written(
    place: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    done = export(place, tmp_path / "a.pth", *arguments)
    assert done.exit_code == 2
    assert words in done.output
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_is_said_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in '\.onnx'"):
        check_output(tmp_path / "a.onnx")
    with pytest.raises(InputError, match=r"nowhere: cannot be written \(No such file"):
        check_output(tmp_path / "nowhere" / "a.pth")
    (tmp_path / "b.pth").mkdir()
    with pytest.raises(InputError, match=r"b\.pth is a folder; name a file in it"):
        check_output(tmp_path / "b.pth")
    with pytest.raises(InputError, match=r"cannot be written \(File name too long\)"):
        check_output(tmp_path / f"{'n' * 300}.pth")
    (tmp_path / "c.pth").write_bytes(b"")
    with pytest.raises(InputError, match="a file lies where a folder belongs"):
        check_output(tmp_path / "c.pth" / "d.pth")
    (tmp_path / "e.pth").symlink_to("e.pth")
    with pytest.raises(InputError, match=r"e\.pth: cannot be written"):
        check_output(tmp_path / "e.pth")


def test_a_folder_that_must_not_be_written_to_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_output(tmp_path / "a.pth")

    def refused(dir: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(dir / "a1b2"))

    monkeypatch.setattr("tempfile.TemporaryFile", refused)  # a superuser may write anywhere
    with pytest.raises(SwabenchError, match=r"cannot be written \(Permission.*--output") as error:
        check_output(tmp_path / "a.pth")
    assert error.value.exit_code == 1


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_disk_that_is_full_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    path = tmp_path / f"a{suffix}"
    with pytest.raises(SwabenchError, match=r"cannot be written .*; make room, or choose") as error:
        write_state({"fc.bias": torch.ones(2)}, path)
    assert str(path) in str(error.value)
    assert error.value.exit_code == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_crash_while_writing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text("what was there")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(KeyboardInterrupt):
            write_state({"fc.bias": torch.ones(2)}, path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "what was there"
