"""ResNet-50: its weights, and where training begins.

The boundary (`trainable: head | layer4 | all`) cuts the network in two. Below it the layers are
frozen in evaluation mode, a fixed function of the image; above it they train.
"""

import hashlib
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import ResNet, ResNet50_Weights, resnet50
from torchvision.models.resnet import Bottleneck

from swabench.study.inputs import BackboneSettings, RunOfStudy
from swabench.study.stages import Boundary
from swabench.system.errors import InputError, first_line
from swabench.system.files import is_file
from swabench.training.convolution import memory_format, narrow_convolutions

FEATURES = 2048
_STAGES = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool")

Normalization = tuple[tuple[float, ...], tuple[float, ...]]
IMAGENET_NORMALIZATION: Normalization = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Preprocess(nn.Module):
    """Bytes to what ResNet-50 takes: scaled to [0, 1], resized, three channels, normalised.

    Args:
        image_size: Side in pixels of the result.
        normalization: Mean and deviation of each channel (one for grey images, or three).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, image_size: int, normalization: Normalization) -> None:
        super().__init__()
        self.image_size = image_size
        for name, values in zip(("mean", "deviation"), normalization, strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 (N, C, H, W), C = 1 or 3, to (N, 3, size, size), laid out for convolutions."""
        # In float32, whatever the layers after it compute in: bfloat16 holds no more than eight
        # bits of a pixel, and torch does not resize it everywhere.
        scaled = images.float() / 255
        if scaled.shape[-2:] != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            scaled = F.interpolate(
                scaled, size, mode="bilinear", align_corners=False, antialias=True
            )
        normalized = ((scaled - self.mean) / self.deviation).to(self.mean.dtype)
        layout = memory_format(images.device)
        return normalized.expand(-1, 3, -1, -1).contiguous(memory_format=layout)


class Standardize(nn.Module):
    """A fixed affine map between the pooled features and the final layer.

    The final layer of `head` trains on standardised features; with this map before it, its
    weights mean the same where the layers below train too.

    Args:
        mean: Of every feature, shape (D,).
        deviation: Of every feature, shape (D,).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.clone(), persistent=False)
        self.register_buffer("deviation", deviation.clone(), persistent=False)

    @classmethod
    def measured_on(cls, features: Tensor) -> "Standardize":
        """By the mean and deviation of features (N, D); one that never varies keeps its scale."""
        variance, mean = torch.var_mean(features, dim=0, correction=0)
        deviation = variance.sqrt()
        return cls(mean, torch.where(deviation > 0, deviation, 1.0))

    @classmethod
    def identity(cls) -> "Standardize":
        """The map that leaves features as they are."""
        return cls(torch.zeros(FEATURES), torch.ones(FEATURES))

    def forward(self, features: Tensor) -> Tensor:
        """Standardise (N, D)."""
        return (features - self.mean) / self.deviation

    def apply_(self, features: Tensor) -> None:
        """The same (N, D) in place: half a gigabyte is not copied for nothing."""
        features.sub_(self.mean).div_(self.deviation)


class FinalLayer(nn.Linear):
    """The final layer: in its weights' number format, whatever the layers below compute in."""

    def forward(self, features: Tensor) -> Tensor:
        """Class scores (N, C) of features (N, D)."""
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.to(self.weight.dtype))


def load_backbone(settings: BackboneSettings, state: Mapping[str, Tensor] | None = None) -> ResNet:
    """ResNet-50 with the study's weights, in evaluation mode, on the CPU.

    Args:
        settings: Which weights.
        state: Tensors by torchvision's names, where the weights are another study's run's.

    Raises:
        InputError: The weights cannot be fetched or read, or do not fit ResNet-50; names the
            missing and surplus keys.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = resnet50(weights=None, zero_init_residual=settings.zero_init_residual)
    weights = settings.weights
    if isinstance(weights, RunOfStudy):
        if state is None:
            raise ValueError(f"{weights} is given by its state")
        _load_state(network, state, str(weights))
    elif weights in _known_names():
        _load_state(network, _named_weights(weights), weights)
    elif weights != "random":
        _load_state(network, _weights_file(weights), weights)
    return network.eval()


def weights_digest(network: ResNet) -> str:
    """SHA-256 of all backbone parameters and BatchNorm buffers, the final layer left out."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if not name.startswith("fc."):
            digest.update(name.encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def frozen_part(network: ResNet, boundary: Boundary) -> nn.Sequential:
    """The layers below the boundary, with BatchNorm folded into the convolutions.

    Maps images (N, 3, H, W) to (N, 2048) for `head`, to layer 3's maps (N, 1024, h, w) for
    `layer4`. Takes `network` apart: use a copy where it is needed again.

    Raises:
        ValueError: The boundary is `all`, below which nothing is frozen.
    """
    if boundary == "all":
        raise ValueError("nothing is frozen below the boundary 'all'")
    _fold_batchnorm(network)
    last = "avgpool" if boundary == "head" else "layer3"
    stages = _STAGES[: _STAGES.index(last) + 1]
    layers = OrderedDict((name, cast(nn.Module, getattr(network, name))) for name in stages)
    if boundary == "head":
        layers["flatten"] = nn.Flatten()
    part = nn.Sequential(layers).eval().requires_grad_(False)
    narrow_convolutions(part)
    return part


def trained_part(
    network: ResNet, boundary: Boundary, standardize: Standardize, classes: int
) -> nn.Sequential:
    """The layers above the boundary, with a new final layer; the others are `network`'s own.

    Maps images (N, 3, H, W) for `all`, layer 3's maps (N, 1024, h, w) for `layer4`, or features
    (N, 2048) for `head`, to class scores (N, C). Layers are named as in torchvision.
    """
    first = {"all": 0, "layer4": _STAGES.index("layer4"), "head": len(_STAGES)}[boundary]
    layers = OrderedDict(
        (name, cast(nn.Module, getattr(network, name))) for name in _STAGES[first:]
    )
    if layers:
        layers["flatten"] = nn.Flatten()
    layers["standardize"] = standardize
    layers["fc"] = FinalLayer(FEATURES, classes)
    part = nn.Sequential(layers)
    narrow_convolutions(part)
    return part


def _fold_batchnorm(network: ResNet) -> None:
    """In evaluation mode BatchNorm is a fixed affine map; folded in, it costs nothing."""
    network.conv1 = fuse_conv_bn_eval(network.conv1, network.bn1)
    network.bn1 = nn.Identity()
    for block in network.modules():
        if not isinstance(block, Bottleneck):
            continue
        for k in (1, 2, 3):
            conv, norm = getattr(block, f"conv{k}"), getattr(block, f"bn{k}")
            setattr(block, f"conv{k}", fuse_conv_bn_eval(conv, norm))
            setattr(block, f"bn{k}", nn.Identity())
        if block.downsample is not None:
            conv, norm = block.downsample
            block.downsample = nn.Sequential(fuse_conv_bn_eval(conv, norm))


def _load_state(network: ResNet, state: Mapping[str, Tensor], weights: str) -> None:
    """Load everything but the final layer, which has the study's own classes."""
    own = {name for name in network.state_dict() if not name.startswith("fc.")}
    # Old files lack this counter, and nothing here uses it.
    required = {name for name in own if not name.endswith("num_batches_tracked")}
    given = {name for name in state if not name.startswith("fc.")}
    missing, surplus = sorted(required - given), sorted(given - own)
    if missing or surplus:
        raise InputError(
            f"backbone.weights: {weights} does not fit ResNet-50: "
            f"{_some('missing', missing)}; {_some('surplus', surplus)}"
        )
    for name in sorted(given - {name for name in own if name.endswith("num_batches_tracked")}):
        if wrong := _unfit(name, state[name]):
            raise InputError(f"backbone.weights: {weights}: {name} {wrong}; give other weights")
    try:
        network.load_state_dict({name: state[name] for name in given}, strict=False)
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise InputError(f"backbone.weights: {weights} does not fit ResNet-50: {detail}") from None


def _unfit(name: str, tensor: Tensor) -> str:
    """What keeps a tensor from being weights or statistics; empty where nothing does.

    Told here, because training would take it for a rate that is too high.
    """
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        return f"holds no numbers ({tensor.layout} on {tensor.device.type})"
    if not tensor.is_floating_point():
        return f"holds {str(tensor.dtype).removeprefix('torch.')} where there are real numbers"
    if not tensor.float().isfinite().all():
        return "holds numbers that are not finite"
    if name.endswith("running_var") and (tensor < 0).any():
        return "holds negative variances"
    return ""


def _some(kind: str, names: list[str]) -> str:
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return f"{len(names)} {kind} keys" + (f" ({shown})" if names else "")


def _known_names() -> list[str]:
    return list(ResNet50_Weights.__members__)


def _named_weights(name: str) -> Mapping[str, Tensor]:
    try:
        state: Mapping[str, Tensor] = ResNet50_Weights[name].get_state_dict(
            progress=False, check_hash=True
        )
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"backbone.weights: {name} could not be downloaded ({error}); download it elsewhere "
            "and give the file's path, or use 'random'"
        ) from None
    return state


def _weights_file(weights: str) -> Mapping[str, Tensor]:
    path = Path(weights).expanduser()
    if not is_file(path, "backbone.weights"):
        raise InputError(
            f"backbone.weights: {weights!r} is neither 'random', nor a file, nor a name that "
            f"torchvision knows ({', '.join(_known_names())})"
        )
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        # Weights only: a pickle that would run code is refused.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch passes pickle's many errors through
        reason = first_line(error)
        if isinstance(error, pickle.UnpicklingError) or "weights_only" in reason:
            # torch's own words say how to run whatever code such a file brings.
            reason = "it is damaged, or a pickle of more than tensors, which was not opened"
    else:
        if isinstance(state, Mapping) and all(
            isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
        ):
            return cast(Mapping[str, Tensor], state)
        reason = "it holds something else than named tensors"
    raise InputError(f"backbone.weights: {path} is no file of weights ({reason})")
