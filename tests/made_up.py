"""Studies, runs and images made up so that the truth is known: for tests that train nothing.

`write_study` writes the records of runs that never ran, through RecordStore like any others, in
milliseconds. Measurements are set, not computed from the predictions: what a test is about is
stated in a `Truth`, the rest is plausible.

No number occurs twice. Every split, predictor, epoch, seed and method has accuracies, losses,
predictions and weights of its own, so that what is read from the wrong place is another number
(`test_made_up.py` watches over that). The same call gives the same numbers.
"""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor

from swabench.landscape.parts import missing_parts
from swabench.landscape.survey import Surveyor, surveyor_of_heads
from swabench.records import Record, RecordStore
from swabench.runs.estimate import Estimate
from swabench.study.inputs import SplitName
from swabench.study.landscape import PARTS, Part
from swabench.study.loading import load_study
from swabench.study.study import Study
from swabench.training.learner import Split
from swabench.training.measurement import Divergence, Measurement, Predictor
from swabench.training.observers import Outcome

FEATURES, CLASSES = 5, 3
WEIGHTS = CLASSES * (FEATURES + 1)  # of a linear head
IMAGES: Mapping[SplitName, int] = {"train": 240, "validation": 150, "test": 400}
SCORED: tuple[SplitName, ...] = ("validation", "test")
PROVENANCE = {"data": {"images": "0" * 64}, "backbone": "1" * 64}
ENVIRONMENT = {"swabench": "0", "commit": None, "python": "3", "device": "cpu", "torch": "2"}

# What tells the places of a record apart, beyond chance. Validation is easier here.
VALIDATION_ABOVE_TEST, ITERATE_BELOW_AVERAGE, EPOCHS_GAIN = 0.9, 0.4, 0.05  # points
NATS_A_POINT = 1 / 50
# Of ten seeds whose truth is "no difference", one draw in twenty tells one: not this one.
DRAW = 1


@dataclass(frozen=True)
class Truth:
    """What is true of one method.

    Attributes:
        accuracy: Mean test accuracy of the method's result at the end, in percent.
        loss: Mean test loss of it, in nats.
        validation: Mean validation accuracy of it; None for a little above the test accuracy.
        spread: Deviation of the accuracy between seeds, beyond what methods of a seed share.
        loss_spread: The same of the loss.
        shared: Deviation between seeds that the methods of a seed share.
        iterate_swing: Deviation of the iterate's accuracy from epoch to epoch, in points; its
            loss swings by a fiftieth of that, in nats.
        average_swing: The same of the average.
        ensemble_gap: How much better the ensemble's accuracy is than the average's, in points.
        ensemble_loss_gap: How much lower the ensemble's loss is, in nats.
        iterate_noise: How far the iterate's predictions differ from seed to seed.
        average_noise: The same of the average's.
        ensemble_noise: How far the ensemble's predictions are from the average's.
    """

    accuracy: float = 93.0
    loss: float = 0.25
    validation: float | None = None
    spread: float = 0.03
    loss_spread: float = 0.001
    shared: float = 0.2
    iterate_swing: float = 0.3
    average_swing: float = 0.02
    ensemble_gap: float = 0.01
    ensemble_loss_gap: float = 0.0004
    iterate_noise: float = 1.0
    average_noise: float = 0.3
    ensemble_noise: float = 0.1

    @classmethod
    def exactly(cls, accuracy: float, loss: float) -> "Truth":
        """A result that ends on these numbers at whatever seed."""
        return cls(accuracy, loss, spread=0, loss_spread=0, shared=0)


DEFAULT = Truth()


# --- studies -------------------------------------------------------------------------------


def study_with(seeds: int, **changes: object) -> Study:
    """The default study at so many seeds, without its controls, with keys replaced."""
    whole = load_study("mnist").model_dump()
    return Study.model_validate({**whole, "controls": None, "seeds": seeds, **changes})


def the_controls() -> dict[str, object]:
    """Those of the default study, to be given to `study_with`."""
    found: dict[str, object] = load_study("mnist").model_dump()["controls"]
    return found


def small_study(**landscape: object) -> Study:
    """Every kind of method, two seeds, three epochs, and a landscape that takes no time."""
    content = load_study("smoke").model_dump()
    small = {
        "training_images": 200,  # of 240: a draw of them
        "lines": {"points": 7},
        "segments": {"points": 7, "seeds": 1, "low": -1, "high": 2},
        "plane": {"points": 4, "seeds": 1},
        "rays": {"points": 3, "directions": 2, "seeds": 2},
        "sharpness": {"seeds": 2},
        "hessian": {"probes": 64, "seeds": 1},
    }
    content["landscape"] = {**small, **landscape}
    # The paper's numbers are not inherited by a study on other data.
    papers = load_study("mnist")
    for name, method in content["methods"].items():
        method["paper_accuracy"] = papers.methods[name].paper_accuracy
    content["pretrain"]["paper_accuracy"] = papers.pretrain.paper_accuracy
    return Study.model_validate({**content, "seeds": [0, 1]})


# --- records of runs -----------------------------------------------------------------------


def write_study(
    results: Path,
    study: Study,
    truths: Mapping[str, Truth] | None = None,
    *,
    without: Sequence[tuple[str, int]] = (),
    diverged: Mapping[tuple[str, int], int] | None = None,
) -> RecordStore:
    """Write every run of a study but some (method, seed); methods without a truth get the default.

    The rate sweep's runs, too. Those of `diverged` left the finite numbers after that epoch.
    """
    store = RecordStore(results, study)
    for seed in study.seeds:
        for name in study.run_names:
            if (name, seed) not in without:
                epoch = (diverged or {}).get((name, seed))
                truth = (truths or {}).get(name, DEFAULT)
                write_run(store, study, name, seed, truth, diverged_after=epoch)
    return store


def write_run(
    store: RecordStore,
    study: Study,
    name: str,
    seed: int,
    truth: Truth = DEFAULT,
    *,
    provenance: Mapping[str, Any] = PROVENANCE,
    environment: Mapping[str, Any] = ENVIRONMENT,
    diverged_after: int | None = None,
) -> None:
    """Write one run of a study into its store; with an epoch, as one that diverged."""
    found = outcome(study, name, seed, truth)
    if diverged_after is not None:
        found.diverged = Divergence(diverged_after, "iterate", "validation", math.nan)
    store.write(
        name,
        seed,
        found,
        provenance=provenance,
        environment=environment,
        seconds=round(float(_rng("seconds", name, seed).uniform(1, 2)), 3),
    )


def record_of(store: RecordStore, name: str, seed: int) -> Record:
    """The record of a run that must be there."""
    record = store.find(name, seed)
    assert record is not None, f"{name} at seed {seed}"
    return record


def last_of(record: Record, predictor: Predictor, split: str) -> Measurement:
    """The last measurement of a record's predictor on a split, by the table's treatment."""
    found = [m for m in record.history if (m.predictor, m.split) == (predictor, split)]
    return [m for m in found if m.batchnorm != "running"][-1]


def outcome(study: Study, name: str, seed: int, truth: Truth = DEFAULT) -> Outcome:
    """What a run leaves behind.

    Its way leads from the pretrained weights of the seed to its own iterate.
    """
    averages = study.row_method(name).averaging is not None
    predictors: list[Predictor] = ["iterate", "average", "ensemble"] if averages else ["iterate"]
    epochs = study.row_stage(name).epochs
    result = Outcome()
    for predictor in predictors:
        for split in SCORED:
            role = _role(predictor, averages)
            level = _level(truth, name, seed, split)
            result.history += _course(truth, level, epochs, (name, seed, predictor, split), role)
            noise = truth.iterate_noise if predictor == "iterate" else truth.average_noise
            of = "average" if predictor == "ensemble" else predictor
            draw = _rng("predictions", name, seed, of, split)
            predictions = _predictions(draw, split, role, level[0], noise)
            if predictor == "ensemble":
                predictions = _moved(predictions, truth.ensemble_noise, (name, seed, split))
            result.log_probabilities[predictor, split] = predictions
        if predictor != "ensemble":
            result.weights[predictor] = _weights(name, seed, predictor)
    result.history.sort(key=lambda measurement: measurement.epoch)
    result.labels = {split: torch.from_numpy(_labels(split)) for split in SCORED}
    start = (
        _weights("initial", seed, "iterate")
        if name == study.pretrain.name
        else _weights(study.pretrain.name, seed, "iterate")
    )
    way = _rng("way", name, seed).normal(size=(epochs - 1, WEIGHTS))
    result.trajectory = torch.stack(
        [start, *torch.from_numpy(way).float(), _weights(name, seed, "iterate")]
    )
    return result


def _role(predictor: Predictor, averages: bool) -> str:
    """What a predictor is to its run: its result, the iterate beside it, or the ensemble."""
    if predictor == "ensemble":
        return "ensemble"
    return "result" if (predictor == "average") == averages else "beside"


def _level(truth: Truth, name: str, seed: int, split: SplitName) -> tuple[float, float]:
    """Accuracy and loss of a run's result at the end."""
    # Like starting weights and data order, one part of the luck is shared by a seed's methods.
    luck = _rng("luck", seed, split).normal(0, truth.shared)
    own = _rng("own", name, seed, split)
    accuracy = truth.accuracy + luck + own.normal(0, truth.spread)
    loss = truth.loss - luck * NATS_A_POINT + own.normal(0, truth.loss_spread)
    if split == "validation":
        above = VALIDATION_ABOVE_TEST
        if truth.validation is not None:
            above = truth.validation - truth.accuracy
        accuracy, loss = accuracy + above, loss - VALIDATION_ABOVE_TEST * NATS_A_POINT
    return accuracy, loss


def _course(
    truth: Truth,
    level: tuple[float, float],
    epochs: int,
    place: tuple[str, int, Predictor, SplitName],
    role: str,
) -> list[Measurement]:
    """A predictor's measurements on a split: a steady gain, and a swing about it.

    The result ends on its level, the ensemble very near to its own.
    """
    *_, predictor, split = place
    rng = _rng("course", *place)
    swing = truth.iterate_swing if predictor == "iterate" else truth.average_swing
    ahead = {"result": 0.0, "beside": -ITERATE_BELOW_AVERAGE, "ensemble": truth.ensemble_gap}[role]
    lower = {"ensemble": truth.ensemble_loss_gap}.get(role, ahead * NATS_A_POINT)
    found = []
    for epoch in range(1, epochs + 1):
        change = rng.normal(0, swing) - (epochs - epoch) * EPOCHS_GAIN
        if epoch == epochs and role != "beside":
            change = 0.0 if role == "result" else rng.normal(0, swing / 10)
        accuracy, loss = level[0] + ahead + change, level[1] - lower - change * NATS_A_POINT
        found.append(Measurement(epoch, predictor, split, float(accuracy), float(loss)))
    return found


def _weights(name: str, seed: int, predictor: Predictor) -> Tensor:
    drawn = _rng("weights", name, seed, predictor).standard_normal(WEIGHTS)
    return torch.from_numpy(drawn).float()


def _labels(split: SplitName) -> NDArray[np.int64]:
    return _rng("labels", split).integers(CLASSES, size=IMAGES[split])


def _predictions(
    rng: np.random.Generator, split: SplitName, role: str, accuracy: float, noise: float
) -> Tensor:
    """Log probabilities (N, CLASSES) of about the accuracy asked for.

    The results of all methods and their ensembles find the same images difficult, and the iterates
    beside them find others so.
    """
    labels, count = _labels(split), IMAGES[split]
    role = "result" if role == "ensemble" else role
    difficulty = _rng("difficulty", split, role).permutation(count) / count
    wrong = difficulty >= accuracy / 100
    logits = rng.normal(0, noise, size=(count, CLASSES))
    logits[np.arange(count), np.where(wrong, (labels + 1) % CLASSES, labels)] += 6
    # Not torch's, whose threads wait for each other longer than this takes.
    return torch.from_numpy(log_softmax(logits, axis=-1)).float()


def _moved(predictions: Tensor, noise: float, place: tuple[str, int, SplitName]) -> Tensor:
    """Predictions (N, CLASSES) with noise in their logarithms."""
    moved = predictions.numpy() + _rng("moved", *place).normal(0, noise, predictions.shape)
    return torch.from_numpy(log_softmax(moved, axis=-1)).float()


def _rng(*parts: str | int) -> np.random.Generator:
    """A generator of its own for everything that is drawn."""
    return np.random.default_rng([DRAW, *(zlib.crc32(str(part).encode()) for part in parts)])


# --- the landscape -------------------------------------------------------------------------


def splits(dtype: torch.dtype = torch.float32) -> dict[SplitName, Split]:
    """Images of heads, another set in every role."""
    found: dict[SplitName, Split] = {}
    for split, count in IMAGES.items():
        labels = torch.from_numpy(_labels(split))
        inputs = torch.from_numpy(_rng("inputs", split).standard_normal((count, FEATURES)))
        found[split] = Split((inputs + labels[:, None]).to(dtype), labels)
    return found


def surveyor(study: Study, store: RecordStore) -> Surveyor:
    """Measures the landscape around the weights of made-up runs."""
    return surveyor_of_heads(study, store, splits(), CLASSES, PROVENANCE)


def survey(
    study: Study, store: RecordStore, seeds: Sequence[int], parts: Sequence[Part] = PARTS
) -> None:
    """Measure what is missing of the landscape, and record it."""
    measuring = surveyor(study, store)
    for part, seed in missing_parts(study, store, seeds):
        if part not in parts:
            continue
        tables = measuring.measure(part, seed)
        store.write_landscape(
            part, seed, tables, provenance=PROVENANCE, environment=ENVIRONMENT, seconds=0.5
        )


# --- times ---------------------------------------------------------------------------------


def set_costs(monkeypatch: pytest.MonkeyPatch, estimate: Callable[..., Estimate]) -> None:
    """Let a function say what runs cost, given what `estimate` of `runs/estimate.py` is."""

    class Made:
        def __init__(self, study: Study, device: torch.device, *measured: Any) -> None:
            self.device = device
            self._given = study, device, measured

        def features_seconds(self, missing: Sequence[tuple[str, int]]) -> float:
            study, device, measured = self._given
            self._found = estimate(study, missing, device, *measured)
            return self._found.features_seconds

        def training_seconds(self, missing: Sequence[tuple[str, int]]) -> float:
            return self._found.training_seconds

    monkeypatch.setattr("swabench.runs.estimate.Costs", Made)
