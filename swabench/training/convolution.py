"""Convolutions: their layout in memory, and those on maps hardly larger than a pixel.

At 28 pixels ResNet-50's last stage works on maps of 2×2 and 1×1. There a convolution library pads
and reorders for windows that mostly lie outside the map; the same sum as one matrix product takes
a fraction of the time (`tests/bench/network.py` measures it).
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Devices on which BatchNorm's gradients are wrong, or fail, where channels come last (pytorch
# issue 175189; mended by its 188371 in later releases).
CHANNELS_FIRST = {"mps"}


class NarrowConv2d(nn.Conv2d):
    """A convolution; where its output is a single pixel, one matrix product."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (N, C, H, W) as `torch.nn.Conv2d` does."""
        if not self._has_one_window(inputs):
            return self._convolve(inputs)
        taps = self.weight
        if self.kernel_size != (1, 1):  # a slice costs a whole gradient of zeros
            # The one window begins `padding` pixels outside the map: only these taps meet it.
            (top, left), (high, wide) = self._margins(), inputs.shape[-2:]
            taps = taps[:, :, top : top + high, left : left + wide]
        met = inputs[:, :, : taps.shape[-2], : taps.shape[-1]]
        output = F.linear(met.flatten(1), taps.flatten(1), self.bias)
        return output[:, :, None, None]

    def _convolve(self, inputs: Tensor) -> Tensor:
        if memory_format(inputs.device) == torch.channels_last:
            return super().forward(inputs)
        # A learner's vector holds the weights channels last on every device, and an operand that
        # lies so can make the output lie so. `contiguous()` would keep the strides of 1×1 kernels.
        weights = self.weight.clone(memory_format=torch.contiguous_format)
        output: Tensor = self._conv_forward(inputs, weights, self.bias)
        return output

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


def memory_format(device: torch.device) -> torch.memory_format:
    """How images, maps and convolution weights lie in memory where a device works fastest."""
    return torch.contiguous_format if device.type in CHANNELS_FIRST else torch.channels_last


def lay_out(module: nn.Module, device: torch.device) -> nn.Module:
    """Move a module to a device, its convolution weights laid out as the kernels there want."""
    # torch's releases differ in how they annotate this argument.
    moved = cast(Any, module.to(device)).to(memory_format=memory_format(device))
    return cast(nn.Module, moved)
