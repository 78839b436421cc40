"""One measurement of one predictor: what training leaves behind and analysis reads."""

from dataclasses import dataclass
from typing import Literal

SplitName = Literal["train", "validation", "test"]
Predictor = Literal["iterate", "average", "ensemble"]


@dataclass(frozen=True)
class Measurement:
    """How one predictor of a run did on one split after one epoch.

    Attributes:
        epoch: Epochs done.
        predictor: The iterate, the average, or the ensemble of the average's members.
        split: Which images.
        accuracy: Share of right answers, in percent.
        loss: Mean cross-entropy, in nats.
    """

    epoch: int
    predictor: Predictor
    split: SplitName
    accuracy: float
    loss: float
