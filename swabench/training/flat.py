"""A network's parameters, and its BatchNorm statistics, as one vector each.

Averages, the loss landscape and records are then plain vector arithmetic, an optimizer step is
one update of one tensor, and what trains higher up is the tail of what trains lower down: the
vector of `head` is the end of that of `layer4`, which is the end of that of `all`.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# The common base of BatchNorm1d, 2d and 3d.
BatchNorm = _BatchNorm


def parameter_views(vector: Tensor, network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parts of a vector (P,) that stand for the network's parameters, by name, in order.

    Convolution weights lie with their channels last, as the fast kernels want them.

    Raises:
        ValueError: The vector has not as many numbers as the network has parameters.
    """
    parameters = dict(network.named_parameters())
    sizes = [parameter.numel() for parameter in parameters.values()]
    _check_length(vector, sum(sizes), "parameters")
    for (name, parameter), part in zip(parameters.items(), vector.split(sizes), strict=True):
        if parameter.dim() == 4:
            outputs, inputs, height, width = parameter.shape
            yield name, part.view(outputs, height, width, inputs).permute(0, 3, 1, 2)
        else:
            yield name, part.view(parameter.shape)


def as_in_vector(parameter: Tensor) -> Tensor:
    """A parameter's numbers, or its gradient's, in the order that they have in the vector.

    No copy, where they lie in that order anyhow.
    """
    return (parameter.permute(0, 2, 3, 1) if parameter.dim() == 4 else parameter).reshape(-1)


def statistics_views(vector: Tensor, network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parts of a vector (S,) that stand for BatchNorm's running means and variances, by name.

    Raises:
        ValueError: The vector has another length than the network's statistics.
    """
    layers = batchnorm_layers(network)
    sizes = [layer.num_features for layer in layers.values() for _ in range(2)]
    _check_length(vector, sum(sizes), "statistics")
    names = [
        f"{name}.{kind}".lstrip(".") for name in layers for kind in ("running_mean", "running_var")
    ]
    return zip(names, vector.split(sizes), strict=True)


def batchnorm_layers(network: nn.Module) -> dict[str, BatchNorm]:
    """The BatchNorm layers that keep running statistics, by name."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, BatchNorm) and module.track_running_stats
    }


def flatten(network: nn.Module) -> tuple[Tensor, Tensor]:
    """A network's parameters (P,) and BatchNorm statistics (S,), copied."""
    parameters = list(network.parameters())
    weights = torch.empty(sum(parameter.numel() for parameter in parameters))
    channels = sum(layer.num_features for layer in batchnorm_layers(network).values())
    statistics = torch.empty(2 * channels)
    if parameters:
        weights, statistics = weights.to(parameters[0]), statistics.to(parameters[0])
    state = network.state_dict()
    for name, view in parameter_views(weights, network):
        view.copy_(state[name])
    for name, view in statistics_views(statistics, network):
        view.copy_(state[name])
    return weights, statistics


def with_end(whole: Tensor, end: Tensor) -> Tensor:
    """A vector (P,) whose last numbers are another's (Q,): lower layers, below what was trained."""
    return torch.cat([whole[: len(whole) - len(end)], end])


def adopt(network: nn.Module, weights: Tensor, statistics: Tensor) -> None:
    """Make a network's parameters and statistics views into vectors, (P,) and (S,)."""
    parameters = dict(network.named_parameters())
    for name, view in parameter_views(weights, network):
        parameters[name].data = view
        parameters[name].requires_grad_(True)
    layers = batchnorm_layers(network)
    for name, view in statistics_views(statistics, network):
        layer, _, kind = name.rpartition(".")
        setattr(layers[layer], kind, view)
        layers[layer].num_batches_tracked = None  # counts for nothing, and takes its time


def adopt_convolutions(network: nn.Module, weights: Tensor) -> None:
    """The same of the convolutions' weights alone, of a vector (P,) in another number format."""
    parameters = dict(network.named_parameters())
    for name, view in parameter_views(weights, network):
        if view.dim() == 4:
            parameters[name].data = view


@torch.no_grad()
def assign(network: nn.Module, weights: Tensor, statistics: Tensor) -> None:
    """Copy parameters (P,) and BatchNorm statistics (S,) into a network."""
    state = network.state_dict()
    for name, view in parameter_views(weights, network):
        state[name].copy_(view)
    for name, view in statistics_views(statistics, network):
        state[name].copy_(view)


def _check_length(vector: Tensor, length: int, what: str) -> None:
    if vector.shape != (length,):
        raise ValueError(f"a vector of {length} {what} is wanted, found shape {vector.shape}")
