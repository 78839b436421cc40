"""The averages that plans make of a trajectory, one member at a time.

Each holds the weights' average and, where it is asked for, the mean of the members' predictions
(the ensemble), with the same shares. Values are of any shape: weights (P,), probabilities (N, C).
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from swabench.study.averaging import (
    AveragingPlan,
    EqualMean,
    Exponential,
    GreedySoup,
    LastCaptures,
    Newest,
    ScoreWeighted,
)


@dataclass(frozen=True)
class Member:
    """One capture.

    Attributes:
        weights: Shape (P,).
        predictions: Class probabilities of each scored split, shape (N, C) each; empty where
            the plan keeps no ensemble.
        accuracy: On the selection images, in [0, 1]; NaN where the plan asks for no selection.
        loss: On the selection images, in nats; likewise.
    """

    weights: Tensor
    predictions: Sequence[Tensor] = ()
    accuracy: float = math.nan
    loss: float = math.nan


LossOf = Callable[[Tensor], float]
"""The selection loss, in nats, of weights (P,)."""


class Average(Protocol):
    """What a plan has made of the members so far."""

    def capture(self, member: Member) -> None:
        """Take one member in."""

    def weights(self, loss_of: LossOf) -> Tensor:
        """The average's weights, shape (P,); before any capture, where the run started."""

    def predictions(self) -> Sequence[Tensor]:
        """The ensemble's probabilities by split; empty where none is kept."""

    def restart(self, start: Member) -> None:
        """Forget all members and begin anew."""


class RunningAverage:
    """Plans whose n-th member has a share that does not depend on later ones.

    Memory does not grow with captures.

    Args:
        plan: The plan.
        start: Where the run starts; its first member, if the plan counts the start.
        interval_epochs: Epochs from one capture to the next, as the timeline has them.
    """

    def __init__(
        self,
        plan: EqualMean | Exponential | Newest | ScoreWeighted,
        start: Member,
        interval_epochs: float | None,
    ) -> None:
        self._plan = plan
        self._interval_epochs = interval_epochs
        self._weights = start.weights
        self._predictions: list[Tensor] = []
        self.restart(start)

    def capture(self, member: Member) -> None:
        """Take one member in."""
        self._members += 1
        share = self._share(member)
        self._weights = torch.lerp(self._weights, member.weights, share)
        self._predictions = [
            torch.lerp(mean, own, share)
            for mean, own in zip(self._predictions, member.predictions, strict=True)
        ]

    def weights(self, loss_of: LossOf) -> Tensor:
        """The average's weights, shape (P,)."""
        return self._weights

    def predictions(self) -> Sequence[Tensor]:
        """The ensemble's probabilities by split."""
        return self._predictions

    def restart(self, start: Member) -> None:
        """Forget all members and begin anew."""
        self._weights = start.weights.clone()
        self._predictions = [values.clone() for values in start.predictions]
        self._members = int(isinstance(self._plan, EqualMean) and self._plan.include_start)
        self._log_total = -math.inf

    def _share(self, member: Member) -> float:
        if isinstance(self._plan, Exponential):
            return self._plan.share(self._members, self._interval_epochs)
        if not isinstance(self._plan, ScoreWeighted):
            return self._plan.share(self._members)
        # In logarithms: 0.9 to the power 1000 is no number that float64 has.
        log_score = self._plan.power * math.log(max(member.accuracy, 1e-300))
        if self._members == 1:
            self._log_total = log_score
            return 1.0
        larger = max(self._log_total, log_score)
        total = math.exp(self._log_total - larger) + math.exp(log_score - larger)
        self._log_total = larger + math.log(total)
        return math.exp(log_score - self._log_total)


class LastAverage:
    """The mean of the newest captures, which are held."""

    def __init__(self, plan: LastCaptures, start: Member) -> None:
        self._newest: deque[Member] = deque(maxlen=plan.captures)
        self._start = start

    def capture(self, member: Member) -> None:
        """Take one member in; the oldest goes."""
        self._newest.append(member)

    def weights(self, loss_of: LossOf) -> Tensor:
        """The mean's weights, shape (P,)."""
        return _mean([member.weights for member in self._members()])

    def predictions(self) -> Sequence[Tensor]:
        """The ensemble's probabilities by split."""
        splits = zip(*(member.predictions for member in self._members()), strict=True)
        return [_mean(of_split) for of_split in splits]

    def restart(self, start: Member) -> None:
        """Forget all members and begin anew."""
        self._newest.clear()
        self._start = start

    def _members(self) -> Sequence[Member]:
        return self._newest or [self._start]


class Soup:
    """The greedy soup: all captures are held, and chosen from whenever it is asked for."""

    def __init__(self, plan: GreedySoup, start: Member) -> None:
        self._captured: list[Member] = []
        self._start = start

    def capture(self, member: Member) -> None:
        """Take one candidate in."""
        self._captured.append(member)

    def weights(self, loss_of: LossOf) -> Tensor:
        """The soup's weights, shape (P,)."""
        chosen, *others = sorted(self._captured or [self._start], key=lambda member: member.loss)
        soup, lowest, kept = chosen.weights, chosen.loss, 1
        for member in others:
            larger = torch.lerp(soup, member.weights, 1 / (kept + 1))
            loss = loss_of(larger)
            if loss <= lowest:
                soup, lowest, kept = larger, loss, kept + 1
        return soup

    def predictions(self) -> Sequence[Tensor]:
        """None: which members count is known only at the end."""
        return []

    def restart(self, start: Member) -> None:
        """Forget all candidates."""
        self._captured.clear()
        self._start = start


def average_of(plan: AveragingPlan, start: Member, interval_epochs: float | None = None) -> Average:
    """The average that carries a plan out.

    Args:
        plan: The plan.
        start: Where the run starts.
        interval_epochs: Epochs from one capture to the next; by default what the plan says.
    """
    if isinstance(plan, LastCaptures):
        return LastAverage(plan, start)
    if isinstance(plan, GreedySoup):
        return Soup(plan, start)
    return RunningAverage(plan, start, interval_epochs)


def _mean(values: Sequence[Tensor]) -> Tensor:
    """The mean, one member at a time: no stack of them is made."""
    mean = values[0].clone()
    for n, value in enumerate(values[1:], start=2):
        mean = torch.lerp(mean, value, 1 / n)
    return mean
