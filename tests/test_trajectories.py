"""Methods on one trajectory: trained once, observed by several averages."""

import pytest
import torch

from swabench.study.averaging import EqualMean
from swabench.study.loading import bundled_studies, load_study
from swabench.study.methods import Method
from swabench.study.optimizers import SGD
from swabench.study.schedules import Constant, Cyclical
from swabench.study.trajectories import trajectories
from swabench.training.heads import StackedHeads
from swabench.training.loop import DataOrder
from swabench.training.observers import Outcome, RunPlan
from tests.running import train
from tests.test_training import BATCH, CLASSES, IMAGES, splits, start

CONSTANT = Constant(schedule="constant", learning_rate=0.1)
SAME_RATE = {
    "sgd": Method(title="SGD", rate=CONSTANT),
    "swa": Method(title="SWA", rate=CONSTANT, averaging=EqualMean()),
    "late": Method(title="", rate=CONSTANT, averaging=EqualMean(include_start=False)),
    "often": Method(title="", rate=CONSTANT, averaging=EqualMean(capture_every_epochs=0.5)),
}


def run(methods: dict[str, Method], epochs: int = 4) -> dict[str, Outcome]:
    data = splits()
    order = DataOrder(IMAGES, BATCH, seed=1, stage=1)
    paths = trajectories(methods)
    number = {name: n for n, names in enumerate(paths) for name in names}
    plans = [
        RunPlan(method.timeline(epochs, order.steps_per_epoch), method.averaging, number[name])
        for name, method in methods.items()
    ]
    learner = StackedHeads(data, start().expand(len(paths), -1), SGD(name="sgd"), CLASSES)
    return dict(
        zip(methods, train(learner, plans, data, order, epochs, keep_trajectory=True), strict=True)
    )


def test_methods_that_differ_in_their_average_alone_share_a_trajectory() -> None:
    fast = Constant(schedule="constant", learning_rate=0.2)
    methods = {
        **SAME_RATE,
        "fast": Method(title="", rate=fast),
        "pswa": Method(title="", rate=CONSTANT, averaging=EqualMean(phases=2)),
        "pswa-late": Method(
            title="", rate=CONSTANT, averaging=EqualMean(phases=2, include_start=False)
        ),
        "fast-swa": Method(title="", rate=fast, averaging=EqualMean()),
    }
    assert trajectories(methods) == [
        ["sgd", "swa", "late", "often"],
        ["fast", "fast-swa"],
        ["pswa"],  # its restarts are part of its path
        ["pswa-late"],
    ]


def test_what_is_written_out_though_it_is_so_anyhow_makes_no_other_trajectory() -> None:
    spelled = CONSTANT.model_validate({**CONSTANT.model_dump(), "warmup_epochs": 0.0})
    late = EqualMean(phases=1, start_at_epoch=0.0)
    methods = {**SAME_RATE, "spelled": Method(title="", rate=spelled, averaging=late)}
    assert len(trajectories(methods)) == 1


def test_a_rate_alone_does_not_make_a_trajectory_of_another_schedule() -> None:
    flat = Cyclical(schedule="cyclical", high=0.1, low=0.1)
    assert len(trajectories({"a": SAME_RATE["sgd"], "b": Method(title="", rate=flat)})) == 2


def test_the_default_study_trains_twelve_trajectories_for_its_25_runs() -> None:
    methods = load_study("mnist").all_methods
    assert (len(methods), len(trajectories(methods))) == (25, 12)


@pytest.mark.parametrize("name", bundled_studies())
def test_every_method_is_on_one_trajectory(name: str) -> None:
    methods = load_study(name).all_methods
    assert sorted(n for names in trajectories(methods) for n in names) == sorted(methods)


def test_runs_on_one_trajectory_have_the_same_iterate_to_the_bit() -> None:
    outcomes = run(SAME_RATE)
    iterates = [outcome.weights["iterate"] for outcome in outcomes.values()]
    assert all(torch.equal(iterates[0], iterate) for iterate in iterates)
    histories = [
        [m for m in outcome.history if m.predictor == "iterate"] for outcome in outcomes.values()
    ]
    assert all(history == histories[0] for history in histories)


def test_an_average_is_what_it_is_on_a_trajectory_of_its_own() -> None:
    together = run(SAME_RATE)
    for name, method in SAME_RATE.items():
        alone = run({name: method})[name]
        for predictor, weights in alone.weights.items():
            assert (together[name].weights[predictor] - weights).abs().max() < 1e-12, name
        assert [(m.predictor, m.epoch, m.split) for m in alone.history] == [
            (m.predictor, m.epoch, m.split) for m in together[name].history
        ]
        for ours, theirs in zip(together[name].history, alone.history, strict=True):
            assert ours.loss == pytest.approx(theirs.loss, abs=1e-12)


def test_an_average_is_of_its_own_trajectory_and_not_of_another() -> None:
    """Rows of averages and of trajectories are numbered apart."""
    fast = Constant(schedule="constant", learning_rate=0.3)
    methods = {
        "sgd": SAME_RATE["sgd"],
        "fast-swa": Method(title="", rate=fast, averaging=EqualMean(capture_every_epochs=1)),
        "pswa": Method(title="", rate=fast, averaging=EqualMean(phases=2)),
        "swa": SAME_RATE["swa"],
    }
    for name, outcome in run(methods).items():
        if methods[name].averaging is None or name == "pswa":
            continue
        assert outcome.trajectory is not None
        expected = outcome.trajectory.mean(0)  # the start and every epoch's end
        assert (outcome.weights["average"] - expected).abs().max() < 1e-12, name


def test_a_restart_is_of_its_own_trajectory_and_not_of_another() -> None:
    """Behind runs that share a trajectory, a run and its trajectory have other numbers."""
    methods = {
        "sgd": SAME_RATE["sgd"],
        "swa": SAME_RATE["swa"],
        "pswa": Method(title="", rate=CONSTANT, averaging=EqualMean(phases=2)),
        "fast": Method(title="", rate=Constant(schedule="constant", learning_rate=0.3)),
    }
    together = run(methods)
    for name, method in methods.items():
        for predictor, weights in run({name: method})[name].weights.items():
            assert (together[name].weights[predictor] - weights).abs().max() < 1e-12, name


def test_runs_that_do_not_agree_about_their_trajectory_are_refused() -> None:
    data = splits()
    order = DataOrder(IMAGES, BATCH, seed=1, stage=1)
    fast = Method(title="", rate=Constant(schedule="constant", learning_rate=0.2))
    restarting = Method(title="", rate=CONSTANT, averaging=EqualMean(phases=2))
    pairs = [(SAME_RATE["sgd"], fast), (SAME_RATE["sgd"], restarting)]
    for methods in [*pairs, *(pair[::-1] for pair in pairs), (restarting, restarting)]:
        plans = [RunPlan(m.timeline(2, order.steps_per_epoch), m.averaging) for m in methods]
        learner = StackedHeads(data, start().expand(1, -1), SGD(name="sgd"), CLASSES)
        with pytest.raises(ValueError, match="go different ways"):
            train(learner, plans, data, order, 2)
