"""What every optimizer has in both its forms: over stacked heads, and on one vector."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from swabench.training.state import State


class StackedOptimizer(Protocol):
    """An update rule for stacked heads, each with a rate of its own.

    Gradients come as the two factors of their product, so that a rule can take it where it needs
    it: of the matrices error·inputs, of the biases the error's sum over the minibatch.
    """

    def step(self, error: Tensor, inputs: Tensor, rates: Tensor) -> None:
        """Update all trajectories.

        Args:
            error: Gradient by the scores, shape (R·C, B).
            inputs: Features, shape (B, D).
            rates: Learning rates, shape (R,).
        """

    def restart(self, trajectory: int) -> None:
        """Forget what was gathered over one trajectory's steps, whose weights are new."""

    def result(self) -> tuple[Tensor, Tensor]:
        """The weights that are measured and kept: matrices (R, C, D) and biases (R, C)."""

    def state(self) -> State:
        """What was gathered over the steps."""

    def load_state(self, state: State) -> None:
        """Go on with it."""


@runtime_checkable
class HasResult(Protocol):
    """An optimizer of one vector that hands over another one."""

    def result(self) -> Tensor:
        """The weights that are measured and kept, shape (P,)."""

    def begin_anew(self) -> None:
        """Start from the weights as they are now."""


def column(values: Tensor, like: Tensor) -> Tensor:
    """One value a trajectory, shape (R,), to multiply a tensor (R, …)."""
    return values.view(-1, *[1] * (like.dim() - 1))


def fuses(weights: Tensor) -> bool:
    """Whether a step may be one pass over the vector.

    On a GPU the fused kernels read a rate that is a tensor as float32, whatever the weights are.
    """
    return weights.device.type == "cpu" or weights.dtype == torch.float32
