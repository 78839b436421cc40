"""Adam."""

import torch
from torch import Tensor

from swabench.study.optimizers import Adam
from swabench.training.optimizers.base import fuses
from swabench.training.state import State, cloned


class StackedAdam:
    """torch.optim.Adam for stacked heads: every trajectory is a parameter group, with its own rate.

    The groups' parameters are views into the stacked ones. That is a call a trajectory, where
    `StackedSGD` makes one for all. On a GPU steps are fused and rates stay there: a number would
    make Python wait for it.

    Args:
        settings: The update rule.
        matrix: Stacked matrices, shape (R, C, D), updated in place.
        bias: Stacked biases, shape (R, C), updated in place.
    """

    def __init__(self, settings: Adam, matrix: Tensor, bias: Tensor) -> None:
        self._parameters = (matrix, bias)
        self._matrix_gradient, self._bias_gradient = map(torch.empty_like, (matrix, bias))
        self._rows = [list(trajectory) for trajectory in zip(matrix, bias, strict=True)]
        for rows, *gradients in zip(
            self._rows, self._matrix_gradient, self._bias_gradient, strict=True
        ):
            for row, gradient in zip(rows, gradients, strict=True):
                row.grad = gradient
        self._fused = matrix.device.type == "cuda" and fuses(matrix)
        self._optimizer = torch.optim.Adam(
            [{"params": rows} for rows in self._rows],
            betas=(settings.beta1, settings.beta2),
            weight_decay=settings.weight_decay,
            fused=self._fused or None,
        )
        # torch divides a rate by 1 − β, and stops where float32 does not hold that. So high a rate
        # is none: whatever it is, the trajectory diverges.
        self._most = (1 - settings.beta1) * torch.finfo(torch.float32).max / 2

    def step(self, error: Tensor, inputs: Tensor, rates: Tensor) -> None:
        """Update all trajectories."""
        torch.mm(error, inputs, out=self._matrix_gradient.flatten(0, 1))
        torch.sum(error, 1, out=self._bias_gradient.flatten())
        every = list(rates) if self._fused else rates.clamp(max=self._most).tolist()
        for group, rate in zip(self._optimizer.param_groups, every, strict=True):
            group["lr"] = rate
        self._optimizer.step()

    def restart(self, trajectory: int) -> None:
        """Forget the moments of one trajectory, and how many steps it took."""
        for row in self._rows[trajectory]:
            self._optimizer.state.pop(row, None)

    def result(self) -> tuple[Tensor, Tensor]:
        """The weights that steps are taken of."""
        return self._parameters

    def state(self) -> State:
        """Moments and counts of steps, as torch has them."""
        return self._optimizer.state_dict()

    def load_state(self, state: State) -> None:
        """Go on with them."""
        self._optimizer.load_state_dict(cloned(state))


def vector_adam(settings: Adam, weights: Tensor) -> torch.optim.Optimizer:
    """Torch's own on one vector, shape (P,)."""
    return torch.optim.Adam(
        [weights],
        betas=(settings.beta1, settings.beta2),
        weight_decay=settings.weight_decay,
        fused=fuses(weights),
    )
