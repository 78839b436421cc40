"""How fast the network learner is, beside the usual ways, in one run: `make bench-network`.

Prints ratios and the device's own limit (the rate of a large matrix product), and writes
`results/bench/network-<device>.json`. Absolute rates are this machine's; ratios travel. Beside it
run a plain loop (DataLoader, torchvision transforms, torch.optim.SGD, swa_utils) and, where the
package `lightning` is installed, Lightning with its SWA callback. Wants an idle machine.

    python -m tests.bench.network [--device cpu] [--batches 8] [--output FILE]
"""

import argparse
import importlib.util
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms
from torchvision.models import ResNet, resnet50

from swabench.runs.lanes import MOST
from swabench.study.averaging import EqualMean
from swabench.study.inputs import BackboneSettings, Precision
from swabench.study.optimizers import SGD
from swabench.study.stages import Boundary
from swabench.system.device import choose_device, synchronize
from swabench.training.averages import Member, average_of
from swabench.training.backbone import Preprocess, frozen_part, load_backbone
from swabench.training.flat import flatten
from swabench.training.learner import Split
from swabench.training.network import NetworkLearner
from tests.bench.notes import Notes
from tests.bench.speed import peak_flops, seconds
from tests.networks import MNISTS, resnet50_above

SIZE, CLASSES, BATCH, RATE = 28, 10, 128, 0.005
BOUNDARIES: tuple[Boundary, ...] = ("all", "layer4")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


class Digits(Dataset[tuple[Tensor, int]]):
    """Images as torchvision's MNIST hands them out: one by one, by way of PIL."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        self._images = images
        self._labels = labels
        self._transform = transforms.Compose(
            [
                transforms.Grayscale(3),
                transforms.ToTensor(),
                transforms.Normalize(MNISTS[0] * 3, MNISTS[1] * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self._images[index, 0])
        return self._transform(image), int(self._labels[index])


def some_digits(batches: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Made-up images: their content has no influence on speed."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (batches * BATCH, 1, SIZE, SIZE), dtype=np.uint8)
    return images, generator.integers(0, CLASSES, len(images))


def split_of(boundary: Boundary, batches: int, device: torch.device) -> Split:
    """What the layers above the boundary take: images, or the cached maps of those below."""
    images, labels = some_digits(batches)
    inputs = torch.from_numpy(images)
    if boundary == "layer4":
        below = nn.Sequential(
            Preprocess(SIZE, MNISTS),
            *frozen_part(load_backbone(BackboneSettings()), "layer4"),
        )
        with torch.no_grad():  # the cache is filled once in a study; that is not measured here
            inputs = torch.cat([below(some) for some in inputs.split(256)])
    return Split(inputs.to(device), torch.from_numpy(labels).to(device))


def learner_of(
    boundary: Boundary, split: Split, precision: Precision, evaluation_batch: int = 1000
) -> NetworkLearner:
    """What trains a trajectory."""
    part = resnet50_above(boundary, CLASSES)
    return NetworkLearner(
        part,
        {"train": split, "test": split},
        *flatten(part),
        SGD(name="sgd"),
        frozen=Preprocess(SIZE, MNISTS) if boundary == "all" else None,
        precision=precision,
        evaluation_batch=evaluation_batch,
    )


def product_rate(
    boundary: Boundary,
    batches: int,
    device: torch.device,
    precision: Precision,
    trajectories: int = 1,
) -> float:
    """Images a second of so many trajectories side by side, each with a capture into its average.

    Several share a GPU as in a study: a turn each, on streams of their own.
    """
    split = split_of(boundary, batches, device)
    learners = [learner_of(boundary, split, precision) for _ in range(trajectories)]
    averages = [average_of(EqualMean(), Member(learner.weights()[0])) for learner in learners]
    streams = [torch.cuda.Stream(device) if trajectories > 1 else None for _ in learners]
    rows = torch.randperm(len(split)).to(device).split(BATCH)
    rates = torch.tensor([RATE], device=device)
    synchronize(device)

    def work() -> None:
        for some in rows:
            for learner, stream in zip(learners, streams, strict=True):
                with torch.cuda.stream(stream):
                    learner.step(some, rates)
        for learner, average, stream in zip(learners, averages, streams, strict=True):
            with torch.cuda.stream(stream):
                average.capture(Member(learner.weights()[0]))

    return trajectories * len(split) / seconds(work, device, 3)


def plain_network(boundary: Boundary) -> ResNet:
    """What one writes: ResNet-50, its lower layers without gradients where they do not train."""
    network = resnet50(num_classes=CLASSES)
    if boundary == "layer4":
        network.requires_grad_(False)
        network.layer4.requires_grad_(True)
        network.fc.requires_grad_(True)
    return network


def workers(device: torch.device) -> int:
    """Loader processes: a GPU is fed by all cores, a CPU needs them for training."""
    return 0 if device.type == "cpu" else min(16, os.cpu_count() or 1)


def loader_of(batches: int, device: torch.device) -> DataLoader[tuple[Tensor, int]]:
    """The usual loader."""
    return DataLoader(
        Digits(*some_digits(batches)),
        BATCH,
        shuffle=True,
        num_workers=workers(device),
        persistent_workers=workers(device) > 0,
        pin_memory=device.type == "cuda",
    )


def plain_rate(boundary: Boundary, batches: int, device: torch.device) -> float:
    """Images a second of a plain PyTorch loop with swa_utils."""
    network = plain_network(boundary).to(device).train()
    optimizer = torch.optim.SGD(
        [p for p in network.parameters() if p.requires_grad], lr=RATE, momentum=0.9
    )
    averaged = AveragedModel(network)
    loader = loader_of(batches, device)

    def work() -> None:
        for inputs, labels in loader:
            optimizer.zero_grad()
            scores = network(inputs.to(device, non_blocking=True))
            F.cross_entropy(scores, labels.to(device, non_blocking=True)).backward()
            optimizer.step()
        averaged.update_parameters(network)

    return batches * BATCH / seconds(work, device, 3)


def lightning_rate(boundary: Boundary, batches: int, device: torch.device) -> float | None:
    """Images a second of Lightning with its SWA callback; None where it is not installed."""
    if importlib.util.find_spec("lightning") is None:
        return None
    lightning: Any = importlib.import_module("lightning")
    callbacks: Any = importlib.import_module("lightning.pytorch.callbacks")
    network = plain_network(boundary)

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            return F.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            trained = [p for p in network.parameters() if p.requires_grad]
            return torch.optim.SGD(trained, lr=RATE, momentum=0.9)

    class Clock(callbacks.Callback):  # type: ignore[misc]
        """Seconds of every epoch; the first warms up, after the last SWA measures BatchNorm."""

        def __init__(self) -> None:
            self.starts: list[float] = []

        def on_train_epoch_start(self, trainer: object, module: object) -> None:
            torch.zeros(1, device=device).item()  # waits for the device
            self.starts.append(time.perf_counter())

    clock = Clock()
    trainer = lightning.Trainer(
        max_epochs=4,
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=1,
        callbacks=[clock, callbacks.StochasticWeightAveraging(swa_lrs=RATE, swa_epoch_start=1)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), loader_of(batches, device))
    return batches * BATCH / float(np.median(np.diff(clock.starts[:4])[1:]))


def step_flops(boundary: Boundary) -> float:
    """Operations of a training step, an image (two a multiply-add), frozen layers left out."""
    part = resnet50_above(boundary, CLASSES).train()
    inputs = torch.zeros(4, 3, SIZE, SIZE)
    if boundary == "layer4":
        with torch.no_grad():
            inputs = frozen_part(load_backbone(BackboneSettings()), "layer4")(inputs)
    with FlopCounterMode(display=False) as counter:
        part(inputs).sum().backward()
    return int(counter.get_total_flops()) / len(inputs)


def peak_rate(device: torch.device, precision: Precision) -> float:
    """Operations a second of a large matrix product, rounded as the learner's convolutions are.

    On a GPU float32 convolutions run in TF32 unless cuDNN is told otherwise, while matrix
    products do not: the limit that convolutions are held to must be measured in their format.
    """
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        return peak_flops(device, getattr(torch, precision))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def measure(device: torch.device, batches: int, notes: Notes) -> None:
    """All rates and ratios."""
    peaks = {precision: peak_rate(device, precision) for precision in PRECISIONS}
    for precision, peak in peaks.items():
        notes.note(f"matrix product, {precision}, GFLOP/s", peak / 1e9)
    for boundary in BOUNDARIES:
        plain = notes.note(
            f"{boundary}: plain loop, images/s", plain_rate(boundary, batches, device)
        )
        for precision in PRECISIONS:
            own, name = product_rate(boundary, batches, device, precision), f"swabench, {precision}"
            notes.note(f"{boundary}: {name}, images/s", own)
            notes.note(f"{boundary}: {name}, over the plain loop", own / plain)
            share = own * step_flops(boundary) / peaks[precision]
            notes.note(f"{boundary}: {name}, share of the matrix product's rate", share)
            if device.type == "cuda":
                many = product_rate(boundary, batches, device, precision, MOST)
                together = f"{boundary}: {name}, {MOST} trajectories side by side"
                notes.note(f"{together}, images/s of all", many)
                notes.note(f"{together}, over the plain loop", many / plain)
        lightning = lightning_rate(boundary, batches, device)
        if lightning is not None:
            notes.note(f"{boundary}: Lightning with SWA, images/s", lightning)
            for precision in PRECISIONS:
                own = notes.measured[f"{boundary}: swabench, {precision}, images/s"]
                notes.note(f"{boundary}: swabench, {precision}, over Lightning", own / lightning)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batches", type=int, default=None, help="of 128 images, a measurement")
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    output = arguments.output or Path("results/bench") / f"network-{device.type}.json"
    batches = arguments.batches or (8 if device.type == "cpu" else 200)
    measure(device, batches, Notes(output, device))


if __name__ == "__main__":
    main()
