"""Every plan within training: against its definition applied by hand to the iterates of epochs."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swabench.study.averaging import (
    AveragingPlan,
    EqualMean,
    Exponential,
    GreedySoup,
    LastCaptures,
    Newest,
    ScoreWeighted,
)
from swabench.study.inputs import SplitName
from swabench.study.methods import Method
from swabench.study.optimizers import SGD
from swabench.study.schedules import Constant
from swabench.training.batchnorm import mixed_batches
from swabench.training.flat import assign, flatten
from swabench.training.heads import StackedHeads, initial_head
from swabench.training.learner import Learner, Split
from swabench.training.loop import DataOrder, run_plans, scored_epochs
from swabench.training.network import NetworkLearner
from swabench.training.observers import Outcome
from swabench.training.replay import ReplayedHead
from tests.running import train

FEATURES, CLASSES, BATCH, EPOCHS = 6, 4, 10, 6
RATE = Constant(schedule="constant", learning_rate=0.3)
PLANS: dict[str, AveragingPlan] = {
    "swa": EqualMean(),
    "swa-late": EqualMean(include_start=False, start_at_epoch=2),
    "exponential": Exponential(plan="exponential", half_life_epochs=1.5),
    "last": LastCaptures(plan="last", captures=3),
    "scored": ScoreWeighted(plan="score-weighted", power=20),
    "soup": GreedySoup(plan="greedy-soup"),
    "newest": Newest(plan="newest"),
}
METHODS = {
    "sgd": Method(title="", rate=RATE),
    **{name: Method(title="", rate=RATE, averaging=plan) for name, plan in PLANS.items()},
}


def splits() -> dict[SplitName, Split]:
    """Every split has images and a number of its own; classes overlap, so that scores differ."""
    generator = torch.Generator().manual_seed(5)
    centres = torch.randn(CLASSES, FEATURES, generator=generator, dtype=torch.float64)

    def some(count: int) -> Split:
        labels = torch.randint(CLASSES, (count,), generator=generator)
        noise = torch.randn(count, FEATURES, generator=generator, dtype=torch.float64)
        return Split(centres[labels] + 1.5 * noise, labels)

    return {"train": some(44), "selection": some(37), "validation": some(23), "test": some(31)}


def network() -> nn.Sequential:
    torch.manual_seed(3)
    layers = nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Tanh())
    layers.append(nn.Linear(8, CLASSES))
    return layers.double()


# Another trajectory before theirs, so that rows of trajectories and of runs are no numbers alike.
OTHER = {"other": Method(title="", rate=Constant(schedule="constant", learning_rate=0.02))}


def heads_learner(data: dict[SplitName, Split], trajectories: int = 2) -> Learner:
    start = initial_head(FEATURES, CLASSES, 0).double().expand(trajectories, -1)
    return StackedHeads(data, start, SGD(name="sgd"), CLASSES)


def network_learner(data: dict[SplitName, Split]) -> Learner:
    return NetworkLearner(
        network(), data, *flatten(network()), SGD(name="sgd"), evaluation_batch=17
    )


def run(
    make: Callable[[dict[SplitName, Split]], Learner], score_every: int = 1
) -> dict[str, Outcome]:
    data = splits()
    order = DataOrder(len(data["train"]), BATCH, seed=1, stage=1)
    learner = make(data)
    methods = METHODS if learner.trajectories == 1 else {**OTHER, **METHODS}
    outcomes = train(
        learner,
        run_plans(methods, EPOCHS, order.steps_per_epoch),
        data,
        order,
        EPOCHS,
        score_every=score_every,
        keep_trajectory=True,
    )
    found = dict(zip(methods, outcomes, strict=True))
    return {name: found[name] for name in METHODS}


def head_scores(weights: Tensor, split: SplitName) -> Tensor:
    matrix, bias = weights.split([CLASSES * FEATURES, CLASSES])
    return F.linear(splits()[split].inputs, matrix.view(CLASSES, FEATURES), bias)


def network_scores(weights: Tensor, split: SplitName) -> Tensor:
    """With BatchNorm's statistics re-estimated on the training images, by hand."""
    data, model = splits(), network()
    assign(model, weights, flatten(model)[1])
    rows = mixed_batches(len(data["train"]), 17)
    before, layer = model.get_submodule("0"), model.get_submodule("1")
    with torch.no_grad():
        seen = torch.cat([before(data["train"].inputs[some]) for some in rows])
        layer.get_buffer("running_mean").copy_(seen.mean(0))
        layer.get_buffer("running_var").copy_(seen.var(0))
        return torch.as_tensor(model.eval()(data[split].inputs))


Scores = Callable[[Tensor, SplitName], Tensor]
KINDS: dict[str, tuple[Callable[[dict[SplitName, Split]], Learner], Scores]] = {
    "heads": (heads_learner, head_scores),
    "network": (network_learner, network_scores),
}


def accuracy(scores: Scores, weights: Tensor, split: SplitName) -> float:
    return float((scores(weights, split).argmax(1) == splits()[split].labels).double().mean())


def loss(scores: Scores, weights: Tensor, split: SplitName) -> float:
    return float(F.cross_entropy(scores(weights, split), splits()[split].labels))


def by_hand(name: str, iterates: Tensor, scores: Scores) -> Tensor:
    """The average after all epochs; `iterates` are the start and every epoch's end."""
    start, ends = iterates[0], iterates[1:]
    if name == "swa":
        return torch.stack([start, *ends]).mean(0)
    if name == "swa-late":
        return ends[2:].mean(0)
    if name == "exponential":
        powers = torch.tensor(2 ** (-np.arange(EPOCHS - 1, -1, -1) / 1.5))
        return (powers[:, None] * ends).sum(0) / powers.sum()
    if name == "last":
        return ends[-3:].mean(0)
    if name == "scored":
        scored = [accuracy(scores, each, "selection") ** 20 for each in ends]
        weights = torch.tensor(scored, dtype=torch.float64)
        return (weights[:, None] * ends).sum(0) / weights.sum()
    if name == "soup":
        ranked = sorted(ends, key=lambda each: loss(scores, each, "selection"))
        kept = ranked[:1]
        for each in ranked[1:]:
            candidate = torch.stack([*kept, each]).mean(0)
            before = torch.stack(kept).mean(0)
            if loss(scores, candidate, "selection") <= loss(scores, before, "selection"):
                kept.append(each)
        return torch.stack(kept).mean(0)
    return ends[-1]


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest) -> tuple[dict[str, Outcome], Scores]:
    make, scores = KINDS[request.param]
    return run(make), scores


@pytest.mark.parametrize("name", PLANS)
def test_the_average_is_its_definition(
    trained: tuple[dict[str, Outcome], Scores], name: str
) -> None:
    outcomes, scores = trained
    outcome = outcomes[name]
    assert outcome.trajectory is not None
    expected = by_hand(name, outcome.trajectory, scores)
    torch.testing.assert_close(outcome.weights["average"], expected, rtol=1e-9, atol=1e-9)
    # And it is scored as what it is, on the images that it is said to be scored on.
    for split in ("validation", "test"):
        last = [m for m in outcome.history if (m.predictor, m.split) == ("average", split)]
        measured = next(m for m in reversed(last) if m.batchnorm != "running")
        assert measured.loss == pytest.approx(loss(scores, expected, split), rel=1e-7)
        assert measured.accuracy == pytest.approx(100 * accuracy(scores, expected, split))


def test_plans_differ(trained: tuple[dict[str, Outcome], Scores]) -> None:
    """Else the test above could not tell one from another."""
    averages = [trained[0][name].weights["average"] for name in PLANS]
    for k, one in enumerate(averages):
        assert all((one - other).abs().max() > 1e-4 for other in averages[:k])


def test_no_plan_sees_validation_or_test_images() -> None:
    def spoil(data: dict[SplitName, Split]) -> dict[SplitName, Split]:
        for split in ("validation", "test"):
            data[split] = Split(-data[split].inputs, data[split].labels.flip(0))
        return data

    before, after = (
        run(lambda data: heads_learner(data)),
        run(lambda data: heads_learner(spoil(data))),
    )
    for name in PLANS:
        assert torch.equal(before[name].weights["average"], after[name].weights["average"])


def test_an_ensemble_is_the_mean_of_its_members_predictions(
    trained: tuple[dict[str, Outcome], Scores],
) -> None:
    """With the weights of the average's members, each re-estimated where BatchNorm trains."""
    outcomes, scores = trained
    iterates = outcomes["sgd"].trajectory
    assert iterates is not None
    members = {
        "swa": (iterates, [1.0] * 7),
        "swa-late": (iterates[3:], [1.0] * 4),
        "last": (iterates[-3:], [1.0] * 3),
        "exponential": (iterates[1:], [2 ** (-k / 1.5) for k in range(EPOCHS - 1, -1, -1)]),
    }
    for name, (some, shares) in members.items():
        probabilities = torch.stack([scores(each, "test").softmax(1) for each in some])
        weights = torch.tensor(shares, dtype=torch.float64)[:, None, None]
        expected = (weights * probabilities).sum(0) / weights.sum()
        found = outcomes[name].log_probabilities["ensemble", "test"].exp()
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    assert ("ensemble", "test") not in outcomes["soup"].log_probabilities


@pytest.mark.parametrize("kind", KINDS)
def test_scoring_less_often_changes_no_result(kind: str) -> None:
    make, _ = KINDS[kind]
    often, seldom = run(make), run(make, score_every=4)
    for name, outcome in seldom.items():
        assert {m.epoch for m in outcome.history} == {4, 6}
        for predictor, weights in outcome.weights.items():
            assert torch.equal(weights, often[name].weights[predictor])
        shared = [m for m in often[name].history if m.epoch in (4, 6)]
        shared = [m for m in shared if m.predictor != "ensemble"]
        assert [m for m in outcome.history if m.predictor != "ensemble"] == shared
    # Members that are not scored anyway make no ensemble, unless the plan asks for it.
    assert ("ensemble", "test") not in seldom["swa"].log_probabilities


def test_an_ensemble_that_is_declined_is_not_kept_where_it_would_cost_nothing() -> None:
    data = splits()
    order = DataOrder(len(data["train"]), BATCH, seed=1, stage=1)
    methods = {
        wanted: Method(title="", rate=RATE, averaging=EqualMean(ensemble=ensemble))
        for wanted, ensemble in {"if it is free": None, "never": False}.items()
    }
    plans = run_plans(methods, EPOCHS, order.steps_per_epoch)
    free, never = train(heads_learner(data, 1), plans, data, order, EPOCHS)
    assert ("ensemble", "test") in free.log_probabilities
    assert ("ensemble", "test") not in never.log_probabilities


def test_an_ensemble_that_is_asked_for_is_kept_whatever_is_scored() -> None:
    data = splits()
    order = DataOrder(len(data["train"]), BATCH, seed=1, stage=1)
    methods = {
        "asked": Method(title="", rate=RATE, averaging=EqualMean(ensemble=True)),
        "declined": Method(title="", rate=RATE, averaging=EqualMean(ensemble=False)),
        "within": Method(title="", rate=RATE, averaging=EqualMean(capture_every_epochs=0.5)),
    }
    plans = run_plans(methods, EPOCHS, order.steps_per_epoch)
    outcomes = train(heads_learner(data, 1), plans, data, order, EPOCHS, score_every=5)
    asked, declined, within = outcomes
    assert ("ensemble", "test") in asked.log_probabilities
    assert ("ensemble", "test") not in declined.log_probabilities
    assert ("ensemble", "test") not in within.log_probabilities
    everything = run(heads_learner)["swa"].log_probabilities["ensemble", "test"]
    torch.testing.assert_close(asked.log_probabilities["ensemble", "test"], everything)


def test_captures_at_every_step_predict_nothing() -> None:
    """Averages of all steps are affordable, because only the ends of epochs are scored."""
    data = splits()
    order = DataOrder(len(data["train"]), BATCH, seed=1, stage=1)
    learner = heads_learner(data, 1)
    predict = learner.predict
    asked: list[list[str]] = []

    def counted(splits: Sequence[SplitName], *given: Any, **named: Any) -> Any:
        asked.append(list(splits))
        return predict(splits, *given, **named)

    learner.predict = counted  # type: ignore[method-assign]
    plan = EqualMean(capture_every_epochs=1 / order.steps_per_epoch, include_start=False)
    methods = {"often": Method(title="", rate=RATE, averaging=plan)}
    (outcome,) = train(
        learner, run_plans(methods, EPOCHS, order.steps_per_epoch), data, order, EPOCHS
    )
    assert len(asked) == 2 * EPOCHS  # iterate and average, once an epoch
    # No plan here looks at selection images, so that nobody pays for them.
    assert all(names == ["validation", "test"] for names in asked)
    assert outcome.weights["average"].isfinite().all()


def test_a_half_life_is_of_the_epochs_that_lie_between_captures() -> None:
    """Captures fall on whole iterations: every 0.3 epochs of five iterations is every second."""
    data = splits()
    order = DataOrder(len(data["train"]), BATCH, seed=1, stage=1)
    steps = 2 * order.steps_per_epoch
    generator = torch.Generator().manual_seed(2)
    iterates = torch.randn(
        steps + 1, CLASSES * (FEATURES + 1), generator=generator, dtype=torch.float64
    )
    plan = Exponential(plan="exponential", half_life_epochs=0.7, capture_every_epochs=0.3)
    methods = {"exponential": Method(title="", rate=RATE, averaging=plan)}
    learner = ReplayedHead(data, iterates, CLASSES)
    (outcome,) = train(learner, run_plans(methods, 2, order.steps_per_epoch), data, order, 2)
    assert order.steps_per_epoch == 5
    captured = iterates[2::2]
    powers = 2 ** (-0.4 / 0.7 * torch.arange(len(captured) - 1, -1, -1, dtype=torch.float64))
    expected = (powers[:, None] * captured).sum(0) / powers.sum()
    torch.testing.assert_close(outcome.weights["average"], expected)


def test_every_epoch_ends_with_a_call_and_is_measured_where_it_is_asked_for() -> None:
    data = splits()
    order = DataOrder(len(data["train"]), BATCH, seed=1, stage=1)
    methods = {"swa": Method(title="", rate=RATE, averaging=EqualMean())}
    plans = run_plans(methods, EPOCHS, order.steps_per_epoch)
    learner, calls = heads_learner(data, 1), []
    (outcome,) = train(
        learner,
        plans,
        data,
        order,
        EPOCHS,
        score_every=4,
        measured=["validation"],
        after_epoch=lambda: calls.append(learner.weights()),
    )
    assert len(calls) == EPOCHS
    assert torch.equal(calls[-1][0], outcome.weights["iterate"])
    assert not torch.equal(calls[-2], calls[-1])
    assert {(m.epoch, m.split) for m in outcome.history} == {(4, "validation"), (6, "validation")}
    assert outcome.labels.keys() == {"validation"}
    assert outcome.labels["validation"].tolist() == data["validation"].labels.tolist()
    assert {split for _, split in outcome.log_probabilities} == {"validation"}
    assert outcome.trajectory is None
    (whole,) = train(heads_learner(data, 1), plans, data, order, EPOCHS)
    assert {m.split for m in whole.history} == {"validation", "test"}
    assert whole.labels.keys() == {"validation", "test"}


def test_epochs_are_measured_by_their_number_and_the_last_always() -> None:
    assert scored_epochs(7, 3) == [3, 6, 7]
    assert scored_epochs(6, 3) == [3, 6]
    assert scored_epochs(2, 5) == [2]
    assert scored_epochs(3, 1) == [1, 2, 3]


def test_every_measurement_says_with_which_statistics_batchnorm_normalised(
    trained: tuple[dict[str, Outcome], Scores],
) -> None:
    """Of a network also the running ones, at the end, of all that has weights of its own."""
    outcomes, scores = trained
    anew = "re-estimated" if scores is network_scores else None
    for name, outcome in outcomes.items():
        predictors = {"iterate"} if name == "sgd" else {"iterate", "average"}
        members = predictors if name in ("sgd", "soup") else {*predictors, "ensemble"}
        expected = {(e, p, anew) for e in range(1, EPOCHS + 1) for p in members}
        if anew:
            expected |= {(EPOCHS, predictor, "running") for predictor in predictors}
        assert {(m.epoch, m.predictor, m.batchnorm) for m in outcome.history} == expected
        assert len(outcome.history) == 2 * len(expected)  # validation and test


def replayed(iterates: Tensor, score_every: int = 1, **plan: bool) -> Outcome:
    """SWA, a step an epoch, of iterates as they are given."""
    data = splits()
    order = DataOrder(len(data["train"]), len(data["train"]), seed=1, stage=1)
    methods = {"swa": Method(title="", rate=RATE, averaging=EqualMean(**plan))}
    epochs = len(iterates) - 1
    (outcome,) = train(
        ReplayedHead(data, iterates, CLASSES),
        run_plans(methods, epochs, 1),
        data,
        order,
        epochs,
        score_every=score_every,
    )
    return outcome


def test_a_run_whose_average_is_lost_diverged_however_finite_its_iterate() -> None:
    iterates = torch.zeros(5, CLASSES * (FEATURES + 1), dtype=torch.float64)
    iterates[1] = torch.nan
    outcome = replayed(iterates, score_every=2)
    last = {m.predictor: m.loss for m in outcome.history if m.epoch == 4}
    assert np.isnan(last["average"])
    assert np.isfinite(last["iterate"])
    assert outcome.diverged
    assert (outcome.diverged.epoch, outcome.diverged.predictor) == (2, "average")
    assert outcome.diverged.split == "validation"
    iterates[2] = iterates[4] = torch.nan
    both = replayed(iterates, score_every=2).diverged
    assert both
    assert (both.epoch, both.predictor) == (2, "iterate")


def test_an_ensemble_of_members_that_are_certain_has_a_loss_all_the_same() -> None:
    """Probabilities that are no more than zero have no logarithm."""
    iterates = torch.zeros(3, CLASSES * (FEATURES + 1), dtype=torch.float64)
    iterates[1:, -CLASSES] = 1e4
    outcome = replayed(iterates, include_start=False)
    found = {m.loss for m in outcome.history if m.predictor == "ensemble"}
    assert all(np.isfinite(loss) and loss > 100 for loss in found)
    assert outcome.log_probabilities["ensemble", "test"].isfinite().all()
