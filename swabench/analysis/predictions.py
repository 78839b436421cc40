"""What is computed from predictions rather than from measurements, image by image.

Predictions fill megabytes a run and are not published; the tables made here are, so that every
number that a claim or a report rests on can be computed again from published files.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from swabench.analysis.crossed import MeanSquares, TwoWay
from swabench.analysis.frame import Records
from swabench.records import Record
from swabench.training.measurement import Predictor

Pair = tuple[str, str]

MEASURED: tuple[Predictor, ...] = ("iterate", "average")
"""Predictors of a run whose variance over seeds is measured."""

VARIANCE = "variance of the predictions over seeds"
DIVERGENCE = "divergence from the ensemble of "

_POINTS = 100.0


@dataclass
class PredictionTables:
    """Tables made from the predictions of the test images.

    Attributes:
        numbers: One a measure, run, predictor and seed. `DIVERGENCE` of a run: the mean
            Kullback-Leibler divergence of a predictor from the run's ensemble, in nats.
            `VARIANCE`: the mean squared distance of a seed's probabilities from the other seeds'
            mean.
        mcnemar: For pairs of runs, seed by seed: how many images one of the two alone gets right.
        pairs: For pairs of runs: the mean difference and the three mean squares of a two-way
            layout of seeds × images, in points of accuracy and in nats.
    """

    numbers: dict[tuple[str, str, Predictor], dict[int, float]] = field(default_factory=dict)
    mcnemar: dict[Pair, dict[int, tuple[int, int]]] = field(default_factory=dict)
    pairs: dict[tuple[str, str, str], MeanSquares] = field(default_factory=dict)

    def numbers_frame(self) -> pd.DataFrame:
        """`numbers` with one row a number."""
        rows = [
            (measure, name, predictor, seed, value)
            for (measure, name, predictor), found in self.numbers.items()
            for seed, value in found.items()
        ]
        return pd.DataFrame(rows, columns=["measure", "method", "predictor", "seed", "value"])

    def mcnemar_frame(self) -> pd.DataFrame:
        """`mcnemar` with one row a pair and seed."""
        rows = [
            (name, other, seed, *counts)
            for (name, other), found in self.mcnemar.items()
            for seed, counts in found.items()
        ]
        return pd.DataFrame(rows, columns=["method", "other", "seed", "only_method", "only_other"])

    def pairs_frame(self) -> pd.DataFrame:
        """`pairs` with one row a pair and measure."""
        columns = [
            "method",
            "other",
            "measure",
            "seeds",
            "images",
            "mean",
            "ms_seeds",
            "ms_images",
            "ms_residual",
        ]
        rows = [
            (*pair, m.seeds, m.images, m.mean, m.of_seeds, m.of_images, m.residual)
            for pair, m in self.pairs.items()
        ]
        return pd.DataFrame(rows, columns=columns)


def tables_of_predictions(
    records: Records,
    seeds: Sequence[int],
    *,
    pairs: Iterable[Pair],
    ensembles: Iterable[str],
    rows: Sequence[str],
) -> PredictionTables:
    """Read every run's predictions, one seed at a time, and make the tables.

    Args:
        records: Of all runs named below; a seed at which one lacks leaves that out, and a run
            that diverged at some seed is left out at all.
        seeds: Which seeds.
        pairs: Runs whose results are compared image by image.
        ensembles: Runs whose ensembles predictors are held against, where they were kept.
        rows: Runs whose results are held against every ensemble.
    """
    tables, layouts = PredictionTables(), dict[tuple[str, str, str], TwoWay]()
    pairs = [pair for pair in pairs if records.diverged.keys().isdisjoint(pair)]
    ensembles, rows = ([n for n in of if n not in records.diverged] for of in (ensembles, rows))
    sums: dict[tuple[str, Predictor], tuple[Any, int]] = {}
    for seed in seeds:
        read = _Reader(records, seed)
        for name, other in pairs:
            _compare(tables, layouts, read, (name, other))
        for name, other in product(ensembles, [*ensembles, *rows]):
            _hold_against_ensemble(tables, read, name, other)
        for name, predictor in product(dict.fromkeys([*ensembles, *rows]), MEASURED):
            if (own := read.predictions(name, predictor)) is not None:
                total, count = sums.get((name, predictor), (0.0, 0))
                sums[name, predictor] = (total + np.exp(own), count + 1)
    for seed in seeds:  # once more: a seed is held against the mean of the others
        read = _Reader(records, seed)
        for (name, predictor), (total, count) in sums.items():
            _distance_from_others(tables, read, name, predictor, total, count)
    tables.pairs = {pair: layout.mean_squares() for pair, layout in layouts.items()}
    return tables


class _Reader:
    """Test predictions and labels of one seed's runs, each read once."""

    def __init__(self, records: Records, seed: int) -> None:
        self._records = records
        self.seed = seed
        self._predictions: dict[str, dict[Predictor, NDArray[np.float64]]] = {}
        self._labels: dict[str, NDArray[np.int64] | None] = {}

    def predictions(self, name: str, predictor: Predictor | None) -> NDArray[np.float64] | None:
        """Log probabilities (N, C) of a predictor, by default the run's result; None if absent."""
        record = self._record(name)
        if record is None:
            return None
        self._read(name, record)
        return self._predictions[name].get(predictor or record.result)

    def labels(self, name: str) -> NDArray[np.int64] | None:
        """The true classes (N,); None where a record holds none."""
        record = self._record(name)
        if record is None:
            return None
        self._read(name, record)
        return self._labels[name]

    def result(self, name: str) -> Predictor:
        """Which predictor a run hands over."""
        return self._records[name][self.seed].result

    def _record(self, name: str) -> Record | None:
        return self._records.get(name, {}).get(self.seed)

    def _read(self, name: str, record: Record) -> None:
        if name not in self._predictions:
            arrays = record.arrays()
            self._predictions[name] = arrays.log_probabilities("test")
            self._labels[name] = arrays.labels("test")


def _compare(
    tables: PredictionTables,
    layouts: dict[tuple[str, str, str], TwoWay],
    read: _Reader,
    pair: Pair,
) -> None:
    """Right answers and losses of two results, image by image."""
    labels = read.labels(pair[0])
    one, other = (read.predictions(name, None) for name in pair)
    if labels is None or one is None or other is None:
        return
    right = [own.argmax(-1) == labels for own in (one, other)]
    losses = [-own[np.arange(len(labels)), labels] for own in (one, other)]
    only = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    tables.mcnemar.setdefault(pair, {})[read.seed] = only
    for measure, values, scale in (("accuracy", right, _POINTS), ("loss", losses, 1.0)):
        difference = scale * (values[0].astype(np.float64) - values[1])
        layouts.setdefault((*pair, measure), TwoWay()).add(difference)


def _hold_against_ensemble(tables: PredictionTables, read: _Reader, name: str, other: str) -> None:
    """A run's predictors against the ensemble of `name`: its own, or another run's result."""
    ensemble = read.predictions(name, "ensemble")
    if ensemble is None:
        return
    predictors: Sequence[Predictor | None] = MEASURED if other == name else [None]
    for predictor in predictors:
        own = read.predictions(other, predictor)
        if own is None:
            continue
        shown = predictor or read.result(other)
        divergence = (np.exp(ensemble) * (ensemble - own)).sum(-1).mean()
        key = (DIVERGENCE + name, other, shown)
        tables.numbers.setdefault(key, {})[read.seed] = float(divergence)


def _distance_from_others(
    tables: PredictionTables,
    read: _Reader,
    name: str,
    predictor: Predictor,
    total: NDArray[np.float64],
    seeds: int,
) -> None:
    """The variance term of the Brier score's bias and variance, up to a factor all share."""
    own = read.predictions(name, predictor)
    if own is None or seeds < 2:
        return
    probabilities = np.exp(own)
    others = (total - probabilities) / (seeds - 1)
    distance = ((probabilities - others) ** 2).sum(-1).mean()
    tables.numbers.setdefault((VARIANCE, name, predictor), {})[read.seed] = float(distance)
