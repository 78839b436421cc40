"""Trains the trials of a tuning: a study like any other, but for the test images.

The trials of a seed take every step together, and those that differ in their average alone are one
trajectory. What is done already is not done again.
"""

from collections.abc import Callable
from pathlib import Path

from swabench.records import Record, RecordStore
from swabench.runs.experiment import Experiment
from swabench.study.inputs import SplitName
from swabench.study.search_space import trial_study
from swabench.study.study import Study

LOOKED_AT: tuple[SplitName, ...] = ("validation",)
"""Trials are measured on these images and on no others: the test images are for the study."""


def run_trials(study: Study, results: Path, make_experiment: Callable[..., Experiment]) -> int:
    """Train every trial that has no record yet; returns how many runs were recorded.

    Args:
        study: The study to be tuned.
        results: The results folder.
        make_experiment: Makes what runs them, from the arguments of `Experiment` that are the
            trials' own: the study, its results folder, `measured` and `other_results`.

    Raises:
        DivergedError: Pretraining diverged at some seed, so that no trial has a start there.
    """
    trials = trial_study(study)
    folder = RecordStore(results, study).folder
    experiment = make_experiment(trials, folder, measured=LOOKED_AT, other_results=results)
    seeds = list(trials.seeds)
    experiment.pretrain(seeds)
    return experiment.finetune(list(trials.methods), seeds)


def diverged_trials(study: Study, store: RecordStore) -> list[Record]:
    """The records of a study's trials that diverged, of those that are there.

    Args:
        study: The study that is tuned.
        store: Its records, among which those of its trials lie.
    """
    trials = trial_study(study)
    return store.of_trials().diverged(list(trials.methods), trials.seeds)
