"""Lookahead over SGD (Zhang et al. 2019, arXiv 1907.08610)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from swabench.study.optimizers import Lookahead
from swabench.training.optimizers.sgd import StackedSGD, sgd_options
from swabench.training.state import State, put


class StackedLookahead(StackedSGD):
    """Lookahead over stacked SGD: slow weights that the fast ones are drawn back to.

    Args:
        settings: The update rule.
        matrix: Stacked matrices, shape (R, C, D), updated in place.
        bias: Stacked biases, shape (R, C), updated in place.
    """

    def __init__(self, settings: Lookahead, matrix: Tensor, bias: Tensor) -> None:
        super().__init__(settings, matrix, bias)
        self._lookahead = settings
        self._slow = (matrix.clone(), bias.clone())
        self._steps = 0

    def step(self, error: Tensor, inputs: Tensor, rates: Tensor) -> None:
        """Update all trajectories; after every k steps fast and slow weights meet."""
        super().step(error, inputs, rates)
        self._steps += 1
        if self._steps % self._lookahead.steps == 0:
            for slow, fast in zip(self._slow, self._parameters, strict=True):
                fast.copy_(slow.lerp_(fast, self._lookahead.alpha))

    def restart(self, trajectory: int) -> None:
        """Begin the slow weights of one trajectory where its weights are now."""
        super().restart(trajectory)
        for slow, fast in zip(self._slow, self._parameters, strict=True):
            slow[trajectory] = fast[trajectory]

    def result(self) -> tuple[Tensor, Tensor]:
        """The slow weights."""
        return self._slow

    def state(self) -> State:
        """Momentum, slow weights, and the count of steps."""
        return {**super().state(), "slow": self._slow, "steps": self._steps}

    def load_state(self, state: State) -> None:
        """Go on with them."""
        super().load_state(state)
        put(self._slow, state["slow"])
        self._steps = state["steps"]


class LookaheadSGD(torch.optim.SGD):
    """Lookahead over torch's SGD (Zhang et al. 2019, arXiv 1907.08610).

    Args:
        weights: The fast weights, shape (P,).
        steps: k, steps between meetings of fast and slow weights.
        alpha: α, how far the slow ones go.
        options: Of `torch.optim.SGD`.
    """

    def __init__(self, weights: Tensor, steps: int, alpha: float, **options: Any) -> None:
        super().__init__([weights], **options)
        self._fast, self._every, self._alpha = weights, steps, alpha
        # Where torch keeps such things, so that its state_dict has them.
        self.state[weights]["slow"] = weights.clone()
        self.param_groups[0]["taken"] = 0

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step of the fast weights; after every k fast and slow weights meet."""
        super().step(closure)
        self.param_groups[0]["taken"] += 1
        if self.param_groups[0]["taken"] % self._every == 0:
            self._fast.copy_(self.result().lerp_(self._fast, self._alpha))

    def result(self) -> Tensor:
        """The slow weights."""
        slow: Tensor = self.state[self._fast]["slow"]
        return slow

    def begin_anew(self) -> None:
        """Let the slow weights be where the fast ones are now."""
        self.result().copy_(self._fast)


def vector_lookahead(settings: Lookahead, weights: Tensor) -> torch.optim.Optimizer:
    """Lookahead on one vector, shape (P,)."""
    options = sgd_options(settings, weights)
    return LookaheadSGD(weights, settings.steps, settings.alpha, **options)
