"""The running mean that an averaging plan steers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from swabench.study.averaging import AveragingPlan


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
