"""Many linear heads on the same features, trained in lockstep.

Trajectories that differ only in their rates are rows of one stacked tensor: with R of them and C
classes the forward pass of all is one matrix product (R·C, D) × (D, B), and so is the
gradient. Shapes below: B images of a batch, D features, C classes, R trajectories, P = C·D + C
weights. Scores have the images last: a softmax over a short last dimension takes ten times as long.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from swabench.study.inputs import SplitName
from swabench.study.optimizers import Optimizer
from swabench.system.device import exact_float32
from swabench.training.learner import Split, Splits
from swabench.training.optimizers import stacked_optimizer
from swabench.training.state import State, put


class StackedHeads:
    """The learner of `trainable: head`: R linear classifiers on cached features.

    Args:
        splits: Features, shape (N, D) each, and labels.
        start: Where trajectories begin, shape (R, P): the matrix row by row, then the bias.
        optimizer: The update rule.
        classes: Number of classes C.

    Raises:
        InputError: There is no such optimizer.
    """

    def __init__(self, splits: Splits, start: Tensor, optimizer: Optimizer, classes: int) -> None:
        self._splits = splits
        self._classes = classes
        features = splits["train"].inputs.shape[1]
        matrix, bias = start.split([classes * features, classes], dim=1)
        self._matrix = matrix.reshape(-1, classes, features).clone()  # (R, C, D)
        self._bias = bias.clone()  # (R, C)
        self._optimizer = stacked_optimizer(optimizer, self._matrix, self._bias)
        self._buffers: dict[int, tuple[Tensor, ...]] = {}

    @property
    def trajectories(self) -> int:
        """Number of trajectories R."""
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
        """Take one step of every trajectory on training rows (B,) at rates (R,)."""
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
            trajectories, classes, features = self._matrix.shape
            new = self._matrix.new_empty
            self._buffers[batch] = (
                new(batch, features),
                new(trajectories * classes, batch),
                new(trajectories, classes, batch),
                new(classes, batch),
            )
        return self._buffers[batch]

    def restart(self, trajectory: int, weights: Tensor) -> None:
        """Put `weights`, shape (P,), in place of a trajectory's iterate, with momentum zero."""
        size = self._matrix[trajectory].numel()
        self._matrix[trajectory] = weights[:size].view_as(self._matrix[trajectory])
        self._bias[trajectory] = weights[size:]
        self._optimizer.restart(trajectory)

    def state(self) -> State:
        """Weights, and what the optimizer gathered."""
        return {"weights": [self._matrix, self._bias], "optimizer": self._optimizer.state()}

    def load_state(self, state: State) -> None:
        """Go on from there."""
        put([self._matrix, self._bias], state["weights"])
        self._optimizer.load_state(state["optimizer"])

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
