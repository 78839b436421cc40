"""What every claim draws on: the study, what was measured at its seeds, the rules."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from swabench.analysis.evidence import Comparer, Quantity, Values
from swabench.analysis.flatness import Flatness
from swabench.analysis.frame import Records
from swabench.analysis.predictions import DIVERGENCE, VARIANCE, PredictionTables
from swabench.study.inputs import SplitName
from swabench.study.seeds import listed
from swabench.study.study import Study
from swabench.training.measurement import Predictor

SWING = "swing of the "
LOG = "log of the "


class ClaimContext:
    """Values of any quantity, by run, predictor and seed.

    Args:
        study: The study with its rules.
        records: Measurements of all its runs.
        seeds: The seeds asked for.
        flatness: How sharp the minima are, by measure, method and seed.
        predictions: What was computed from the predictions.
    """

    def __init__(
        self,
        study: Study,
        records: Records,
        seeds: Sequence[int],
        flatness: Flatness,
        predictions: PredictionTables,
    ) -> None:
        self.study = study
        self.rules = study.claims
        self.records = records
        self.seeds = list(seeds)
        self.flatness = flatness
        self.predictions = predictions
        self.compare = Comparer(study)

    def quantity(self, name: str) -> Quantity:
        """A quantity with its unit, its direction and the study's margin for it."""
        rules = self.rules
        if name == "test accuracy":
            return Quantity(name, "points", 1, rules.margin_points)
        if name == "test loss":
            return Quantity(name, "nats", -1, rules.margin_nats)
        if name.startswith(SWING):
            unit = "points" if name.endswith("accuracy") else "nats"
            return Quantity(name, unit, -1, words=("steadier", "less steady"))
        if name.startswith(LOG):
            return Quantity(name, "", -1, rules.margin_flatness, ("flatter", "sharper"))
        if name.startswith(DIVERGENCE):
            return Quantity(name, "nats", -1, rules.margin_nats, ("nearer", "farther"))
        if name != VARIANCE:
            raise ValueError(f"no such quantity: {name!r}")
        return Quantity(name, "", -1, words=("lower", "higher"))

    def values(self, quantity: str, run: str, predictor: Predictor | None) -> Values:
        """A quantity of a run's predictor, by default of what it hands over, at every seed.

        Seeds at which it was not measured are left out, and a run that diverged at any is.
        """
        if run in self.records.diverged:
            return {}
        if quantity.startswith(SWING):
            return self._swings(quantity, run, predictor or self.result(run))
        if quantity.startswith(LOG):
            found = self.flatness.get(quantity.removeprefix(LOG), {}).get(run, {})
            return {s: math.log(v) for s, v in found.items() if s in self.seeds and v > 0}
        if quantity in ("test accuracy", "test loss"):
            measure = quantity.removeprefix("test ")
            final = self.records.final(run, measure, predictor)
            return {seed: final[seed] for seed in self.seeds if seed in final}
        return self.predictions.numbers.get((quantity, run, predictor or self.result(run)), {})

    def final(self, run: str, measure: str, split: SplitName = "test") -> Values:
        """The final measurement of what a run hands over, at every seed."""
        found = self.records.final(run, measure, None, split)
        return {seed: found[seed] for seed in self.seeds if seed in found}

    def result(self, run: str) -> Predictor:
        """Which predictor a run hands over."""
        return "average" if self.study.row_method(run).averaging else "iterate"

    def _swings(self, quantity: str, run: str, predictor: Predictor) -> Values:
        if self.study.finetune.score_every_epochs > 1:
            return {}
        measure = quantity.removeprefix(f"{SWING}test ")
        first = math.floor(self.rules.transient * self.study.finetune.epochs)
        course = self.records.course(run, measure, predictor)
        kept = course[course.index >= first]
        curves = {s: kept[s].dropna().tolist() for s in self.seeds if s in kept}
        # Of a single change there is no deviation.
        return {s: swing(curve) for s, curve in curves.items() if len(curve) > 2}

    def fields(self) -> Mapping[str, str]:
        """What stands for the braces in the claims' words."""
        rules = self.rules
        head = self.study.finetune.trainable == "head"
        return {
            **parts_of(self.study),
            "margin_points": f"{rules.margin_points:g}",
            "margin_nats": f"{rules.margin_nats:g}",
            "margin_flatness": f"{rules.margin_flatness:g}",
            "rates_chosen": _rates_chosen(self.study),
            "best_trial": _best_trial(self.study),
            "scale": ""
            if head
            else ", each as long in every filter as the filter's own weights "
            "(Li et al. 2018), for BatchNorm makes their norms meaningless",
            "transient": f"{rules.transient:.0%}",
            "convexity": "This study trains a final layer alone: its loss is convex and has one "
            "basin, so all methods are in the same."
            if head
            else "The loss of a network is not convex: methods may lie in different basins.",
        }


def _best_trial(study: Study) -> str:
    """What the trial has that tuning chose."""
    by_accuracy = study.tuning and study.tuning.chosen_by == "accuracy"
    return "highest validation accuracy" if by_accuracy else "lowest validation loss"


def _rates_chosen(study: Study) -> str:
    """Whose rates of claim C2's methods tuning chose."""
    rules = study.claims
    compared = (rules.sgd, rules.decayed, rules.swa, rules.swa_cyclical)
    tuning = study.tuning if study.tuning and study.tuning.chosen else None
    tuned = [name for name in compared if tuning and name in tuning.families]
    if not tuned:
        return "Both SGD's are as the study has them: no rate was chosen on validation images."
    if len(tuned) == len(compared):
        return "Rates are those that tuning chose."
    return f"The rates of {listed(tuned)} are those that tuning chose; the others are set."


def parts_of(study: Study) -> dict[str, str]:
    """The run that plays each part: the rules', pretraining, the sides that tuning chose."""
    chosen = study.tuning.chosen if study.tuning else None
    sides = {f"{side}_side": name for side, name in chosen.sides.items()} if chosen else {}
    return {**study.claims.parts, **sides, "start": study.pretrain.name}


def swing(course: Sequence[float]) -> float:
    """Standard deviation of at least two changes from one epoch to the next."""
    return float(np.diff(course).std(ddof=1))
