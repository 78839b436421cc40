"""Fine-tuned weights for use elsewhere: a plain torchvision `resnet50`, without this package."""

import io
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from swabench.runs.learners import Start
from swabench.runs.materials import Materials
from swabench.study.stages import Boundary
from swabench.system.errors import InputError, not_written
from swabench.system.files import try_writing, write_file
from swabench.training.backbone import FEATURES
from swabench.training.flat import assign

SUFFIXES = (".safetensors", ".pth")


def plain_state(materials: Materials, boundary: Boundary, trained: Start) -> dict[str, Tensor]:
    """The state of a `resnet50(num_classes=C)` that predicts what a trained network predicts.

    Args:
        materials: Of the run's study.
        boundary: Where its training began.
        trained: Its weights and BatchNorm statistics.

    Returns:
        Tensors by torchvision's names, for `load_state_dict`. The standardisation of features is
        folded into the final layer: W (x − μ)/σ + b = (W/σ) x + (b − (W/σ) μ).
    """
    network = materials.backbone()
    layers = materials.trained_layers(boundary, network)  # shares the network's layers
    assign(layers, trained.weights, trained.statistics)
    head = layers.get_submodule("fc")
    mean, deviation = (
        values.cpu().double()
        for values in (materials.standardization.mean, materials.standardization.deviation)
    )
    matrix = head.get_parameter("weight").detach().cpu().double() / deviation
    bias = head.get_parameter("bias").detach().cpu().double() - matrix @ mean
    network.fc = nn.Linear(FEATURES, materials.classes)
    state: dict[str, Tensor] = network.state_dict()
    state |= {"fc.weight": matrix.float(), "fc.bias": bias.float()}
    return {name: tensor.contiguous() for name, tensor in state.items()}


def check_output(path: Path) -> None:
    """Find out before any work is done whether weights can be written there.

    Raises:
        SwabenchError: The suffix is unknown, it is a folder, or it cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"--output: {path} ends in {path.suffix!r}; use {' or '.join(SUFFIXES)}")
    with _told_if_unwritable(path):
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(path.stat().st_mode):
                raise InputError(f"--output: {path} is a folder; name a file in it")
        try_writing(path.parent)


def write_state(state: dict[str, Tensor], path: Path) -> None:
    """Write tensors as .safetensors or .pth, atomically.

    Raises:
        SwabenchError: They cannot be written there.
    """
    if path.suffix == ".safetensors":
        content = save(state)
    else:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
    with _told_if_unwritable(path):
        write_file(path, content)


@contextmanager
def _told_if_unwritable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise not_written(error, path, "choose another file with --output") from None
