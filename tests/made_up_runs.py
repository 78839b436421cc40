"""Made-up studies and runs, for tests that need records and no training."""

import numpy as np
import torch

from swabench.landscape.survey import Surveyor
from swabench.records import RecordStore
from swabench.study.loading import load_study
from swabench.study.study import Study
from swabench.training.learner import Split
from swabench.training.loop import Outcome
from swabench.training.measurement import Measurement, Predictor, SplitName

FEATURES, CLASSES = 5, 3
SIZE = CLASSES * (FEATURES + 1)
PROVENANCE = {"data": {"images": "none"}}


def small_study(**landscape: object) -> Study:
    """Every kind of method, two seeds, and a landscape that takes no time."""
    content = load_study("smoke").model_dump()
    small = {
        "lines": {"points": 7},
        "segments": {"points": 7, "seeds": 1, "low": -1, "high": 2},
        "plane": {"points": 4, "seeds": 1},
        "rays": {"points": 3, "directions": 2, "seeds": 1},
        "sharpness": {"seeds": 2},
        "hessian": {"probes": 4, "seeds": 1},
    }
    content["landscape"] = {**small, **landscape}
    return Study.model_validate({**content, "seeds": [0, 1]})


def write_runs(store: RecordStore, study: Study, skip: tuple[str, int] | None = None) -> None:
    """Records of runs that never ran; their numbers are random, and the same every time."""
    for row, name in enumerate(study.row_names):
        for seed in study.seeds:
            if (name, seed) == skip:
                continue
            outcome = _outcome(
                np.random.default_rng([seed, row]),
                study.finetune.epochs,
                averages=study.row_method(name).averaging is not None,
            )
            store.write(name, seed, outcome, provenance=PROVENANCE, environment={}, seconds=1)


def _outcome(rng: np.random.Generator, epochs: int, averages: bool) -> Outcome:
    predictors: list[Predictor] = ["iterate", "average"] if averages else ["iterate"]
    splits: list[SplitName] = ["validation", "test"]
    drawn = torch.from_numpy(rng.standard_normal((epochs + 2, SIZE))).float()
    return Outcome(
        history=[
            Measurement(epoch, predictor, split, 90 + rng.random(), 0.3 + rng.random() / 9)
            for epoch in range(1, epochs + 1)
            for predictor in predictors
            for split in splits
        ],
        weights={predictor: drawn[k].clone() for k, predictor in enumerate(predictors)},
        trajectory=drawn[1:].clone(),
    )


def surveyor(study: Study, store: RecordStore, split: Split) -> Surveyor:
    """One set of images in every role, in single precision as studies have it."""
    names: list[SplitName] = ["train", "validation", "test"]
    single = Split(split.inputs.float(), split.labels)
    return Surveyor(study, store, dict.fromkeys(names, single), CLASSES, PROVENANCE)
