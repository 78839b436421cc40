"""Optimizers with a trajectory of their own, against their package and their papers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from schedulefree import SGDScheduleFree
from torch import Tensor, nn
from torch.nn import functional as F

from swabench.study.averaging import EqualMean
from swabench.study.limits import HIGHEST_RATE
from swabench.study.loading import load_study
from swabench.study.methods import Method
from swabench.study.optimizers import SGD, Adam, Lookahead, Optimizer, ScheduleFreeSGD
from swabench.study.schedules import Constant, Linear
from swabench.study.study import Study
from swabench.study.trajectories import by_optimizer, trajectories
from swabench.training.flat import flatten
from swabench.training.heads import StackedHeads
from swabench.training.learner import Learner
from swabench.training.loop import DataOrder, run_plans
from swabench.training.network import NetworkLearner
from swabench.training.observers import Outcome
from swabench.training.optimizers import stacked_optimizer
from tests.reference import flat, linear
from tests.running import train
from tests.test_training import BATCH, CLASSES, FEATURES, IMAGES, batches, splits, start

EPOCHS = 3
WARM = Constant(schedule="constant", learning_rate=0.2, warmup_epochs=1)
SLOW = Constant(schedule="constant", learning_rate=0.05)
FREE = [
    ScheduleFreeSGD(name="schedule-free-sgd"),
    ScheduleFreeSGD(name="schedule-free-sgd", momentum=0.7, weight_decay=0.01),
]
AHEAD = [
    Lookahead(name="lookahead", steps=3),
    Lookahead(name="lookahead", steps=4, alpha=0.3, momentum=0.8, weight_decay=0.01, nesterov=True),
]


def network_learner(optimizer: Optimizer, runs: int) -> Learner:
    assert runs == 1
    layer = nn.Linear(FEATURES, CLASSES).double()
    _, statistics = flatten(layer)
    return NetworkLearner(layer, splits(), start(), statistics, optimizer)


def heads_learner(optimizer: Optimizer, runs: int) -> Learner:
    return StackedHeads(splits(), start().expand(runs, -1), optimizer, CLASSES)


def run(learner: Learner, rates: list[Any]) -> list[Outcome]:
    data = splits()
    order = DataOrder(IMAGES, BATCH, seed=1, stage=1)
    methods = {str(k): Method(title="", rate=rate) for k, rate in enumerate(rates)}
    plans = run_plans(methods, EPOCHS, order.steps_per_epoch)
    return train(learner, plans, data, order, EPOCHS)


def gradients_at(model: nn.Module, rows: Tensor) -> None:
    data = splits()["train"]
    model.zero_grad()
    F.cross_entropy(model(data.inputs[rows]), data.labels[rows]).backward()


def all_steps(rate: Any) -> list[tuple[Tensor, float]]:
    rows = [rows for epoch in batches(EPOCHS) for rows in epoch]
    rates = rate.rates(len(rows), len(rows) // EPOCHS)
    return list(zip(rows, map(float, rates), strict=True))


def package(rate: Any, settings: ScheduleFreeSGD) -> Tensor:
    """As a user of `schedulefree` writes it."""
    model = linear(start(), CLASSES)
    options = {"momentum": settings.momentum, "weight_decay": settings.weight_decay}
    optimizer = SGDScheduleFree(model.parameters(), lr=1.0, foreach=False, **options)
    optimizer.train()
    for rows, now in all_steps(rate):
        gradients_at(model, rows)
        optimizer.param_groups[0]["lr"] = now
        optimizer.step()
    optimizer.eval()
    return flat(model)


def by_the_paper(rate: Any, settings: Lookahead) -> Tensor:
    """Algorithm 1 of Zhang et al., line by line, over torch's SGD."""
    fast = linear(start(), CLASSES)
    slow = flat(fast).clone()
    sgd = torch.optim.SGD(
        fast.parameters(),
        lr=1.0,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.nesterov,
    )
    for number, (rows, now) in enumerate(all_steps(rate), start=1):
        gradients_at(fast, rows)
        sgd.param_groups[0]["lr"] = now
        sgd.step()
        if number % settings.steps == 0:
            slow = slow + settings.alpha * (flat(fast) - slow)
            torch.nn.utils.vector_to_parameters(slow.clone(), fast.parameters())
    return slow


@pytest.mark.parametrize("settings", FREE)
def test_schedule_free_heads_equal_the_package(settings: ScheduleFreeSGD) -> None:
    falling = Linear(schedule="linear", learning_rate=0.2)
    rates = [WARM, SLOW, falling]  # x is weighted by the highest rate so far
    outcomes = run(heads_learner(settings, 3), rates)
    for outcome, rate in zip(outcomes, rates, strict=True):
        difference = outcome.weights["iterate"] - package(rate, settings)
        assert difference.abs().max() < 1e-10


@pytest.mark.parametrize("settings", AHEAD)
def test_lookahead_heads_equal_the_paper(settings: Lookahead) -> None:
    outcomes = run(heads_learner(settings, 2), [WARM, SLOW])
    for outcome, rate in zip(outcomes, (WARM, SLOW), strict=True):
        difference = outcome.weights["iterate"] - by_the_paper(rate, settings)
        assert difference.abs().max() < 1e-10


@pytest.mark.parametrize("settings", FREE)
def test_a_schedule_free_network_equals_the_package(settings: ScheduleFreeSGD) -> None:
    (outcome,) = run(network_learner(settings, 1), [WARM])
    assert (outcome.weights["iterate"] - package(WARM, settings)).abs().max() < 1e-10


@pytest.mark.parametrize("settings", AHEAD)
def test_a_lookahead_network_equals_the_paper(settings: Lookahead) -> None:
    (outcome,) = run(network_learner(settings, 1), [WARM])
    assert (outcome.weights["iterate"] - by_the_paper(WARM, settings)).abs().max() < 1e-10


@pytest.mark.parametrize("settings", [FREE[0], AHEAD[0]])
@pytest.mark.parametrize("make", [heads_learner, network_learner])
def test_what_is_measured_is_what_is_kept(
    settings: Optimizer, make: Callable[[Optimizer, int], Learner]
) -> None:
    (outcome,) = run(make(settings, 1), [SLOW])
    data = splits()["test"]
    scores = linear(outcome.weights["iterate"], CLASSES)(data.inputs)
    expected = F.cross_entropy(scores, data.labels).item()
    last = [m for m in outcome.history if m.split == "test" and m.batchnorm != "running"][-1]
    assert last.loss == pytest.approx(expected, rel=1e-9)
    found = outcome.log_probabilities["iterate", "test"]
    torch.testing.assert_close(found, scores.detach().log_softmax(1))


@pytest.mark.parametrize("make", [heads_learner, network_learner])
def test_lookahead_forgets_its_slow_weights_at_a_restart(
    make: Callable[[Optimizer, int], Learner],
) -> None:
    settings = Lookahead(name="lookahead", steps=2)
    rows, rate = torch.arange(BATCH), torch.tensor([0.1], dtype=torch.float64)
    used, fresh = make(settings, 1), make(settings, 1)
    used.step(rows, rate)
    used.step(rows, rate)
    used.restart(0, start())
    for learner in (used, fresh):
        learner.step(rows, rate)
        learner.step(rows, rate)
    torch.testing.assert_close(used.weights(), fresh.weights())


@pytest.mark.parametrize(
    "settings",
    [
        SGD(name="sgd"),
        SGD(name="sgd", nesterov=True),
        Adam(name="adam"),
        Lookahead(name="lookahead", steps=3),
    ],
)
@pytest.mark.parametrize("taken", [2, 3])  # fast and slow weights have just met after three
def test_a_restart_is_of_one_run_alone(settings: Optimizer, taken: int) -> None:
    """The others go on as if nothing had been, and the one as if it began."""
    rows, rates = torch.arange(BATCH), torch.tensor([0.1, 0.1], dtype=torch.float64)
    together, alone = heads_learner(settings, 2), heads_learner(settings, 1)
    for learner, some in ((together, rates), (alone, rates[:1])):
        for step in range(8):
            learner.step((rows + step) % IMAGES, some)
            if learner is together and step + 1 == taken:
                learner.restart(1, start(1))
    torch.testing.assert_close(together.weights()[0], alone.weights()[0])
    if taken == 2 and isinstance(settings, Lookahead):  # its steps are counted for all runs
        return
    begun = StackedHeads(splits(), start(1)[None], settings, CLASSES)
    for step in range(taken, 8):
        begun.step((rows + step) % IMAGES, rates[:1])
    torch.testing.assert_close(together.weights()[1], begun.weights()[0])


@pytest.mark.parametrize("make", [heads_learner, network_learner])
def test_schedule_free_cannot_start_again_from_an_average(
    make: Callable[[Optimizer, int], Learner],
) -> None:
    learner = make(FREE[0], 1)
    assert torch.equal(learner.weights()[0], start())  # before any step, x is y
    with pytest.raises(ValueError, match="cannot start again from an average"):
        learner.restart(0, start(1))


def test_pswa_with_one_capture_a_phase_is_lookahead_at_one_half() -> None:
    """Each phase is k steps, and its average is of its start and its end; momentum aside."""
    order = DataOrder(IMAGES, BATCH, seed=1, stage=1)
    plan = EqualMean(phases=EPOCHS)
    methods = {"pswa": Method(title="", rate=SLOW, averaging=plan)}
    plain = SGD(name="sgd", momentum=0)
    learner = heads_learner(plain, 1)
    data = splits()
    (pswa,) = train(learner, run_plans(methods, EPOCHS, order.steps_per_epoch), data, order, EPOCHS)
    ahead = Lookahead(name="lookahead", steps=order.steps_per_epoch, momentum=0)
    (outcome,) = run(heads_learner(ahead, 1), [SLOW])
    torch.testing.assert_close(outcome.weights["iterate"], pswa.weights["average"])


# --- methods ---------------------------------------------------------------------------------


def method(optimizer: Optimizer | None, **more: Any) -> Method:
    return Method(title="", rate=more.pop("rate", SLOW), optimizer=optimizer, **more)


def test_an_optimizer_of_its_own_is_a_trajectory_of_its_own() -> None:
    methods = {
        "sgd": method(None),
        "free": method(FREE[0]),
        "ahead": method(AHEAD[0]),
        "swa": method(None, averaging=EqualMean()),
        "ahead-swa": method(AHEAD[0], averaging=EqualMean()),
    }
    assert trajectories(methods) == [["sgd", "swa"], ["free"], ["ahead", "ahead-swa"]]
    assert by_optimizer(methods) == [["sgd", "swa"], ["free"], ["ahead", "ahead-swa"]]


def test_an_optimizer_of_other_settings_is_another_one() -> None:
    """Rows of one tensor share every setting of their optimizer, not its name alone."""
    slow = SGD(name="sgd", momentum=0.5)
    methods = {
        "sgd": method(SGD(name="sgd")),
        "slow": method(slow),
        "slow-swa": method(slow, averaging=EqualMean()),
    }
    assert trajectories(methods) == [["sgd"], ["slow", "slow-swa"]]
    assert by_optimizer(methods) == [["sgd"], ["slow", "slow-swa"]]


def test_schedule_free_refuses_other_schedules_and_plans() -> None:
    with pytest.raises(ValueError, match="averages by itself"):
        method(FREE[0], averaging=EqualMean()).check(3)
    for rate in (
        Linear(schedule="linear", learning_rate=0.1),
        Constant(schedule="constant", learning_rate=0.1, cooldown_epochs=1),
    ):
        with pytest.raises(ValueError, match="constant rate"):
            method(FREE[0], rate=rate).check(3)
    method(FREE[0], rate=WARM).check(3)


def test_a_stage_cannot_be_schedule_free() -> None:
    whole = load_study("smoke").model_dump()
    whole["finetune"]["optimizer"] = {"name": "schedule-free-sgd"}
    with pytest.raises(ValueError, match=r"finetune\.optimizer"):
        Study.model_validate(whole)


@pytest.mark.parametrize("beta1", [0, 0.9, 0.999999])
def test_the_highest_rate_there_is_diverges_and_stops_no_other_run(beta1: float) -> None:
    """torch stops where float32 does not hold a rate over 1 − β; a study must not."""
    torch.manual_seed(0)
    matrix, bias = torch.zeros(2, 3, 4), torch.zeros(2, 3)
    optimizer = stacked_optimizer(Adam(name="adam", beta1=beta1), matrix, bias)
    inputs = torch.randn(5, 4)
    for _ in range(3):
        optimizer.step(torch.randn(6, 5), inputs, torch.tensor([1e-3, HIGHEST_RATE]))
    assert matrix[0].abs().max() < 1
    scores = torch.randn(50, 4) @ matrix[1].T
    assert not scores.softmax(dim=1).log().isfinite().all()
