"""What each place to run costs, in one run: `make bench-places`.

A unit's cost beyond its training: units of a small study are carried out by one worker of each
place, few and many of them; what more of them take is the cost of a unit, the rest is what it
takes to begin. And whether two processes on two cores are as fast as one with two threads.

Writes `results/bench/places.json` with a manifest. Places that are not installed are left out.
Takes some minutes, and wants an idle machine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from swabench.records import RecordStore
from swabench.study.loading import load_study
from swabench.system.device import choose_device
from swabench.system.environment import environment

FEW, MANY = 5, 25
SEEDS, ROUNDS = 6, 3
ONE_WORKER = {
    "local": (),
    "processes": ("--on", "processes", "--jobs", "1"),
    "ray": ("--on", "ray", "--jobs", "1"),
}
TWO_CORES = {
    "local, 2 threads": ("--threads", "2"),
    "2 processes, 1 thread each": ("--jobs", "2", "--threads", "1"),
    "2 workers of Ray, 1 thread each": ("--on", "ray", "--jobs", "2", "--threads", "1"),
}
console = Console()


def swabench(results: Path, command: str, study: str, seeds: int, *options: str) -> float:
    """Seconds of a command, in a process of its own."""
    began = time.perf_counter()
    options = ("--seeds", str(seeds), "--quiet", *options)
    given = ("--config", study, "--results", str(results), *options)
    subprocess.run(
        [sys.executable, "-m", "swabench", command, *given],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


def finetuning(study: str, seeds: int, *options: str) -> tuple[float, float]:
    """Seconds of fine-tuning, and those of them that its records count as training, a unit."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        swabench(results, "pretrain", study, seeds, "--threads", "1")
        whole = swabench(results, "finetune", study, seeds, "--method", "all", *options)
        loaded = load_study(study)
        store = RecordStore(results, loaded)
        records = [store.find(name, s) for name in loaded.all_methods for s in range(seeds)]
        return whole, sum(record.seconds for record in records if record) / seeds


def cost_of_a_unit(options: tuple[str, ...]) -> dict[str, float]:
    few, _ = finetuning("smoke", FEW, *options, "--threads", "1")
    many, training = finetuning("smoke", MANY, *options, "--threads", "1")
    each = (many - few) / (MANY - FEW)
    return {
        "seconds_to_begin": round(few - FEW * each, 2),
        "seconds_a_unit": round(each, 4),
        "training_seconds_a_unit": round(training, 4),
        "seconds_beyond_training": round(each - training, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("results/bench/places.json"))
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:  # features, if they are not there yet
        for study in ("smoke", "mnist"):
            swabench(Path(folder), "pretrain", study, 1)
    lacking = () if find_spec("ray") else ("ray",)
    units = {place: cost_of_a_unit(o) for place, o in ONE_WORKER.items() if place not in lacking}
    two: dict[str, list[float]] = {}
    for _ in range(ROUNDS):  # by turns: what else the machine does falls on all of them
        for place, options in TWO_CORES.items():
            if not (lacking and "Ray" in place):
                seconds, _ = finetuning("mnist", SEEDS, *options)
                two.setdefault(place, []).append(round(seconds, 2))
    table = Table("place", "to begin, s", "a unit, s", "of it training, s", "beyond, s")
    for place, cost in units.items():
        table.add_row(place, *map(str, cost.values()))
    console.print(table)
    table = Table(f"fine-tuning of mnist at {SEEDS} seeds", "seconds, by turns", "median")
    for place, each in two.items():
        table.add_row(place, ", ".join(map(str, each)), str(median(each)))
    console.print(table)
    content = {
        "environment": environment(choose_device("cpu")),
        "units": {"study": "smoke", "few": FEW, "many": MANY, "by_place": units},
        "two_cores": {"study": "mnist", "seeds": SEEDS, "seconds": two},
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
