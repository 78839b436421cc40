"""Trains the trials of a tuning: a study like any other, but for the test images.

The trials of a seed take every step together, and those that differ in their average alone are one
trajectory. What is done already is not done again.
"""

from pathlib import Path

import torch

from swabench.records import RecordStore
from swabench.runs.experiment import Experiment
from swabench.study.search_space import trial_study
from swabench.study.study import SplitName, Study
from swabench.system.errors import DivergedError
from swabench.system.progress import Progress

LOOKED_AT: tuple[SplitName, ...] = ("validation",)
"""Trials are measured on these images and on no others: the test images are for the study."""


def run_trials(
    study: Study, results: Path, device: torch.device, cache: Path, progress: Progress
) -> tuple[int, str]:
    """Train every trial that has no record yet.

    Args:
        study: The study to be tuned.
        results: The results folder.
        device: Where to run.
        cache: The user's cache folder.
        progress: Takes notes and counts of what is done.

    Returns:
        How many runs were recorded, and which diverged, in words; a trial that diverges is not
        chosen, and nothing else comes of it.

    Raises:
        DivergedError: Pretraining diverged, so that no trial has a start.
    """
    trials = trial_study(study)
    folder = RecordStore(results, study).folder
    experiment = Experiment(
        trials, folder, device, cache, progress, measured=LOOKED_AT, other_results=results
    )
    seeds, methods = list(trials.seeds), list(trials.methods)
    experiment.pretrain(seeds)
    missing = len(experiment.store.missing(methods, seeds))
    try:
        return experiment.finetune(methods, seeds), ""
    except DivergedError as error:
        return missing - len(experiment.store.missing(methods, seeds)), str(error)
