"""The one loop: it follows timelines, captures averages, and measures. It knows no method.

Plain SGD, SWA and PSWA differ in their timelines alone. A trajectory is trained once, however many
averages observe it. All trajectories handed to one call see the same minibatches, so that methods
of one seed are compared in pairs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swabench.study.averaging import AveragingPlan
from swabench.study.methods import Timeline
from swabench.training.learner import Learner, Splits, accuracy_and_loss, log_probabilities
from swabench.training.measurement import Measurement, Predictor, SplitName
from swabench.training.running_mean import RunningMean

SCORED: list[SplitName] = ["validation", "test"]


@dataclass(frozen=True)
class RunPlan:
    """What one run follows.

    Attributes:
        timeline: Its rates, captures and restarts.
        averaging: Its averaging plan, where it has one.
        trajectory: Which of the learner's trajectories it observes.
    """

    timeline: Timeline
    averaging: AveragingPlan | None
    trajectory: int = 0


@dataclass
class Outcome:
    """What a run leaves behind.

    Attributes:
        history: Measurements after every epoch.
        weights: Final weights of the iterate and, with a plan, of the average; shape (P,) each.
        statistics: BatchNorm's final statistics of the same, shape (S,) each.
        log_probabilities: Final predictions by (predictor, split), shape (N, C) each.
        trajectory: The iterate's weights at the start and after every epoch, shape
            (epochs + 1, P), where they were asked for.
        labels: The true classes by split, shape (N,) each: predictions mean little without.
        diverged_epoch: The epoch after which the iterate's loss was not finite; then the rest
            means nothing.
    """

    history: list[Measurement] = field(default_factory=list)
    weights: dict[Predictor, Tensor] = field(default_factory=dict)
    statistics: dict[Predictor, Tensor] = field(default_factory=dict)
    log_probabilities: dict[tuple[Predictor, SplitName], Tensor] = field(default_factory=dict)
    trajectory: Tensor | None = None
    labels: dict[SplitName, Tensor] = field(default_factory=dict)
    diverged_epoch: int | None = None


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


def train(
    learner: Learner,
    plans: Sequence[RunPlan],
    splits: Splits,
    order: DataOrder,
    epochs: int,
    *,
    keep_trajectory: bool = False,
    after_epoch: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Train all of a learner's trajectories along their timelines.

    Args:
        learner: Holds the trajectories at their starting weights.
        plans: One for each run; those on one trajectory have the same rates, and one whose
            timeline restarts has a trajectory to itself.
        splits: The images measured after every epoch.
        order: Minibatches; the same for all trajectories.
        epochs: Passes over the training images.
        keep_trajectory: Whether to keep the iterate's weights of every epoch.
        after_epoch: Called when an epoch is done and measured.

    Returns:
        One outcome a run.
    """
    device = splits["train"].labels.device
    rates = torch.tensor(_rates(plans, learner.runs)).to(device, learner.weights().dtype)
    tracker = _Tracker(learner, plans, splits)
    trajectory = [learner.weights().cpu()] if keep_trajectory else []
    step = 0
    for epoch in range(epochs):
        batches = [rows.to(device) for rows in order.epoch(epoch)]
        for number, rows in enumerate(batches, start=1):
            tracker.restart_due(step)
            learner.step(rows, rates[:, step])
            tracker.capture_due(step, epoch_ends=number == len(batches))
            step += 1
        tracker.measure(epoch + 1)
        if keep_trajectory:
            trajectory.append(learner.weights().cpu())
        after_epoch()
    outcomes = tracker.finish()
    for plan, outcome in zip(plans, outcomes, strict=True):
        if keep_trajectory:
            outcome.trajectory = torch.stack([weights[plan.trajectory] for weights in trajectory])
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


class _Tracker:
    """Averages, ensembles and measurements of the runs of one learner."""

    def __init__(self, learner: Learner, plans: Sequence[RunPlan], splits: Splits) -> None:
        self._learner = learner
        self._plans = plans
        self._labels = [splits[name].labels for name in SCORED]
        self._outcomes = [Outcome() for _ in plans]
        self._trajectory = [plan.trajectory for plan in plans]
        # Averages and ensembles hold rows for the runs that average, and only for them.
        self._averaging = [run for run, plan in enumerate(plans) if plan.averaging]
        self._row = {run: row for row, run in enumerate(self._averaging)}
        averaging_plans = [plan.averaging for plan in plans if plan.averaging]
        observed = [self._trajectory[run] for run in self._averaging]
        self._averages = RunningMean(averaging_plans, learner.weights()[observed])
        self._iterate = self._predict() if self._averaging else []
        self._ensembles = [
            RunningMean(averaging_plans, predicted[observed].exp()) for predicted in self._iterate
        ]
        self._last: dict[Predictor, list[Tensor]] = {}

    def restart_due(self, step: int) -> None:
        """Start a new phase from the average where the timeline says so."""
        for run in self._averaging:
            if not self._plans[run].timeline.restarts[step]:
                continue
            row = self._row[run]
            average = self._averages.value[row].clone()
            self._learner.restart(self._trajectory[run], average)
            self._averages.restart(row, average)
            # Phases are whole epochs, so the average was measured a moment ago.
            for ensemble, predicted in zip(self._ensembles, self._last["average"], strict=True):
                ensemble.restart(row, predicted[row].exp())

    def capture_due(self, step: int, epoch_ends: bool) -> None:
        """Capture where the timeline says so, and predict where anyone will ask for it."""
        due = [run for run in self._averaging if self._plans[run].timeline.captures[step]]
        if due or epoch_ends:
            self._iterate = self._predict()
        if not due:
            return
        weights = self._learner.weights()
        for run in due:
            row, observed = self._row[run], self._trajectory[run]
            self._averages.capture(row, weights[observed])
            for ensemble, predicted in zip(self._ensembles, self._iterate, strict=True):
                ensemble.capture(row, predicted[observed].exp())

    def measure(self, epoch: int) -> None:
        """Measure all predictors after an epoch."""
        self._last = {"iterate": self._iterate}
        if self._averaging:
            self._last["average"] = self._predict(self._averages.value)
            self._last["ensemble"] = [_safe_log(mean.value) for mean in self._ensembles]
        for predictor, predicted in self._last.items():
            for split, labels, values in zip(SCORED, self._labels, predicted, strict=True):
                accuracies, losses = accuracy_and_loss(values, labels)
                found = list(zip(accuracies.tolist(), losses.tolist(), strict=True))
                for run, row in self._rows(predictor):
                    accuracy, loss = found[row]
                    self._note(run, Measurement(epoch, predictor, split, 100 * accuracy, loss))

    def finish(self) -> list[Outcome]:
        """The outcomes, with final weights and predictions."""
        learner, averages = self._learner, self._averages.value
        self._keep("iterate", learner.weights(), learner.statistics())
        if self._averaging:
            self._keep("average", averages, learner.statistics(averages))
        for outcome in self._outcomes:
            outcome.labels = {
                split: labels.cpu() for split, labels in zip(SCORED, self._labels, strict=True)
            }
        for predictor, predicted in self._last.items():
            for split, values in zip(SCORED, predicted, strict=True):
                for run, row in self._rows(predictor):
                    kept = values[row].cpu().contiguous().clone()
                    self._outcomes[run].log_probabilities[predictor, split] = kept
        return self._outcomes

    def _keep(self, predictor: Predictor, weights: Tensor, statistics: Tensor) -> None:
        weights, statistics = weights.cpu(), statistics.cpu()
        for run, row in self._rows(predictor):
            self._outcomes[run].weights[predictor] = weights[row].clone()
            self._outcomes[run].statistics[predictor] = statistics[row].clone()

    def _predict(self, weights: Tensor | None = None) -> list[Tensor]:
        return [log_probabilities(logits) for logits in self._learner.logits(SCORED, weights)]

    def _rows(self, predictor: Predictor) -> Sequence[tuple[int, int]]:
        """Each run that has the predictor, and its row in that predictor's tensors."""
        if predictor == "iterate":
            return list(enumerate(self._trajectory))
        return list(self._row.items())

    def _note(self, run: int, measurement: Measurement) -> None:
        outcome = self._outcomes[run]
        outcome.history.append(measurement)
        if not np.isfinite(measurement.loss) and measurement.predictor == "iterate":
            outcome.diverged_epoch = outcome.diverged_epoch or measurement.epoch


def _safe_log(probabilities: Tensor) -> Tensor:
    """The logarithm, with probabilities that underflowed to zero held at the smallest number."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()
