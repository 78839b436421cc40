"""What it takes to keep the state of a run under way: `python -m tests.bench.states`.

Arrays as `layer4` has them: weights, momentum and averages of ResNet-50's last stage, all of them
new since the last time. Writes `results/bench/states.json`.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from swabench.records.unfinished import Unfinished
from swabench.system.environment import environment
from swabench.system.pausing import SAVE_EVERY

WEIGHTS, ARRAYS, REPEATS = 14_985_226, 6, 5


def seconds_to_keep(folder: Path) -> list[float]:
    """Seconds of each time that a state is kept."""
    place, found = Unfinished(folder / "group"), []
    for number in range(REPEATS):
        generator = np.random.default_rng(number)
        state = {
            str(k): generator.standard_normal(WEIGHTS, dtype=np.float32) for k in range(ARRAYS)
        }
        began = time.perf_counter()
        place.keep(state, {})
        found.append(time.perf_counter() - began)
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("results/bench/states.json"))
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        seconds = sorted(seconds_to_keep(Path(folder)))
    median = seconds[REPEATS // 2]
    measured = {
        "megabytes": WEIGHTS * ARRAYS * 4 / 1e6,
        "seconds, median": median,
        "seconds, most": seconds[-1],
        "share of the time between two, percent": 100 * median / SAVE_EVERY,
    }
    content = {"measured": measured, "environment": environment(torch.device("cpu"))}
    output.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
