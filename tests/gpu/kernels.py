"""Where a training step's time goes on a GPU: what kernels, and how it might go faster.

ResNet-50 from bytes, minibatches of 128, as the study `network` has it. Prints and writes a file.

    python -m tests.gpu.kernels [--device cuda] [--output FILE] [--steps 100]
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from swabench.study.inputs import Precision
from swabench.study.optimizers import SGD
from swabench.system.device import choose_device, synchronize, use_repeatable_kernels
from swabench.system.environment import environment
from swabench.training.backbone import Preprocess
from swabench.training.flat import flatten
from swabench.training.learner import Split
from swabench.training.network import NetworkLearner
from tests.networks import MNISTS, resnet50_above

BATCH, CLASSES, IMAGES = 128, 10, 12_800


def make(
    device: torch.device,
    precision: Precision,
    images: int,
    evaluation_batch: int = 1000,
) -> NetworkLearner:
    """A learner at its start."""
    part = resnet50_above("all", CLASSES)
    pixels = torch.randint(256, (images, 1, 28, 28), dtype=torch.uint8)
    split = Split(pixels.to(device), torch.randint(CLASSES, (images,)).to(device))
    return NetworkLearner(
        part,
        {"train": split, "test": split},
        *flatten(part),
        SGD(name="sgd"),
        frozen=Preprocess(28, MNISTS),
        precision=precision,
        evaluation_batch=evaluation_batch,
    )


def minibatches(steps: int, images: int, device: torch.device) -> Sequence[Tensor]:
    """Rows of so many minibatches."""
    order = torch.randperm(images, generator=torch.Generator().manual_seed(1)).to(device)
    batches = order.split(BATCH)
    return [batches[step % len(batches)] for step in range(steps)]


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Median of three, after one that warms up."""
    times = []
    for _ in range(4):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[1]


def step_seconds(learner: NetworkLearner, batches: Sequence[Tensor], device: torch.device) -> float:
    """Seconds a step."""
    rates = torch.tensor([1e-4], device=device)

    def work() -> None:
        for rows in batches:
            learner.step(rows, rates)

    return seconds(work, device) / len(batches)


def side_by_side(
    count: int, precision: Precision, batches: Sequence[Tensor], device: torch.device, images: int
) -> float:
    """Seconds that a step of all takes, of several learners on streams of their own."""
    learners = [make(device, precision, images) for _ in range(count)]
    streams = [torch.cuda.Stream(device) for _ in learners]
    rates = torch.tensor([1e-4], device=device)
    synchronize(device)

    def work() -> None:
        for rows in batches:
            for learner, stream in zip(learners, streams, strict=True):
                with torch.cuda.stream(stream):
                    learner.step(rows, rates)

    return seconds(work, device) / len(batches)


def kernel_table(learner: NetworkLearner, batches: Sequence[Tensor], device: torch.device) -> str:
    """A table of the kernels of some steps, the longest first."""
    rates = torch.tensor([1e-4], device=device)
    activity = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity]) as found:
        for rows in batches[:10]:
            learner.step(rows, rates)
        synchronize(device)
    order = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    averages = found.key_averages()
    kernels = sum(each.count for each in averages)
    table: str = averages.table(sort_by=order, row_limit=45, max_name_column_width=110)
    return f"{kernels / 10:.0f} kernels a step\n{table}"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--output", type=Path, default=Path("kernels.json"))
    arguments = parser.parse_args()
    device, images = choose_device(arguments.device), arguments.images
    use_repeatable_kernels()
    batches = minibatches(arguments.steps, images, device)
    found: dict[str, float] = {}

    def note(name: str, value: float) -> None:
        found[name] = value
        print(f"{name}: {value:.5g}", flush=True)
        content = {"measured": found, "environment": environment(device)}
        arguments.output.write_text(json.dumps(content, indent=1) + "\n")

    tables = []
    for precision in ("bfloat16", "float32"):
        learner = make(device, precision, images)
        note(f"{precision}: ms a step", 1e3 * step_seconds(learner, batches, device))
        tables.append(f"{precision}\n{kernel_table(learner, batches, device)}")
        learner._replays = False
        note(
            f"{precision}: ms a step without a graph",
            1e3 * step_seconds(learner, batches[:20], device),
        )
    for at_a_time in (1000, 4000, images):
        learner = make(device, "bfloat16", images, evaluation_batch=at_a_time)
        how = f"by {at_a_time}: ms a thousand images"
        passes = seconds(partial(learner.predict, []), device)
        note(f"re-estimation {how}", 1e6 * passes / images)
        scoring = seconds(partial(learner.predict, ["test"], running=True), device)
        note(f"scores {how}", 1e6 * scoring / images)
    arguments.output.with_suffix(".txt").write_text("\n\n".join(tables))
    if device.type == "cuda":
        for count in (3, 6, 8):
            took = side_by_side(count, "bfloat16", batches, device, images)
            note(f"bfloat16, {count} side by side: ms a step of each", 1e3 * took / count)


if __name__ == "__main__":
    main()
