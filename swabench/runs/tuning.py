"""Trains the trials of a tuning: a study like any other, but for the test images.

The trials of a seed take every step together, and those that differ in their average alone are one
trajectory. What is done already is not done again.
"""

from collections.abc import Callable
from pathlib import Path

from swabench.records import RecordStore
from swabench.runs.experiment import Experiment
from swabench.study.search_space import trial_study
from swabench.study.study import SplitName, Study
from swabench.system.errors import DivergedError

LOOKED_AT: tuple[SplitName, ...] = ("validation",)
"""Trials are measured on these images and on no others: the test images are for the study."""


def run_trials(
    study: Study, results: Path, make_experiment: Callable[..., Experiment]
) -> tuple[int, str]:
    """Train every trial that has no record yet.

    Args:
        study: The study to be tuned.
        results: The results folder.
        make_experiment: Makes what runs them, from the arguments of `Experiment` that are the
            trials' own: the study, its results folder, `measured` and `other_results`.

    Returns:
        How many runs were recorded, and which diverged, in words; a trial that diverges is not
        chosen, and nothing else comes of it.

    Raises:
        DivergedError: Pretraining diverged, so that no trial has a start.
    """
    trials = trial_study(study)
    folder = RecordStore(results, study).folder
    experiment = make_experiment(trials, folder, measured=LOOKED_AT, other_results=results)
    seeds, methods = list(trials.seeds), list(trials.methods)
    experiment.pretrain(seeds)
    missing = len(experiment.store.missing(methods, seeds))
    try:
        return experiment.finetune(methods, seeds), ""
    except DivergedError as error:
        return missing - len(experiment.store.missing(methods, seeds)), str(error)
