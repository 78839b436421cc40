"""The two stages of a study, pretraining and fine-tuning: what trains, how long, in what steps."""

from typing import Annotated, Literal

from pydantic import Field

from swabench.study.inputs import Precision
from swabench.study.limits import MOST_IMAGES, NO_FLAG, Epochs, Images, Percent
from swabench.study.methods import Method
from swabench.study.optimizers import Optimizer
from swabench.study.schedules import Schedule
from swabench.study.settings import CHANGES_NO_RESULT, AddedLater, Name, Settings, Title

Boundary = Literal["head", "layer4", "all"]
BOUNDARIES: tuple[Boundary, ...] = ("head", "layer4", "all")
BatchNormMode = Literal["train", "frozen", "first-epoch"]


class Stage(Settings):
    """What pretraining and fine-tuning have in common.

    Attributes:
        trainable: Where training begins: the final layer, the last stage of blocks, or all.
        epochs: Passes over the training images.
        batch_size: Images in a minibatch; the last of an epoch may be smaller.
        optimizer: The update rule; learning rates come from a schedule.
        batchnorm: What BatchNorm does while training. `train`: it normalises by the minibatch,
            and is re-estimated on the training images for every average. `frozen`: it keeps the
            statistics that the stage starts with. `first-epoch`: it trains for one epoch and is
            frozen after, as in the paper's public code. For `head`, which has none, this and
            the next two mean nothing.
        precision: Number format of forward and backward passes; weights and averages are kept
            in float32. `float32` is just that on a CPU. On a GPU convolutions that train round
            their factors to TF32's ten bits, as cuDNN does unless told otherwise; frozen layers,
            BatchNorm's re-estimation and all scores are in full float32 there too.
        evaluation_batch_size: Images at a time where nothing trains. BatchNorm is re-estimated
            in such batches too.
        keep_weights: Whether final weights, and the epochs' of a head, stay in the records
            (`result`) or only what was measured and predicted (`none`): a network's take room.
            Pretraining's stay in any case.
        score_every_epochs: Epochs between measurements; the last epoch is always measured. A
            measurement of a network costs a pass over the training images, for BatchNorm.
    """

    trainable: Boundary = "head"
    epochs: Epochs
    batch_size: Images = 128
    optimizer: Optimizer
    batchnorm: BatchNormMode = "train"
    precision: Precision = "float32"
    evaluation_batch_size: Annotated[int, Field(strict=True, ge=2, le=MOST_IMAGES)] = 1000
    keep_weights: Annotated[Literal["none", "result"], CHANGES_NO_RESULT] = "result"
    score_every_epochs: Annotated[Epochs, AddedLater(neutral=1)] = 1

    def batchnorm_steps(self, steps_per_epoch: int) -> int | None:
        """In how many steps, from the first, BatchNorm trains; None for all."""
        steps = {"train": None, "frozen": 0, "first-epoch": steps_per_epoch}
        return steps[self.batchnorm]


class Pretraining(Stage):
    """The stage every method starts from; a row of the table by itself.

    Attributes:
        name: The row's name.
        title: The row's name in words.
        rate: The learning-rate schedule.
        paper_accuracy: The paper's number for this row, in percent.
        minimum_accuracy: What every seed must reach on the validation images, in percent, before
            any method, or another study, starts from it; a comparison from a start that failed
            says nothing.
    """

    name: Annotated[Name, CHANGES_NO_RESULT] = "adam"
    title: Annotated[Title, CHANGES_NO_RESULT] = "Adam alone, not fine-tuned"
    rate: Schedule
    paper_accuracy: Annotated[Percent | None, CHANGES_NO_RESULT] = None
    minimum_accuracy: Annotated[
        Annotated[float, Field(gt=0, lt=100), NO_FLAG] | None, CHANGES_NO_RESULT
    ] = None

    @property
    def method(self) -> Method:
        """Pretraining seen as a method without an averaging plan."""
        return Method(title=self.title, rate=self.rate, paper_accuracy=self.paper_accuracy)
