"""What watches trajectories while they are trained: averages, ensembles and measurements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from swabench.study.averaging import NEEDS_SELECTION, AveragingPlan, GreedySoup
from swabench.study.inputs import SplitName
from swabench.study.methods import Timeline
from swabench.training.averages import Average, Member, average_of
from swabench.training.learner import Learner, Splits, accuracy_and_loss, log_probabilities
from swabench.training.measurement import Divergence, Measurement, Predictor, Statistics
from swabench.training.state import State, moved


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
        history: Measurements after every scored epoch.
        weights: Final weights of the iterate and, with a plan, of the average; shape (P,) each.
        statistics: BatchNorm's final statistics of the same, shape (S,) each.
        log_probabilities: Final predictions by (predictor, split), shape (N, C) each.
        trajectory: The iterate's weights at the start and after every epoch, shape
            (epochs + 1, P), where they were asked for.
        labels: The true classes by split, shape (N,) each: predictions mean little without.
        diverged: The first loss that was not finite, of whichever predictor; then what was
            measured from that epoch on, and the rest, means nothing.
    """

    history: list[Measurement] = field(default_factory=list)
    weights: dict[Predictor, Tensor] = field(default_factory=dict)
    statistics: dict[Predictor, Tensor] = field(default_factory=dict)
    log_probabilities: dict[tuple[Predictor, SplitName], Tensor] = field(default_factory=dict)
    trajectory: Tensor | None = None
    labels: dict[SplitName, Tensor] = field(default_factory=dict)
    diverged: Divergence | None = None


@dataclass(frozen=True)
class _Predicted:
    """What K weights predict.

    Attributes:
        weights: Shape (K, P).
        statistics: BatchNorm's statistics that they predict with, shape (K, S).
        log_probabilities: By split, shape (K, N, C) each.
    """

    weights: Tensor
    statistics: Tensor
    log_probabilities: Mapping[SplitName, Tensor]


class Observers:
    """The averages, ensembles and measurements of the runs of one learner.

    Nothing is predicted before somebody asks for it: the end of a scored epoch, an ensemble, or a
    plan that weighs its captures by their scores.
    """

    def __init__(
        self,
        learner: Learner,
        plans: Sequence[RunPlan],
        splits: Splits,
        measured: Sequence[SplitName],
        scored_steps: set[int],
    ) -> None:
        self._learner = learner
        self._plans = plans
        self._splits = splits
        self._measured = measured
        self._outcomes = [Outcome() for _ in plans]
        self._selecting = {
            run for run, plan in enumerate(plans) if isinstance(plan.averaging, NEEDS_SELECTION)
        }
        self._wanted: list[SplitName] = list(measured)
        if self._selecting:
            self._wanted.append("selection")
        self._ensembles = {
            run for run, plan in enumerate(plans) if keeps_ensemble(plan, scored_steps)
        }
        self._iterates: _Predicted | None = None
        start = learner.weights()
        self._averages: dict[int, Average] = {
            run: average_of(plan.averaging, self._member(run, start), plan.timeline.interval_epochs)
            for run, plan in enumerate(plans)
            if plan.averaging
        }
        # Rows of the averages' tensors, by run.
        self._row = {run: row for row, run in enumerate(self._averages)}
        self._last: dict[Predictor, _Predicted] = {}

    def before_step(self, step: int) -> None:
        """Start a new phase from the average where the timeline says so."""
        for run, average in self._averages.items():
            if not self._plans[run].timeline.restarts[step]:
                continue
            weights = average.weights(self._selection_loss)
            keeps = run in self._ensembles
            predictions = (
                self._probabilities(self._predict(weights.unsqueeze(0)), 0) if keeps else []
            )
            self._learner.restart(self._plans[run].trajectory, weights)
            average.restart(Member(weights, predictions))

    def after_step(self, step: int) -> None:
        """Capture where the timeline says so."""
        self._iterates = None
        due = [run for run in self._averages if self._plans[run].timeline.captures[step]]
        if not due:
            return
        weights = self._learner.weights()
        for run in due:
            self._averages[run].capture(self._member(run, weights))

    def measure(self, epoch: int) -> None:
        """Measure all predictors after an epoch."""
        statistics: Statistics | None = "re-estimated" if self._learner.reestimates else None
        self._last = {"iterate": self._predicted_iterates()}
        if self._averages:
            self._last["average"] = self._predict(self._averaged_weights())
        for predictor, predicted in self._last.items():
            self._note(epoch, predictor, predicted.log_probabilities, statistics)
        for run in self._ensembles:
            ensemble = self._ensemble(run)
            self._note(epoch, "ensemble", ensemble, statistics, {run: 0})

    def finish(self, epoch: int) -> list[Outcome]:
        """The outcomes, with what was measured after the last epoch."""
        for predictor, last in self._last.items():
            if self._learner.reestimates:
                running = self._predict(last.weights, running=True)
                self._note(epoch, predictor, running.log_probabilities, "running")
            for run, row in self._rows(predictor).items():
                outcome = self._outcomes[run]
                outcome.weights[predictor] = last.weights[row].cpu().clone()
                outcome.statistics[predictor] = last.statistics[row].cpu().clone()
            self._keep_predictions(predictor, last.log_probabilities)
        for run in self._ensembles:
            self._keep_predictions("ensemble", self._ensemble(run), {run: 0})
        labels = {split: self._splits[split].labels.cpu() for split in self._measured}
        for outcome in self._outcomes:
            outcome.labels = labels
        return self._outcomes

    def state(self) -> State:
        """All that it takes to go on: the averages, and what was measured so far."""
        return {
            "averages": [average.state() for average in self._averages.values()],
            "histories": [[vars(m) for m in outcome.history] for outcome in self._outcomes],
            "diverged": [o.diverged and vars(o.diverged) for o in self._outcomes],
        }

    def load_state(self, state: State) -> None:
        """Go on from there."""
        self._iterates = None
        device = self._learner.weights().device
        averages = moved(state["averages"], device)
        for average, own in zip(self._averages.values(), averages, strict=True):
            average.load_state(own)
        found = zip(self._outcomes, state["histories"], state["diverged"], strict=True)
        for outcome, history, diverged in found:
            outcome.history = [Measurement(**measured) for measured in history]
            outcome.diverged = diverged and Divergence(**diverged)

    # --- predicting ------------------------------------------------------------------------

    def _predict(self, weights: Tensor | None, *, running: bool = False) -> _Predicted:
        # A soup asks for its mixtures' scores of the selection images itself.
        wanted = self._wanted if weights is None else self._measured
        logits, statistics = self._learner.predict(wanted, weights, running=running)
        found = (log_probabilities(each) for each in logits)
        return _Predicted(
            self._learner.weights() if weights is None else weights,
            statistics,
            dict(zip(wanted, found, strict=True)),
        )

    def _predicted_iterates(self) -> _Predicted:
        """What the iterates predict now; once a step at most."""
        if self._iterates is None:
            self._iterates = self._predict(None)
        return self._iterates

    def _probabilities(self, predicted: _Predicted, row: int) -> list[Tensor]:
        """Class probabilities of one of the weights, by measured split, shape (N, C) each."""
        return [predicted.log_probabilities[split][row].exp() for split in self._measured]

    def _averaged_weights(self) -> Tensor:
        return torch.stack([a.weights(self._selection_loss) for a in self._averages.values()])

    def _ensemble(self, run: int) -> dict[SplitName, Tensor]:
        """Log probabilities of one run's ensemble, by split, shape (1, N, C) each."""
        means = zip(self._measured, self._averages[run].predictions(), strict=True)
        return {split: _safe_log(mean).unsqueeze(0) for split, mean in means}

    def _member(self, run: int, weights: Tensor) -> Member:
        """A capture of the run's trajectory, whose iterates' weights are (R, P)."""
        trajectory = self._plans[run].trajectory
        member = Member(weights[trajectory])
        if run in self._ensembles:
            predictions = self._probabilities(self._predicted_iterates(), trajectory)
            member = replace(member, predictions=predictions)
        if run in self._selecting:
            predicted = self._predicted_iterates().log_probabilities["selection"][[trajectory]]
            accuracy, loss = accuracy_and_loss(predicted, self._splits["selection"].labels)
            member = replace(member, accuracy=accuracy.item(), loss=loss.item())
        return member

    def _selection_loss(self, weights: Tensor) -> float:
        logits, _ = self._learner.predict(["selection"], weights.unsqueeze(0))
        labels = self._splits["selection"].labels
        return accuracy_and_loss(log_probabilities(logits[0]), labels)[1].item()

    # --- recording -------------------------------------------------------------------------

    def _rows(self, predictor: Predictor) -> dict[int, int]:
        """Each run that has the predictor, and its row in that predictor's tensors."""
        if predictor == "iterate":
            return {run: plan.trajectory for run, plan in enumerate(self._plans)}
        return self._row

    def _note(
        self,
        epoch: int,
        predictor: Predictor,
        predicted: Mapping[SplitName, Tensor],
        statistics: Statistics | None,
        rows: Mapping[int, int] | None = None,
    ) -> None:
        """Measure predictions (K, N, C) and note them with the runs whose they are."""
        for split in self._measured:
            scores = accuracy_and_loss(predicted[split], self._splits[split].labels)
            accuracies, losses = (values.tolist() for values in scores)
            for run, row in (rows or self._rows(predictor)).items():
                outcome, loss = self._outcomes[run], losses[row]
                outcome.history.append(
                    Measurement(epoch, predictor, split, 100 * accuracies[row], loss, statistics)
                )
                if not outcome.diverged and not np.isfinite(loss):
                    outcome.diverged = Divergence(epoch, predictor, split, loss)

    def _keep_predictions(
        self,
        predictor: Predictor,
        predicted: Mapping[SplitName, Tensor],
        rows: Mapping[int, int] | None = None,
    ) -> None:
        for split in self._measured:
            for run, row in (rows or self._rows(predictor)).items():
                kept = predicted[split][row].cpu().contiguous().clone()
                self._outcomes[run].log_probabilities[predictor, split] = kept


def keeps_ensemble(plan: RunPlan, scored_steps: set[int]) -> bool:
    """Whether a run's members are scored: where its plan says so, or where it costs nothing."""
    averaging = plan.averaging
    if averaging is None or isinstance(averaging, GreedySoup):
        return False
    if averaging.ensemble is not None:
        return averaging.ensemble
    return set(np.flatnonzero(plan.timeline.captures).tolist()) <= scored_steps


def _safe_log(probabilities: Tensor) -> Tensor:
    """The logarithm, with probabilities that underflowed to zero held at the smallest number."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()
