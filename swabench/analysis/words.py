"""A study in one honest sentence: what it trained, on what, from where."""

from swabench.study.study import Study

CLASSES_OF_HEAD = "a softmax regression, which is a convex problem"


def what_was_run(study: Study) -> str:
    """What was trained on what, and what its test accuracies can be compared with."""
    backbone = (
        "ResNet-50 with seeded random weights"
        if study.backbone.weights == "random"
        else f"ResNet-50 with the weights {study.backbone.weights.rsplit('/', 1)[-1]}"
    )
    data = {"mnist": "MNIST", "cifar10": "CIFAR-10"}.get(study.data.dataset, study.data.dataset)
    trained = {
        "head": f"the final layer of a {backbone}: {CLASSES_OF_HEAD}, on fixed features",
        "layer4": f"the last stage and the final layer of a {backbone}",
        "all": f"all layers of a {backbone}",
    }[study.finetune.trainable]
    longest = study.finetune.epochs
    return (
        f"What was trained, on {data} at {study.data.image_size} pixels: {trained}; first by "
        f"{study.pretrain.title.split(',')[0].split()[0]} for {study.pretrain.epochs} epochs, then "
        f"by every method for {longest}."
    )
