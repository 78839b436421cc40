"""A trajectory that was trained before: averages of its epochs are made without training."""

from collections.abc import Sequence

from torch import Tensor

from swabench.study.averaging import AveragingPlan
from swabench.study.study import SplitName
from swabench.training.heads import predict_by_heads
from swabench.training.learner import Splits


class ReplayedHead:
    """A learner whose steps are epochs that lie in a record.

    Args:
        splits: Features, shape (N, D) each, and labels.
        snapshots: Weights at the start and after every epoch, shape (epochs + 1, P).
        classes: Number of classes C.
    """

    runs = 1
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

    def restart(self, run: int, weights: Tensor) -> None:
        """A restart would be another trajectory.

        Raises:
            ValueError: Always.
        """
        raise ValueError("a recorded trajectory cannot start again from an average")

    def predict(
        self, splits: Sequence[SplitName], weights: Tensor | None = None, *, running: bool = False
    ) -> tuple[list[Tensor], Tensor]:
        """Class scores of whole splits, (K, N, C) each, and no statistics, shape (K, 0)."""
        flat = self.weights() if weights is None else weights
        return predict_by_heads(flat, [self._splits[name] for name in splits], self._classes)


def is_of_epochs(plan: AveragingPlan | None) -> bool:
    """Whether a plan is a function of the weights at the ends of epochs alone."""
    return plan is None or (plan.phases == 1 and float(plan.capture_every_epochs).is_integer())
