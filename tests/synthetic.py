"""Records made up so that the truth is known: for tests of what is made from records alone.

`write_run` writes a record like any other through RecordStore, in milliseconds. Measurements are
set, not computed from the predictions: what a test is about is stated, the rest is plausible.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from swabench.records import RecordStore
from swabench.study.loading import load_study
from swabench.study.study import Study
from swabench.training.loop import Outcome
from swabench.training.measurement import Measurement, Predictor, SplitName

IMAGES, CLASSES, WEIGHTS = 400, 10, 8
SPLITS: tuple[SplitName, ...] = ("validation", "test")
PROVENANCE = {"data": {"images": "0" * 64}, "backbone": "1" * 64}
ENVIRONMENT = {"swabench": "0", "commit": None, "python": "3", "device": "cpu", "torch": "2"}


@dataclass(frozen=True)
class Truth:
    """What is true of one method.

    Attributes:
        accuracy: Mean accuracy of the method's result at the end, in percent.
        loss: Mean loss of it, in nats.
        spread: Deviation of the accuracy between seeds, beyond what methods of a seed share.
        loss_spread: The same of the loss.
        iterate_swing: Deviation of the iterate's accuracy from epoch to epoch, in points; its
            loss swings by a fiftieth of that, in nats.
        average_swing: The same of the average.
        ensemble_gap: How much better the ensemble's accuracy is than the average's, in points.
        ensemble_loss_gap: How much lower the ensemble's loss is, in nats.
        iterate_noise: How far the iterate's predictions differ from seed to seed.
        average_noise: The same of the average's and the ensemble's.
    """

    accuracy: float = 93.0
    loss: float = 0.25
    spread: float = 0.03
    loss_spread: float = 0.001
    iterate_swing: float = 0.3
    average_swing: float = 0.02
    ensemble_gap: float = 0.0
    ensemble_loss_gap: float = 0.0
    iterate_noise: float = 1.0
    average_noise: float = 0.3


def study_with(seeds: int, **changes: object) -> Study:
    """The default study at so many seeds, with keys replaced."""
    whole = load_study("mnist").model_dump()
    return Study.model_validate({**whole, "seeds": seeds, **changes})


def write_study(
    results: Path,
    study: Study,
    truths: Mapping[str, Truth],
    *,
    without: Sequence[tuple[str, int]] = (),
) -> RecordStore:
    """Write every run of a study; methods without a truth of their own get the default one."""
    store = RecordStore(results, study)
    for seed in study.seeds:
        for name in study.run_names:
            if (name, seed) not in without:
                write_run(store, study, name, seed, truths.get(name, Truth()))
    return store


def write_run(store: RecordStore, study: Study, name: str, seed: int, truth: Truth) -> None:
    """Write one made-up run; the same call writes the same bytes."""
    store.write(
        name,
        seed,
        outcome(study, name, seed, truth),
        provenance=PROVENANCE,
        environment=ENVIRONMENT,
        seconds=1.0,
    )


def outcome(study: Study, name: str, seed: int, truth: Truth) -> Outcome:
    """What a made-up run leaves behind."""
    # Like starting weights and data order, one part of the luck is shared by a seed's methods.
    shared = np.random.default_rng([seed, 0]).normal(0, 0.2)
    rng = np.random.default_rng([seed, 1, *name.encode()])
    stage = study.pretrain if name == study.pretrain.name else study.finetune
    averages = study.row_method(name).averaging is not None
    level = truth.accuracy + shared + rng.normal(0, truth.spread)
    loss = truth.loss - shared / 50 + rng.normal(0, truth.loss_spread)
    predictors: list[Predictor] = ["iterate", "average", "ensemble"] if averages else ["iterate"]
    result = Outcome()
    for epoch in range(1, stage.epochs + 1):
        last = epoch == stage.epochs
        for predictor in predictors:
            own = (predictor == "iterate") != averages  # the method's result ends on its truth
            swing = truth.iterate_swing if predictor == "iterate" else truth.average_swing
            wobble = 0.0 if last and own else rng.normal(0, swing)
            gap = predictor == "ensemble"
            for split in SPLITS:
                result.history.append(
                    Measurement(
                        epoch,
                        predictor,
                        split,
                        level + wobble * (not (last and gap)) + truth.ensemble_gap * gap,
                        loss - wobble * (not (last and gap)) / 50 - truth.ensemble_loss_gap * gap,
                    )
                )
    for predictor in predictors:
        if predictor != "ensemble":
            result.weights[predictor] = torch.from_numpy(rng.normal(size=WEIGHTS)).float()
        for split in SPLITS:
            noise = truth.iterate_noise if predictor == "iterate" else truth.average_noise
            result.log_probabilities[predictor, split] = _predictions(rng, split, level, noise)
    result.labels = {split: torch.from_numpy(_labels(split)) for split in SPLITS}
    result.trajectory = torch.from_numpy(rng.normal(size=(stage.epochs + 1, WEIGHTS))).float()
    return result


def _labels(split: SplitName) -> NDArray[np.int64]:
    return np.random.default_rng([9, *split.encode()]).integers(CLASSES, size=IMAGES)


def _predictions(
    rng: np.random.Generator, split: SplitName, accuracy: float, noise: float
) -> torch.Tensor:
    """Log probabilities (IMAGES, CLASSES) of about the accuracy asked for."""
    labels = _labels(split)
    difficulty = np.random.default_rng([10, *split.encode()]).permutation(IMAGES) / IMAGES
    wrong = difficulty >= accuracy / 100
    logits = rng.normal(0, noise, size=(IMAGES, CLASSES))
    logits[np.arange(IMAGES), np.where(wrong, (labels + 1) % CLASSES, labels)] += 6
    return torch.log_softmax(torch.from_numpy(logits).float(), dim=-1)
