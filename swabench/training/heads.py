"""Many linear heads on the same features, trained in lockstep.

Trajectories that differ only in their rates are rows of one stacked tensor: with R of them and C
classes the forward pass of all is one matrix product (R·C, D) × (D, B), and so is the
gradient. Shapes below: B images of a batch, D features, C classes, R runs, P = C·D + C weights.
Scores have the images last: a softmax over a short last dimension takes ten times as long.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from swabench.study.optimizers import SGD, Adam, BaseSGD, Lookahead, Optimizer, ScheduleFreeSGD
from swabench.study.settings import Settings
from swabench.study.study import SplitName
from swabench.system.device import exact_float32
from swabench.training.learner import Split, Splits, implementation


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
    `StackedSGD` makes one for all.

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
        self._optimizer = torch.optim.Adam(
            [{"params": rows} for rows in self._rows],
            betas=(settings.beta1, settings.beta2),
            weight_decay=settings.weight_decay,
        )

    def step(self, error: Tensor, inputs: Tensor, rates: Tensor) -> None:
        """Update all runs."""
        torch.mm(error, inputs, out=self._matrix_gradient.flatten(0, 1))
        torch.sum(error, 1, out=self._bias_gradient.flatten())
        for group, rate in zip(self._optimizer.param_groups, rates.tolist(), strict=True):
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


_OPTIMIZERS: Mapping[type[Settings], Callable[[Any, Tensor, Tensor], StackedOptimizer]] = {
    SGD: StackedSGD,
    Adam: StackedAdam,
    ScheduleFreeSGD: StackedScheduleFree,
    Lookahead: StackedLookahead,
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
        make = implementation(optimizer, _OPTIMIZERS, "stacked heads")
        self._optimizer = make(optimizer, self._matrix, self._bias)
        self._buffers: dict[int, tuple[Tensor, ...]] = {}

    @property
    def runs(self) -> int:
        """Number of runs R."""
        return len(self._bias)

    def weights(self) -> Tensor:
        """The iterates' weights now, shape (R, P); a copy."""
        matrix, bias = self._optimizer.result()
        return torch.cat([matrix.flatten(1), bias], dim=1)

    @property
    def reestimates(self) -> bool:
        """Nothing: a linear head has no BatchNorm."""
        return False

    def step(self, rows: Tensor, rates: Tensor) -> None:
        """Take one step of every run on training rows (B,) at rates (R,)."""
        train = self._splits["train"]
        inputs, scores, error, one_hot = self._kept(len(rows))
        torch.index_select(train.inputs, 0, rows, out=inputs)
        torch.addmm(self._bias.view(-1, 1), self._matrix.flatten(0, 1), inputs.t(), out=scores)
        # The gradient of the mean cross-entropy by the scores: (softmax − one-hot) / B.
        torch.softmax(scores.view_as(error), 1, out=error)
        one_hot.zero_().scatter_(0, train.labels[rows].unsqueeze(0), 1)
        error.sub_(one_hot).div_(len(rows))
        self._optimizer.step(error.flatten(0, 1), inputs, rates)

    def _kept(self, batch: int) -> tuple[Tensor, ...]:
        """Tensors that every step writes anew.

        Inputs (B, D), scores (R·C, B), error (R, C, B) and the labels as ones and zeros (C, B).

        Large fresh ones would cost more in page faults than the arithmetic on them.
        """
        if batch not in self._buffers:
            runs, classes, features = self._matrix.shape
            new = self._matrix.new_empty
            self._buffers[batch] = (
                new(batch, features),
                new(runs * classes, batch),
                new(runs, classes, batch),
                new(classes, batch),
            )
        return self._buffers[batch]

    def restart(self, run: int, weights: Tensor) -> None:
        """Put `weights`, shape (P,), in place of a run's iterate, with momentum zero."""
        size = self._matrix[run].numel()
        self._matrix[run] = weights[:size].view_as(self._matrix[run])
        self._bias[run] = weights[size:]
        self._optimizer.restart(run)

    def predict(
        self, splits: Sequence[SplitName], weights: Tensor | None = None, *, running: bool = False
    ) -> tuple[list[Tensor], Tensor]:
        """Class scores of whole splits, (K, N, C) each, and no statistics, shape (K, 0)."""
        flat = self.weights() if weights is None else weights
        return predict_by_heads(flat, [self._splits[name] for name in splits], self._classes)


@exact_float32()
def predict_by_heads(
    weights: Tensor, splits: Sequence[Split], classes: int
) -> tuple[list[Tensor], Tensor]:
    """What `Learner.predict` gives for heads with flat weights (K, P): no statistics, (K, 0)."""
    scores = [stacked_logits(split.inputs, weights, classes) for split in splits]
    return scores, weights.new_empty(len(weights), 0)


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
