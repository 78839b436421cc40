"""CUDA graphs: a function of fixed shapes is recorded once and replayed without Python.

At 28 pixels a ResNet-50's kernels are shorter than the time that Python needs to launch them.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor


class CudaGraph:
    """A recorded function of one tensor of fixed shape, whose results are its side effects.

    Args:
        function: Works in place on tensors that outlive it; called a few times to warm up, so
            that its side effects must be undone by the caller.
        example: The argument's shape, number format and device.

    Raises:
        RuntimeError: The function does something that cannot be recorded.
    """

    WARM_UPS = 3  # as PyTorch's notes on CUDA graphs ask for

    def __init__(self, function: Callable[[Tensor], None], example: Tensor) -> None:
        self._argument = example.clone()
        stream = _capturing_stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(self.WARM_UPS):
                function(self._argument)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # On the same stream: what the warm-up made for a stream of its own serves the capture.
        with torch.cuda.graph(self._graph, stream=stream):
            function(self._argument)

    def __call__(self, argument: Tensor) -> None:
        """Run the recorded function on `argument`."""
        self._argument.copy_(argument)
        self._graph.replay()


def _capturing_stream() -> torch.cuda.Stream:
    """The stream that is worked on; beside the default one, which cannot capture, another.

    Graphs that are replayed at a time must not share it: they would share its workspaces.
    """
    current = torch.cuda.current_stream()
    return _beside() if current == torch.cuda.default_stream() else current


@cache
def _beside() -> torch.cuda.Stream:
    """Always the same one: cuBLAS keeps a workspace for every stream that it has worked on."""
    return torch.cuda.Stream()
