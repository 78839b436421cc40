"""The one loop: it follows timelines, captures averages, and measures. It knows no method.

Plain SGD, SWA and PSWA differ in their timelines alone. A trajectory is trained once, however many
averages observe it. All trajectories handed to one call see the same minibatches, so that methods
of one seed are compared in pairs.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swabench.study.inputs import SplitName
from swabench.study.methods import Method, Timeline
from swabench.study.trajectories import trajectories
from swabench.training.learner import Learner, Splits
from swabench.training.observers import Observers, Outcome, RunPlan
from swabench.training.state import State

MEASURED: tuple[SplitName, ...] = ("validation", "test")
"""The images on which predictors are measured, unless fewer are asked for."""


def run_plans(methods: Mapping[str, Method], epochs: int, steps_per_epoch: int) -> list[RunPlan]:
    """What each method follows; trajectories are numbered in the order of `trajectories`."""
    paths = trajectories(methods)
    number = {name: n for n, names in enumerate(paths) for name in names}
    return [
        RunPlan(method.timeline(epochs, steps_per_epoch), method.averaging, number[name])
        for name, method in methods.items()
    ]


def scored_epochs(epochs: int, every: int) -> list[int]:
    """After which epochs, counted from 1, predictors are measured; the last is among them."""
    return [epoch for epoch in range(1, epochs + 1) if epoch % every == 0 or epoch == epochs]


class DataOrder:
    """The order in which a seed sees the training images: one permutation an epoch.

    A pure function of seed, stage and epoch, drawn by NumPy on the CPU: the same for every
    method, for every device, and after a resume.
    """

    def __init__(self, images: int, batch_size: int, seed: int, stage: int) -> None:
        self._images = images
        self._batch_size = batch_size
        self._entropy = (seed, stage)

    @property
    def steps_per_epoch(self) -> int:
        """Minibatches an epoch; the last may be smaller."""
        return -(-self._images // self._batch_size)

    def epoch(self, number: int) -> tuple[Tensor, ...]:
        """Rows of each minibatch of epoch `number` (from 0), int64."""
        draw = np.random.default_rng([*self._entropy, number]).permutation(self._images)
        return torch.split(torch.from_numpy(draw), self._batch_size)


class Checkpoints(Protocol):
    """Keeps training's state, so that an interruption costs little, and says when to pause."""

    def load(self) -> State | None:
        """The state to go on from, as it was kept; None where training starts afresh."""

    def pause_if_asked(self, state: Callable[[], State]) -> None:
        """Keep the state and raise, where training is to pause; called before every step."""

    def keep_if_due(self, state: Callable[[], State]) -> None:
        """Keep the state, where it is time to; called after every epoch but the last."""

    def keep(self, state: Callable[[], State]) -> None:
        """Keep the state now."""


class Stopped(Exception):  # noqa: N818
    """Training is to end where it is: something else failed."""


class NoCheckpoints:
    """Keeps nothing and never pauses."""

    def load(self) -> State | None:
        """Nothing."""
        return None

    def pause_if_asked(self, state: Callable[[], State]) -> None:
        """Never."""

    def keep_if_due(self, state: Callable[[], State]) -> None:
        """Never."""

    def keep(self, state: Callable[[], State]) -> None:
        """Not here."""


class _Course:
    """How far training has come, and all that changes on the way.

    Attributes:
        epoch: Epochs done and measured.
        step: Steps taken.
        snapshots: The iterates' weights at the start and after every epoch, shape (R, P) each,
            on the CPU, where they are kept.
    """

    def __init__(self, learner: Learner, observers: Observers, keep_snapshots: bool) -> None:
        self.epoch = self.step = 0
        self.snapshots = [learner.weights().cpu()] if keep_snapshots else []
        self._learner = learner
        self._observers = observers

    def end_epoch(self) -> None:
        """Count an epoch that is done and measured."""
        self.epoch += 1
        if self.snapshots:
            self.snapshots.append(self._learner.weights().cpu())

    def state(self) -> State:
        """All that it takes to go on from here."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "snapshots": self.snapshots,
            "learner": self._learner.state(),
            "observers": self._observers.state(),
        }

    def load_state(self, state: State) -> None:
        """Go on from there."""
        self.epoch, self.step = state["epoch"], state["step"]
        self.snapshots = list(state["snapshots"])
        self._learner.load_state(state["learner"])
        self._observers.load_state(state["observers"])


def training(
    learner: Learner,
    plans: Sequence[RunPlan],
    splits: Splits,
    order: DataOrder,
    epochs: int,
    *,
    score_every: int = 1,
    measured: Sequence[SplitName] = MEASURED,
    keep_trajectory: bool = False,
    after_epoch: Callable[[], None] = lambda: None,
    checkpoints: Checkpoints | None = None,
) -> Generator[None, None, list[Outcome]]:
    """Train all of a learner's trajectories along their timelines.

    It stops after every step, so that several can take turns. Whoever throws `Stopped` there has
    the state kept.

    What was interrupted goes on from its last checkpoint, and ends bit for bit as it would have.

    Args:
        learner: Holds the trajectories at their starting weights.
        plans: One for each run; those on one trajectory have the same rates, and one whose
            timeline restarts has a trajectory to itself.
        splits: The images to measure on, and those that plans select by.
        order: Minibatches; the same for all trajectories.
        epochs: Passes over the training images.
        score_every: Epochs between measurements; the last epoch is measured always.
        measured: On which splits; no other is predicted, but for the selection images.
        keep_trajectory: Whether to keep the iterate's weights of every epoch.
        after_epoch: Called after every epoch that is trained here; not for those that a
            checkpoint had behind it.
        checkpoints: Where training's state is kept; nowhere without it.

    Returns:
        One outcome a run.
    """
    device = splits["train"].labels.device
    rates = torch.tensor(_rates(plans, learner.trajectories)).to(device, learner.weights().dtype)
    scored = scored_epochs(epochs, score_every)
    ends = {epoch * order.steps_per_epoch - 1 for epoch in scored}
    observers = Observers(learner, plans, splits, measured, ends)
    course = _Course(learner, observers, keep_trajectory)
    checkpoints = checkpoints or NoCheckpoints()
    if state := checkpoints.load():
        course.load_state(state)
        del state  # it may be gigabytes
    for epoch in range(course.epoch, epochs):
        batches = [rows.to(device) for rows in order.epoch(epoch)]
        for rows in batches[course.step - epoch * order.steps_per_epoch :]:
            checkpoints.pause_if_asked(course.state)
            observers.before_step(course.step)
            learner.step(rows, rates[:, course.step])
            observers.after_step(course.step)
            course.step += 1
            try:
                yield
            except Stopped:
                checkpoints.keep(course.state)
                raise
        checkpoints.pause_if_asked(course.state)  # to measure may take longer than the steps did
        if epoch + 1 in scored:
            observers.measure(epoch + 1)
        course.end_epoch()
        after_epoch()
        if course.epoch < epochs:
            checkpoints.keep_if_due(course.state)
    outcomes = observers.finish(epochs)
    for plan, outcome in zip(plans, outcomes, strict=True):
        if keep_trajectory:
            snapshots = [weights[plan.trajectory] for weights in course.snapshots]
            outcome.trajectory = torch.stack(snapshots)
    return outcomes


def _rates(plans: Sequence[RunPlan], trajectories: int) -> NDArray[np.float64]:
    """The rates of every trajectory, shape (trajectories, steps).

    Raises:
        ValueError: Runs on one trajectory do not agree about it.
    """
    found: dict[int, Timeline] = {}
    for plan in plans:
        first = found.setdefault(plan.trajectory, plan.timeline)
        restarts = plan.timeline.restarts.any() or first.restarts.any()
        if plan.timeline is not first and (
            restarts or not np.array_equal(plan.timeline.rates, first.rates)
        ):
            raise ValueError(f"trajectory {plan.trajectory}: its runs go different ways")
    return np.stack([found[number].rates for number in range(trajectories)])
