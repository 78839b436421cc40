"""Two versions of swabench beside each other, in one run: is a change worth its while?

    git worktree add /tmp/before COMMIT
    python -m tests.bench.compare --before /tmp/before

Both versions carry out the same studies by their own command line, in turns, data and features
cached beforehand; what is timed is `finetune` alone. Prints seconds and ratios, and writes
`results/bench/before.json`. Wants an idle machine; takes about 20 minutes on 2 cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from swabench.system.device import choose_device
from swabench.system.environment import environment

HERE = Path(__file__).resolve().parents[2]
console = Console()

CONSTANT = {"schedule": "constant", "learning_rate": 0.01}
DECAYED = {"schedule": "multiplicative", "learning_rate": 0.01, "factor": 0.25, "every_epochs": 2}
TWICE = {"capture_every_epochs": 0.5}
WITHOUT_START = {"capture_every_epochs": 1, "include_start": False}

IMAGES = {"training_images": 3000, "validation_images": 1000, "test_images": 2000}
TUNED = {"trainable": "layer4", "batchnorm": "train", "epochs": 4}

# What older versions have not, and do not know how to leave out.
ALIKE = {"controls": None, "data": {"selection_images": 0}}

# Seven rows on two trajectories, in words that every version understands.
LAYER4 = {
    "extends": "mnist",
    "title": "Seven averages on two trajectories",
    "data": IMAGES,
    "backbone": {"weights": "random", "standardize_features": False},
    "pretrain": {"trainable": "layer4", "epochs": 1},
    "finetune": TUNED,
    "methods": {
        "sgd": {"title": "iterate", "rate": CONSTANT},
        "swa": {"title": "mean", "rate": CONSTANT, "averaging": {"capture_every_epochs": 1}},
        "swa-cyclical": {"title": "mean, twice", "rate": CONSTANT, "averaging": TWICE},
        "pswa": {"title": "no start", "rate": CONSTANT, "averaging": WITHOUT_START},
        "sgd-multiplicative": {"title": "iterate, decayed", "rate": DECAYED},
        "decayed-mean": {"title": "mean", "rate": DECAYED, "averaging": WITHOUT_START},
        "decayed-twice": {"title": "mean, twice", "rate": DECAYED, "averaging": TWICE},
    },
    "rate_sweep": None,
    "seeds": 1,
}

LAYER4_ALIKE = {"controls": None, "data": {**IMAGES, "selection_images": 0}}


@dataclass(frozen=True)
class Case:
    """A study that both versions carry out.

    Attributes:
        title: What is compared.
        study: The study's content.
        seeds: How many seeds.
        repeats: How often, in turns.
        now: Keys that this version takes in place of the study's: what the older does not know.
    """

    title: str
    study: Mapping[str, object]
    seeds: int
    repeats: int
    now: Mapping[str, object]

    def content(self, version: Path) -> dict[str, object]:
        """The study as a version takes it."""
        return {**self.study, **(self.now if version == HERE else {})}


CASES = (
    Case(
        "the default study's 17 runs at 6 seeds",
        {"extends": "mnist"},
        seeds=6,
        repeats=2,
        now=ALIKE,
    ),
    Case("layer4, seven averages on two trajectories", LAYER4, 1, repeats=2, now=LAYER4_ALIKE),
    Case(
        "the same, scored every second epoch now",
        LAYER4,
        seeds=1,
        repeats=2,
        now={**LAYER4_ALIKE, "finetune": {**TUNED, "score_every_epochs": 2}},
    ),
)


def swabench(version: Path, folder: Path, command: str, case: Case, *more: str) -> float:
    """Seconds that one command takes in the version that lies in a folder."""
    config = folder / "compare.yaml"
    config.write_text(yaml.safe_dump(case.content(version)))
    arguments = [command, "--config", config, "--results", folder, "--seeds", case.seeds, *more]
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "swabench", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(version)},
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - start


def finetuning(version: Path, case: Case) -> float:
    """Seconds of fine-tuning alone, less those of a command that finds all runs done."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        swabench(version, folder, "pretrain", case)
        first = swabench(version, folder, "finetune", case, "--method", "all")
        return first - swabench(version, folder, "finetune", case, "--method", "all")


def compare(before: Path, case: Case) -> dict[str, float]:
    """Seconds of both versions, in turns, and their ratio.

    The fastest of several: other work on the machine only ever adds.
    """
    versions = {"before": before, "now": HERE}
    found: dict[str, list[float]] = {name: [] for name in versions}
    for _ in range(case.repeats):
        for name, version in versions.items():
            found[name].append(finetuning(version, case))
            console.print(f"{case.title}, {name}: {found[name][-1]:.1f} s")
    fastest = {name: min(times) for name, times in found.items()}
    seconds = {f"{case.title}, {name}, s": time for name, time in fastest.items()}
    return seconds | {f"{case.title}, before over now": fastest["before"] / fastest["now"]}


def commit(version: Path) -> str:
    """The commit that a checkout is at."""
    return subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=version, text=True).strip()


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, required=True, help="a checkout of another commit")
    parser.add_argument("--output", type=Path, default=Path("results/bench/before.json"))
    arguments = parser.parse_args()
    found: dict[str, float] = {}
    for case in CASES:
        found |= compare(arguments.before.resolve(), case)
    table = Table("measured", "value", title="swabench, another version beside this one")
    for name, value in found.items():
        table.add_row(name, f"{value:,.3g}")
    console.print(table)
    content = {
        "before": commit(arguments.before),
        "measured": found,
        "environment": environment(choose_device("auto")),
    }
    arguments.output.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
