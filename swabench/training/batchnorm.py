"""BatchNorm statistics of a network that was never trained itself: an average of weights.

The running statistics that training leaves behind belong to the iterate. For an average they are
measured anew, in one pass over the training images (Izmailov et al. 2018, Algorithm 1, last line):
every batch is normalised by its own statistics on its way through the network, and each layer
ends with the mean and variance of all inputs it saw in the pass.

`torch.optim.swa_utils.update_bn` takes the mean of the batches' statistics. That gives a short
last batch the weight of a full one, and leaves out of the variance how the batches' means differ.
Here the batches are combined exactly, in float64. With all images in one batch the result is the
statistics of evaluation mode itself; large batches come near to that.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from swabench.training.flat import BatchNorm, batchnorm_layers


def mixed_batches(images: int, batch_size: int) -> tuple[Tensor, ...]:
    """Rows of all training images once, int64, in batches of nearly equal size.

    Mixed, because images in a user's folder may lie sorted by class; always in one order, so that
    equal weights have equal statistics.
    """
    order = torch.from_numpy(np.random.default_rng(0).permutation(images))
    return order.tensor_split(-(-images // batch_size))


class _Moments:
    """Mean and variance of a layer's inputs, combined batch by batch (Chan et al. 1979)."""

    def __init__(self, layer: BatchNorm) -> None:
        self._layer = layer
        self._running_mean = layer.get_buffer("running_mean")
        self._running_variance = layer.get_buffer("running_var")
        # MPS has no float64.
        exact = torch.float32 if self._running_mean.device.type == "mps" else torch.float64
        self._count = 0
        self._mean = torch.zeros_like(self._running_mean, dtype=exact)
        self._squares = torch.zeros_like(self._mean)
        # With momentum 1 a pass leaves nothing of what was there, but for NaN: 0 · NaN is NaN.
        self._running_mean.zero_()
        self._running_variance.fill_(1)

    def take(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """A forward hook: the layer, its momentum at 1, has just noted this batch's own."""
        count = inputs[0].numel() // self._layer.num_features
        total = self._count + count
        difference = self._running_mean.to(self._mean) - self._mean
        self._mean += difference * (count / total)
        # The layer notes the unbiased variance, over count − 1.
        self._squares += self._running_variance.to(self._mean) * (count - 1)
        self._squares += difference**2 * (self._count * count / total)
        self._count = total

    def give(self) -> None:
        """Set the layer's statistics; the variance is unbiased, as torch's always are."""
        self._running_mean.copy_(self._mean)
        self._running_variance.copy_(self._squares / (self._count - 1))


@contextmanager
def reestimated_statistics(network: nn.Module) -> Iterator[None]:
    """Within it, pass all training images through the network once; after it, evaluate.

    Every pass counts by its number of images; none may be of one image alone, which has no
    variance. Where nothing passes, or an error leaves it, the statistics mean nothing.
    """
    network.eval()
    layers = batchnorm_layers(network).values()
    moments = [_Moments(layer) for layer in layers]
    momenta = [layer.momentum for layer in layers]
    hooks = [
        layer.register_forward_hook(moment.take)
        for layer, moment in zip(layers, moments, strict=True)
    ]
    for layer in layers:
        layer.momentum = 1.0
        layer.train()
    try:
        with torch.no_grad():
            yield
    finally:
        for layer, momentum, hook in zip(layers, momenta, hooks, strict=True):
            hook.remove()
            layer.momentum = momentum
            layer.eval()
    for moment in moments:
        moment.give()
