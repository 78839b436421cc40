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
from swabench.training.state import State


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

    def state(self) -> State:
        """All that it takes to go on: what was averaged, its count and phase, members held."""

    def load_state(self, state: State) -> None:
        """Go on from there."""


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

    def state(self) -> State:
        """The averages so far, and what the next member's share depends on."""
        return {
            "weights": self._weights,
            "predictions": self._predictions,
            "members": self._members,
            "log_total": self._log_total,
        }

    def load_state(self, state: State) -> None:
        """Go on from there."""
        self._weights, self._predictions = state["weights"], list(state["predictions"])
        self._members, self._log_total = state["members"], state["log_total"]

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


class _Holding:
    """Plans whose members are held.

    Args:
        start: Where the run starts.
        most: How many are held; the oldest goes. All without it.
    """

    def __init__(self, start: Member, most: int | None = None) -> None:
        self._held: deque[Member] = deque(maxlen=most)
        self._start = start

    def capture(self, member: Member) -> None:
        """Take one member in."""
        self._held.append(member)

    def restart(self, start: Member) -> None:
        """Forget all members and begin anew."""
        self._held.clear()
        self._start = start

    def state(self) -> State:
        """The members."""
        return {"held": [vars(member) for member in self._held], "start": vars(self._start)}

    def load_state(self, state: State) -> None:
        """Go on from there."""
        self.restart(Member(**state["start"]))
        self._held.extend(Member(**member) for member in state["held"])

    def _members(self) -> Sequence[Member]:
        """Those held, or where the run started."""
        return self._held or [self._start]


class LastAverage(_Holding):
    """The mean of the newest captures."""

    def weights(self, loss_of: LossOf) -> Tensor:
        """The mean's weights, shape (P,)."""
        return _mean([member.weights for member in self._members()])

    def predictions(self) -> Sequence[Tensor]:
        """The ensemble's probabilities by split."""
        splits = zip(*(member.predictions for member in self._members()), strict=True)
        return [_mean(of_split) for of_split in splits]


class Soup(_Holding):
    """The greedy soup, chosen from all captures whenever it is asked for."""

    def weights(self, loss_of: LossOf) -> Tensor:
        """The soup's weights, shape (P,)."""
        chosen, *others = sorted(self._members(), key=lambda member: member.loss)
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


def average_of(plan: AveragingPlan, start: Member, interval_epochs: float | None = None) -> Average:
    """The average that carries a plan out.

    Args:
        plan: The plan.
        start: Where the run starts.
        interval_epochs: Epochs from one capture to the next; by default what the plan says.
    """
    if isinstance(plan, LastCaptures):
        return LastAverage(start, plan.captures)
    if isinstance(plan, GreedySoup):
        return Soup(start)
    return RunningAverage(plan, start, interval_epochs)


def _mean(values: Sequence[Tensor]) -> Tensor:
    """The mean, one member at a time: no stack of them is made."""
    mean = values[0].clone()
    for n, value in enumerate(values[1:], start=2):
        mean = torch.lerp(mean, value, 1 / n)
    return mean
