"""Optimizers whose result is another vector than the one that steps are taken of."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from schedulefree import SGDScheduleFree
from torch import Tensor


@runtime_checkable
class HasResult(Protocol):
    """An optimizer of one vector that hands over another one."""

    def result(self) -> Tensor:
        """The weights that are measured and kept, shape (P,)."""

    def begin_anew(self) -> None:
        """Start from the weights as they are now."""


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
        self._fast, self._slow = weights, weights.clone()
        self._every, self._alpha = steps, alpha
        self._taken = 0

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step of the fast weights; after every k fast and slow weights meet."""
        super().step(closure)
        self._taken += 1
        if self._taken % self._every == 0:
            self._fast.copy_(self._slow.lerp_(self._fast, self._alpha))

    def result(self) -> Tensor:
        """The slow weights."""
        return self._slow

    def begin_anew(self) -> None:
        """Let the slow weights be where the fast ones are now."""
        self._slow.copy_(self._fast)
