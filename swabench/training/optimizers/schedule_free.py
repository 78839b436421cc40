"""Schedule-Free SGD (Defazio et al. 2024, arXiv 2405.15682)."""

from typing import Any

import torch
from schedulefree import SGDScheduleFree
from torch import Tensor

from swabench.study.optimizers import ScheduleFreeSGD
from swabench.training.optimizers.base import column
from swabench.training.state import State, put


class StackedScheduleFree:
    """Schedule-Free SGD for stacked heads, each with a rate of its own.

    Args:
        settings: The update rule.
        matrix: Stacked matrices, shape (R, C, D); y, where gradients are taken, in place.
        bias: Stacked biases, shape (R, C); likewise.
    """

    def __init__(self, settings: ScheduleFreeSGD, matrix: Tensor, bias: Tensor) -> None:
        self._settings = settings
        self._y = (matrix, bias)
        self._z = (matrix.clone(), bias.clone())
        self._x = (matrix.clone(), bias.clone())
        self._highest = matrix.new_zeros(len(matrix))  # rates so far, and their squares' sum
        self._total = matrix.new_zeros(len(matrix))

    def step(self, error: Tensor, inputs: Tensor, rates: Tensor) -> None:
        """Update all trajectories."""
        gradients = ((error @ inputs).view_as(self._y[0]), error.sum(1).view_as(self._y[1]))
        self._highest = torch.maximum(self._highest, rates)
        self._total += self._highest**2
        share = self._highest**2 / self._total
        for y, z, x, gradient in zip(self._y, self._z, self._x, gradients, strict=True):
            if self._settings.weight_decay:
                gradient.add_(y, alpha=self._settings.weight_decay)
            z.addcmul_(column(rates, z), gradient, value=-1)
            x.lerp_(z, column(share, x))
            y.copy_(torch.lerp(z, x, self._settings.momentum))

    def restart(self, trajectory: int) -> None:
        """It averages by itself, so no average ever takes its weights' place.

        Raises:
            ValueError: Always.
        """
        raise ValueError("schedule-free-sgd cannot start again from an average")

    def result(self) -> tuple[Tensor, Tensor]:
        """x, the mean of z."""
        return self._x

    def state(self) -> State:
        """Z, x, the highest rates, and the sum of their squares; y is the learner's."""
        return {"gathered": [*self._z, *self._x, self._highest, self._total]}

    def load_state(self, state: State) -> None:
        """Go on with them."""
        put([*self._z, *self._x, self._highest, self._total], state["gathered"])


class ScheduleFree(SGDScheduleFree):  # type: ignore[misc]
    """`schedulefree`'s own, whose x can be looked at without leaving y.

    Args:
        weights: The vector, shape (P,); y, where gradients are taken.
        options: Of `SGDScheduleFree`.
    """

    def __init__(self, weights: Tensor, **options: Any) -> None:
        super().__init__([weights], **options)
        self._y = weights
        self.train()

    def result(self) -> Tensor:
        """X = y + (1 − 1/β)·(z − y)."""
        state = self.state[self._y]
        if "z" not in state:
            return self._y
        return torch.lerp(self._y, state["z"], 1 - 1 / self.param_groups[0]["momentum"])

    def begin_anew(self) -> None:
        """It averages by itself, so no average ever takes its weights' place.

        Raises:
            ValueError: Always.
        """
        raise ValueError("schedule-free-sgd cannot start again from an average")


def vector_schedule_free(settings: ScheduleFreeSGD, weights: Tensor) -> torch.optim.Optimizer:
    """`schedulefree`'s own on one vector, shape (P,)."""
    return ScheduleFree(weights, momentum=settings.momentum, weight_decay=settings.weight_decay)
