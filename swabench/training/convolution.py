"""Convolutions: their layout in memory, and those on maps hardly larger than a pixel.

At 28 pixels ResNet-50's last stage works on maps of 2×2 and 1×1. There a convolution library pads
and reorders for windows that mostly lie outside the map; the same sum as one matrix product takes
a fraction of the time (`tests/bench/network.py` measures it).
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class NarrowConv2d(nn.Conv2d):
    """A convolution; where its output is a single pixel, one matrix product."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (N, C, H, W) as `torch.nn.Conv2d` does."""
        if not self._has_one_window(inputs):
            return super().forward(inputs)
        taps = self.weight
        if self.kernel_size != (1, 1):  # a slice costs a whole gradient of zeros
            # The one window begins `padding` pixels outside the map: only these taps meet it.
            (top, left), (high, wide) = self._margins(), inputs.shape[-2:]
            taps = taps[:, :, top : top + high, left : left + wide]
        met = inputs[:, :, : taps.shape[-2], : taps.shape[-1]]
        output = F.linear(met.flatten(1), taps.flatten(1), self.bias)
        return output[:, :, None, None]

    def _margins(self) -> tuple[int, int]:
        """Rows and columns of padding."""
        return cast(tuple[int, int], self.padding)

    def _has_one_window(self, inputs: Tensor) -> bool:
        if self.groups > 1 or self.dilation != (1, 1) or isinstance(self.padding, str):
            return False
        sizes = zip(inputs.shape[-2:], self._margins(), self.kernel_size, self.stride, strict=True)
        return all(
            padding < kernel and size + 2 * padding - kernel < stride
            for size, padding, kernel, stride in sizes
        )


def narrow_convolutions(network: nn.Module) -> None:
    """Make every convolution of a network a `NarrowConv2d`; names and parameters stay."""
    for module in network.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = NarrowConv2d


def channels_last(module: nn.Module) -> nn.Module:
    """Lay a module's convolution weights out as the fast kernels want them."""
    # torch's releases differ in how they annotate this argument.
    return cast(nn.Module, cast(Any, module).to(memory_format=torch.channels_last))
