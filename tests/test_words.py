"""The sentence that says what a study trained: its numbers and names are the study's own."""

from typing import Any

import pytest

from swabench.analysis.words import what_was_run
from swabench.study.loading import load_study
from swabench.study.study import Study
from swabench.study.tuning import Choice, Choices

HEAD = "a softmax regression, which is a convex problem, on fixed features"


def study_of(name: str, **changes: dict[str, Any]) -> Study:
    """A bundled study with some settings of its sections replaced."""
    content = load_study(name).model_dump()
    for section, settings in changes.items():
        content[section] = {**content[section], **settings}
    return Study.model_validate(content)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "mnist",
            "What was trained, on MNIST at 28 pixels: the final layer of a ResNet-50 with seeded "
            f"random weights: {HEAD}; first by Adam for 5 epochs, then by every method for 15.",
        ),
        (
            "cifar10",
            "What was trained, on CIFAR-10 at 224 pixels: all layers of a ResNet-50 with the "
            "weights IMAGENET1K_V1; first by Adam for 30 epochs, then by every method for 40.",
        ),
        (
            "layer4",
            "What was trained, on MNIST at 28 pixels: the last stage and the final layer of a "
            "ResNet-50 with seeded random weights; first by Adam for 8 epochs, then by every "
            "method for 10.",
        ),
        (
            "fashion-source",
            "What was trained, on Fashion-MNIST at 28 pixels: all layers of a ResNet-50 with "
            "seeded random weights (residual blocks begin by adding nothing); first by SGD for 3 "
            "epochs, then by every method for 1.",
        ),
        (
            "transfer",
            "What was trained, on MNIST at 28 pixels: the last stage and the final layer of a "
            "ResNet-50 with the weights of sgd-linear at seed 0 of study fashion-source; first by "
            "Adam for 20 epochs (the final layer of a ResNet-50 with the weights of sgd-linear at "
            f"seed 0 of study fashion-source: {HEAD}), then by every method for 10.",
        ),
    ],
)
def test_bundled_studies_say_what_each_stage_trained_from_which_weights(
    name: str, sentence: str
) -> None:
    assert what_was_run(load_study(name)) == sentence


def test_it_is_the_pretraining_whose_optimizer_is_named() -> None:
    study = study_of(
        "mnist",
        pretrain={"optimizer": {"name": "sgd", "momentum": 0.9}, "epochs": 2},
        finetune={"optimizer": {"name": "adam"}, "epochs": 6},
    )
    assert "first by SGD for 2 epochs, then by every method for 6." in what_was_run(study)


def test_weights_of_a_file_are_named_without_their_folder() -> None:
    study = study_of("imagenet", backbone={"weights": "/home/somebody/weights/fine.pth"})
    assert "a ResNet-50 with the weights fine.pth: " in what_was_run(study)


def tuned(families: list[str]) -> Study:
    """The bundled tuned study with some of its families, and something chosen for each."""
    whole = load_study("mnist-tuned")
    assert whole.tuning is not None
    grids = {name: grid for name, grid in whole.tuning.families.items() if name in families}
    settings = {name: {key: grid[0] for key, grid in grids[name].items()} for name in grids}
    choices = Choices(
        search_space="0" * 16,
        seeds=whole.tuning.seeds,
        families={n: Choice(settings=s, loss=0.2, trials=3) for n, s in settings.items()},
    )
    tuning = whole.tuning.model_copy(update={"families": grids, "sides": {}, "chosen": choices})
    return whole.model_copy(update={"tuning": tuning})


def test_a_tuned_study_says_whose_settings_were_chosen_of_how_many_trials() -> None:
    tuning = load_study("mnist-tuned").tuning
    assert tuning is not None
    seeds, trials = len(tuning.seeds), tuning.trials_per_family
    assert seeds != trials
    rest = (
        f"were chosen by validation loss, of {trials} trials each, on {seeds} other seeds "
        "(`tuning.md`)."
    )
    every = what_was_run(tuned(list(load_study("mnist-tuned").methods)))
    assert every.endswith(f" Every method's settings {rest}")
    assert what_was_run(tuned(["sgd", "swa"])).endswith(f" The settings of sgd, swa {rest}")


def test_a_tuned_study_says_what_its_settings_were_chosen_by() -> None:
    study = tuned(["sgd", "swa"])
    tuning = study.tuning
    assert tuning is not None
    tuning = tuning.model_copy(update={"chosen_by": "accuracy"})
    assert "were chosen by validation accuracy, of" in what_was_run(
        study.model_copy(update={"tuning": tuning})
    )


def test_a_study_that_is_not_tuned_yet_says_nothing_of_choices() -> None:
    assert "chosen" not in what_was_run(load_study("mnist-tuned"))
