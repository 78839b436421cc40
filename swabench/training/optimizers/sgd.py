"""SGD, with momentum, weight decay and Nesterov's form."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from swabench.study.optimizers import SGD, BaseSGD
from swabench.training.optimizers.base import column, fuses
from swabench.training.state import State, put


class StackedSGD:
    """torch.optim.SGD for stacked heads, each with a rate of its own.

    torch's own takes one rate for a tensor; here the rates are a column that multiplies the
    rows of each trajectory. Momentum, weight decay and Nesterov are as in torch.optim.SGD. The
    momentum is what the gradient's product is added to: no large tensor is made in a step.

    Args:
        settings: The update rule.
        matrix: Stacked matrices, shape (R, C, D), updated in place.
        bias: Stacked biases, shape (R, C), updated in place.
    """

    def __init__(self, settings: BaseSGD, matrix: Tensor, bias: Tensor) -> None:
        self._settings = settings
        self._parameters = (matrix, bias)
        self._momentum = (torch.zeros_like(matrix), torch.zeros_like(bias))
        self._gradient = torch.empty_like(matrix) if settings.nesterov else None

    def step(self, error: Tensor, inputs: Tensor, rates: Tensor) -> None:
        """Update all trajectories."""
        for parameter, direction in zip(
            self._parameters, self._directions(error, inputs), strict=True
        ):
            parameter.addcmul_(column(rates, parameter), direction, value=-1)

    def restart(self, trajectory: int) -> None:
        """Forget the momentum of one trajectory."""
        for momentum in self._momentum:
            momentum[trajectory] = 0

    def result(self) -> tuple[Tensor, Tensor]:
        """The weights that steps are taken of."""
        return self._parameters

    def state(self) -> State:
        """The momentum."""
        return {"momentum": self._momentum}

    def load_state(self, state: State) -> None:
        """Go on with it."""
        put(self._momentum, state["momentum"])

    def _directions(self, error: Tensor, inputs: Tensor) -> Sequence[Tensor]:
        """What the rates multiply, of the shapes of the parameters."""
        settings, (matrix, bias) = self._settings, self._momentum
        if self._gradient is not None:
            return self._nesterov(error, inputs, self._gradient)
        matrix.flatten(0, 1).addmm_(error, inputs, beta=settings.momentum)
        bias.mul_(settings.momentum).add_(error.sum(1).view_as(bias))
        if settings.weight_decay:
            for momentum, parameter in zip(self._momentum, self._parameters, strict=True):
                momentum.add_(parameter, alpha=settings.weight_decay)
        return self._momentum

    def _nesterov(self, error: Tensor, inputs: Tensor, matrix_gradient: Tensor) -> Sequence[Tensor]:
        settings = self._settings
        torch.mm(error, inputs, out=matrix_gradient.flatten(0, 1))
        gradients = (matrix_gradient, error.sum(1).view_as(self._momentum[1]))
        for gradient, momentum, parameter in zip(
            gradients, self._momentum, self._parameters, strict=True
        ):
            if settings.weight_decay:
                gradient.add_(parameter, alpha=settings.weight_decay)
            momentum.mul_(settings.momentum).add_(gradient)
            gradient.add_(momentum, alpha=settings.momentum)
        return gradients


def vector_sgd(settings: SGD, weights: Tensor) -> torch.optim.Optimizer:
    """Torch's own on one vector, shape (P,)."""
    return torch.optim.SGD([weights], **sgd_options(settings, weights))


def sgd_options(settings: BaseSGD, weights: Tensor) -> dict[str, Any]:
    """Options of torch.optim.SGD for one vector, shape (P,)."""
    return {
        "momentum": settings.momentum,
        "weight_decay": settings.weight_decay,
        "nesterov": settings.nesterov,
        "fused": fuses(weights),
    }
