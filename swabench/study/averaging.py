"""Averaging plans: what is captured, and how much each capture counts.

A plan is the second half of a method (the first is its schedule, `schedules.py`). It is settings
and pure functions; `training/averages.py` carries it out. Captures are numbered n = 1, 2, … within
a phase; where the starting weights count, they are the first member.
"""

import math
from abc import abstractmethod
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from swabench.study.limits import Epochs, EpochSpan, Exponent, SomeEpochs
from swabench.study.settings import AddedLater, Settings


class BasePlan(Settings):
    """What all plans have in common.

    Attributes:
        capture_every_epochs: Capture after every so many epochs. With a sawtooth rate this is
            the cycle's length or a multiple of it, so that captures fall on the rate's minimum.
        start_at_epoch: Nothing is captured in so many epochs from the start (of each phase).
        phases: Number p of phases (PSWA, Algorithm 2); each is a whole SWA that starts from
            the last one's average. One phase is SWA.
        ensemble: Whether the members' predictions are averaged too, which claim C6 compares
            with the average's. That scores every capture; `null` does it where captures fall
            on epochs that are scored anyway.
    """

    capture_every_epochs: EpochSpan = 1
    start_at_epoch: Annotated[SomeEpochs, AddedLater(neutral=0)] = 0
    phases: Epochs = 1
    ensemble: Annotated[bool | None, AddedLater(neutral=None), Field(strict=True)] = None

    def describe(self) -> str:
        """The plan in a few words."""
        words = [self._describe(), f"captured every {self.capture_every_epochs:g} epochs"]
        if self.start_at_epoch:
            words.append(f"from epoch {self.start_at_epoch:g}")
        if self.phases > 1:
            words.append(f"{self.phases} phases")
        return ", ".join(words)

    @abstractmethod
    def _describe(self) -> str:
        """The kind of average, in words."""


class EqualMean(BasePlan):
    """SWA's mean, in which all members count alike (Izmailov et al. 2018, Algorithm 1).

    Attributes:
        include_start: Whether the starting weights are the average's first member, as in
            Algorithm 1 of the paper; otherwise the first capture replaces them, as
            `torch.optim.swa_utils` does.
    """

    plan: Annotated[Literal["mean"], AddedLater(neutral="mean")] = "mean"
    include_start: bool = Field(default=True, strict=True)

    def share(self, n: int) -> float:
        """How much the n-th member counts in the mean of the first n."""
        return 1 / n

    def _describe(self) -> str:
        return "mean" if self.include_start else "mean without the start"


class Exponential(BasePlan):
    """An exponential average: w̄ ← d·w̄ + (1 − d)·w at every capture.

    Attributes:
        half_life_epochs: After so many epochs a member counts half: d = 2^(−interval/half-life).
        debias: Whether the bias towards the first capture is removed (Morales-Brotons et al.
            2024): members' shares are then those of a sum that began long before. Without it
            the first capture is copied, as by torch's `get_ema_multi_avg_fn`.
    """

    plan: Literal["exponential"]
    half_life_epochs: EpochSpan
    debias: bool = Field(default=True, strict=True)

    def share(self, n: int, interval_epochs: float | None = None) -> float:
        """How much the n-th capture counts in the average of the first n.

        Args:
            n: Number of the capture, from 1.
            interval_epochs: Epochs from one capture to the next; by default what the plan says.
        """
        interval = self.capture_every_epochs if interval_epochs is None else interval_epochs
        if n == 1:
            return 1.0
        # expm1, because 1 − dⁿ loses its digits where d is near 1.
        rate = math.log(2) * interval / self.half_life_epochs
        kept_out = -math.expm1(-rate)
        return kept_out / -math.expm1(-rate * n) if self.debias else kept_out

    def _describe(self) -> str:
        bias = "" if self.debias else ", not debiased"
        return f"exponential, half-life {self.half_life_epochs:g} epochs{bias}"


class LastCaptures(BasePlan):
    """The mean of the newest captures (LAWA; Kaddour 2022, arXiv 2209.14981).

    Attributes:
        captures: How many of them.
    """

    plan: Literal["last"]
    captures: Epochs

    def _describe(self) -> str:
        return f"mean of the last {self.captures}"


class ScoreWeighted(BasePlan):
    """A mean weighted by the members' scores (section 4.2 of the paper, claim C8).

    Attributes:
        power: A member's weight is its accuracy on the selection images, as a share of 1, to
            this power; 1 is the paper's wording, with which weights hardly differ.
    """

    plan: Literal["score-weighted"]
    power: Exponent = 1

    def _describe(self) -> str:
        return f"weighted by selection accuracy to the power {self.power:g}"


class GreedySoup(BasePlan):
    """Members are kept only if they help (Wortsman et al. 2022, arXiv 2203.05482).

    Captures are sorted by their loss on the selection images; one after the other joins the
    mean if the mean's selection loss does not rise.
    """

    plan: Literal["greedy-soup"]
    phases: Literal[1] = 1

    def _describe(self) -> str:
        return "greedy soup"


class Newest(BasePlan):
    """The newest capture alone: the iterate itself, as a control."""

    plan: Literal["newest"]

    def share(self, n: int) -> float:
        """All of it."""
        return 1.0

    def _describe(self) -> str:
        return "newest only"


def _kind(value: Any) -> str:
    """The plan's kind, whose default a study may leave out."""
    kind = value.get("plan", "mean") if isinstance(value, dict) else getattr(value, "plan", "")
    return str(kind)


AveragingPlan = Annotated[
    Annotated[EqualMean, Tag("mean")]
    | Annotated[Exponential, Tag("exponential")]
    | Annotated[LastCaptures, Tag("last")]
    | Annotated[ScoreWeighted, Tag("score-weighted")]
    | Annotated[GreedySoup, Tag("greedy-soup")]
    | Annotated[Newest, Tag("newest")],
    Discriminator(_kind),
]

NEEDS_SELECTION = (ScoreWeighted, GreedySoup)
"""Plans that look at the selection images."""
