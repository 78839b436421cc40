"""What the loop asks of what it trains, and the data both sides see."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from swabench.study.inputs import SplitName
from swabench.training.state import State


@dataclass(frozen=True)
class Split:
    """Some images as the learner takes them.

    Attributes:
        inputs: Features or images, shape (N, …), on the learner's device.
        labels: Class numbers, int64, shape (N,), on the same device.
    """

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


Splits = Mapping[SplitName, Split]


class Learner(Protocol):
    """One or several trajectories that take every step together, on the same minibatch.

    Weights travel as flat vectors of P numbers, so that averaging and the loss landscape are
    plain vector arithmetic, whatever the network.
    """

    @property
    def trajectories(self) -> int:
        """Number of trajectories R."""

    def weights(self) -> Tensor:
        """The iterates' weights now, shape (R, P); a copy."""

    def step(self, rows: Tensor, rates: Tensor) -> None:
        """Take one step of every trajectory.

        Args:
            rows: Indices of the minibatch's training images, int64, shape (B,).
            rates: Learning rate of each trajectory, shape (R,).
        """

    def restart(self, trajectory: int, weights: Tensor) -> None:
        """Put an average, shape (P,), in place of a trajectory's iterate, with momentum zero.

        BatchNorm is re-estimated where there is any.
        """

    def state(self) -> State:
        """All that it takes to go on from here."""

    def load_state(self, state: State) -> None:
        """Go on from where the learner was that `state` was taken from, bit for bit."""

    @property
    def reestimates(self) -> bool:
        """Whether BatchNorm's statistics are re-estimated for what is predicted."""

    def predict(
        self, splits: Sequence[SplitName], weights: Tensor | None = None, *, running: bool = False
    ) -> tuple[list[Tensor], Tensor]:
        """Class scores of whole splits, and the BatchNorm statistics they were made with.

        Args:
            splits: Which splits.
            weights: K weights, shape (K, P); without them the R iterates.
            running: Predict with the iterate's running statistics in place of re-estimated ones.

        Returns:
            Scores, shape (K, N, C) for each split, and statistics, shape (K, S); S = 0 without
            BatchNorm.
        """


def accuracy_and_loss(log_p: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Share of right answers and mean cross-entropy (nats) of K predictors.

    Args:
        log_p: Logarithms of class probabilities, shape (K, N, C).
        labels: Class numbers, shape (N,).

    Returns:
        Accuracy in [0, 1] and loss, float64, shape (K,) each.
    """
    # MPS has no float64: there the numbers, one an image, are summed up by the CPU.
    device = torch.device("cpu") if labels.device.type == "mps" else labels.device
    right = (log_p.argmax(-1) == labels).to(device).double().mean(-1)
    picked = log_p.gather(-1, labels.expand(log_p.shape[0], -1).unsqueeze(-1))
    return right, -picked.squeeze(-1).to(device).double().mean(-1)


def log_probabilities(logits: Tensor) -> Tensor:
    """Logarithms of class probabilities, shape (…, N, C) as the logits."""
    # With the images last it takes a tenth of the time, copies included.
    images_last = logits.transpose(-2, -1).contiguous()
    return torch.log_softmax(images_last, dim=-2).transpose(-2, -1).contiguous()
