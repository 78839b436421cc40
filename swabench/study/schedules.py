"""Learning-rate schedules: the rate of every iteration, as a pure function of progress.

A schedule is the first half of a method (the second is its averaging plan, `averaging.py`).
It is settings and nothing else: `rates(steps, steps_per_epoch)` gives the learning rates of
iterations 1 … steps as one float64 array, so that a whole run can be checked without training.
Of a run in phases (PSWA) every phase is such a row of iterations.
"""

from abc import abstractmethod
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from swabench.study.limits import Epochs, EpochSpan, Rate, Share, SomeEpochs
from swabench.study.settings import AddedLater, Settings

Rates = NDArray[np.float64]


def iterations(epochs: float, steps_per_epoch: int) -> int:
    """The whole number of iterations nearest to a span of epochs, at least one."""
    return max(1, round(epochs * steps_per_epoch))


class BaseSchedule(Settings):
    """What all schedules have in common: a warm-up and a cooldown, which multiply the rate.

    Attributes:
        warmup_epochs: Over so many epochs, from the first iteration, the rate grows in a straight
            line to what the schedule says.
        cooldown_epochs: Over so many epochs, to the last iteration, it falls in a straight line
            towards zero (Hägele et al. 2024, arXiv 2405.18392).
    """

    warmup_epochs: Annotated[SomeEpochs, AddedLater(neutral=0)] = 0
    cooldown_epochs: Annotated[SomeEpochs, AddedLater(neutral=0)] = 0

    def rates(self, steps: int, steps_per_epoch: int) -> Rates:
        """Rates of iterations 1 … steps, shape (steps,)."""
        rates = self._rates(steps, steps_per_epoch)
        done = np.arange(1, steps + 1)
        for epochs, position in (
            (self.warmup_epochs, done),
            (self.cooldown_epochs, done[::-1]),
        ):
            if epochs:
                rates = rates * np.minimum(1, position / iterations(epochs, steps_per_epoch))
        return rates

    def describe(self) -> str:
        """The schedule in a few words."""
        words = [self._describe()]
        if self.warmup_epochs:
            words.append(f"warm-up over {self.warmup_epochs:g} epochs")
        if self.cooldown_epochs:
            words.append(f"cooldown over the last {self.cooldown_epochs:g}")
        return ", ".join(words)

    @abstractmethod
    def _rates(self, steps: int, steps_per_epoch: int) -> Rates:
        """Rates without warm-up and cooldown."""

    @abstractmethod
    def _describe(self) -> str:
        """The same in words."""


class Constant(BaseSchedule):
    """The same rate throughout."""

    schedule: Literal["constant"]
    learning_rate: Rate

    def _rates(self, steps: int, steps_per_epoch: int) -> Rates:
        return np.full(steps, self.learning_rate)

    def _describe(self) -> str:
        return f"constant {self.learning_rate:g}"


class Multiplicative(BaseSchedule):
    """Start at `learning_rate`, times `factor` after every `every_epochs` epochs.

    The paper's "SGD with multiplicative scheduler" (section 3.1: 0.01, divided by 4 every 5).
    """

    schedule: Literal["multiplicative"]
    learning_rate: Rate
    factor: Share
    every_epochs: Epochs

    def _rates(self, steps: int, steps_per_epoch: int) -> Rates:
        epoch = np.arange(steps) // steps_per_epoch
        return self.learning_rate * np.power(self.factor, epoch // self.every_epochs)

    def _describe(self) -> str:
        return f"{self.learning_rate:g}, times {self.factor:g} every {self.every_epochs} epochs"


class Linear(BaseSchedule):
    """From `learning_rate` towards zero in a straight line (Defazio et al. 2023, 2310.07831).

    The first iteration has the whole rate, the last of n has a share of 1/n.
    """

    schedule: Literal["linear"]
    learning_rate: Rate

    def _rates(self, steps: int, steps_per_epoch: int) -> Rates:
        return self.learning_rate * (1 - np.arange(steps) / steps)

    def _describe(self) -> str:
        return f"{self.learning_rate:g} → 0 in a straight line"


class Cosine(BaseSchedule):
    """From `learning_rate` towards zero along half a cosine (Loshchilov and Hutter 2017)."""

    schedule: Literal["cosine"]
    learning_rate: Rate

    def _rates(self, steps: int, steps_per_epoch: int) -> Rates:
        return self.learning_rate * (1 + np.cos(np.pi * np.arange(steps) / steps)) / 2

    def _describe(self) -> str:
        return f"{self.learning_rate:g} → 0 along a cosine"


class Cyclical(BaseSchedule):
    """A sawtooth: falls in a straight line from `high` to `low`, then jumps back.

    Izmailov et al. 2018 (arXiv 1803.05407), section 3.1: α(i) = (1 − t)·α₁ + t·α₂ with
    t = ((i − 1) mod c + 1) / c, where i counts iterations from 1 and c is the cycle's length.
    The minimum `low` is reached exactly at i mod c = 0, where Algorithm 1 captures.
    """

    schedule: Literal["cyclical"]
    high: Rate
    low: Rate
    cycle_epochs: EpochSpan = 1

    @model_validator(mode="after")
    def _falls(self) -> "Cyclical":
        if self.low > self.high:
            raise ValueError(f"low ({self.low:g}) is above high ({self.high:g}); exchange them")
        return self

    def _rates(self, steps: int, steps_per_epoch: int) -> Rates:
        cycle = iterations(self.cycle_epochs, steps_per_epoch)
        t = (np.arange(steps) % cycle + 1) / cycle
        return (1 - t) * self.high + t * self.low

    def _describe(self) -> str:
        return f"sawtooth {self.high:g} → {self.low:g} every {self.cycle_epochs:g} epochs"


class Triangular(BaseSchedule):
    """A triangle between `low` and `high`, held constant within an epoch.

    What the paper's public code runs in place of the sawtooth: up for `up_epochs`, down for
    `down_epochs`; the same as torch's `CyclicLR` in mode `triangular`, stepped once an epoch.
    """

    schedule: Literal["triangular"]
    low: Rate
    high: Rate
    up_epochs: Epochs
    down_epochs: Epochs

    @model_validator(mode="after")
    def _rises(self) -> "Triangular":
        if self.low > self.high:
            raise ValueError(f"low ({self.low:g}) is above high ({self.high:g}); exchange them")
        return self

    def _rates(self, steps: int, steps_per_epoch: int) -> Rates:
        position = (np.arange(steps) // steps_per_epoch) % (self.up_epochs + self.down_epochs)
        up = position / self.up_epochs
        down = 1 - (position - self.up_epochs) / self.down_epochs
        height = np.where(position <= self.up_epochs, up, down)
        return self.low + (self.high - self.low) * height

    def _describe(self) -> str:
        return (
            f"triangle {self.low:g} ↔ {self.high:g}, "
            f"up {self.up_epochs} and down {self.down_epochs} epochs"
        )


Schedule = Annotated[
    Constant | Multiplicative | Linear | Cosine | Cyclical | Triangular,
    Field(discriminator="schedule"),
]
