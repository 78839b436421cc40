"""Measures the loss landscape of a study's runs: which weights, on which images, in what order.

The mathematics is `landscape/geometry.py`; what is measured lies in the study's `landscape`.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from swabench.data.splits import stratified_split
from swabench.landscape.geometry import (
    Floats,
    Score,
    Slice,
    evaluate,
    hessian_trace,
    largest_eigenvalue,
    positions,
    random_directions,
    sharpness,
)
from swabench.landscape.network import filter_normalized, network_scores
from swabench.records import Provenance, Record, RecordStore, check_made_from
from swabench.records.arrays import TRAJECTORY, weights_key
from swabench.study.inputs import SplitName
from swabench.study.landscape import PARTS, LandscapeSettings, LineSettings, Part
from swabench.study.study import Study
from swabench.system.device import exact_float32
from swabench.system.errors import InputError, SwabenchError
from swabench.training.flat import flatten, with_end
from swabench.training.heads import stacked_logits
from swabench.training.learner import Split, Splits, accuracy_and_loss, log_probabilities

Tables = dict[str, pd.DataFrame]


def surveyed_images(settings: LandscapeSettings, splits: Splits) -> tuple[Split, Split]:
    """The training and the test images that a landscape is measured on."""
    training = _draw(splits["train"], settings.training_images, settings.seed)
    return training, _draw(splits["test"], settings.test_images, settings.seed)


def head_score(split: Split, classes: int) -> Score:
    """The score of linear heads on a split's features: one matrix product for all of them."""

    def score(weights: Tensor) -> tuple[Tensor, Tensor]:
        logits = stacked_logits(split.inputs, weights, classes)
        return accuracy_and_loss(log_probabilities(logits), split.labels)

    return score


class Surveyor:
    """Measures parts of the landscape of a study.

    Args:
        study: What to measure.
        store: Where the runs' records are.
        scores: Accuracy and loss of flat weights on the surveyed images, by split.
        provenance: Digests of the data, the backbone and the features, which the runs must share.
        device: Where the scores take weights.
        scaled: Makes of a direction of unit norm, shape (P,), the one to look along from given
            weights (P,).
        whole: Makes of what a run trained, shape (Q,), what the scores take, shape (P,): the
            start may have been trained in fewer layers.
    """

    def __init__(
        self,
        study: Study,
        store: RecordStore,
        scores: Mapping[SplitName, Score],
        provenance: Provenance,
        device: torch.device,
        scaled: Callable[[Tensor, Tensor], Tensor] = lambda direction, weights: direction,
        whole: Callable[[Tensor], Tensor] = lambda weights: weights,
    ) -> None:
        self._study = study
        self._store = store
        self._scores = scores
        self._provenance = provenance
        self._device = device
        self._scaled = scaled
        self._whole = whole
        self._settings = study.landscape
        # The parts of one seed come one after the other, and share its weights.
        self._weights = lru_cache(maxsize=len(study.row_names))(self._read_weights)

    def measure(self, part: Part, seed: int) -> Tables:
        """Measure one part at one seed; tables in long form, by name."""
        measures: dict[Part, Callable[[int], Tables]] = {
            "lines": self._lines,
            "segments": self._segments,
            "plane": self._plane,
            "rays": self._rays,
            "sharpness": self._sharpness,
            "hessian": self._hessian,
        }
        with exact_float32():  # gradients, too
            return measures[part](seed)

    def _lines(self, seed: int) -> Tables:
        return self._straight("lines", self._settings.lines, seed)

    def _segments(self, seed: int) -> Tables:
        return self._straight("segments", self._settings.segments, seed)

    def _straight(self, part: Part, settings: LineSettings, seed: int) -> Tables:
        """From the part's first row to each of the others."""
        start, *ends = self._study.landscape_rows(part)
        alphas = positions(settings.low, settings.high, settings.points)
        frames = [
            self._on(
                Slice.line(self._weights(start, seed), self._weights(end, seed)), alphas[:, None]
            )
            .rename(columns={"x": "alpha"})
            .assign(start=start, end=end)
            for end in ends
        ]
        return {part: pd.concat(frames, ignore_index=True)}

    def _plane(self, seed: int) -> Tables:
        """The grid, the three weights, and the iterates' ways, all in the plane's coordinates."""
        settings, rows = self._settings.plane, self._study.landscape_rows("plane")
        corners = [self._weights(name, seed) for name in rows]
        try:
            plane = Slice.plane(*corners)
        except ValueError as error:
            raise SwabenchError(
                f"landscape: {', '.join(rows)} at seed {seed} span no plane ({error}); choose "
                "another average in landscape.plane.method"
            ) from None
        ways = {name: way for name in rows[1:] if (way := self._trajectory(name, seed)) is not None}
        marks = pd.DataFrame(plane.coordinates(torch.stack(corners)), columns=["x", "y"])
        frames = [
            pd.DataFrame(plane.coordinates(way), columns=["x", "y"]).assign(
                method=name, epoch=range(len(way))
            )
            for name, way in ways.items()
        ]
        nothing = pd.DataFrame(columns=["x", "y", "method", "epoch"])
        paths = pd.concat(frames, ignore_index=True) if frames else nothing
        shown = pd.concat([marks, *frames])[["x", "y"]]
        edge = settings.margin * float((marks.max() - marks.min()).max())
        axes = [
            np.linspace(shown[name].min() - edge, shown[name].max() + edge, settings.points)
            for name in ("x", "y")
        ]
        grid = np.stack([values.ravel() for values in np.meshgrid(*axes)], axis=1)
        return {
            "grid": self._on(plane, grid),
            "marks": marks.assign(method=rows),
            "paths": paths,
        }

    def _rays(self, seed: int) -> Tables:
        settings = self._settings.rays
        rows = self._study.landscape_rows("rays")
        size = len(self._weights(rows[0], seed))
        drawn = random_directions(settings.directions, size, self._rng("rays", seed))
        directions = [direction.to(self._device) for direction in drawn]
        distances = np.linspace(0, settings.length, settings.points)[:, None]
        frames = []
        for name in rows:
            weights = self._weights(name, seed)
            for number, direction in enumerate(directions):
                ray = Slice.ray(weights, self._scaled(direction, weights))
                found = self._on(ray, distances).rename(columns={"x": "distance"})
                frames.append(found.assign(method=name, direction=number))
        return {"rays": pd.concat(frames, ignore_index=True)}

    def _sharpness(self, seed: int) -> Tables:
        settings = self._settings.sharpness
        rows = self._study.landscape_rows("sharpness")
        weights = torch.stack([self._weights(name, seed) for name in rows])
        frames = []
        for epsilon in settings.epsilons:
            found = sharpness(
                self._training_loss,
                weights,
                epsilon,
                self._rng("sharpness", seed),
                starts=settings.starts,
                steps=settings.steps,
            )
            frames.append(
                pd.DataFrame(
                    {
                        "method": rows,
                        "epsilon": epsilon,
                        "loss": found.loss,
                        "highest": found.highest,
                        "sharpness": found.percent,
                    }
                )
            )
        return {"sharpness": pd.concat(frames, ignore_index=True)}

    def _hessian(self, seed: int) -> Tables:
        settings = self._settings.hessian
        found = []
        for name in self._study.landscape_rows("hessian"):
            weights = self._weights(name, seed)
            # The same draws for every method: what differs is not the probes.
            rng = self._rng("hessian", seed)
            largest = largest_eigenvalue(
                self._training_loss, weights, rng, tolerance=settings.tolerance
            )
            trace = hessian_trace(self._training_loss, weights, rng, probes=settings.probes)
            found.append(
                {
                    "method": name,
                    "largest_eigenvalue": largest,
                    "trace": trace.value,
                    "trace_standard_error": trace.standard_error,
                }
            )
        return {"hessian": pd.DataFrame(found)}

    def _on(self, where: Slice, coordinates: Floats) -> pd.DataFrame:
        """Accuracy and loss at points (K, d) of a slice, on both splits; columns x (and y)."""
        frames = []
        for split, score in self._scores.items():
            accuracies, losses = evaluate(score, where, coordinates)
            axes = dict(zip("xy", coordinates.T, strict=False))
            frames.append(
                pd.DataFrame({**axes, "split": split, "accuracy": accuracies, "loss": losses})
            )
        return pd.concat(frames, ignore_index=True)

    def _training_loss(self, weights: Tensor) -> Tensor:
        return self._scores["train"](weights)[1]

    def _read_weights(self, name: str, seed: int) -> Tensor:
        record = self._record(name, seed)
        return self._whole(self._on_device(record.arrays()[weights_key(record.result)]))

    def _trajectory(self, name: str, seed: int) -> Tensor | None:
        """The weights of every epoch; None of a network's, which are not kept."""
        record = self._record(name, seed)
        return self._on_device(record.arrays()[TRAJECTORY]) if record.holds_trajectory else None

    def _record(self, name: str, seed: int) -> Record:
        record = self._store.find(name, seed)
        if record is None:
            raise InputError(f"landscape: {name} at seed {seed} has no record; run it first")
        check_made_from(record, self._provenance)
        return record

    def _on_device(self, values: NDArray[np.float32]) -> Tensor:
        return torch.tensor(values, device=self._device)

    def _rng(self, part: Part, seed: int) -> np.random.Generator:
        return np.random.default_rng([self._settings.seed, seed, PARTS.index(part)])


def surveyor_of_heads(
    study: Study, store: RecordStore, splits: Splits, classes: int, provenance: Provenance
) -> Surveyor:
    """What measures the landscape of linear heads on cached features (N, D)."""
    training, test = surveyed_images(study.landscape, splits)
    scores: dict[SplitName, Score] = {
        "train": head_score(training, classes),
        "test": head_score(test, classes),
    }
    return Surveyor(study, store, scores, provenance, training.labels.device)


def surveyor_of_networks(
    study: Study,
    store: RecordStore,
    splits: Splits,
    network: nn.Module,
    frozen: nn.Module | None,
    provenance: Provenance,
) -> Surveyor:
    """What measures the landscape of networks; arguments as `network_scores` takes them.

    The network's own weights are those of layers that a run did not train.
    """
    training, test = surveyed_images(study.landscape, splits)
    at_once = study.finetune.evaluation_batch_size
    scores = network_scores(network, frozen, training, test, evaluation_batch=at_once)
    scaled = partial(filter_normalized, network=network)
    below = flatten(network)[0].to(training.labels.device)
    whole = partial(with_end, below)
    return Surveyor(study, store, scores, provenance, training.labels.device, scaled, whole)


def _draw(split: Split, count: int | None, seed: int) -> Split:
    """A stratified draw of `count` images; all of them for None, or where there are no more."""
    if count is None or count >= len(split):
        return split
    _, rows = stratified_split(split.labels.cpu().numpy(), count, seed)
    chosen = torch.from_numpy(rows).to(split.labels.device)
    return Split(split.inputs[chosen], split.labels[chosen])
