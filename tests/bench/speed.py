"""How fast the default study is, beside the usual way, in one run: `make bench`.

Prints ratios and the machine's own limit (the rate of a large matrix product), and writes
`results/bench/speed.json` with a manifest. Absolute times are this machine's; ratios travel.
Takes about a quarter of an hour on 2 cores, and wants an idle machine.

    python tests/bench/speed.py [--device cpu] [--output results/bench/speed.json]
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms
from torchvision.datasets import MNIST
from torchvision.models import resnet50

from swabench.data.datasets import load_dataset, user_cache
from swabench.runs.experiment import Experiment
from swabench.runs.features import batch_size, extract
from swabench.study.inputs import BackboneSettings
from swabench.study.loading import load_study
from swabench.study.optimizers import SGD
from swabench.study.study import Study
from swabench.system.device import choose_device
from swabench.system.environment import environment
from swabench.system.progress import SilentProgress
from swabench.training.backbone import Preprocess, frozen_part, load_backbone
from swabench.training.heads import StackedHeads, initial_head
from swabench.training.learner import Split
from tests.networks import MNISTS

FEATURES, CLASSES, BATCH = 2048, 10, 128
TRAINING_IMAGES, SCORED_IMAGES = 55_000, 15_000
FURTHER = {
    "ema": {
        "title": "One more average",
        "rate": {"schedule": "constant", "learning_rate": 0.01},
        "averaging": {"plan": "exponential", "half_life_epochs": 2, "capture_every_epochs": 1},
    }
}
console = Console()


def seconds(work: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Median seconds of some work, after a warm-up, the device waited for."""

    def once() -> float:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    once()
    return float(np.median([once() for _ in range(repeats)]))


def peak_flops(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Operations a second of a large matrix product, by the faster of two libraries.

    On a CPU torch multiplies by MKL, which holds back on processors that are not Intel's, and
    convolves by oneDNN: a 1×1 convolution is the same product.
    """
    size = 4096
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    pixels, kernel = left.view(1, size, size, 1).transpose(1, 2), right.view(size, size, 1, 1)
    pixels, kernel = (x.contiguous(memory_format=torch.channels_last) for x in (pixels, kernel))
    with torch.inference_mode():
        fastest = min(
            seconds(lambda: left @ right, device),
            seconds(lambda: F.conv2d(pixels, kernel), device),
        )
    return 2 * size**3 / fastest


def forward_flops() -> int:
    """Operations of one image's pass through all frozen layers (two a multiply-add)."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        resnet50().eval()(torch.zeros(1, 3, 28, 28))
    return int(counter.get_total_flops())


def extraction_rate(images: NDArray[np.uint8], device: torch.device) -> float:
    """Images a second through the frozen layers, as the feature cache computes them."""
    network = load_backbone(BackboneSettings())
    layers = nn.Sequential(Preprocess(28, MNISTS), *frozen_part(network, "head"))
    silent = SilentProgress()
    some, batch = images[:2048], batch_size(device, 28)
    return len(some) / seconds(
        lambda: extract(some, layers, device, "float32", silent, "bench", batch), device, 3
    )


def stacked_rate(runs: int, device: torch.device, steps: int = 100) -> float:
    """Runs × images a second of `runs` heads in lockstep on cached features."""
    features, labels, batches = _cached(device, steps)
    split = Split(features, labels)
    learner = StackedHeads(
        {"train": split},
        initial_head(FEATURES, CLASSES, 0).to(device).expand(runs, -1),
        SGD(name="sgd"),
        CLASSES,
    )
    rates = torch.full((runs,), 0.01, device=device)

    def work() -> None:
        for rows in batches:
            learner.step(rows, rates)

    return runs * steps * BATCH / seconds(work, device)


def plain_stacked_rate(runs: int, device: torch.device, steps: int = 100) -> float:
    """The same as one would write it: a fresh tensor for every result, scores (B, R, C)."""
    features, labels, batches = _cached(device, steps)
    matrix, bias = (
        initial_head(FEATURES, CLASSES, 0).to(device).split([FEATURES * CLASSES, CLASSES])
    )
    weights = [matrix.view(CLASSES, FEATURES).repeat(runs, 1), bias.repeat(runs)]
    momenta = [torch.zeros_like(weight) for weight in weights]
    rates = torch.full((runs * CLASSES,), 0.01, device=device)

    def work() -> None:
        for rows in batches:
            inputs = features[rows]
            scores = torch.addmm(weights[1], inputs, weights[0].t())
            error = scores.view(BATCH, runs, CLASSES).softmax(-1)
            error[torch.arange(BATCH, device=device), :, labels[rows]] -= 1
            error = error.flatten(1) / BATCH
            for weight, momentum, gradient in zip(
                weights, momenta, (error.t() @ inputs, error.sum(0)), strict=True
            ):
                momentum.mul_(0.9).add_(gradient)
                weight.addcmul_(rates.view(-1, *[1] * (weight.dim() - 1)), momentum, value=-1)

    return runs * steps * BATCH / seconds(work, device)


def single_rate(device: torch.device, steps: int = 100) -> float:
    """Images a second of one head by torch.optim.SGD on the same cached features."""
    features, labels, batches = _cached(device, steps)
    head = nn.Linear(FEATURES, CLASSES, device=device)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9)

    def work() -> None:
        for rows in batches:
            optimizer.zero_grad()
            F.cross_entropy(head(features[rows]), labels[rows]).backward()
            optimizer.step()

    return steps * BATCH / seconds(work, device)


def usual_rate(raw: Path, device: torch.device, batches: int = 40) -> float:
    """Images seen a second by the usual loop: torchvision's data set, DataLoader, frozen forward.

    Trains by torch.optim.SGD, captures by swa_utils, and scores the iterate on as many images as
    a study does in the same proportion of an epoch; the average, which a study scores too, is
    left out.
    """
    transform = transforms.Compose(
        [
            transforms.Grayscale(3),
            transforms.ToTensor(),
            transforms.Normalize(MNISTS[0] * 3, MNISTS[1] * 3),
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "MNIST").mkdir()
        (Path(folder) / "MNIST" / "raw").symlink_to(raw)
        images = MNIST(folder, transform=transform)
    loader = DataLoader(images, BATCH, shuffle=True)
    network = resnet50(num_classes=CLASSES).to(device).eval().requires_grad_(False)
    network.fc.requires_grad_(True)
    optimizer = torch.optim.SGD(network.fc.parameters(), lr=0.01, momentum=0.9)
    averaged = AveragedModel(network)
    scored = round(batches * SCORED_IMAGES / TRAINING_IMAGES)

    def work() -> None:
        for inputs, targets in _first(loader, batches):
            optimizer.zero_grad()
            F.cross_entropy(network(inputs.to(device)), targets.to(device)).backward()
            optimizer.step()
        averaged.update_parameters(network)
        with torch.inference_mode():
            for inputs, _ in _first(loader, scored):
                network(inputs.to(device))

    return batches * BATCH / seconds(work, device, 3)


def study_of(folder: Path, content: dict[str, object]) -> Study:
    """The default study with some of its content replaced."""
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"extends": "mnist", "name": "mnist", **content}))
    return load_study(str(path))


def whole_study(
    device: torch.device, data_cache: Path, content: dict[str, object]
) -> tuple[float, int, float]:
    """Seconds of a study from data to records, features included.

    Returns:
        Seconds; the images that its runs see, each run's counted for itself; and the seconds a
        seed that one more average of its epochs takes afterwards.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = folder / "cache"
        cache.mkdir()
        (cache / "mnist").symlink_to(data_cache / "mnist")
        study = study_of(folder, content)
        experiment = Experiment(study, folder, device, cache, SilentProgress())
        start = time.perf_counter()
        experiment.pretrain(list(study.seeds))
        experiment.finetune(list(study.all_methods), list(study.seeds))
        trained = time.perf_counter() - start

        study = study_of(folder, {**content, "methods": FURTHER})
        experiment = Experiment(study, folder, device, cache, SilentProgress())
        start = time.perf_counter()
        experiment.finetune(list(FURTHER), list(study.seeds))
        further = (time.perf_counter() - start) / len(study.seeds)
    epochs = study.pretrain.epochs + study.finetune.epochs * (len(study.all_methods) - len(FURTHER))
    images = (60_000 - study.data.validation_images) * epochs * len(study.seeds)
    return trained, images, further


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, default=Path("results/bench/speed.json"))
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    dataset = load_dataset("mnist", None, user_cache(), console.print)

    peak, flops = peak_flops(device), forward_flops()
    extraction = extraction_rate(dataset.train_images, device)
    single = single_rate(device)
    stacked = {runs: stacked_rate(runs, device) for runs in (17, 30)}
    plain = {runs: plain_stacked_rate(runs, device) for runs in stacked}
    step_flops = 4 * FEATURES * CLASSES  # of a run and an image: forward, and the gradient
    usual = usual_rate(user_cache() / "mnist", device)
    rows_alone: dict[str, object] = {"rate_sweep": None, "controls": None}
    rows_seconds, rows_images, _ = whole_study(device, user_cache(), rows_alone)
    study_seconds, images_seen, further = whole_study(device, user_cache(), {})
    found = {
        "matrix product, float32, GFLOP/s": peak / 1e9,
        "feature extraction, images/s": extraction,
        "feature extraction, share of the matrix product's rate": extraction * flops / peak,
        "one head on cached features, images/s": single,
        "30 stacked heads over one at a time": stacked[30] / single,
        **{f"{runs} stacked heads, runs × images/s": rate for runs, rate in stacked.items()},
        **{
            f"{runs} stacked heads, share of the matrix product's rate": rate * step_flops / peak
            for runs, rate in stacked.items()
        },
        **{
            f"{runs} stacked heads over fresh tensors at every step": rate / plain[runs]
            for runs, rate in stacked.items()
        },
        "usual loop, images/s": usual,
        "six rows, s": rows_seconds,
        "six rows over the usual loop, per image seen": rows_images / rows_seconds / usual,
        "whole default study, s": study_seconds,
        "whole default study, images seen/s": images_seen / study_seconds,
        "whole default study over the usual loop, per image seen": images_seen
        / study_seconds
        / usual,
        "one more average on a finished study, s a seed": further,
    }
    table = Table("measured", "value", title=f"swabench on {device.type}")
    for name, value in found.items():
        table.add_row(name, f"{value:,.3g}" if value < 100 else f"{value:,.0f}")
    console.print(table)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    content = {"measured": found, "environment": environment(device)}
    arguments.output.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _cached(device: torch.device, steps: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    features = torch.randn(20_000, FEATURES, device=device)
    labels = torch.randint(CLASSES, (len(features),), device=device)
    batches = torch.randint(len(features), (steps, BATCH), device=device)
    return features, labels, list(batches)


def _first(loader: DataLoader[tuple[Tensor, ...]], count: int) -> Iterator[tuple[Tensor, ...]]:
    for _, batch in zip(range(count), loader, strict=False):
        yield batch


if __name__ == "__main__":
    main()
