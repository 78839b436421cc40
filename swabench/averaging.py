"""Averaging plans, and the running mean they steer.

A plan is the second half of a method: when the iterate's weights are captured into the average,
how much each capture counts, and whether training starts again from the average (PSWA).
"""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from swabench.settings import Count, EpochSpan, Settings


class AveragingPlan(Settings):
    """When to capture, how captures weigh, and how often to restart from the average.

    Attributes:
        capture_every_epochs: Capture after every so many epochs. With a sawtooth rate this is
            the cycle's length or a multiple of it, so that captures fall on the rate's minimum.
        include_start: Whether the starting weights are the average's first member, as in
            Algorithm 1 of the paper; otherwise the first capture replaces them, as
            `torch.optim.swa_utils` does.
        phases: Number p of phases (PSWA, Algorithm 2); each is a whole SWA that starts from
            the last one's average. One phase is SWA.
        decay: None weighs all members alike. A number d makes an exponential average,
            w̄ ← d·w̄ + (1 − d)·w; d = 0 keeps the newest capture alone, which is the iterate
            itself under the average's treatment (a control for BatchNorm re-estimation).
    """

    capture_every_epochs: EpochSpan = 1
    include_start: bool = Field(default=True, strict=True)
    phases: Count = 1
    decay: Annotated[float, Field(ge=0, lt=1)] | None = None

    def share_of_next(self, members: int) -> float:
        """How much the next capture counts in an average that has `members` members so far."""
        if members == 0:
            return 1.0
        return 1 / (members + 1) if self.decay is None else 1 - self.decay

    def describe(self) -> str:
        """The plan in a few words."""
        kind = "mean" if self.decay is None else f"exponential, decay {self.decay:g}"
        if self.decay == 0:
            kind = "newest only"
        restarts = f", {self.phases} phases" if self.phases > 1 else ""
        return f"{kind}, captured every {self.capture_every_epochs:g} epochs{restarts}"


class RunningMean:
    """The running (weighted) mean of something captured, for each of several runs.

    Holds one value a run, never the members: memory does not grow with captures. Serves the
    weights, where it is SWA's average, and predicted probabilities, where it is an ensemble.

    Args:
        plans: One plan a run.
        start: Starting values, shape (runs, …); copied.
    """

    def __init__(self, plans: Sequence[AveragingPlan], start: Tensor) -> None:
        self._plans = plans
        self._members = [int(plan.include_start) for plan in plans]
        self.value = start.clone()

    def capture(self, run: int, value: Tensor) -> None:
        """Take `value`, shape (…), into the mean of `run`."""
        share = self._plans[run].share_of_next(self._members[run])
        self.value[run] = torch.lerp(self.value[run], value, share)
        self._members[run] += 1

    def restart(self, run: int, start: Tensor) -> None:
        """Begin the mean of `run` anew from `start`, shape (…)."""
        self.value[run] = start
        self._members[run] = int(self._plans[run].include_start)
