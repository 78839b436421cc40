"""What the campaign runs, what it leaves behind, and whether that is what it should be."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swabench.data.idx import encode_idx
from tests.torture.commands import Ended, run

# Each kind of averaging plan of `smoke` is met, and heads of two optimizers. More runs and seeds
# would only write more of the same files.
HEADS = """
extends: smoke
title: Heads
data: {{dataset: folder, folder: {images}, validation_images: 20, selection_images: 10, training_images: null, test_images: null}}
finetune: {{batch_size: 16}}
methods: {{sgd-multiplicative: null, swa-cyclical: null}}
controls:
  swa-without-start: null
  swa-score-weighted: null
  swa-score-weighted-100: null
  swa-cyclical-without-start: null
  pswa-without-start: null
rate_sweep: null
landscape:
  lines: {{points: 3}}
  segments: {{points: 3}}
  plane: {{points: 3}}
  rays: {{directions: 2, points: 3}}
  sharpness: {{steps: 1, starts: 1}}
  hessian: {{probes: 2, tolerance: 0.5}}
seeds: 1
"""  # noqa: E501
NETWORK = """
extends: smoke
title: The last stage of ResNet-50
data: {{dataset: folder, folder: {images}, validation_images: 20, selection_images: 10, training_images: null, test_images: null}}
backbone: {{standardize_features: false}}
pretrain: {{trainable: layer4, batch_size: 20}}
finetune: {{trainable: layer4, batchnorm: train, batch_size: 20, epochs: 3, score_every_epochs: 3}}
"""  # noqa: E501

IN_RECORDS = ("history", "arrays_sha256", "identity", "trained_with", "provenance")
"""What two records of the same run share; the rest is when and how long."""


OFTEN = ("--save-every", "0s")
_RUNS = (
    "pswa", "swa", "swa-without-start", "swa-score-weighted", "swa-score-weighted-100",
    "swa-score-weighted-1000",
)  # fmt: skip
METHODS = tuple(word for name in _RUNS for word in ("-m", name))
"""Those of two trajectories."""


@dataclass(frozen=True)
class Scenario:
    """A study and the command that is disturbed.

    Attributes:
        name: Of the study.
        text: The study, with a place for the folder of images.
        command: The command line.
        not_asked_for: Runs that it makes where it needs them, and else does without.
    """

    name: str
    text: str
    command: tuple[str, ...]
    not_asked_for: tuple[str, ...] = ()


SCENARIOS = (
    Scenario("heads", HEADS, ("reproduce", "-c", "study.yaml", *OFTEN)),
    Scenario(
        "network",
        NETWORK,
        ("finetune", *METHODS, "-c", "study.yaml", "-s", "1", *OFTEN),
        not_asked_for=("adam",),
    ),
)


def digest(scenarios: Sequence[Scenario] = SCENARIOS) -> str:
    """What tells a campaign on these scenarios from one on others."""
    return hashlib.sha256(repr(scenarios).encode()).hexdigest()[:16]


def write_images(folder: Path) -> None:
    """100 training and 40 test images, as the command line's tests have them."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for part, count in (("train", 100), ("t10k", 40)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        pixels = rng.integers(0, 80, (count, 28, 28), dtype=np.uint8)
        pixels[np.arange(count), labels * 2] = 255
        (folder / f"{part}-images-idx3-ubyte").write_bytes(encode_idx(pixels))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(encode_idx(labels))


class Place:
    """A folder in which a scenario runs, with results and a cache of its own.

    Args:
        folder: Where; made anew.
        scenario: What runs there.
        images: The folder of images.
    """

    def __init__(self, folder: Path, scenario: Scenario, images: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder = folder
        self.scenario = scenario
        (folder / "study.yaml").write_text(scenario.text.format(images=images))

    @property
    def environment(self) -> dict[str, str]:
        """What its commands run in."""
        return {"SWABENCH_CACHE": str(self.folder / "cache"), "COLUMNS": "200"}

    @property
    def results(self) -> Path:
        """The study's results."""
        return self.folder / "results" / "study"

    def run(self, *arguments: str) -> Ended:
        """Run a command there, undisturbed: the scenario's own without arguments."""
        return run(arguments or self.scenario.command, self.folder, self.environment)

    def content(self) -> dict[str, str]:
        """Digests of what must not depend on faults: documents, arrays, measurements; by name."""
        # `report.html` and the manifest say when and how long.
        patterns = ("*.csv", "*.md", "*.tex", "figures/*", "runs/**/*.safetensors")
        found = {
            str(path.relative_to(self.results)): hashlib.sha256(path.read_bytes()).hexdigest()
            for pattern in patterns
            for path in self.results.glob(pattern)
        }
        for path in self.results.glob("runs/**/record.json"):
            record = json.loads(path.read_text())
            kept = json.dumps([record[key] for key in IN_RECORDS])
            found[str(path.relative_to(self.results))] = hashlib.sha256(kept.encode()).hexdigest()
        return found

    def litter(self) -> list[str]:
        """What a finished study should not leave: temporary files, states, locks of runs."""
        patterns = ("**/.writing-*", "results/*/unfinished/*", "results/**/*.lock")
        return sorted(
            str(p.relative_to(self.folder)) for w in patterns for p in self.folder.glob(w)
        )


def take_over(source: Place, target: Place, *names: str) -> None:
    """Give a place some folders of another's, as hard links: what is written is written anew.

    Not the locks: processes in both would wait for each other.
    """
    locks = shutil.ignore_patterns("*.lock")
    for name in names:
        shutil.copytree(
            source.folder / name, target.folder / name, copy_function=os.link, ignore=locks
        )
