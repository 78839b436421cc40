"""Optimizers: a file each, which has both its forms; and which belongs to which settings."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from swabench.study.optimizers import SGD, Adam, Lookahead, Optimizer, ScheduleFreeSGD
from swabench.study.settings import Settings
from swabench.system.errors import InputError
from swabench.training.optimizers.adam import StackedAdam, vector_adam
from swabench.training.optimizers.base import HasResult, StackedOptimizer
from swabench.training.optimizers.lookahead import StackedLookahead, vector_lookahead
from swabench.training.optimizers.schedule_free import StackedScheduleFree, vector_schedule_free
from swabench.training.optimizers.sgd import StackedSGD, vector_sgd

__all__ = ["HasResult", "StackedOptimizer", "stacked_optimizer", "vector_optimizer"]


class _Forms(NamedTuple):
    """How one optimizer is carried out: over stacked matrices and biases, and over one vector."""

    stacked: Callable[[Any, Tensor, Tensor], StackedOptimizer]
    vector: Callable[[Any, Tensor], torch.optim.Optimizer]


# By the settings' very class, so that no optimizer passes for another.
_OPTIMIZERS: Mapping[type[Settings], _Forms] = {
    SGD: _Forms(StackedSGD, vector_sgd),
    Adam: _Forms(StackedAdam, vector_adam),
    ScheduleFreeSGD: _Forms(StackedScheduleFree, vector_schedule_free),
    Lookahead: _Forms(StackedLookahead, vector_lookahead),
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
        fields = (each.model_fields["name"] for each in _OPTIMIZERS)
        choices = ", ".join(repr(*get_args(field.annotation)) for field in fields)
        raise InputError(f"optimizer: {name!r} is not implemented; choose from {choices}")
    return found
