"""Where the time goes on a GPU: what kernels a training step has, and what measuring takes.

All of ResNet-50 from bytes, as the study `network` has it, and its last stage on cached maps, as
`layer4` and `transfer` have it. Prints and writes a file.

    python -m tests.gpu.kernels [--device cuda] [--output FILE] [--batches 100]
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from swabench.runs.lanes import MOST
from swabench.study.stages import Boundary
from swabench.system.device import choose_device, synchronize, use_repeatable_kernels
from swabench.training.network import NetworkLearner
from tests.bench.network import (
    BATCH,
    BOUNDARIES,
    PRECISIONS,
    RATE,
    learner_of,
    product_rate,
    split_of,
)
from tests.bench.notes import Notes
from tests.bench.speed import seconds


def steps(learner: NetworkLearner, batches: Sequence[Tensor], device: torch.device) -> None:
    """Train on some minibatches."""
    rates = torch.tensor([RATE], device=device)
    for rows in batches:
        learner.step(rows, rates)


def kernel_table(learner: NetworkLearner, batches: Sequence[Tensor], device: torch.device) -> str:
    """A table of the kernels of some steps, the longest first."""
    activity = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity]) as found:
        steps(learner, batches, device)
        synchronize(device)
    order = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    averages = found.key_averages()
    kernels = sum(each.count for each in averages)
    table: str = averages.table(sort_by=order, row_limit=45, max_name_column_width=110)
    return f"{kernels / len(batches):.0f} kernels a step\n{table}"


def look_at(boundary: Boundary, count: int, device: torch.device, notes: Notes) -> list[str]:
    """Notes what steps and measuring take above a boundary; returns the tables of kernels."""
    split = split_of(boundary, count, device)
    batches = torch.randperm(len(split)).to(device).split(BATCH)
    tables = []

    def milliseconds(name: str, work: Callable[[], object], parts: float) -> None:
        notes.note(f"{boundary}: {name}", 1e3 * seconds(work, device, 3) / parts)

    for precision in PRECISIONS:
        learner = learner_of(boundary, split, precision)
        milliseconds(f"{precision}: ms a step", partial(steps, learner, batches, device), count)
        tables.append(f"{boundary}, {precision}\n{kernel_table(learner, batches[:10], device)}")
        learner._replays = False
        few = partial(steps, learner, batches[:20], device)
        milliseconds(f"{precision}: ms a step without a graph", few, len(batches[:20]))
    if device.type == "cuda":
        for number in (3, MOST, 8):
            rate = product_rate(boundary, count, device, "bfloat16", number)
            name = f"{boundary}: bfloat16, {number} side by side: ms a step of each"
            notes.note(name, 1e3 * BATCH / rate)
    for at_a_time in (1000, 4000):
        learner = learner_of(boundary, split, "bfloat16", at_a_time)
        how, thousands = f"by {at_a_time}: ms a thousand images", len(split) / 1000
        milliseconds(f"re-estimation {how}", partial(learner.predict, []), thousands)
        scores = partial(learner.predict, ["test"], running=True)
        milliseconds(f"scores {how}", scores, thousands)
    return tables


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batches", type=int, default=100, help="of 128 images")
    parser.add_argument("--output", type=Path, default=Path("kernels.json"))
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    use_repeatable_kernels()
    notes = Notes(arguments.output, device)
    tables = []
    for boundary in BOUNDARIES:
        tables += look_at(boundary, arguments.batches, device, notes)
        arguments.output.with_suffix(".txt").write_text("\n\n".join(tables))


if __name__ == "__main__":
    main()
