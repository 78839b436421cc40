"""Learning-rate schedules: the rate of every iteration, as a pure function of progress.

A schedule is the first half of a method (the second is its averaging plan, `averaging.py`).
It is settings and nothing else: `rates(steps, steps_per_epoch)` gives the learning rates of
iterations 1 … steps as one float64 array, so that a whole run can be checked without training.
"""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from swabench.study.settings import Count, EpochSpan, Rate, Settings

Rates = NDArray[np.float64]


def iterations(epochs: float, steps_per_epoch: int) -> int:
    """The whole number of iterations nearest to a span of epochs, at least one."""
    return max(1, round(epochs * steps_per_epoch))


class Constant(Settings):
    """The same rate throughout."""

    schedule: Literal["constant"]
    learning_rate: Rate

    def rates(self, steps: int, steps_per_epoch: int) -> Rates:
        """Rates of iterations 1 … steps, shape (steps,)."""
        return np.full(steps, self.learning_rate)

    def describe(self) -> str:
        """The schedule in a few words."""
        return f"constant {self.learning_rate:g}"


class Multiplicative(Settings):
    """Start at `learning_rate`, times `factor` after every `every_epochs` epochs.

    The paper's "SGD with multiplicative scheduler" (section 3.1: 0.01, divided by 4 every 5).
    """

    schedule: Literal["multiplicative"]
    learning_rate: Rate
    factor: Annotated[float, Field(gt=0, le=1)]
    every_epochs: Count

    def rates(self, steps: int, steps_per_epoch: int) -> Rates:
        """Rates of iterations 1 … steps, shape (steps,)."""
        epoch = np.arange(steps) // steps_per_epoch
        return self.learning_rate * np.power(self.factor, epoch // self.every_epochs)

    def describe(self) -> str:
        """The schedule in a few words."""
        return f"{self.learning_rate:g}, times {self.factor:g} every {self.every_epochs} epochs"


class Cyclical(Settings):
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

    def rates(self, steps: int, steps_per_epoch: int) -> Rates:
        """Rates of iterations 1 … steps, shape (steps,)."""
        cycle = iterations(self.cycle_epochs, steps_per_epoch)
        t = (np.arange(steps) % cycle + 1) / cycle
        return (1 - t) * self.high + t * self.low

    def describe(self) -> str:
        """The schedule in a few words."""
        return f"sawtooth {self.high:g} → {self.low:g} every {self.cycle_epochs:g} epochs"


class Triangular(Settings):
    """A triangle between `low` and `high`, held constant within an epoch.

    What the paper's public code runs in place of the sawtooth: up for `up_epochs`, down for
    `down_epochs`; the same as torch's `CyclicLR` in mode `triangular`, stepped once an epoch.
    """

    schedule: Literal["triangular"]
    low: Rate
    high: Rate
    up_epochs: Count
    down_epochs: Count

    @model_validator(mode="after")
    def _rises(self) -> "Triangular":
        if self.low > self.high:
            raise ValueError(f"low ({self.low:g}) is above high ({self.high:g}); exchange them")
        return self

    def rates(self, steps: int, steps_per_epoch: int) -> Rates:
        """Rates of iterations 1 … steps, shape (steps,)."""
        position = (np.arange(steps) // steps_per_epoch) % (self.up_epochs + self.down_epochs)
        up = position / self.up_epochs
        down = 1 - (position - self.up_epochs) / self.down_epochs
        height = np.where(position <= self.up_epochs, up, down)
        return self.low + (self.high - self.low) * height

    def describe(self) -> str:
        """The schedule in a few words."""
        return (
            f"triangle {self.low:g} ↔ {self.high:g}, "
            f"up {self.up_epochs} and down {self.down_epochs} epochs"
        )


Schedule = Annotated[
    Constant | Multiplicative | Cyclical | Triangular, Field(discriminator="schedule")
]
