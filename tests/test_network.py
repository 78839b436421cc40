"""The network learner against the usual way, the stacked heads, and BatchNorm done by hand."""

import copy
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import ResNet, resnet50

from swabench.data.idx import encode_idx
from swabench.records import Record
from swabench.runs import execution, features
from swabench.runs.experiment import Experiment
from swabench.runs.learners import Start, complete, make_learner
from swabench.runs.materials import Materials
from swabench.study.averaging import EqualMean, Newest
from swabench.study.inputs import BackboneSettings, Precision, SplitName
from swabench.study.methods import Method
from swabench.study.optimizers import SGD, Adam
from swabench.study.schedules import Constant, Cyclical, Multiplicative
from swabench.study.settings import Settings
from swabench.study.stages import BOUNDARIES, Boundary
from swabench.study.study import Study
from swabench.system.errors import InputError, SwabenchError
from swabench.system.progress import SilentProgress
from swabench.training import convolution, heads
from swabench.training import network as networks
from swabench.training.backbone import (
    FinalLayer,
    Preprocess,
    Standardize,
    frozen_part,
    load_backbone,
    trained_part,
)
from swabench.training.batchnorm import mixed_batches, reestimated_statistics
from swabench.training.convolution import narrow_convolutions
from swabench.training.flat import assign, batchnorm_layers, flatten
from swabench.training.heads import StackedHeads, initial_head
from swabench.training.learner import Split
from swabench.training.loop import DataOrder
from swabench.training.network import NetworkLearner
from swabench.training.observers import Outcome, RunPlan
from swabench.training.optimizers import adam, sgd
from swabench.training.optimizers.base import fuses as fuses_steps
from tests.reference import exact_batchnorm, network_one_at_a_time
from tests.running import train

CLASSES, IMAGES, BATCH, EPOCHS = 4, 38, 12, 2  # 38 = 3 × 12 + a ragged 2
EVALUATION_BATCH = 10  # less than any split has images
CONSTANT = Constant(schedule="constant", learning_rate=0.05)
CYCLICAL = Cyclical(schedule="cyclical", high=0.1, low=0.02)
METHODS = {
    "sgd": Method(title="", rate=CONSTANT),
    "sgd-multiplicative": Method(
        title="",
        rate=Multiplicative(
            schedule="multiplicative", learning_rate=0.1, factor=0.25, every_epochs=1
        ),
    ),
    "sgd-reestimated": Method(title="", rate=CONSTANT, averaging=Newest(plan="newest")),
    "swa": Method(title="", rate=CONSTANT, averaging=EqualMean()),
    "swa-cyclical": Method(title="", rate=CYCLICAL, averaging=EqualMean()),
    "pswa": Method(title="", rate=CYCLICAL, averaging=EqualMean(phases=2)),
}


def tiny(seed: int = 0) -> nn.Sequential:
    """A network with everything that ResNet-50 has but size: 8-pixel images, two BatchNorms."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, CLASSES),
    ).double()


def quarter_resnet50(**options: object) -> ResNet:
    """All of ResNet-50's fifty layers, a quarter as wide within its blocks."""
    torch.manual_seed(0)
    return resnet50(num_classes=CLASSES, width_per_group=16, **options).eval()


def splits(
    images: int = IMAGES,
    shape: tuple[int, ...] = (1, 8, 8),
    dtype: torch.dtype = torch.float64,
    held_out: tuple[int, int] = (11, 13),
) -> dict[SplitName, Split]:
    generator = torch.Generator().manual_seed(3)

    def some(count: int) -> Split:
        labels = torch.randint(CLASSES, (count,), generator=generator)
        noise = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
        # Images of a class share a brightness, so that there is something to learn.
        return Split((noise + labels.view(-1, *[1] * len(shape))).to(dtype), labels)

    return {"train": some(images), "validation": some(held_out[0]), "test": some(held_out[1])}


def learner_of(
    network: nn.Module,
    data: dict[SplitName, Split],
    optimizer: SGD | Adam | None = None,
    *,
    batchnorm_steps: int | None = None,
    precision: Precision = "float32",
) -> NetworkLearner:
    return NetworkLearner(
        copy.deepcopy(network),
        data,
        *flatten(network),
        optimizer or SGD(name="sgd"),
        batchnorm_steps=batchnorm_steps,
        precision=precision,
        evaluation_batch=EVALUATION_BATCH,
    )


def run(
    learner: NetworkLearner | StackedHeads,
    methods: list[Method],
    data: dict[SplitName, Split],
    epochs: int = EPOCHS,
    batch: int = BATCH,
) -> list[Outcome]:
    order = DataOrder(len(data["train"]), batch, seed=1, stage=1)
    plans = [RunPlan(m.timeline(epochs, order.steps_per_epoch), m.averaging) for m in methods]
    return train(learner, plans, data, order, epochs)


def batches(images: int, epochs: int = EPOCHS, batch: int = BATCH) -> list[tuple[Tensor, ...]]:
    order = DataOrder(images, batch, seed=1, stage=1)
    return [order.epoch(epoch) for epoch in range(epochs)]


def score(network: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return F.log_softmax(network(inputs), dim=-1)


# --- the usual way -------------------------------------------------------------------------


def check_against_the_usual_way(
    network: nn.Module,
    method: Method,
    data: dict[SplitName, Split],
    settings: SGD,
    tolerance: float,
    batch: int = BATCH,
) -> None:
    (outcome,) = run(learner_of(network, data, settings), [method], data, batch=batch)
    train_split = data["train"]
    passes = mixed_batches(len(train_split), EVALUATION_BATCH)
    running, average = network_one_at_a_time(
        method,
        network,
        train_split.inputs,
        train_split.labels,
        batches(len(train_split), batch=batch),
        settings,
        passes,
    )
    iterate = copy.deepcopy(running)
    exact_batchnorm(iterate, train_split.inputs, passes)
    close = {"rtol": tolerance, "atol": tolerance}
    expected = {"iterate": iterate} | ({"average": average} if method.averaging else {})
    assert set(outcome.weights) == set(expected)
    for predictor, model in expected.items():
        weights, statistics = flatten(model)
        torch.testing.assert_close(outcome.weights[predictor], weights, **close)  # type: ignore[index, arg-type]
        torch.testing.assert_close(outcome.statistics[predictor], statistics, **close)  # type: ignore[index, arg-type]
        found = outcome.log_probabilities[predictor, "test"]  # type: ignore[index]
        torch.testing.assert_close(found, score(model, data["test"].inputs), **close)  # type: ignore[arg-type]
        # What the iterate's running statistics give, for these weights as for the iterate's.
        assign(model, weights, flatten(running)[1])
        for measure, anew in (
            ("re-estimated", found),
            ("running", score(model, data["test"].inputs)),
        ):
            (measured,) = (
                m
                for m in outcome.history
                if (m.epoch, m.predictor, m.split, m.batchnorm)
                == (EPOCHS, predictor, "test", measure)
            )
            expected_loss = F.nll_loss(anew, data["test"].labels).item()
            assert measured.loss == pytest.approx(expected_loss, rel=max(tolerance, 1e-6))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "settings", [SGD(name="sgd"), SGD(name="sgd", momentum=0.8, weight_decay=0.01, nesterov=True)]
)
def test_tiny_network_equals_the_usual_way(name: str, settings: SGD) -> None:
    check_against_the_usual_way(tiny(), METHODS[name], splits(), settings, 1e-9)


@pytest.mark.slow
def test_resnet50_equals_the_usual_way() -> None:
    """By the plan that asks most: captures, a restart from the average, momentum forgotten."""
    # Blocks that begin as the identity: through fifty random layers rounding would grow too far.
    network = quarter_resnet50(zero_init_residual=True).double()
    data = splits(images=8, shape=(3, 40, 40), held_out=(2, 3))
    gentle = Constant(schedule="constant", learning_rate=1e-3)
    method = METHODS["pswa"].model_copy(update={"rate": gentle})
    check_against_the_usual_way(network, method, data, SGD(name="sgd"), 1e-7, batch=5)


@pytest.mark.parametrize(
    "settings",
    [Adam(name="adam", weight_decay=0.01), Adam(name="adam", beta1=0.7, beta2=0.95)],
)
def test_adam_equals_torchs(settings: Adam) -> None:
    network, data = tiny(), splits()
    (outcome,) = run(learner_of(network, data, settings), [METHODS["sgd"]], data)
    optimizer = torch.optim.Adam(
        network.parameters(),
        lr=0.05,
        betas=(settings.beta1, settings.beta2),
        weight_decay=settings.weight_decay,
    )
    network.train()
    for epoch in batches(IMAGES):
        for rows in epoch:
            optimizer.zero_grad()
            F.cross_entropy(
                network(data["train"].inputs[rows]), data["train"].labels[rows]
            ).backward()
            optimizer.step()
    torch.testing.assert_close(outcome.weights["iterate"], flatten(network)[0])


class Momentum(SGD):
    """Settings of a made-up optimizer; that it is like SGD must not make it SGD."""

    name: Literal["momentum"]  # type: ignore[assignment]


class Lion(Settings):
    """Settings of another."""

    name: Literal["lion"]


@pytest.mark.parametrize("settings", [Momentum(name="momentum"), Lion(name="lion")])
def test_an_optimizer_without_an_implementation_is_an_error_that_names_it(
    settings: Settings,
) -> None:
    optimizer, data = cast(SGD, settings), splits(shape=(9,))
    named = (
        f"optimizer: '{settings.name}' is not implemented; "  # type: ignore[attr-defined]
        "choose from 'sgd', 'adam', 'schedule-free-sgd', 'lookahead'"
    )
    with pytest.raises(InputError, match=named):
        learner_of(nn.Linear(9, CLASSES).double(), data, optimizer)
    with pytest.raises(InputError, match=named):
        StackedHeads(data, initial_head(9, CLASSES, 0).double()[None], optimizer, CLASSES)


@pytest.mark.parametrize("name", METHODS)
def test_a_head_as_a_network_equals_the_stacked_heads(name: str) -> None:
    data = splits(shape=(9,))
    method, settings = METHODS[name], SGD(name="sgd", weight_decay=0.01)
    start = initial_head(9, CLASSES, 0).double()
    layer = nn.Linear(9, CLASSES).double()
    assign(layer, start, torch.empty(0))
    (network,) = run(learner_of(layer, data, settings), [method], data)
    (stacked,) = run(StackedHeads(data, start.unsqueeze(0), settings, CLASSES), [method], data)
    for predictor, weights in stacked.weights.items():
        torch.testing.assert_close(network.weights[predictor], weights)
    for key, values in stacked.log_probabilities.items():
        torch.testing.assert_close(network.log_probabilities[key], values)
    assert network.statistics["iterate"].shape == (0,)


# --- BatchNorm -----------------------------------------------------------------------------


def sorted_by_size(data: Split, batch: int) -> list[Tensor]:
    return list(torch.arange(len(data)).split(batch))


@pytest.mark.parametrize("batch", [10, 19, 12, IMAGES])  # 10 and 12 leave ragged last ones
def test_statistics_are_those_of_all_images_in_float64(batch: int) -> None:
    network, train_split = tiny(), splits()["train"]
    expected = copy.deepcopy(network)
    rows = sorted_by_size(train_split, batch)
    exact_batchnorm(expected, train_split.inputs, rows)
    with reestimated_statistics(network):
        for some in rows:
            network(train_split.inputs[some])
    torch.testing.assert_close(flatten(network)[1], flatten(expected)[1], rtol=1e-12, atol=1e-12)


def test_float32_statistics_are_exact_to_float32() -> None:
    network, train_split = tiny().float(), splits()["train"]
    # Means far from zero are where sums of squares lose their digits.
    inputs = (train_split.inputs + 1000).float()
    expected = copy.deepcopy(network)
    rows = sorted_by_size(train_split, 12)
    exact_batchnorm(expected, inputs, rows)
    with reestimated_statistics(network):
        for some in rows:
            network(inputs[some])
    first = slice(0, 8)  # mean and variance of the first layer's four channels
    torch.testing.assert_close(
        flatten(network)[1][first], flatten(expected)[1][first], rtol=1e-5, atol=0
    )


def test_with_all_images_in_one_batch_statistics_are_those_of_evaluation_mode() -> None:
    network, inputs = tiny(), splits()["train"].inputs
    with reestimated_statistics(network):
        network(inputs)
    reached: dict[nn.Module, Tensor] = {}
    for layer in batchnorm_layers(network).values():
        layer.register_forward_pre_hook(lambda m, args: reached.update({m: args[0]}))
    network(inputs)
    for module, values in reached.items():
        variance, mean = torch.var_mean(values, dim=(0, 2, 3))
        # While training torch normalises by the biased variance, and keeps the unbiased one.
        rtol = 2 / (values.numel() / values.shape[1])
        for kind, expected in (("running_mean", mean), ("running_var", variance)):
            found = module.get_buffer(kind)
            torch.testing.assert_close(found, expected, rtol=rtol, atol=1e-3)


def test_short_batches_do_not_weigh_as_full_ones() -> None:
    """What torch's update_bn does differs visibly here, so the tests above can fail."""
    network, inputs = tiny(), splits()["train"].inputs
    exact, usual = copy.deepcopy(network), copy.deepcopy(network)
    exact_batchnorm(exact, inputs, list(torch.arange(IMAGES).split(12)))
    torch.optim.swa_utils.update_bn(list(inputs.split(12)), usual)
    assert not torch.allclose(flatten(exact)[1], flatten(usual)[1], rtol=1e-3)


def test_reestimation_leaves_the_layers_as_they_were() -> None:
    network = tiny()
    with reestimated_statistics(network):
        network(splits()["train"].inputs)
    assert not network.training
    for layer in batchnorm_layers(network).values():
        assert layer.momentum == 0.1
        assert not layer.training
        assert not layer._forward_hooks


def test_statistics_are_measured_in_mixed_batches_of_nearly_equal_size() -> None:
    """A last batch of one image would have no variance, and images may lie sorted by class."""
    for images, most in ((38, 10), (41, 10), (11, 10), (10, 10), (7, 10), (1001, 1000), (9, 2)):
        found = mixed_batches(images, most)
        sizes = [len(rows) for rows in found]
        assert len(found) == -(-images // most)
        assert max(sizes) <= most
        assert max(sizes) - min(sizes) <= 1
        assert sorted(torch.cat(found).tolist()) == list(range(images))
        assert all(map(torch.equal, found, mixed_batches(images, most)))
    first = mixed_batches(1000, 500)[0]
    assert 200 < (first < 500).sum() < 300


def test_what_is_no_number_does_not_stay_in_the_statistics_and_nothing_is_differentiated() -> None:
    network, inputs = tiny(), splits()["train"].inputs
    fresh = copy.deepcopy(network)
    for layer in batchnorm_layers(network).values():
        layer.get_buffer("running_mean").fill_(torch.nan)
        layer.get_buffer("running_var").fill_(torch.inf)
    for each in (network, fresh):
        with reestimated_statistics(each):
            assert not each(inputs).requires_grad
    assert torch.equal(flatten(network)[1], flatten(fresh)[1])


def test_layers_are_as_they_were_even_where_a_pass_fails() -> None:
    network = tiny()
    with pytest.raises(RuntimeError), reestimated_statistics(network):
        network(torch.zeros(2, 5, 8, 8).double())
    for layer in batchnorm_layers(network).values():
        assert (layer.momentum, layer.training, len(layer._forward_hooks)) == (0.1, False, 0)


def test_without_reestimation_the_average_is_wrong() -> None:
    data, network = splits(images=200), tiny()
    learner = learner_of(network, data)
    (outcome,) = run(learner, [METHODS["swa"]], data, epochs=4)
    average, stale = tiny(), tiny()
    assign(average, outcome.weights["average"], outcome.statistics["average"])
    # What one gets who drops the step: the statistics that the average started with.
    assign(stale, outcome.weights["average"], flatten(network)[1])
    recorded = outcome.log_probabilities["average", "test"]
    test = data["test"].inputs
    torch.testing.assert_close(score(average.eval(), test), recorded)
    assert (score(stale.eval(), test) - recorded).abs().mean() > 0.1


def test_statistics_see_training_images_alone() -> None:
    data = splits()
    other = {**data, "validation": splits(images=50)["train"], "test": splits(images=60)["train"]}
    average = flatten(tiny(1))[0].unsqueeze(0)
    first, second = (learner_of(tiny(), each).predict([], average)[1] for each in (data, other))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_scoring_an_average_leaves_the_iterate_alone() -> None:
    data = splits()
    learner = learner_of(tiny(), data)
    before = learner.weights(), learner.predict(["test"], running=True)
    average = flatten(tiny(1))[0].unsqueeze(0)
    assert not torch.allclose(learner.predict(["test"], average)[0][0], before[1][0][0])
    after = learner.weights(), learner.predict(["test"], running=True)
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.mark.parametrize("batchnorm_steps", [None, 0, 1])
def test_what_is_scored_right_after_a_step_is_scored_in_evaluation_mode(
    batchnorm_steps: int | None,
) -> None:
    data = splits()
    network = nn.Sequential(*tiny(), nn.Dropout(0.5)).double()
    learner = learner_of(network, data, batchnorm_steps=batchnorm_steps)
    learner.step(torch.arange(BATCH), torch.tensor([0.1], dtype=torch.float64))
    (found,), statistics = learner.predict(["test"], running=True)
    assign(network, learner.weights()[0], statistics[0])
    with torch.no_grad():
        expected = network.eval()(data["test"].inputs)
    torch.testing.assert_close(found[0], expected)
    assert torch.equal(learner.predict([], running=True)[1], statistics)


def test_no_more_images_than_asked_for_are_evaluated_at_a_time() -> None:
    sizes: list[int] = []

    class Size(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            sizes.append(len(inputs))
            return inputs

    network = nn.Sequential(Size(), *tiny()).double()
    learner_of(network, splits()).predict(["validation", "test"])
    assert max(sizes) <= EVALUATION_BATCH
    assert sum(sizes) == IMAGES + 11 + 13


def test_a_network_trains_whatever_format_lies_below_and_though_it_came_frozen() -> None:
    class Rough(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs.bfloat16()

    data = splits(dtype=torch.float32)
    network = tiny().float().requires_grad_(False)
    start, statistics = flatten(network)
    learner = NetworkLearner(
        network, data, start, statistics, SGD(name="sgd"), frozen=Rough(), precision="bfloat16"
    )
    learner.step(torch.arange(BATCH), torch.tensor([0.1]))
    assert not torch.equal(learner.weights()[0], start)
    # The loss is of scores in full, though layers compute in half.
    scores = learner._scores_in_training(data["test"].inputs)
    assert scores.dtype == learner.predict(["test"])[0][0].dtype == torch.float32


def test_a_restart_forgets_momentum_and_measures_statistics_anew() -> None:
    data = splits()
    learner = learner_of(tiny(), data)
    rows, rate = torch.arange(BATCH), torch.tensor([0.1], dtype=torch.float64)
    learner.step(rows, rate)
    average = flatten(tiny(1))[0]
    learner.restart(0, average)
    running, anew = (learner.predict([], running=each)[1] for each in (True, False))
    torch.testing.assert_close(running, anew)
    learner.step(rows, rate)
    fresh = learner_of(tiny(1), data)
    fresh.step(rows, rate)
    torch.testing.assert_close(learner.weights(), fresh.weights())


def test_frozen_statistics_stay_and_serve_the_average_too() -> None:
    data = splits()
    network = tiny()
    network(data["train"].inputs)  # statistics that are not 0 and 1
    learner = learner_of(network, data, batchnorm_steps=0)
    (outcome,) = run(learner, [METHODS["pswa"]], data)
    for statistics in outcome.statistics.values():
        torch.testing.assert_close(statistics, flatten(network)[1], rtol=0, atol=0)
    # A network whose BatchNorm is in evaluation mode is trained the usual way.
    network.eval()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for epoch in batches(IMAGES):
        for rows in epoch:
            optimizer.zero_grad()
            inputs, labels = data["train"].inputs[rows], data["train"].labels[rows]
            F.cross_entropy(network(inputs), labels).backward()
            optimizer.step()
    (plain,) = run(
        learner_of(tiny_like(network, outcome, data), data, batchnorm_steps=0),
        [METHODS["sgd"]],
        data,
    )
    torch.testing.assert_close(plain.weights["iterate"], flatten(network)[0])


def tiny_like(trained: nn.Module, outcome: Outcome, data: dict[SplitName, Split]) -> nn.Module:
    """The network that `trained` was before: the same seed, the same statistics."""
    fresh = tiny()
    assign(fresh, flatten(fresh)[0], flatten(trained)[1])
    return fresh


def test_batchnorm_can_train_for_the_first_epoch_alone() -> None:
    data, steps = splits(), -(-IMAGES // BATCH)
    one = learner_of(tiny(), data)
    run(one, [METHODS["sgd"]], data, epochs=1)
    both = learner_of(tiny(), data, batchnorm_steps=steps)
    (outcome,) = run(both, [METHODS["swa"]], data, epochs=3)
    running = one.predict([], running=True)[1][0]
    torch.testing.assert_close(outcome.statistics["iterate"], running)
    torch.testing.assert_close(outcome.statistics["average"], running)
    assert all(m.batchnorm is None for m in outcome.history)


# --- number formats, layouts, devices ------------------------------------------------------


def test_bfloat16_keeps_weights_and_averages_in_float32() -> None:
    data = splits(dtype=torch.float32)
    exact = run(learner_of(tiny().float(), data), [METHODS["swa"]], data)[0]
    rough = run(learner_of(tiny().float(), data, precision="bfloat16"), [METHODS["swa"]], data)[0]
    assert rough.weights["average"].dtype == torch.float32
    difference = (rough.weights["average"] - exact.weights["average"]).abs().max()
    assert 0 < difference < 0.05


def test_no_map_lies_channels_last_where_batchnorm_would_fail_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on MPS, tried out on the CPU: the maps lie otherwise, the results are the same."""
    data = splits(shape=(3, 8, 8))
    whole = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 1, 3),
        nn.BatchNorm2d(1),
        tiny(),
    ).double()
    narrow_convolutions(whole)
    rows, rates = torch.arange(BATCH), torch.tensor([0.1], dtype=torch.float64)
    found, layouts = [], []
    for devices in (set[str](), {"cpu"}):
        monkeypatch.setattr(convolution, "CHANNELS_FIRST", devices)
        network = copy.deepcopy(whole)
        layouts.append(_layouts_at_batchnorm(network))
        learner = NetworkLearner(network, data, *flatten(whole), SGD(name="sgd"))
        learner.step(rows, rates)
        found.append(learner.weights())
    assert layouts == [{"channels last"}, {"channels first"}]
    torch.testing.assert_close(found[1], found[0])


def _layouts_at_batchnorm(network: nn.Module) -> set[str]:
    """How maps of several channels lie at the BatchNorm layers; filled as the network runs."""
    found: set[str] = set()

    def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].shape[1] == 1:  # lies in both ways
            return
        last = inputs[0].is_contiguous(memory_format=torch.channels_last)
        found.add("channels last" if last else "channels first")

    for layer in batchnorm_layers(network).values():
        layer.register_forward_pre_hook(look)
    return found


class Witness(nn.Module):
    """Notes in which arithmetic it was run, and whether in training."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[str, bool]] = set()

    def forward(self, inputs: Tensor) -> Tensor:
        mode = "training" if self.training else "evaluation"
        rough = {torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32}
        self.seen |= {(mode, each) for each in rough}
        return inputs


def test_only_what_trains_computes_in_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen layers give what the cache would hold; scores do not depend on who trained."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(allow_tf32=True))
    data, above, below = splits(), Witness(), Witness()
    network = nn.Sequential(above, tiny())
    learner = NetworkLearner(network, data, *flatten(network), SGD(name="sgd"), frozen=below)
    run(learner, [METHODS["swa"]], data)
    assert above.seen == {("training", True), ("evaluation", False)}
    assert below.seen == {("evaluation", False)}
    assert torch.backends.cudnn.allow_tf32


def test_heads_are_scored_in_full_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(allow_tf32=True))
    seen: list[bool] = []
    monkeypatch.setattr(
        heads, "stacked_logits", lambda *_: seen.append(torch.backends.cuda.matmul.allow_tf32)
    )
    start = initial_head(9, CLASSES, 0).double()[None]
    StackedHeads(splits(shape=(9,)), start, SGD(name="sgd"), CLASSES).predict(["test"])
    assert seen == [False]


def test_vectors_hold_what_the_network_holds() -> None:
    network = tiny()
    network(splits()["train"].inputs)
    weights, statistics = flatten(network)
    other = tiny(1)
    assign(other, weights, statistics)
    for name, value in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(other.state_dict()[name], value, rtol=0, atol=0)
    with pytest.raises(ValueError, match="parameters is wanted"):
        assign(other, weights[:-1], statistics)
    with pytest.raises(ValueError, match="statistics is wanted"):
        assign(other, weights, statistics[:-1])


def test_vectors_are_in_the_order_in_which_records_hold_them() -> None:
    """Layer by layer; of BatchNorm's statistics the means first, of kernels the channels last."""
    network = nn.Sequential(
        nn.Conv2d(2, 1, (1, 3), bias=False),
        nn.BatchNorm2d(1),
        nn.BatchNorm2d(1, track_running_stats=False),
        nn.BatchNorm2d(1, affine=False),
    )
    network[0].weight.data = torch.arange(6.0).view(1, 2, 1, 3)
    for number, layer in batchnorm_layers(network).items():
        layer.get_buffer("running_mean").fill_(int(number))
        layer.get_buffer("running_var").fill_(10 * int(number))
    weights, statistics = flatten(network)
    assert weights.tolist() == [0, 3, 1, 4, 2, 5, 1, 0, 1, 0]
    assert statistics.tolist() == [1, 10, 3, 30]
    assert [values.tolist() for values in flatten(nn.BatchNorm1d(2))] == [
        [1, 1, 0, 0],
        [0, 0, 1, 1],
    ]


def test_what_trains_higher_up_is_the_tail_of_what_trains_lower_down() -> None:
    network = load_backbone(BackboneSettings())
    standardize = Standardize.identity()
    vectors = {}
    for boundary in BOUNDARIES:
        part = trained_part(network, boundary, standardize, 10)
        torch.manual_seed(0)
        nn.Linear.reset_parameters(cast(nn.Linear, part.get_submodule("fc")))
        vectors[boundary] = flatten(part)
    for k in (0, 1):
        head, layer4, whole = (vectors[name][k] for name in ("head", "layer4", "all"))
        assert torch.equal(whole[len(whole) - len(layer4) :], layer4)
        assert torch.equal(layer4[len(layer4) - len(head) :], head)
    assert sum(map(len, vectors["all"])) == sum(map(len, flatten(resnet50(num_classes=10))))


@pytest.mark.parametrize(
    ("device", "dtype", "fuses"),
    [
        ("cpu", torch.float64, True),
        ("cpu", torch.float32, True),
        ("meta", torch.float32, True),  # stands for a GPU
        ("meta", torch.float64, False),
    ],
)
def test_float64_weights_on_a_gpu_are_not_updated_by_fused_kernels(
    device: str, dtype: torch.dtype, fuses: bool
) -> None:
    """Those read the rate as float32, and take it for another number."""
    assert fuses_steps(torch.zeros(3, dtype=dtype, device=device)) is fuses


@pytest.mark.parametrize("settings", [SGD(name="sgd"), Adam(name="adam")])
def test_a_step_that_is_not_fused_is_the_same_step(
    settings: SGD | Adam, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, found = splits(), []
    for fuses in (True, False):
        for module in (sgd, adam):
            monkeypatch.setattr(module, "fuses", lambda weights, fuses=fuses: fuses)
        learner = learner_of(tiny(), data, settings)
        assert learner._optimizer.param_groups[0]["fused"] is fuses
        (outcome,) = run(learner, [METHODS["sgd"]], data)
        # A fused step takes the rate where it lies: a number would make a GPU wait.
        assert torch.is_tensor(learner._optimizer.param_groups[0]["lr"]) is fuses
        found.append(outcome.weights["iterate"])
    torch.testing.assert_close(found[1], found[0])


def test_no_two_cuda_graphs_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph keeps the memory of a whole pass; a second is made when BatchNorm is frozen."""
    learner = learner_of(tiny(), splits(), batchnorm_steps=1)
    held: list[object] = []

    class Graph:
        def __init__(self, function: Callable[[Tensor], None], example: Tensor) -> None:
            held.append(learner._graph)
            self._function = function

        def __call__(self, argument: Tensor) -> None:
            self._function(argument)

    monkeypatch.setattr(networks, "CudaGraph", Graph)
    learner._replay_backward(torch.arange(BATCH), True)
    learner._replay_backward(torch.arange(BATCH), False)
    assert held == [None, None]


def test_a_run_that_goes_on_at_an_epochs_ragged_end_makes_its_graph_of_a_whole_minibatch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else all whole ones would run without it, and what runs by it rounds otherwise on a GPU."""
    made: list[int] = []

    class Graph:
        def __init__(self, function: Callable[[Tensor], None], example: Tensor) -> None:
            made.append(len(example))

        def __call__(self, argument: Tensor) -> None:
            assert len(argument) == BATCH

    monkeypatch.setattr(networks, "CudaGraph", Graph)
    network = tiny()
    learner = NetworkLearner(network, splits(), *flatten(network), SGD(name="sgd"), minibatch=BATCH)
    for rows in (2, BATCH, BATCH, 2):
        learner._replay_backward(torch.arange(rows), True)
    assert made == [BATCH]


def test_a_graph_serves_minibatches_of_the_size_it_was_made_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its argument has a fixed shape; the ragged last minibatch is run as it is."""
    made: list[int] = []
    replayed: list[int] = []

    class Graph:
        def __init__(self, function: Callable[[Tensor], None], example: Tensor) -> None:
            for _ in range(3):  # warm-ups, which change the statistics
                function(example)
            made.append(len(example))
            self._function = function

        def __call__(self, argument: Tensor) -> None:
            replayed.append(len(argument))
            self._function(argument)

    monkeypatch.setattr(networks, "CudaGraph", Graph)
    data = splits()
    rates = torch.tensor([0.05], dtype=torch.float64)
    for batchnorm_steps, graphs in ((None, 1), (0, 1), (4, 2)):
        made.clear()
        replayed.clear()
        plain, replays = (
            learner_of(tiny(), data, batchnorm_steps=batchnorm_steps) for _ in range(2)
        )
        replays._replays = True
        for learner in (plain, replays):
            for rows in [rows for epoch in batches(IMAGES) for rows in epoch]:
                learner.step(rows, rates)
        assert made == [BATCH] * graphs
        assert replayed == [BATCH] * (IMAGES // BATCH * EPOCHS)
        assert torch.equal(replays.weights(), plain.weights())
        assert torch.equal(replays._statistics, plain._statistics)


def test_what_a_learner_is_given_and_what_it_gives_are_copies() -> None:
    """Else runs from one start would move each other's, and a capture would follow the iterate."""
    data, network = splits(), tiny()
    start, statistics = flatten(network)
    kept = start.clone(), statistics.clone()
    learner = NetworkLearner(network, data, start, statistics, SGD(name="sgd"))
    before = learner.weights()
    _, measured = learner.predict([], running=True)
    learner.step(torch.arange(BATCH), torch.tensor([0.1], dtype=torch.float64))
    assert torch.equal(start, kept[0])
    assert torch.equal(statistics, kept[1])
    assert torch.equal(before[0], start)
    assert torch.equal(measured[0], statistics)
    assert not torch.equal(learner.weights(), before)
    assert not torch.equal(learner.predict([], running=True)[1], measured)
    heads = StackedHeads(
        splits(shape=(9,)), shared := initial_head(9, CLASSES, 0).double()[None],
        SGD(name="sgd"), CLASSES,
    )  # fmt: skip
    before = heads.weights()
    heads.step(torch.arange(BATCH), torch.tensor([0.1], dtype=torch.float64))
    assert torch.equal(shared[0], initial_head(9, CLASSES, 0).double())
    assert torch.equal(before, shared)


def test_a_capture_that_fails_is_told_once_and_training_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = splits()
    told: list[str] = []
    rates = torch.tensor([0.05], dtype=torch.float64)

    class Fails:
        def __init__(self, function: Callable[[Tensor], None], example: Tensor) -> None:
            function(example)  # a warm-up changes the statistics
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(networks, "CudaGraph", Fails)
    plain, failing = learner_of(tiny(), data), learner_of(tiny(), data)
    failing._replays, failing._say = True, told.append
    for learner in (plain, failing):
        for rows in batches(IMAGES, epochs=1)[0]:
            learner.step(rows, rates)
    assert told == [
        "training goes on without a CUDA graph, which takes longer: "
        "operation not permitted when stream is capturing"
    ]
    assert torch.equal(failing.weights(), plain.weights())
    assert torch.equal(failing._statistics, plain._statistics)

    class Full(Fails):
        def __init__(self, *_: object) -> None:
            raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(networks, "CudaGraph", Full)
    failing._replays = True
    with pytest.raises(RuntimeError, match="out of memory"):
        failing.step(torch.arange(BATCH), rates)


@pytest.mark.parametrize("settings", [SGD(name="sgd"), Adam(name="adam")])
def test_weights_rounded_in_one_go_are_those_that_autocast_rounds(settings: SGD | Adam) -> None:
    data = splits(dtype=torch.float32)
    in_one_go, by_autocast = (
        learner_of(tiny().float(), data, settings, precision="bfloat16") for _ in range(2)
    )
    by_autocast._trained, by_autocast._rounded = by_autocast._network, None
    by_autocast._parameters = list(by_autocast._network.parameters())
    found = [run(each, [METHODS["pswa"]], data)[0] for each in (in_one_go, by_autocast)]
    for predictor in found[0].weights:
        assert torch.equal(found[0].weights[predictor], found[1].weights[predictor])
        assert torch.equal(found[0].statistics[predictor], found[1].statistics[predictor])
    full = run(learner_of(tiny().float(), data, settings), [METHODS["pswa"]], data)[0]
    assert not torch.equal(full.weights["average"], found[0].weights["average"])


def test_what_is_measured_and_the_final_layer_are_in_full_float32() -> None:
    """Where bfloat16 trains."""
    seen: list[tuple[bool, torch.dtype]] = []

    class Witness(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            seen.append((torch.is_autocast_enabled("cpu"), inputs.dtype))
            return inputs

    data = splits(dtype=torch.float32)
    layers = [*tiny().float()]
    final = FinalLayer(6, CLASSES)
    network = nn.Sequential(*layers[:-1], Witness(), final)
    learner = learner_of(network, data, precision="bfloat16")
    learner.step(torch.arange(BATCH), torch.tensor([0.05]))
    ((autocast, _),) = seen
    assert autocast
    seen.clear()
    learner.predict(["test"])
    assert {autocast for autocast, _ in seen} == {False}
    with torch.autocast("cpu", torch.bfloat16):
        assert final(torch.ones(2, 6, dtype=torch.bfloat16)).dtype == torch.float32


def test_a_restart_leaves_nothing_of_adam() -> None:
    data, settings = splits(), Adam(name="adam")
    rows, rates = torch.arange(BATCH), torch.tensor([0.05], dtype=torch.float64)
    used = learner_of(tiny(), data, settings)
    for _ in range(3):
        used.step(rows, rates)
    fresh = learner_of(tiny(seed=1), data, settings)
    used.restart(0, fresh.weights()[0])
    for learner in (used, fresh):
        learner.step(rows, rates)
    torch.testing.assert_close(used.weights(), fresh.weights())


# --- whole studies on ResNet-50, few images ------------------------------------------------

TRAIN, HELD_OUT, TEST = 26, 10, 12


@pytest.fixture(scope="module")
def own_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for part, count in (("train", TRAIN + HELD_OUT), ("t10k", TEST)):
        labels = (np.arange(count) % 2).astype(np.uint8)
        pixels = generator.integers(0, 128, (count, 28, 28)) + 100 * labels[:, None, None]
        (folder / f"{part}-images-idx3-ubyte").write_bytes(encode_idx(pixels.astype(np.uint8)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(encode_idx(labels))
    return folder


def study_of(
    images: Path,
    pretrain: str = "head",
    finetune: str = "layer4",
    cache_features: bool = True,
    standardize: bool = True,
    **stage: object,
) -> Study:
    batchnorm = {"batchnorm": "frozen"} if pretrain == "head" != finetune else {}
    return Study.model_validate(
        {
            "name": "few",
            "title": "few images",
            "data": {"dataset": "folder", "folder": images, "validation_images": HELD_OUT},
            "backbone": {"cache_features": cache_features, "standardize_features": standardize},
            "pretrain": {
                "trainable": pretrain,
                "optimizer": {"name": "adam"},
                "rate": {"schedule": "constant", "learning_rate": 1e-3},
                "epochs": 1,
                "batch_size": 8,
            },
            "finetune": {
                "trainable": finetune,
                "optimizer": {"name": "sgd"},
                "epochs": 1,
                "batch_size": 10,
                **batchnorm,
                **stage,
            },
            "methods": {
                "swa": {
                    "title": "SWA",
                    "rate": {"schedule": "constant", "learning_rate": 1e-5},
                    "averaging": {},
                },
                "sgd": {"title": "SGD", "rate": {"schedule": "constant", "learning_rate": 1e-5}},
            },
            "seeds": 1,
        }
    )


def carry_out(study: Study, folder: Path, methods: tuple[str, ...] = ("swa",)) -> Experiment:
    experiment = Experiment(
        study, folder / "results", torch.device("cpu"), folder / "cache", SilentProgress()
    )
    experiment.finetune(list(methods), [0])
    return experiment


CarriedOut = Callable[[Boundary, Boundary], Experiment]


@pytest.fixture(scope="module")
def carried_out(own_images: Path, tmp_path_factory: pytest.TempPathFactory) -> CarriedOut:
    """A study of two boundaries, carried out once for all tests that look at it."""

    @cache
    def once(pretrain: Boundary, finetune: Boundary) -> Experiment:
        study = study_of(own_images, pretrain, finetune, standardize=pretrain == "head")
        return carry_out(study, tmp_path_factory.mktemp(f"{pretrain}-{finetune}"))

    return once


def record_of(experiment: Experiment, method: str = "swa") -> Record:
    record = experiment.store.find(method, 0)
    assert record is not None
    return record


def check_that_caching_changes_nothing(
    below: nn.Module,
    above: nn.Module,
    images: dict[SplitName, Split],
    method: Method,
    batchnorm_steps: int | None,
    tolerance: float,
) -> None:
    """Training `above` on what `below` once made of the images, and on the images through it."""
    with torch.no_grad():
        maps = {name: Split(below(split.inputs), split.labels) for name, split in images.items()}
    found = []
    for data, frozen in ((maps, None), (images, below)):
        learner = NetworkLearner(
            copy.deepcopy(above),
            data,
            *flatten(above),
            SGD(name="sgd"),
            frozen=frozen,
            batchnorm_steps=batchnorm_steps,
        )
        found.append(run(learner, [method], data, batch=5)[0])
    cached, whole = found
    check = partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance)
    moved = cached.weights["iterate"] - flatten(above)[0]
    assert moved.abs().max() > 10 * tolerance
    for predictor, values in cached.weights.items():
        check(whole.weights[predictor], values)
        check(whole.statistics[predictor], cached.statistics[predictor])
    for key, values in cached.log_probabilities.items():
        check(whole.log_probabilities[key], values)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("batchnorm_steps", [0, 4, None])
def test_upper_layers_on_cached_features_equal_the_whole_network_each_step(
    name: str, batchnorm_steps: int | None
) -> None:
    data, layers = splits(images=13), tiny()
    layers(data["train"].inputs)  # frozen statistics that are not 0 and 1
    below, above = layers[:3].eval(), layers[3:]
    check_that_caching_changes_nothing(below, above, data, METHODS[name], batchnorm_steps, 1e-9)


@pytest.mark.slow
def test_layer4_on_cached_features_equals_the_whole_network_each_step() -> None:
    """In float64: in float32 the two differ by the rounding of batches of different sizes."""
    standardize = Standardize.identity()
    above = trained_part(quarter_resnet50(), "layer4", standardize, CLASSES).double()
    below = nn.Sequential(
        Preprocess(40, ((0.1,), (0.3,))), *frozen_part(quarter_resnet50(), "layer4")
    ).double()
    generator = torch.Generator().manual_seed(0)
    images: dict[SplitName, Split] = {
        name: Split(
            torch.randint(256, (len(split), 1, 28, 28), generator=generator, dtype=torch.uint8),
            split.labels,
        )
        for name, split in splits(images=8, held_out=(2, 3)).items()
    }
    gentle = Constant(schedule="constant", learning_rate=1e-5)
    method = METHODS["pswa"].model_copy(update={"rate": gentle})
    check_that_caching_changes_nothing(below, above, images, method, None, 1e-7)


@pytest.mark.parametrize("boundary", ["head", "layer4"])
def test_a_study_without_the_cache_runs_the_same_frozen_layers(
    own_images: Path, tmp_path: Path, boundary: Boundary
) -> None:
    cached, whole = (
        Materials(
            study_of(own_images, boundary, boundary, caches, standardize=False),
            torch.device("cpu"),
            tmp_path,
            SilentProgress(),
        )
        for caches in (True, False)
    )
    frozen = whole.frozen_layers(boundary)
    assert cached.frozen_layers(boundary) is None
    assert frozen is not None
    with torch.no_grad():
        found = frozen(whole.splits(boundary)["test"].inputs)
    expected = cached.splits(boundary)["test"].inputs
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.std().item())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pretrain", "finetune"), [("head", "head"), ("head", "layer4"), ("layer4", "all")]
)
def test_exported_weights_predict_the_same_in_a_plain_resnet50(
    own_images: Path, carried_out: CarriedOut, pretrain: Boundary, finetune: Boundary
) -> None:
    experiment = carried_out(pretrain, finetune)
    network = resnet50(num_classes=2)
    network.load_state_dict(experiment.export("swa", 0), strict=True)
    recorded = torch.tensor(record_of(experiment).arrays()["log_probabilities/average/test"])
    images = np.frombuffer((own_images / "t10k-images-idx3-ubyte").read_bytes()[16:], np.uint8)
    inputs = Preprocess(28, experiment.normalization())(
        torch.from_numpy(images.reshape(-1, 1, 28, 28).copy())
    )
    found = score(network.eval(), inputs)
    torch.testing.assert_close(found, recorded, rtol=2e-3, atol=2e-3)


def test_what_pretraining_trained_is_the_tail_of_weights_and_statistics() -> None:
    """Of BatchNorm's statistics, too: where it does not train they are never measured anew."""
    whole = tiny()
    materials = cast(Materials, SimpleNamespace(trained_layers=lambda boundary: whole))
    trained = Start(torch.rand(10).double(), torch.rand(12).double())
    found = complete(trained, "all", materials)
    own = Start(*flatten(whole))
    for name, tail in (("weights", trained.weights), ("statistics", trained.statistics)):
        vector, before = getattr(found, name), getattr(own, name)
        assert vector.tolist() == [*before.tolist()[: -len(tail)], *tail.tolist()], name


@pytest.mark.slow
def test_networks_start_from_what_pretraining_trained(carried_out: CarriedOut) -> None:
    """With a rate of almost nothing, fine-tuning layers ends where pretraining did."""
    experiment = carried_out("head", "layer4")
    pretrained = record_of(experiment, "adam").arrays()["log_probabilities/iterate/test"]
    finetuned = record_of(experiment).arrays()["log_probabilities/average/test"]
    np.testing.assert_allclose(finetuned, pretrained, rtol=0, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("boundary", ["layer4", "all"])
def test_before_its_first_step_a_network_predicts_what_pretraining_did(
    own_images: Path, carried_out: CarriedOut, tmp_path: Path, boundary: Boundary
) -> None:
    pretrained = record_of(carried_out("head", "layer4"), "adam").arrays()
    study = study_of(own_images, "head", boundary)
    materials = Materials(study, torch.device("cpu"), tmp_path, SilentProgress())
    start = complete(Start(torch.tensor(pretrained["weights/iterate"])), boundary, materials)
    learner = make_learner(study, study.finetune, materials, start, 1)
    found = torch.log_softmax(learner.predict(["test"])[0][0][0], dim=-1)
    recorded = torch.tensor(pretrained["log_probabilities/iterate/test"])
    torch.testing.assert_close(found, recorded, rtol=2e-3, atol=2e-3)


def test_out_of_memory_names_what_to_lower(
    own_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(execution, "make_learner", full)
    with pytest.raises(SwabenchError, match=r"pretrain\.batch_size \(8\)"):
        carry_out(study_of(own_images, "head", "head"), tmp_path)


def test_images_that_do_not_fit_a_device_say_what_to_lower(
    own_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(own_images, "all", "all", standardize=False)
    materials = Materials(study, torch.device("cpu"), tmp_path, SilentProgress())

    def full(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Tensor, "to", full)
    with pytest.raises(SwabenchError, match=r"out of memory.*lower data\.training_images"):
        materials.prepare("all")


def test_features_that_would_not_fit_are_refused(
    own_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "physical_memory", lambda: 1000)
    with pytest.raises(InputError, match=r"backbone\.cache_features to false"):
        carry_out(study_of(own_images, "head", "head"), tmp_path)
    assert not list((tmp_path / "cache" / "features").glob("*/"))


def test_a_last_minibatch_of_one_image_is_refused(own_images: Path, tmp_path: Path) -> None:
    study = study_of(own_images, "all", "all", standardize=False)
    alone = study.model_copy(
        update={"pretrain": study.pretrain.model_copy(update={"batch_size": 5})}
    )
    with pytest.raises(InputError, match="of a single image"):
        carry_out(alone, tmp_path)


def test_random_weights_carry_no_head_into_training_batchnorm(own_images: Path) -> None:
    with pytest.raises(ValueError, match=r"pretrain\.trainable"):
        study_of(own_images, "head", "all", batchnorm="train")
    with pytest.raises(ValueError, match=r"backbone\.standardize_features"):
        study_of(own_images, "layer4", "all")
