"""How long a study takes when its units are spread over workers."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from swabench.runs.estimate import Costs
from swabench.runs.units import Unit, finetuning_units, has_own_features, pretraining_units
from swabench.study.study import Study


@dataclass(frozen=True)
class Wave:
    """Units none of which waits for another.

    Attributes:
        title: What they are.
        seconds: What each takes.
    """

    title: str
    seconds: Sequence[float]


@dataclass(frozen=True)
class Spread:
    """The waves of a study, each of which waits for the one before."""

    waves: Sequence[Wave]

    @property
    def longest_chain(self) -> float:
        """Seconds that remain however many workers there are."""
        return sum(max(wave.seconds) for wave in self.waves)

    def on(self, workers: int) -> float:
        """Seconds on so many workers, each of which takes the next unit when it is free."""
        return sum(_seconds_of(wave, workers) for wave in self.waves)


def spread_of(study: Study, missing: Sequence[tuple[str, int]], costs: Costs) -> Spread:
    """How the missing runs of a study are cut into units, and what each takes.

    Args:
        study: The study.
        missing: Its runs to do, as (name, seed).
        costs: What they cost on a worker's device with its threads.

    Raises:
        SwabenchError: The device has not enough memory.
    """
    start = study.pretrain.name
    starts = [run for run in missing if run[0] == start]
    others = [run for run in missing if run[0] != start]
    shared = costs.features_seconds([r for r in missing if not has_own_features(study, r[1])])

    def seconds(unit: Unit) -> float:
        runs = [(name, seed) for seed in unit.seeds for name in unit.names]
        own = has_own_features(study, unit.seeds[0])
        return costs.training_seconds(runs) + (costs.features_seconds(runs) if own else 0.0)

    # As `reproduce` does it: a stage of all seeds, then the next; of drawn backbones both at once.
    stages = [
        ("pretraining", pretraining_units(study, starts)),
        ("fine-tuning", finetuning_units(study, others, costs.device.type)),
    ]
    if "backbone" in study.seed_draws:
        stages = [("pretraining and fine-tuning", finetuning_units(study, missing))]
    waves = [Wave(title, [seconds(unit) for unit in units]) for title, units in stages if units]
    if shared:
        waves = [Wave("frozen layers", [shared]), *waves]
    return Spread(waves)


def _seconds_of(wave: Wave, workers: int) -> float:
    free_at = [0.0] * min(workers, len(wave.seconds))
    for seconds in wave.seconds:
        heapq.heappushpop(free_at, free_at[0] + seconds)
    return max(free_at)
