"""From a study to its trials, and from what was chosen among them to the study that runs."""

from swabench.study.identity import Identities, NamedFiles
from swabench.study.study import Study
from swabench.study.tuning import Choices, Tuning
from swabench.system.errors import InputError
from swabench.system.files import sha256_of_json

TUNING = "tuning"
"""Name of the study of the trials; so their records lie in the study's own folder, apart."""


def tuning_of(study: Study) -> Tuning:
    """A study's search spaces.

    Raises:
        InputError: It has none.
    """
    if study.tuning is None:
        raise InputError(
            f"study {study.name!r} has no section `tuning`; `--config mnist-tuned` has one"
        )
    return study.tuning


def trial_study(study: Study) -> Study:
    """The study of all trials at the tuning seeds: what a study shares, and a method a trial.

    It keeps what was measured and predicted, no weights. Nothing of it depends on how many test
    images the study has. A network is measured at the end alone, which is what the choice is by:
    each measurement costs a pass over the training images.
    """
    tuning = tuning_of(study)
    trials = tuning.trials(study.methods)
    changes: dict[str, object] = {"keep_weights": "none"}
    if study.finetune.trainable != "head":
        changes["score_every_epochs"] = study.finetune.epochs
    return Study(
        name=TUNING,
        title=f"Trials: {study.title}",
        data=study.data.model_copy(update={"test_images": None}),
        backbone=study.backbone,
        pretrain=study.pretrain,
        finetune=study.finetune.model_copy(update=changes),
        methods={name: trial.method for name, trial in trials.items()},
        seeds=tuning.seeds,
        seed_draws=study.seed_draws,
        reference=study.pretrain.name,
        confidence=study.confidence,
        diverged="record",  # such a trial is not chosen; what else follows is the study's to say
        mixed_hardware=study.mixed_hardware,
    )


def search_space_digest(study: Study, files: NamedFiles) -> str:
    """Of all that a choice depends on: the trials and what they share, the seeds, the sides.

    Args:
        study: The study; tuned or not, the digest is the same.
        files: Digests of the files that it names. Those of its data count for nothing, because
            the test images are among them.
    """
    tuning, trials = tuning_of(study), trial_study(study)
    identities = Identities(trials, NamedFiles(weights=files.weights))
    content = {
        "seeds": tuning.seeds,
        "families": tuning.families,
        "sides": tuning.sides,
        **({} if tuning.chosen_by == "loss" else {"chosen_by": tuning.chosen_by}),
        "trials": {name: identities.run(name, tuning.seeds[0]) for name in trials.methods},
    }
    return sha256_of_json(content)[:16]


def tuned(study: Study, choices: Choices) -> Study:
    """The study with the chosen settings in place of its own.

    Its `tuning.chosen` has the choices; titles say them.

    Raises:
        InputError: A choice is no trial of the study.
    """
    tuning = tuning_of(study)
    trials = tuning.trials(study.methods).values()
    methods = dict(study.methods)
    for family in tuning.families:
        choice = choices.families.get(family)
        wanted = (family, choice.settings if choice else None)
        found = [trial.method for trial in trials if (trial.family, trial.settings) == wanted]
        if not found:
            raise InputError(f"families.{family}: what is chosen is none of its trials")
        methods[family] = found[0]
    for side, families in tuning.sides.items():
        if choices.sides.get(side) not in families:
            raise InputError(f"sides.{side}: what is chosen is none of {', '.join(families)}")
    fields = {name: getattr(study, name) for name in study.model_fields_set}
    chosen = tuning.model_copy(update={"chosen": choices})
    return Study.model_validate({**fields, "methods": methods, "tuning": chosen})
