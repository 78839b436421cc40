"""How long documents of 1,000 seeds take, and the memory: `python -m tests.bench.documents`.

The records are made up (`tests/made_up.py`): every run of the default study but its controls, with
few images each, and a small landscape. Writing them takes minutes, before anything is timed.

Writes `results/bench/documents.json` with a manifest.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from swabench.study.loading import load_study
from swabench.system.device import choose_device
from swabench.system.environment import environment
from tests.made_up import survey, write_study

STUDY = """
extends: mnist
title: Made-up records of many seeds
controls:
seeds: {seeds}
landscape:
  training_images: 200
  lines: {{points: 7}}
  segments: {{points: 7, seeds: 1, low: -1, high: 2}}
  plane: {{points: 4, seeds: 1}}
  rays: {{points: 3, directions: 2, seeds: {seeds}}}
  sharpness: {{seeds: 2}}
  hessian: {{probes: 64, seeds: 1}}
"""
TIMED = """
import re, runpy, sys
try:
    runpy.run_module("swabench", run_name="__main__")
except SystemExit as end:
    code = end.code
# Not rusage's, which begins with what the parent had.
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1], file=sys.stderr)
sys.exit(code)
"""
DOCUMENTS = ("table", "figures", "claims", "report")


def made(command: str, config: Path) -> dict[str, float]:
    """Seconds of a command in a process of its own, and the most memory that it took."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", TIMED, command, "--config", str(config)],
        cwd=config.parent,
        check=True,
        capture_output=True,
        text=True,
    )
    kilobytes = int(done.stderr.split()[-1])
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "gigabytes": round(kilobytes * 1024 / 1e9, 2),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path("results/bench/documents.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "many.yaml"
        config.write_text(STUDY.format(seeds=arguments.seeds))
        study = load_study(str(config))
        survey(study, write_study(config.parent / "results", study), study.seeds)
        found = {command: made(command, config) for command in DOCUMENTS}
    table = Table("document", "seconds", "GB", title=f"{arguments.seeds} seeds")
    for command, cost in found.items():
        table.add_row(command, *map(str, cost.values()))
    Console().print(table)
    content = {
        "seeds": arguments.seeds,
        "runs": arguments.seeds * len(study.run_names),
        "documents": found,
        "environment": environment(choose_device("cpu")),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
