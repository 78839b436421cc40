"""Optimizers carried out: stacked for many heads, each with a rate of its own; on one vector else.

Every optimizer of `study/optimizers.py` is here, in both forms, and in one table at the end.
Shapes: B images of a batch, D features, C classes, R runs, P weights of a network.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from schedulefree import SGDScheduleFree
from torch import Tensor

from swabench.study.optimizers import SGD, Adam, BaseSGD, Lookahead, Optimizer, ScheduleFreeSGD
from swabench.study.settings import Settings
from swabench.system.errors import InputError

# --- stacked, for heads --------------------------------------------------------------------


class StackedOptimizer(Protocol):
    """An update rule for stacked heads, each with a rate of its own.

    Gradients come as the two factors of their product, so that a rule can take it where it needs
    it: of the matrices error·inputs, of the biases the error's sum over the minibatch.
    """

    def step(self, error: Tensor, inputs: Tensor, rates: Tensor) -> None:
        """Update all runs.

        Args:
            error: Gradient by the scores, shape (R·C, B).
            inputs: Features, shape (B, D).
            rates: Learning rates, shape (R,).
        """

    def restart(self, run: int) -> None:
        """Forget what was gathered over one run's steps, whose weights are new."""

    def result(self) -> tuple[Tensor, Tensor]:
        """The weights that are measured and kept: matrices (R, C, D) and biases (R, C)."""


class StackedSGD:
    """torch.optim.SGD for stacked heads, each with a rate of its own.

    torch's own takes one rate for a tensor; here the rates are a column that multiplies the
    rows of each run. Momentum, weight decay and Nesterov are as in torch.optim.SGD. The momentum
    is what the gradient's product is added to: no large tensor is made in a step.

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
        """Update all runs."""
        for parameter, direction in zip(
            self._parameters, self._directions(error, inputs), strict=True
        ):
            parameter.addcmul_(_column(rates, parameter), direction, value=-1)

    def restart(self, run: int) -> None:
        """Forget the momentum of one run."""
        for momentum in self._momentum:
            momentum[run] = 0

    def result(self) -> tuple[Tensor, Tensor]:
        """The weights that steps are taken of."""
        return self._parameters

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


class StackedAdam:
    """torch.optim.Adam for stacked heads: every run is a parameter group, with its own rate.

    The groups' parameters are views into the stacked ones. That is a call a run, where
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
        self._rows = [list(run) for run in zip(matrix, bias, strict=True)]
        for rows, *gradients in zip(
            self._rows, self._matrix_gradient, self._bias_gradient, strict=True
        ):
            for row, gradient in zip(rows, gradients, strict=True):
                row.grad = gradient
        self._fused = matrix.device.type == "cuda" and _fuses(matrix)
        self._optimizer = torch.optim.Adam(
            [{"params": rows} for rows in self._rows],
            betas=(settings.beta1, settings.beta2),
            weight_decay=settings.weight_decay,
            fused=self._fused or None,
        )

    def step(self, error: Tensor, inputs: Tensor, rates: Tensor) -> None:
        """Update all runs."""
        torch.mm(error, inputs, out=self._matrix_gradient.flatten(0, 1))
        torch.sum(error, 1, out=self._bias_gradient.flatten())
        every = list(rates) if self._fused else rates.tolist()
        for group, rate in zip(self._optimizer.param_groups, every, strict=True):
            group["lr"] = rate
        self._optimizer.step()

    def restart(self, run: int) -> None:
        """Forget the moments of one run, and how many steps it took."""
        for row in self._rows[run]:
            self._optimizer.state.pop(row, None)

    def result(self) -> tuple[Tensor, Tensor]:
        """The weights that steps are taken of."""
        return self._parameters


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
        """Update all runs; after every k steps fast and slow weights meet."""
        super().step(error, inputs, rates)
        self._steps += 1
        if self._steps % self._lookahead.steps == 0:
            for slow, fast in zip(self._slow, self._parameters, strict=True):
                fast.copy_(slow.lerp_(fast, self._lookahead.alpha))

    def restart(self, run: int) -> None:
        """Begin the slow weights of one run where its weights are now."""
        super().restart(run)
        for slow, fast in zip(self._slow, self._parameters, strict=True):
            slow[run] = fast[run]

    def result(self) -> tuple[Tensor, Tensor]:
        """The slow weights."""
        return self._slow


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
        """Update all runs."""
        gradients = ((error @ inputs).view_as(self._y[0]), error.sum(1).view_as(self._y[1]))
        self._highest = torch.maximum(self._highest, rates)
        self._total += self._highest**2
        share = self._highest**2 / self._total
        for y, z, x, gradient in zip(self._y, self._z, self._x, gradients, strict=True):
            if self._settings.weight_decay:
                gradient.add_(y, alpha=self._settings.weight_decay)
            z.addcmul_(_column(rates, z), gradient, value=-1)
            x.lerp_(z, _column(share, x))
            y.copy_(torch.lerp(z, x, self._settings.momentum))

    def restart(self, run: int) -> None:
        """It averages by itself, so no average ever takes its weights' place.

        Raises:
            ValueError: Always.
        """
        raise ValueError("schedule-free-sgd cannot start again from an average")

    def result(self) -> tuple[Tensor, Tensor]:
        """x, the mean of z."""
        return self._x


def _column(values: Tensor, like: Tensor) -> Tensor:
    """One value a run, shape (R,), to multiply a tensor (R, …)."""
    return values.view(-1, *[1] * (like.dim() - 1))


# --- on one vector, for a network ----------------------------------------------------------


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


def _sgd(settings: SGD, weights: Tensor) -> torch.optim.Optimizer:
    return torch.optim.SGD([weights], **_sgd_options(settings, weights))


def _lookahead(settings: Lookahead, weights: Tensor) -> torch.optim.Optimizer:
    options = _sgd_options(settings, weights)
    return LookaheadSGD(weights, settings.steps, settings.alpha, **options)


def _sgd_options(settings: BaseSGD, weights: Tensor) -> dict[str, Any]:
    return {
        "momentum": settings.momentum,
        "weight_decay": settings.weight_decay,
        "nesterov": settings.nesterov,
        "fused": _fuses(weights),
    }


def _schedule_free(settings: ScheduleFreeSGD, weights: Tensor) -> torch.optim.Optimizer:
    return ScheduleFree(weights, momentum=settings.momentum, weight_decay=settings.weight_decay)


def _adam(settings: Adam, weights: Tensor) -> torch.optim.Optimizer:
    return torch.optim.Adam(
        [weights],
        betas=(settings.beta1, settings.beta2),
        weight_decay=settings.weight_decay,
        fused=_fuses(weights),
    )


def _fuses(weights: Tensor) -> bool:
    """Whether a step may be one pass over the vector.

    On a GPU the fused kernels read a rate that is a tensor as float32, whatever the weights are.
    """
    return weights.device.type == "cpu" or weights.dtype == torch.float32


# --- which is which ------------------------------------------------------------------------


class _Forms(NamedTuple):
    """How one optimizer is carried out: over stacked matrices and biases, and over one vector."""

    stacked: Callable[[Any, Tensor, Tensor], StackedOptimizer]
    vector: Callable[[Any, Tensor], torch.optim.Optimizer]


# By the settings' very class, so that no optimizer passes for another.
_OPTIMIZERS: Mapping[type[Settings], _Forms] = {
    SGD: _Forms(StackedSGD, _sgd),
    Adam: _Forms(StackedAdam, _adam),
    ScheduleFreeSGD: _Forms(StackedScheduleFree, _schedule_free),
    Lookahead: _Forms(StackedLookahead, _lookahead),
}


def stacked_optimizer(settings: Optimizer, matrix: Tensor, bias: Tensor) -> StackedOptimizer:
    """An optimizer of stacked heads, whose tensors it updates in place.

    Args:
        settings: The update rule.
        matrix: Stacked matrices, shape (R, C, D).
        bias: Stacked biases, shape (R, C).

    Raises:
        InputError: There is none; names the optimizer.
    """
    return _forms(settings).stacked(settings, matrix, bias)


def vector_optimizer(settings: Optimizer, weights: Tensor) -> torch.optim.Optimizer:
    """PyTorch's own, or of its kind, on one vector (P,); rates are set step by step.

    Raises:
        InputError: There is none; names the optimizer.
    """
    return _forms(settings).vector(settings, weights)


def _forms(settings: Settings) -> _Forms:
    found = _OPTIMIZERS.get(type(settings))
    if found is None:
        name = getattr(settings, "name", type(settings).__name__)
        choices = ", ".join(repr(each.__name__.lower()) for each in _OPTIMIZERS)
        raise InputError(f"optimizer: {name!r} is not implemented; choose from {choices}")
    return found
