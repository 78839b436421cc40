"""Averaging plans, and the running mean they steer.

A plan is the second half of a method: when the iterate's weights are captured into the average,
how much each capture counts, and whether training starts again from the average (PSWA).
"""

from typing import Annotated

from pydantic import Field

from swabench.study.settings import Count, EpochSpan, Settings


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
