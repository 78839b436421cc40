"""What only a GPU can show: it computes what a CPU does, the same every time, in flat memory.

Skipped where there is none. `GPU_TESTS_ON=cpu` lays the CPU beside itself, to try these tests out.
"""

import copy
import gc
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck

from swabench.runs import lanes
from swabench.runs.features import extract
from swabench.study.averaging import EqualMean
from swabench.study.inputs import BackboneSettings, Precision, SplitName
from swabench.study.methods import Method
from swabench.study.optimizers import SGD, Adam, Lookahead, Optimizer, ScheduleFreeSGD
from swabench.study.schedules import Cyclical
from swabench.system.device import exact_float32, memory_for, use_repeatable_kernels
from swabench.system.errors import SwabenchError
from swabench.system.progress import SilentProgress
from swabench.training.backbone import Preprocess, frozen_part, load_backbone
from swabench.training.flat import flatten
from swabench.training.heads import StackedHeads, initial_head
from swabench.training.learner import Split
from swabench.training.loop import DataOrder
from swabench.training.network import NetworkLearner
from swabench.training.observers import RunPlan
from tests.networks import MNISTS, resnet50_above
from tests.running import train
from tests.test_cli import TINY, Place
from tests.test_cli import images as images
from tests.test_interruptions import check_same
from tests.test_network import METHODS, learner_of, splits, tiny
from tests.test_network import run as run_methods

CPU, GPU = torch.device("cpu"), torch.device(os.environ.get("GPU_TESTS_ON", "cuda"))
pytestmark = pytest.mark.skipif(
    GPU.type == "cuda" and not torch.cuda.is_available(), reason="needs a GPU"
)
CLASSES, COUNT, BATCH = 10, 72, 32  # 72 = 2 × 32 + a ragged 8
OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": SGD(name="sgd"),
    "nesterov": SGD(name="sgd", nesterov=True, weight_decay=1e-3),
    "adam": Adam(name="adam"),
    "schedule-free-sgd": ScheduleFreeSGD(name="schedule-free-sgd"),
    "lookahead": Lookahead(name="lookahead", steps=3),
}
ROWS = [rows for _ in range(2) for rows in torch.arange(COUNT).split(BATCH)]
"""Two epochs of minibatches."""


@pytest.fixture(autouse=True)
def _repeatable_kernels() -> None:
    use_repeatable_kernels()


def digits(count: int = COUNT, device: torch.device = CPU) -> Split:
    """Bytes with something to learn: a class's images share a brightness."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, count)
    pixels = generator.integers(0, 100, (count, 1, 28, 28)) + 15 * labels[:, None, None, None]
    return Split(
        torch.from_numpy(pixels.astype(np.uint8)).to(device), torch.from_numpy(labels).to(device)
    )


def resnet(
    device: torch.device,
    optimizer: Optimizer | None = None,
    precision: Precision = "float32",
) -> NetworkLearner:
    """All of ResNet-50, learning from bytes."""
    part = resnet50_above("all", CLASSES)
    for block in part.modules():
        if isinstance(block, Bottleneck):  # at its own 1, rounding alone turns the gradient round
            nn.init.constant_(block.bn3.weight, 0.05)
    data: dict[SplitName, Split] = {"train": digits(device=device), "test": digits(24, device)}
    return NetworkLearner(
        part,
        data,
        *flatten(part),
        optimizer or SGD(name="sgd"),
        frozen=Preprocess(28, MNISTS),
        precision=precision,
        evaluation_batch=40,
        minibatch=BATCH,
    )


def on(device: torch.device, data: dict[SplitName, Split]) -> dict[SplitName, Split]:
    return {k: Split(s.inputs.to(device), s.labels.to(device)) for k, s in data.items()}


def take_steps(learner: NetworkLearner | StackedHeads, rate: float, device: torch.device) -> None:
    rates = torch.full((learner.trajectories,), rate, device=device)
    for rows in ROWS:
        learner.step(rows.to(device), rates)


def loss(learner: NetworkLearner) -> float:
    (scores,), _ = learner.predict(["train"])
    return F.cross_entropy(scores[0].cpu(), digits().labels).item()


def apart(found: Tensor, expected: Tensor) -> float:
    """How far a vector is from another, in units of that one's length."""
    return float((found.cpu() - expected).norm() / expected.norm())


# --- the network ----------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 0.1), ("bfloat16", 0.3)])
def test_resnet50s_gradient_is_the_cpus(precision: Precision, tolerance: float) -> None:
    """In TF32, as cuDNN's convolutions are, and in bfloat16; from bytes, by one step of SGD."""
    steps = []
    for device, how in ((CPU, "float32"), (GPU, precision)):
        learner = resnet(device, SGD(name="sgd", momentum=0), how)  # type: ignore[arg-type]
        before = learner.weights().cpu()
        learner.step(torch.arange(BATCH).to(device), torch.tensor([1.0], device=device))
        steps.append(learner.weights().cpu() - before)
    print(f"{precision}: the gradient is {apart(steps[1], steps[0]):.2g} of its length away")
    assert apart(steps[1], steps[0]) < tolerance


def test_resnet50s_gradient_in_full_float32_is_closer_still() -> None:
    steps = []
    for device in (CPU, GPU):
        learner = resnet(device, SGD(name="sgd", momentum=0))
        before = learner.weights().cpu()
        with exact_float32():
            learner.step(torch.arange(BATCH).to(device), torch.tensor([1.0], device=device))
        steps.append(learner.weights().cpu() - before)
    print(f"full float32: the gradient is {apart(steps[1], steps[0]):.2g} of its length away")
    assert apart(steps[1], steps[0]) < 1e-3


@pytest.mark.parametrize(("name", "rate"), [("sgd", 0.02), ("adam", 1e-3)])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_resnet50_learns_alike_and_twice_the_same(
    name: str, rate: float, precision: Precision
) -> None:
    on_cpu = resnet(CPU, OPTIMIZERS[name])
    at_first = loss(on_cpu)
    take_steps(on_cpu, rate, CPU)
    at_last = loss(on_cpu)
    twice, losses = [], []
    for _ in range(2):
        learner = resnet(GPU, OPTIMIZERS[name], precision)
        take_steps(learner, rate, GPU)
        scores, measured = learner.predict(["test"])
        _, running = learner.predict([], running=True)
        twice.append((learner.weights(), *scores, measured, running))
        losses.append(loss(learner))
    print(f"{name}, {precision}: loss {at_first:.3f}, then {at_last:.3f}, {losses[0]:.3f}")
    for one, other in zip(*twice, strict=True):
        assert torch.equal(one, other)
    assert losses[0] < at_first - 0.5 * (at_first - at_last)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_replayed_step_is_the_plain_step(precision: Precision) -> None:
    found = []
    for replays in (True, False):
        learner = resnet(GPU, precision=precision)
        learner._replays = replays and GPU.type == "cuda"
        take_steps(learner, 0.02, GPU)
        assert (learner._graph is not None) == learner._replays
        found.append((learner.weights(), learner.predict([], running=True)[1]))
    print(f"{precision}: replayed from plain: {apart(found[0][0], found[1][0].cpu()):.2g}")
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["sgd", "adam", "schedule-free-sgd", "lookahead"])
def test_a_state_goes_on_bit_for_bit(name: str) -> None:
    rates = torch.tensor([0.01], device=GPU)
    whole, first, second = (resnet(GPU, OPTIMIZERS[name], "bfloat16") for _ in range(3))
    for rows in ROWS:
        whole.step(rows.to(GPU), rates)
    for rows in ROWS[:3]:
        first.step(rows.to(GPU), rates)
    second.load_state(copy.deepcopy(first.state()))
    for rows in ROWS[3:]:
        second.step(rows.to(GPU), rates)
    assert torch.equal(second.weights(), whole.weights())


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("batchnorm_steps", [None, 4])
def test_methods_agree_with_the_cpu(name: str, batchnorm_steps: int | None) -> None:
    """Restarts too; with BatchNorm trained to the end and frozen on the way."""
    data = splits(dtype=torch.float32)
    found = []
    for device in (CPU, GPU):
        there = on(device, data)
        learner = learner_of(tiny().float(), there, batchnorm_steps=batchnorm_steps)
        with exact_float32():
            found.append(run_methods(learner, [METHODS[name]], there)[0])
    for predictor, weights in found[0].weights.items():
        torch.testing.assert_close(found[1].weights[predictor].cpu(), weights, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(
            found[1].statistics[predictor].cpu(),
            found[0].statistics[predictor],
            rtol=1e-3,
            atol=1e-3,
        )


def test_what_cannot_be_captured_is_told_and_trained_plainly() -> None:
    if GPU.type != "cuda":
        pytest.skip("only CUDA captures")

    class Waits(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs + 0 * inputs.sum().item()  # Python waits for a number

    there = on(GPU, splits(dtype=torch.float32))
    told: list[str] = []
    layers = [*tiny().float()]
    network = nn.Sequential(*layers[:3], Waits(), *layers[3:])
    learner, plain = learner_of(network, there), learner_of(network, there)
    learner._say, plain._replays = told.append, False
    for each in (learner, plain):
        for rows in torch.arange(36).split(12):
            each.step(rows.to(GPU), torch.tensor([0.05], device=GPU))
    assert len(told) == 1
    assert told[0].startswith("training goes on without a CUDA graph")
    print(told[0])
    assert torch.equal(learner.weights(), plain.weights())


def test_memory_stays_flat_over_many_learners() -> None:
    if GPU.type != "cuda":
        pytest.skip("CUDA's allocator counts")
    held = []
    for _ in range(5):
        learner = resnet(GPU, precision="bfloat16")
        take_steps(learner, 0.01, GPU)
        learner.predict(["test"])
        del learner
        gc.collect()
        torch.cuda.empty_cache()
        held.append((torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
    print("allocated and reserved, MB:", [tuple(n >> 20 for n in each) for each in held])
    assert held[-1] == held[1]


def test_a_gpus_lack_of_memory_is_told_in_words() -> None:
    with pytest.raises(SwabenchError, match="out of memory for a thing"), memory_for("a thing"):
        torch.empty(1 << 50, device=GPU)
    assert torch.ones(3, device=GPU).sum().item() == 3  # it goes on


# --- heads and features ----------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_heads_are_the_cpus_and_twice_the_same(name: str) -> None:
    """With a restart on the way, as Periodic SWA has."""
    labels = digits().labels
    features = torch.randn(COUNT, 64, generator=torch.Generator().manual_seed(0))
    method = Method(
        title="",
        rate=Cyclical(schedule="cyclical", high=0.05, low=0.01),
        averaging=EqualMean(phases=2 if name in ("sgd", "nesterov", "adam") else 1),
    )
    order = DataOrder(COUNT, BATCH, seed=1, stage=1)
    plans = [RunPlan(method.timeline(4, order.steps_per_epoch), method.averaging)]
    found = []
    for device in (CPU, GPU, GPU):
        split = Split(features.to(device), labels.to(device))
        data: dict[SplitName, Split] = {"train": split, "validation": split, "test": split}
        start = initial_head(64, CLASSES, 0).to(device)[None]
        learner = StackedHeads(data, start, OPTIMIZERS[name], CLASSES)
        (outcome,) = train(learner, plans, data, order, 4)
        found.append({key: value.cpu() for key, value in outcome.weights.items()})
    for predictor, weights in found[0].items():
        torch.testing.assert_close(found[1][predictor], weights, rtol=1e-3, atol=1e-4)
        assert torch.equal(found[1][predictor], found[2][predictor])


@pytest.mark.parametrize("boundary", ["head", "layer4"])
def test_features_are_the_cpus_and_twice_the_same(boundary: str) -> None:
    images = digits().inputs.numpy()
    found = []
    for device in (CPU, GPU, GPU):
        layers = nn.Sequential(
            Preprocess(28, MNISTS),
            *frozen_part(load_backbone(BackboneSettings()), boundary),  # type: ignore[arg-type]
        )
        found.append(extract(images, layers, device, "float32", SilentProgress(), "few", 32))
    print(f"{boundary}: features are {apart(found[1], found[0]):.2g} of their length away")
    assert apart(found[1], found[0]) < 1e-5
    assert torch.equal(found[1], found[2])


# --- whole commands --------------------------------------------------------------------------

STUDY = """
extends: smoke
title: A tiny study of the whole network
data: {{dataset: folder, folder: {folder}, validation_images: 20, selection_images: 10, training_images: null, test_images: null}}
backbone: {{standardize_features: false}}
pretrain: {{trainable: all, epochs: 1, precision: bfloat16}}
finetune: {{trainable: all, batchnorm: train, batch_size: 20, epochs: 3, precision: bfloat16}}
"""  # noqa: E501


def records_of_a_study(folder: Path, images: Path, *options: str) -> Place:
    folder.mkdir()
    place = Place(folder, images, folder.parent / "cache")
    place.study.write_text(STUDY.format(folder=images))
    done = place.run(
        "finetune", "-m", "sgd", "-m", "swa", "-m", "swa-cyclical", "-m", "pswa", *TINY,
        "--seeds", "2", "--device", GPU.type, *options,
    )  # fmt: skip
    assert done.code == 0, done.errors
    return place


def test_trajectories_side_by_side_give_the_records_of_one_after_another(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side_by_side = records_of_a_study(tmp_path / "many", images)
    monkeypatch.setattr(lanes, "MOST", 1)
    check_same(records_of_a_study(tmp_path / "one", images), side_by_side)


def test_where_memory_is_short_fewer_trajectories_go_on_at_a_time(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if GPU.type != "cuda":
        pytest.skip("CUDA's memory is what is short")
    watched = WatchedLanes(monkeypatch)
    plenty = records_of_a_study(tmp_path / "plenty", images)
    lanes_of_plenty, left = watched.most, int(5.5 * watched.footprint)
    watched.most = 0
    gc.collect()
    torch.cuda.empty_cache()
    taken = torch.empty(torch.cuda.mem_get_info()[0] - left, dtype=torch.uint8, device=GPU)
    short = records_of_a_study(tmp_path / "short", images)
    del taken
    print(f"{lanes_of_plenty} at a time; {watched.most} where {left >> 20} MB are left")
    assert 1 < watched.most < lanes_of_plenty
    check_same(short, plenty)


class WatchedLanes:
    """How many lanes were in use at a time, and the most memory (bytes) that one's start took."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most = self.footprint = 0
        enter, note = lanes.Lanes.enter, lanes.Lanes._note_footprint

        def entering(own: lanes.Lanes) -> lanes.Lane:
            lane = enter(own)
            self.most = max(self.most, own._under_way)
            return lane

        def noting(own: lanes.Lanes, taken: int) -> None:
            note(own, taken)
            self.footprint = max(self.footprint, taken)

        monkeypatch.setattr(lanes.Lanes, "enter", entering)
        monkeypatch.setattr(lanes.Lanes, "_note_footprint", noting)


def test_two_processes_on_a_gpu_give_the_records_of_one(tmp_path: Path, images: Path) -> None:
    one = records_of_a_study(tmp_path / "one", images)
    check_same(records_of_a_study(tmp_path / "two", images, "--jobs", "2"), one)
