"""Units: what of a study is carried out in one go, in one place, and ends in records.

A study is cut as finely as it can be spread: its seeds, of a network its trajectories, and the
parts of its landscape. Seeds that draw another backbone than the study's are a unit together where
they share it: its features are computed for them alone, and are not kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from swabench.records import RecordStore
from swabench.runs.learners import in_lockstep
from swabench.study.landscape import Part
from swabench.study.study import Study
from swabench.study.trajectories import trajectories

if TYPE_CHECKING:  # it makes units, and is what carries them out
    from swabench.runs.experiment import Experiment

Runs = Sequence[tuple[str, int]]
"""Runs as (name, seed)."""

Task = Literal["features", "pretrain", "finetune", "landscape"]


@dataclass(frozen=True)
class Unit:
    """Runs of a study, or a part of its landscape.

    Attributes:
        task: What is done: the features that all need, or a stage, or a look at the landscape.
        seeds: At which seeds.
        names: Of which runs; of the landscape, which part.
    """

    task: Task
    seeds: tuple[int, ...]
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.task == "features":
            return "what all seeds share"
        first, *others = self.names
        if self.task == "landscape":
            return f"{first} of the landscape at seed {self.seeds[0]}"
        more = f" and {len(others)} more" if others else ""
        several = "s" if len(self.seeds) > 1 else ""
        return f"{first}{more} at seed{several} {', '.join(map(str, self.seeds))}"

    def carry_out(self, experiment: "Experiment") -> None:
        """Do it, in this process."""
        if self.task == "features":
            experiment.prepare(self.seeds[0])
        elif self.task == "pretrain":
            experiment.pretrain(list(self.seeds))
        elif self.task == "finetune":
            experiment.finetune(list(self.names), list(self.seeds))
        else:
            (part,) = self.names
            experiment.measure([(part, seed) for seed in self.seeds])  # type: ignore[misc]


def digest_of(store: RecordStore, task: Task, name: str, seed: int) -> str | None:
    """A digest of what a unit recorded of a run, or of a part of the landscape; None of nothing."""
    if task == "landscape":
        measured = store.find_landscape(name, seed)  # type: ignore[arg-type]
        return measured.identity if measured else None
    record = store.find(name, seed)
    return record.arrays_sha256 if record else None


def pretraining_units(study: Study, runs: Runs) -> list[Unit]:
    """A study's pretraining at some seeds."""
    return [Unit("pretrain", seeds, names) for seeds, names in _by_features(study, runs)]


def starting_units(study: Study, runs: Runs) -> list[Unit]:
    """The pretraining that must be done before methods start that train in several units.

    Else the unit that trains a seed's methods pretrains it first.
    """
    if in_lockstep(study, study.finetune.trainable) or "backbone" in study.seed_draws:
        return []
    return pretraining_units(study, runs)


def shared_units(study: Study, units: Sequence[Unit]) -> list[Unit]:
    """What is best done once before several units, by one: the features that all need."""
    sharing = [unit for unit in units if not has_own_features(study, unit.seeds[0])]
    return [Unit("features", sharing[0].seeds[:1])] if len(sharing) > 1 else []


def finetuning_units(study: Study, runs: Runs, device: str = "cpu") -> list[Unit]:
    """A study's fine-tuning: heads of a seed train together, of networks those on one path.

    On a GPU a seed's trajectories do, too, side by side. Where seeds draw backbones, all methods
    of a seed do: its features may be its own.
    """
    paths = [tuple(study.all_methods)]
    if "backbone" in study.seed_draws:
        paths = [study.run_names]
    elif not in_lockstep(study, study.finetune.trainable) and device != "cuda":
        paths = [tuple(names) for names in trajectories(study.all_methods)]
    cut = [
        (seeds, tuple(name for name in path if name in names))
        for seeds, names in _by_features(study, runs)
        for path in paths
    ]
    return [Unit("finetune", seeds, names) for seeds, names in cut if names]


def landscape_units(parts: Sequence[tuple[Part, int]]) -> list[Unit]:
    """Parts of a landscape."""
    return [Unit("landscape", (seed,), (part,)) for part, seed in parts]


def has_own_features(study: Study, seed: int) -> bool:
    """Whether a seed draws a backbone that is not the study's: its features are not kept."""
    return study.draws(seed).backbone != study.backbone.seed


def _by_features(study: Study, runs: Runs) -> list[tuple[tuple[int, ...], tuple[str, ...]]]:
    """Seeds, together where they share features of their own, and the names to be run there."""
    seeds: dict[object, dict[int, None]] = {}
    names: dict[object, dict[str, None]] = {}
    for name, seed in runs:
        draws = study.draws(seed)
        own = has_own_features(study, seed)
        key = (draws.split, draws.backbone) if own else seed
        seeds.setdefault(key, {})[seed] = None
        names.setdefault(key, {})[name] = None
    return [(tuple(seeds[key]), tuple(names[key])) for key in seeds]
