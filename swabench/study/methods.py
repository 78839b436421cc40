"""A method is data: a learning-rate schedule × an averaging plan, compiled to a timeline.

No method has code of its own. `Method.timeline` says what happens at every iteration before
training starts; the training loop then follows timelines and knows no method's name.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from swabench.study.averaging import AveragingPlan, BasePlan, GreedySoup
from swabench.study.limits import MOST_STEPS, Percent
from swabench.study.optimizers import Optimizer, ScheduleFreeSGD
from swabench.study.schedules import Constant, Cyclical, Schedule, iterations
from swabench.study.settings import CHANGES_NO_RESULT, AddedLater, Settings, Title
from swabench.system.errors import InputError


@dataclass(frozen=True)
class Timeline:
    """What one run does at each of its iterations.

    Attributes:
        rates: Learning rate of each iteration, float64, shape (steps,).
        captures: Whether the weights are captured after the iteration, bool, shape (steps,).
        restarts: Whether the iteration starts from the average, with momentum zero and a new
            average, bool, shape (steps,).
        interval_epochs: Epochs from one capture to the next: a whole number of iterations, so
            not quite what the plan asks for.
    """

    rates: NDArray[np.float64]
    captures: NDArray[np.bool_]
    restarts: NDArray[np.bool_]
    interval_epochs: float = 1.0


class Method(Settings):
    """One row of the comparison.

    Attributes:
        title: The row's name in words, for tables and figures.
        rate: The learning-rate schedule.
        averaging: The averaging plan; without one the iterate itself is the result.
        optimizer: An optimizer of its own, in place of the stage's.
        paper_accuracy: The paper's number for this row, in percent, where it has one.
    """

    title: Annotated[Title, CHANGES_NO_RESULT]
    rate: Schedule
    averaging: AveragingPlan | None = None
    optimizer: Annotated[Optimizer | None, AddedLater(neutral=None)] = None
    paper_accuracy: Annotated[Percent | None, CHANGES_NO_RESULT] = None

    def check(self, epochs: int) -> None:
        """Check that rate, plan and length fit together.

        Raises:
            ValueError: Names the key that does not fit and the nearest mend.
        """
        plan = self.averaging
        if isinstance(self.optimizer, ScheduleFreeSGD):
            self._check_schedule_free()
        ramps = self.rate.warmup_epochs + self.rate.cooldown_epochs
        if ramps > epochs / (plan.phases if plan else 1):
            raise ValueError(
                f"rate: warmup_epochs and cooldown_epochs are {ramps:g} epochs together, more than "
                f"there are{' in a phase' if plan and plan.phases > 1 else ''}"
            )
        if plan is None:
            return
        if isinstance(plan, GreedySoup) and plan.ensemble:
            raise ValueError("averaging.ensemble: a greedy soup keeps no ensemble; take it out")
        if epochs % plan.phases:
            raise ValueError(
                f"averaging.phases: {plan.phases} phases do not divide {epochs} epochs; "
                f"{_divisors(epochs)} would"
            )
        if plan.capture_every_epochs > epochs / plan.phases:
            raise ValueError(
                f"averaging.capture_every_epochs: {plan.capture_every_epochs:g} epochs are longer "
                f"than a phase ({epochs // plan.phases} epochs), so nothing would be captured"
            )
        if plan.start_at_epoch > epochs / plan.phases - plan.capture_every_epochs:
            raise ValueError(
                f"averaging.start_at_epoch: {plan.start_at_epoch:g} leaves no capture in "
                f"{epochs // plan.phases} epochs; choose a smaller one"
            )
        if isinstance(self.rate, Cyclical):
            cycles = plan.capture_every_epochs / self.rate.cycle_epochs
            if cycles < 0.5 or abs(cycles - round(cycles)) > 1e-9:
                raise ValueError(
                    f"averaging.capture_every_epochs: {plan.capture_every_epochs:g} is no multiple "
                    f"of rate.cycle_epochs ({self.rate.cycle_epochs:g}), so captures would miss "
                    "the rate's minimum"
                )

    def _check_schedule_free(self) -> None:
        """It averages by itself, and its rate is constant after a warm-up."""
        if self.averaging:
            raise ValueError("averaging: schedule-free-sgd averages by itself; take it out")
        if not isinstance(self.rate, Constant) or self.rate.cooldown_epochs:
            raise ValueError(
                "rate: schedule-free-sgd needs a constant rate, with a warm-up or without"
            )

    def timeline(self, epochs: int, steps_per_epoch: int) -> Timeline:
        """Compile to what happens at each of `epochs * steps_per_epoch` iterations.

        Raises:
            InputError: In whole iterations, the plan captures nothing; or there are too many.
        """
        if epochs * steps_per_epoch > MOST_STEPS:
            raise InputError(
                f"epochs: {epochs:,} epochs of {steps_per_epoch:,} iterations are more than "
                f"{MOST_STEPS:,}; lower epochs, or raise batch_size"
            )
        plan, every = self.averaging, steps_per_epoch
        phases = plan.phases if plan else 1
        steps = epochs * steps_per_epoch // phases
        rates = self.rate.rates(steps, steps_per_epoch)
        captures = np.zeros(steps, dtype=bool)
        if plan:
            every = self._capture_interval(plan, steps_per_epoch)
            captures[every - 1 :: every] = True
            captures[: round(plan.start_at_epoch * steps_per_epoch)] = False
            if not captures.any():
                raise InputError(
                    f"averaging: a phase of {steps} iterations has no capture, every {every} of "
                    f"them from epoch {plan.start_at_epoch:g}; capture more often or begin earlier"
                )
        restarts = np.zeros(steps * phases, dtype=bool)
        restarts[steps::steps] = True
        return Timeline(
            np.tile(rates, phases), np.tile(captures, phases), restarts, every / steps_per_epoch
        )

    def _capture_interval(self, plan: BasePlan, steps_per_epoch: int) -> int:
        """Iterations between captures; whole cycles of a sawtooth, so that nothing drifts."""
        if not isinstance(self.rate, Cyclical):
            return iterations(plan.capture_every_epochs, steps_per_epoch)
        cycles = round(plan.capture_every_epochs / self.rate.cycle_epochs)
        return cycles * iterations(self.rate.cycle_epochs, steps_per_epoch)


def _divisors(number: int) -> str:
    return ", ".join(str(k) for k in range(1, number + 1) if number % k == 0)
