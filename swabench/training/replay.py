"""A trajectory that was trained before: averages of its epochs are made without training."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from swabench.study.inputs import SplitName
from swabench.study.methods import Timeline
from swabench.training.heads import predict_by_heads
from swabench.training.learner import Splits
from swabench.training.state import State


class ReplayedHead:
    """A learner whose steps are epochs that lie in a record.

    Args:
        splits: Features, shape (N, D) each, and labels.
        snapshots: Weights at the start and after every epoch, shape (epochs + 1, P).
        classes: Number of classes C.
    """

    trajectories = 1
    reestimates = False

    def __init__(self, splits: Splits, snapshots: Tensor, classes: int) -> None:
        self._splits = splits
        self._snapshots = snapshots.to(splits["train"].labels.device)
        self._classes = classes
        self._epoch = 0

    def weights(self) -> Tensor:
        """The weights after the epochs so far, shape (1, P)."""
        return self._snapshots[self._epoch].unsqueeze(0)

    def step(self, rows: Tensor, rates: Tensor) -> None:
        """Go on to the next epoch's end; minibatch and rates were those of the training."""
        self._epoch += 1

    def restart(self, trajectory: int, weights: Tensor) -> None:
        """A restart would be another trajectory.

        Raises:
            ValueError: Always.
        """
        raise ValueError("a recorded trajectory cannot start again from an average")

    def state(self) -> State:
        """How many epochs were gone through."""
        return {"epoch": self._epoch}

    def load_state(self, state: State) -> None:
        """Go on from there."""
        self._epoch = state["epoch"]

    def predict(
        self, splits: Sequence[SplitName], weights: Tensor | None = None, *, running: bool = False
    ) -> tuple[list[Tensor], Tensor]:
        """Class scores of whole splits, (K, N, C) each, and no statistics, shape (K, 0)."""
        flat = self.weights() if weights is None else weights
        return predict_by_heads(flat, [self._splits[name] for name in splits], self._classes)


def is_of_epochs(timeline: Timeline, steps_per_epoch: int) -> bool:
    """Whether nothing happens but at the ends of epochs."""
    within = np.ones(len(timeline.captures), dtype=bool)
    within[steps_per_epoch - 1 :: steps_per_epoch] = False
    return not timeline.restarts.any() and not (timeline.captures & within).any()


def at_the_ends_of_epochs(timeline: Timeline, steps_per_epoch: int) -> Timeline:
    """A timeline with a step an epoch, of what happens at their ends."""
    last = slice(steps_per_epoch - 1, None, steps_per_epoch)
    restarts = np.zeros_like(timeline.restarts[last])
    return replace(
        timeline,
        rates=timeline.rates[last],
        captures=timeline.captures[last],
        restarts=restarts,
    )
