"""One measurement of one predictor: what training leaves behind and analysis reads."""

from dataclasses import dataclass
from typing import Literal

from swabench.study.study import SplitName

Predictor = Literal["iterate", "average", "ensemble"]
Statistics = Literal["re-estimated", "running"]


@dataclass(frozen=True)
class Measurement:
    """How one predictor of a run did on one split after one epoch.

    Attributes:
        epoch: Epochs done.
        predictor: The iterate, the average, or the ensemble of the average's members.
        split: Which images.
        accuracy: Share of right answers, in percent.
        loss: Mean cross-entropy, in nats.
        batchnorm: With which statistics BatchNorm normalised: re-estimated on the training
            images for these very weights, which is the table's treatment of every row, or the
            iterate's running ones; None where no BatchNorm trains.
    """

    epoch: int
    predictor: Predictor
    split: SplitName
    accuracy: float
    loss: float
    batchnorm: Statistics | None = None
