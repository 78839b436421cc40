"""A study in one honest sentence: what it trained, on what, from where."""

from collections.abc import Sequence

from swabench.study.published import KNOWN
from swabench.study.seeds import in_spans
from swabench.study.stages import Boundary
from swabench.study.study import Study


def what_was_run(study: Study) -> str:
    """What was trained, on which images, from which weights, by what, and with whose settings."""
    data = KNOWN[study.data.dataset].title
    first, then = study.pretrain, study.finetune
    optimizer = first.optimizer.TITLE
    layers = _layers(then.trainable, study)
    before = "" if first.trainable == then.trainable else f" ({_layers(first.trainable, study)})"
    sentence = (
        f"What was trained, on {data} at {study.data.image_size} pixels: {layers}; first by "
        f"{optimizer} for {first.epochs} epochs{before}, then by every method for {then.epochs}."
    )
    if study.tuning and study.tuning.chosen:
        seeds, families = len(study.tuning.chosen.seeds), study.tuning.families
        of_all = families.keys() >= study.methods.keys()
        whose = "Every method's settings" if of_all else f"The settings of {', '.join(families)}"
        sentence += (
            f" {whose} were chosen by validation {study.tuning.chosen_by}, of "
            f"{study.tuning.trials_per_family} trials each, on {seeds} other seeds (`tuning.md`)."
        )
    return sentence


def other_seeds(study: Study, seeds: Sequence[int]) -> list[str]:
    """A line of a document that is not of all the study's seeds, or of others; else none."""
    if set(seeds) == set(study.seeds):
        return []
    return [f"These are seeds {in_spans(seeds)}; the study has {in_spans(study.seeds)}."]


def _layers(trainable: Boundary, study: Study) -> str:
    weights = study.backbone.weights
    if weights == "random":
        named = "seeded random weights"
        if study.backbone.zero_init_residual:
            named += " (residual blocks begin by adding nothing)"
    elif isinstance(weights, str):
        named = f"the weights {weights.rsplit('/', 1)[-1]}"
    else:
        named = f"the weights of {weights}"
    backbone = f"ResNet-50 with {named}"
    return {
        "head": f"the final layer of a {backbone}: a softmax regression, which is a convex "
        "problem, on fixed features",
        "layer4": f"the last stage and the final layer of a {backbone}",
        "all": f"all layers of a {backbone}",
    }[trainable]
