"""Training that is interrupted and goes on ends bit for bit as training that is not."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from swabench.records.unfinished import Unfinished
from swabench.study.averaging import EqualMean
from swabench.study.inputs import SplitName
from swabench.study.methods import Method
from swabench.study.optimizers import SGD, Adam, Lookahead, Optimizer, ScheduleFreeSGD
from swabench.study.schedules import Cyclical
from swabench.training.flat import flatten
from swabench.training.heads import StackedHeads, initial_head
from swabench.training.learner import Learner, Split
from swabench.training.loop import Checkpoints, DataOrder, run_plans
from swabench.training.network import NetworkLearner
from swabench.training.observers import Outcome
from swabench.training.replay import ReplayedHead
from swabench.training.state import State, as_arrays, as_tensors
from tests.running import train
from tests.test_plans import BATCH, CLASSES, EPOCHS, FEATURES, METHODS, network, splits

CYCLICAL = Cyclical(schedule="cyclical", high=0.4, low=0.1)
PSWA = {"pswa": Method(title="", rate=CYCLICAL, averaging=EqualMean(phases=2))}
EVERY_STEP = {
    "every step": Method(
        title="",
        rate=METHODS["sgd"].rate,
        averaging=EqualMean(capture_every_epochs=1 / 5, ensemble=True),
    )
}
OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": SGD(name="sgd", momentum=0.9, weight_decay=1e-3),
    "nesterov": SGD(name="sgd", momentum=0.9, nesterov=True),
    "adam": Adam(name="adam"),
    "lookahead": Lookahead(name="lookahead", steps=4, alpha=0.5),
    "schedule-free": ScheduleFreeSGD(name="schedule-free-sgd"),
}
Data = dict[SplitName, Split]


class PausedError(Exception):
    """Training was interrupted."""


class PauseAt:
    """Interrupts training where it may be interrupted for the n-th time in this life of it."""

    def __init__(self, place: Unfinished, after: int | None, keeps: bool = True) -> None:
        self.place = place
        self.calls = 0
        self.due = 0
        self._after = after
        self._keeps = keeps

    def load(self) -> State | None:
        found = self.place.load(pytest.fail)
        return as_tensors(found[0]) if found else None

    def pause_if_asked(self, state: Callable[[], State]) -> None:
        if self.calls == self._after:
            if self._keeps:
                self.place.keep(as_arrays(state()), {})
            raise PausedError
        self.calls += 1

    def keep_if_due(self, state: Callable[[], State]) -> None:
        self.due += 1
        if not self._keeps:
            self.keep(state)

    def keep(self, state: Callable[[], State]) -> None:
        self.place.keep(as_arrays(state()), {})


def heads(data: Data, optimizer: Optimizer, trajectories: int) -> Learner:
    start = initial_head(FEATURES, CLASSES, 0).double().expand(trajectories, -1)
    return StackedHeads(data, start, optimizer, CLASSES)


def whole_network(data: Data, optimizer: Optimizer, trajectories: int) -> Learner:
    model = network()
    return NetworkLearner(model, data, *flatten(model), optimizer, evaluation_batch=17)


def trained(
    learner: Learner,
    data: Data,
    methods: Mapping[str, Method],
    checkpoints: Checkpoints | None = None,
    **options: Any,
) -> list[Outcome]:
    order = DataOrder(len(data["train"]), BATCH, seed=1, stage=1)
    plans = run_plans(methods, EPOCHS, order.steps_per_epoch)
    options.setdefault("keep_trajectory", True)
    return train(learner, plans, data, order, EPOCHS, checkpoints=checkpoints, **options)


def check_same(found: list[Outcome], expected: list[Outcome]) -> None:
    """To the last bit."""
    for one, other in zip(found, expected, strict=True):
        assert one.history == other.history
        assert one.diverged == other.diverged
        for kind in ("weights", "statistics", "log_probabilities", "labels"):
            a, b = getattr(one, kind), getattr(other, kind)
            assert a.keys() == b.keys()
            assert all(torch.equal(a[key], b[key]) for key in a), kind
        assert (one.trajectory is None) == (other.trajectory is None)
        if one.trajectory is not None and other.trajectory is not None:
            assert torch.equal(one.trajectory, other.trajectory)


def half_frozen(data: Data, optimizer: Optimizer, trajectories: int) -> Learner:
    """BatchNorm trains for twelve steps alone, so that their count is part of the state."""
    model = network()
    return NetworkLearner(
        model, data, *flatten(model), optimizer, evaluation_batch=17, batchnorm_steps=12
    )


KINDS: dict[str, tuple[Callable[[Data, Optimizer, int], Learner], dict[str, Method], int]] = {
    "heads": (heads, {**METHODS, **EVERY_STEP, **PSWA}, 2),
    "network": (whole_network, METHODS, 1),
    "network, restarted": (whole_network, PSWA, 1),
    "network, half frozen": (half_frozen, {"swa": METHODS["swa"]}, 1),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_before_every_step_it_ends_as_if_it_never_was(
    kind: str, optimizer: str, tmp_path: Path
) -> None:
    """Every life of it takes one step, or measures an epoch, and no more."""
    make, methods, trajectories = KINDS[kind]
    if optimizer == "schedule-free":  # which cannot start again from an average
        if "pswa" in methods and len(methods) == 1:
            pytest.skip("it averages by itself")
        methods = {name: method for name, method in methods.items() if name != "pswa"}
        trajectories = 1
    data, settings = splits(), OPTIMIZERS[optimizer]
    expected = trained(make(data, settings, trajectories), data, methods, score_every=2)
    place = Unfinished(tmp_path / "group")
    for _ in range(EPOCHS * 6 - 1):  # of 5 steps and a measurement an epoch, all but the last
        learner = make(data, settings, trajectories)
        with pytest.raises(PausedError):
            trained(learner, data, methods, PauseAt(place, 1), score_every=2)
    last = PauseAt(place, None)
    found = trained(make(data, settings, trajectories), data, methods, last, score_every=2)
    assert last.calls == 1
    check_same(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_within_an_epoch_it_goes_on_from_the_last_ones_end(
    kind: str, tmp_path: Path
) -> None:
    """A kill gives no time to keep anything: what was kept at an epoch's end is all there is."""
    make, methods, trajectories = KINDS[kind]
    data, settings = splits(), OPTIMIZERS["sgd"]
    expected = trained(make(data, settings, trajectories), data, methods)
    place = Unfinished(tmp_path / "group")
    killed = PauseAt(place, 21, keeps=False)
    with pytest.raises(PausedError):
        trained(make(data, settings, trajectories), data, methods, killed)
    again = PauseAt(place, None)
    check_same(trained(make(data, settings, trajectories), data, methods, again), expected)
    assert again.calls == 3 * 6  # the fourth epoch from its start, and those after it
    assert killed.due == 3
    assert again.due == 2  # the last epoch's end is the run's


def test_epochs_of_a_record_are_gone_on_with_too(tmp_path: Path) -> None:
    """A learner whose steps are recorded epochs, of which averages are made afterwards."""
    data = splits()
    whole = {"swa": METHODS["swa"], "last": METHODS["last"]}
    (sgd,) = trained(heads(data, OPTIMIZERS["sgd"], 1), data, {"sgd": METHODS["sgd"]})
    assert sgd.trajectory is not None
    plans = run_plans(whole, EPOCHS, 1)
    found: list[list[Outcome]] = []
    place = Unfinished(tmp_path / "group")
    for after in (3, None):
        learner = ReplayedHead(data, sgd.trajectory, CLASSES)
        checkpoints = PauseAt(place, after)
        try:
            order = DataOrder(1, 1, 0, 1)
            found.append(train(learner, plans, data, order, EPOCHS, checkpoints=checkpoints))
        except PausedError:
            assert checkpoints.calls == after
    learner = ReplayedHead(data, sgd.trajectory, CLASSES)
    check_same(found[0], train(learner, plans, data, DataOrder(1, 1, 0, 1), EPOCHS))
