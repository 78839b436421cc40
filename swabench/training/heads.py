"""Many linear heads on the same features, trained in lockstep.

Runs that differ only in numbers (rate, plan, momentum) are rows of one stacked tensor: with R
runs of C classes the forward pass of all is one matrix product (B, D) × (D, R·C), and so is the
gradient. Shapes below: B images of a batch, D features, C classes, R runs, P = C·D + C weights.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from swabench.study.settings import Settings
from swabench.study.study import SGD, Adam, Optimizer
from swabench.system.device import exact_float32
from swabench.training.learner import Splits, implementation
from swabench.training.measurement import SplitName


class StackedOptimizer(Protocol):
    """An update rule for stacked runs, each with a rate of its own."""

    def step(self, gradients: Sequence[Tensor], rates: Tensor) -> None:
        """Update all runs; parameters and gradients are of shape (R, …), rates of shape (R,)."""

    def restart(self, run: int) -> None:
        """Forget what was gathered over one run's steps."""


class StackedSGD:
    """torch.optim.SGD for stacked runs, each with a rate of its own.

    torch's own takes one rate for a tensor; here the rates are a column that multiplies the
    rows of each run. Momentum, weight decay and Nesterov are as in torch.optim.SGD.
    """

    def __init__(self, settings: SGD, parameters: Sequence[Tensor]) -> None:
        self._settings = settings
        self._parameters = parameters
        self._momentum = [torch.zeros_like(parameter) for parameter in parameters]

    def step(self, gradients: Sequence[Tensor], rates: Tensor) -> None:
        """Update all runs; parameters and gradients are of shape (R, …), rates of shape (R,)."""
        settings = self._settings
        for parameter, momentum, gradient in zip(
            self._parameters, self._momentum, gradients, strict=True
        ):
            if settings.weight_decay:
                gradient = gradient.add(parameter, alpha=settings.weight_decay)
            momentum.mul_(settings.momentum).add_(gradient)
            direction = momentum
            if settings.nesterov:
                direction = gradient.add(momentum, alpha=settings.momentum)
            column = rates.view(-1, *[1] * (parameter.dim() - 1))
            parameter.addcmul_(column, direction, value=-1)

    def restart(self, run: int) -> None:
        """Forget the momentum of one run."""
        for momentum in self._momentum:
            momentum[run] = 0


class StackedAdam:
    """torch.optim.Adam for stacked runs: every run is a parameter group, with a rate of its own.

    The groups' parameters are views into the stacked ones. That is a call a run, where
    `StackedSGD` makes one for all.
    """

    def __init__(self, settings: Adam, parameters: Sequence[Tensor]) -> None:
        self._rows = [list(run) for run in zip(*parameters, strict=True)]
        self._optimizer = torch.optim.Adam(
            [{"params": rows} for rows in self._rows],
            betas=(settings.beta1, settings.beta2),
            weight_decay=settings.weight_decay,
        )

    def step(self, gradients: Sequence[Tensor], rates: Tensor) -> None:
        """Update all runs; parameters and gradients are of shape (R, …), rates of shape (R,)."""
        for group, rate in zip(self._optimizer.param_groups, rates.tolist(), strict=True):
            group["lr"] = rate
        for rows, *gradient in zip(self._rows, *gradients, strict=True):
            for row, own in zip(rows, gradient, strict=True):
                row.grad = own
        self._optimizer.step()

    def restart(self, run: int) -> None:
        """Forget the moments of one run, and how many steps it took."""
        for row in self._rows[run]:
            self._optimizer.state.pop(row, None)


_OPTIMIZERS: Mapping[type[Settings], Callable[[Any, Sequence[Tensor]], StackedOptimizer]] = {
    SGD: StackedSGD,
    Adam: StackedAdam,
}


class StackedHeads:
    """The learner of `trainable: head`: R linear classifiers on cached features.

    Args:
        splits: Features, shape (N, D) each, and labels.
        start: Starting weights of the runs, shape (R, P): the matrix row by row, then the bias.
        optimizer: The update rule.
        classes: Number of classes C.

    Raises:
        InputError: There is no such optimizer for stacked heads.
    """

    def __init__(self, splits: Splits, start: Tensor, optimizer: Optimizer, classes: int) -> None:
        self._splits = splits
        self._classes = classes
        features = splits["train"].inputs.shape[1]
        matrix, bias = start.split([classes * features, classes], dim=1)
        self._matrix = matrix.reshape(-1, classes, features).clone()  # (R, C, D)
        self._bias = bias.clone()  # (R, C)
        parameters = [self._matrix, self._bias]
        self._optimizer = implementation(optimizer, _OPTIMIZERS, "stacked heads")(
            optimizer, parameters
        )

    @property
    def runs(self) -> int:
        """Number of runs R."""
        return len(self._bias)

    def weights(self) -> Tensor:
        """The iterates' weights now, shape (R, P); a copy."""
        return torch.cat([self._matrix.flatten(1), self._bias], dim=1)

    @property
    def reestimates(self) -> bool:
        """Nothing: a linear head has no BatchNorm."""
        return False

    def step(self, rows: Tensor, rates: Tensor) -> None:
        """Take one step of every run on training rows (B,) at rates (R,)."""
        train = self._splits["train"]
        inputs, labels = train.inputs[rows], train.labels[rows]
        logits = torch.addmm(self._bias.view(-1), inputs, self._matrix.flatten(0, 1).t())
        # The gradient of the mean cross-entropy by the logits: (softmax − one-hot) / B.
        error = logits.view(len(rows), self.runs, self._classes).softmax(-1)
        error[torch.arange(len(rows), device=rows.device), :, labels] -= 1
        error /= len(rows)
        matrix_gradient = (error.flatten(1).t() @ inputs).view_as(self._matrix)
        self._optimizer.step([matrix_gradient, error.sum(0)], rates)

    def restart(self, run: int, weights: Tensor) -> None:
        """Put `weights`, shape (P,), in place of a run's iterate, with momentum zero."""
        size = self._matrix[run].numel()
        self._matrix[run] = weights[:size].view_as(self._matrix[run])
        self._bias[run] = weights[size:]
        self._optimizer.restart(run)

    @exact_float32()
    def predict(
        self, splits: Sequence[SplitName], weights: Tensor | None = None, *, running: bool = False
    ) -> tuple[list[Tensor], Tensor]:
        """Class scores of whole splits, (K, N, C) each, and no statistics, shape (K, 0)."""
        flat = self.weights() if weights is None else weights
        inputs = [self._splits[name].inputs for name in splits]
        scores = [stacked_logits(each, flat, self._classes) for each in inputs]
        return scores, flat.new_empty(len(flat), 0)


def stacked_logits(inputs: Tensor, weights: Tensor, classes: int) -> Tensor:
    """Class scores (K, N, C) of K heads with flat weights (K, P) on features (N, D)."""
    matrix, bias = weights.split([classes * inputs.shape[1], classes], dim=1)
    rows = matrix.reshape(-1, inputs.shape[1])
    scores = torch.addmm(bias.reshape(-1), inputs, rows.t())
    return scores.view(len(inputs), len(weights), classes).transpose(0, 1)


def initial_head(features: int, classes: int, seed: int) -> Tensor:
    """A seed's starting head, as `torch.nn.Linear` draws it, flat: shape (C·D + C,)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = nn.Linear(features, classes)
    return torch.cat([layer.weight.detach().flatten(), layer.bias.detach()])
