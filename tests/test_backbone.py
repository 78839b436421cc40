"""Weights files: what fits is loaded, what does not is named, what would run code is refused."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import resnet50

from swabench.study.study import BackboneSettings
from swabench.system.errors import InputError
from swabench.training.backbone import load_backbone, weights_digest

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(5)
    return dict(resnet50(num_classes=7).state_dict())


def write(state: State, path: Path) -> str:
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    return str(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_are_loaded_whatever_their_final_layer(
    state: State, tmp_path: Path, suffix: str
) -> None:
    network = load_backbone(BackboneSettings(weights=write(state, tmp_path / f"w{suffix}")))
    for name, tensor in network.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(tensor, state[name]), name
    assert weights_digest(network) != weights_digest(load_backbone(BackboneSettings()))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.pop("layer3.0.conv1.weight"), r"1 missing keys \(layer3.0.conv1.weight\)"),
        (lambda s: s.update(extra=torch.zeros(1)), r"1 surplus keys \(extra\)"),
        (lambda s: s.update({"conv1.weight": torch.zeros(2)}), "size mismatch for conv1.weight"),
    ],
)
def test_what_does_not_fit_is_named(
    state: State, tmp_path: Path, edit: Callable[[State], object], message: str
) -> None:
    changed = dict(state)
    edit(changed)
    with pytest.raises(InputError, match=message):
        load_backbone(BackboneSettings(weights=write(changed, tmp_path / "w.pth")))


class Malicious:
    """Would write a file while it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self._trace,)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, how: str) -> None:
    path, trace = tmp_path / "w.pth", tmp_path / "ran"
    if how == "torch":
        torch.save({"conv1.weight": Malicious(trace)}, path)
    else:
        path.write_bytes(pickle.dumps(Malicious(trace)))
    with pytest.raises(InputError, match="is no file of weights"):
        load_backbone(BackboneSettings(weights=str(path)))
    assert not trace.exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_damaged_files_are_refused(state: State, tmp_path: Path, name: str) -> None:
    path = Path(write(state, tmp_path / name))
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(InputError, match="is no file of weights"):
        load_backbone(BackboneSettings(weights=str(path)))


def test_a_name_that_is_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="IMAGENET1K_V1"):
        load_backbone(BackboneSettings(weights="imagenet"))
