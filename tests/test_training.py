"""Stacked training against torch's own, the paper's algorithms, and itself."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from swabench.study.averaging import EqualMean
from swabench.study.inputs import SplitName
from swabench.study.methods import Method
from swabench.study.optimizers import SGD, Adam
from swabench.study.schedules import Constant, Cyclical, Multiplicative, Triangular
from swabench.training.heads import StackedHeads, initial_head, stacked_logits
from swabench.training.learner import Split
from swabench.training.loop import DataOrder
from swabench.training.measurement import Divergence
from swabench.training.observers import Outcome, RunPlan
from tests.reference import algorithm_1, algorithm_2, flat, linear, one_at_a_time, sawtooth
from tests.running import train

FEATURES, CLASSES, IMAGES, BATCH, EPOCHS = 12, 5, 70, 16, 2  # 70 = 4 × 16 + a ragged 6
CYCLICAL = Cyclical(schedule="cyclical", high=0.2, low=0.05)
CONSTANT = Constant(schedule="constant", learning_rate=0.1)
METHODS = {
    "sgd": Method(title="", rate=CONSTANT),
    "sgd-multiplicative": Method(
        title="",
        rate=Multiplicative(
            schedule="multiplicative", learning_rate=0.2, factor=0.25, every_epochs=1
        ),
    ),
    "triangular": Method(
        title="",
        rate=Triangular(schedule="triangular", low=0.1, high=0.2, up_epochs=1, down_epochs=1),
    ),
    "swa": Method(title="", rate=CONSTANT, averaging=EqualMean()),
    "swa-torch": Method(title="", rate=CONSTANT, averaging=EqualMean(include_start=False)),
    "swa-cyclical": Method(title="", rate=CYCLICAL, averaging=EqualMean()),
    "pswa": Method(title="", rate=CYCLICAL, averaging=EqualMean(phases=2)),
    "pswa-torch": Method(
        title="", rate=CYCLICAL, averaging=EqualMean(phases=2, include_start=False)
    ),
    "pswa-often": Method(
        title="",
        rate=CONSTANT,
        averaging=EqualMean(phases=2, include_start=False, capture_every_epochs=0.4),
    ),
}


def splits(dtype: torch.dtype = torch.float64) -> dict[SplitName, Split]:
    generator = torch.Generator().manual_seed(3)

    def some(count: int) -> Split:
        inputs = torch.randn(count, FEATURES, generator=generator, dtype=torch.float64)
        labels = torch.randint(CLASSES, (count,), generator=generator)
        return Split(inputs.to(dtype), labels)

    return {"train": some(IMAGES), "validation": some(11), "test": some(13)}


def start(seed: int = 0) -> Tensor:
    return initial_head(FEATURES, CLASSES, seed).double()


def run(
    methods: list[Method],
    optimizer: SGD | Adam,
    epochs: int = EPOCHS,
    keep_trajectory: bool = False,
) -> list[Outcome]:
    data = splits()
    order = DataOrder(IMAGES, BATCH, seed=1, stage=1)
    plans = [
        RunPlan(m.timeline(epochs, order.steps_per_epoch), m.averaging, trajectory)
        for trajectory, m in enumerate(methods)
    ]
    learner = StackedHeads(data, start().expand(len(methods), -1), optimizer, CLASSES)
    return train(learner, plans, data, order, epochs, keep_trajectory=keep_trajectory)


def batches(epochs: int = EPOCHS) -> list[tuple[Tensor, ...]]:
    order = DataOrder(IMAGES, BATCH, seed=1, stage=1)
    return [order.epoch(epoch) for epoch in range(epochs)]


@pytest.mark.parametrize(
    "settings",
    [
        SGD(name="sgd"),
        SGD(name="sgd", momentum=0),
        SGD(name="sgd", momentum=0.8, weight_decay=0.01, nesterov=True),
    ],
)
def test_stacked_runs_equal_torch_one_at_a_time(settings: SGD) -> None:
    data = splits()["train"]
    outcomes = run(list(METHODS.values()), settings)
    for (name, method), outcome in zip(METHODS.items(), outcomes, strict=True):
        iterate, average = one_at_a_time(
            method, start(), data.inputs, data.labels, batches(), settings, CLASSES
        )
        assert (outcome.weights["iterate"] - iterate).abs().max() < 1e-10, name
        if method.averaging:
            assert (outcome.weights["average"] - average).abs().max() < 1e-10, name


@pytest.mark.parametrize(
    "settings",
    [
        Adam(name="adam", weight_decay=0.01),
        Adam(name="adam", beta1=0.7, beta2=0.95),
    ],
)
def test_adam_equals_torch_at_every_runs_own_rate(settings: Adam) -> None:
    data = splits()["train"]
    other = Method(title="", rate=Constant(schedule="constant", learning_rate=0.02))
    outcomes = run([METHODS["sgd"], other], settings)
    for rate, outcome in zip((0.1, 0.02), outcomes, strict=True):
        model = linear(start(), CLASSES)
        optimizer = torch.optim.Adam(
            model.parameters(),
            lr=rate,
            betas=(settings.beta1, settings.beta2),
            weight_decay=settings.weight_decay,
        )
        for rows in [rows for epoch in batches() for rows in epoch]:
            optimizer.zero_grad()
            F.cross_entropy(model(data.inputs[rows]), data.labels[rows]).backward()
            optimizer.step()
        assert (outcome.weights["iterate"] - flat(model)).abs().max() < 1e-10


def gradient(step: int, w: Tensor) -> Tensor:
    data = splits()["train"]
    rows = [rows for epoch in batches(6) for rows in epoch][step]
    model = linear(w, CLASSES)
    F.cross_entropy(model(data.inputs[rows]), data.labels[rows]).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_swa_is_algorithm_1() -> None:
    c = -(-IMAGES // BATCH)
    [outcome] = run([METHODS["swa-cyclical"]], SGD(name="sgd", momentum=0), 6)
    alpha = sawtooth(CYCLICAL, c)
    expected = algorithm_1(start(), gradient, lambda i: alpha(i - 1), c, range(6 * c))
    assert (outcome.weights["average"] - expected).abs().max() < 1e-10


@pytest.mark.parametrize("phases", [1, 2, 3])
def test_pswa_is_algorithm_2(phases: int) -> None:
    c = -(-IMAGES // BATCH)
    method = Method(title="", rate=CYCLICAL, averaging=EqualMean(phases=phases))
    [outcome] = run([method], SGD(name="sgd", momentum=0), 6)
    alpha = sawtooth(CYCLICAL, c)
    expected = algorithm_2(start(), gradient, lambda i: alpha(i - 1), c, 6 * c, phases)
    assert (outcome.weights["average"] - expected).abs().max() < 1e-10


def test_pswa_with_one_phase_is_swa() -> None:
    once = Method(title="", rate=CYCLICAL, averaging=EqualMean(phases=1))
    [pswa], [swa] = run([once], SGD(name="sgd")), run([METHODS["swa-cyclical"]], SGD(name="sgd"))
    assert torch.equal(pswa.weights["average"], swa.weights["average"])
    assert pswa.history == swa.history


def test_runs_do_not_depend_on_their_neighbours() -> None:
    settings = SGD(name="sgd")
    alone = [run([method], settings)[0] for method in METHODS.values()]
    together = run(list(METHODS.values()), settings)
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(
            one.weights["iterate"], other.weights["iterate"], atol=1e-12, rtol=0
        )


def test_a_diverging_run_is_told_and_leaves_the_others_alone() -> None:
    # A rate that no study may name, because float64 holds the weights here.
    rate = Constant.model_construct(schedule="constant", learning_rate=1e308)
    wild = Method.model_construct(title="", rate=rate, averaging=None, optimizer=None)
    broken, healthy = run([wild, METHODS["swa"]], SGD(name="sgd"))
    [alone] = run([METHODS["swa"]], SGD(name="sgd"))
    assert broken.diverged
    assert (broken.diverged.epoch, broken.diverged.predictor) == (1, "iterate")
    assert not np.isfinite(broken.diverged.loss)
    assert healthy.diverged is None
    torch.testing.assert_close(healthy.weights["average"], alone.weights["average"])


def test_an_infinite_loss_is_divergence_as_one_that_is_no_number() -> None:
    """A bias so far from the others that the other classes have no probability at all."""
    data, order = splits(), DataOrder(IMAGES, BATCH, seed=1, stage=1)
    certain = torch.zeros(1, CLASSES * (FEATURES + 1), dtype=torch.float64)
    certain[0, -CLASSES:] = -1.5e308
    certain[0, -1] = 1.5e308
    plan = RunPlan(METHODS["sgd"].timeline(1, order.steps_per_epoch), None)
    learner = StackedHeads(data, certain, SGD(name="sgd"), CLASSES)
    (outcome,) = train(learner, [plan], data, order, 1)
    assert {m.loss for m in outcome.history} == {math.inf}
    assert outcome.diverged == Divergence(1, "iterate", "validation", math.inf)


def test_measurements_are_those_of_the_final_weights() -> None:
    data = splits()
    for method, outcome in zip(
        METHODS.values(), run(list(METHODS.values()), SGD(name="sgd")), strict=True
    ):
        for predictor, weights in outcome.weights.items():
            scores = linear(weights, CLASSES)(data["test"].inputs)
            last = [m for m in outcome.history if m.predictor == predictor and m.split == "test"]
            assert [m.epoch for m in last] == [1, 2]
            right = (scores.argmax(-1) == data["test"].labels).double().mean().item()
            assert last[-1].accuracy == pytest.approx(100 * right)
            loss = F.cross_entropy(scores, data["test"].labels).item()
            assert last[-1].loss == pytest.approx(loss, rel=1e-12)
            kept = outcome.log_probabilities[predictor, "test"]
            torch.testing.assert_close(kept, scores.log_softmax(-1).detach())
        assert ("average" in outcome.weights) == (method.averaging is not None)


@pytest.mark.parametrize("name", ["swa", "swa-torch", "pswa", "pswa-torch"])
def test_the_ensemble_is_the_mean_of_its_members_predictions(name: str) -> None:
    [outcome] = run([METHODS[name]], SGD(name="sgd"), keep_trajectory=True)
    assert outcome.trajectory is not None
    begin, first, second = outcome.trajectory
    average_of_phase_1 = (begin + first) / 2
    members = {
        "swa": [begin, first, second],
        "swa-torch": [first, second],
        "pswa": [average_of_phase_1, second],
        "pswa-torch": [second],
    }[name]
    logits = stacked_logits(splits()["test"].inputs, torch.stack(members), CLASSES)
    expected = logits.softmax(-1).mean(0)
    torch.testing.assert_close(outcome.log_probabilities["ensemble", "test"].exp(), expected)


def test_the_trajectory_holds_the_start_and_every_epoch() -> None:
    [outcome] = run([METHODS["sgd"]], SGD(name="sgd"), keep_trajectory=True)
    assert outcome.trajectory is not None
    assert outcome.trajectory.shape == (EPOCHS + 1, CLASSES * (FEATURES + 1))
    assert torch.equal(outcome.trajectory[0], start())
    assert torch.equal(outcome.trajectory[-1], outcome.weights["iterate"])


def test_the_data_order_is_a_permutation_fixed_by_seed_stage_and_epoch() -> None:
    def rows(seed: int, stage: int, epoch: int) -> list[int]:
        return torch.cat(DataOrder(IMAGES, BATCH, seed, stage).epoch(epoch)).tolist()

    assert sorted(rows(0, 0, 0)) == list(range(IMAGES))
    assert rows(0, 0, 0) == rows(0, 0, 0)
    # Written down, because results are found again by it.
    assert rows(3, 1, 2) == np.random.default_rng([3, 1, 2]).permutation(IMAGES).tolist()
    orders = [rows(seed, stage, epoch) for seed in (0, 1) for stage in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == len(orders)
    assert [len(batch) for batch in DataOrder(IMAGES, BATCH, 0, 0).epoch(0)] == [16, 16, 16, 16, 6]


def test_restart_under_adam_forgets_moments_and_steps() -> None:
    """A restarted run takes the same steps as one that begins there."""
    data, rates = splits(), torch.tensor([0.1, 0.2], dtype=torch.float64)
    [first, *rest] = batches()[0]
    restarted = StackedHeads(data, start().expand(2, -1), Adam(name="adam"), CLASSES)
    restarted.step(first, rates)
    restarted.restart(1, start(1))
    begun = StackedHeads(data, start(1)[None], Adam(name="adam"), CLASSES)
    for rows in rest:
        restarted.step(rows, rates)
        begun.step(rows, rates[1:])
    torch.testing.assert_close(restarted.weights()[1], begun.weights()[0])
