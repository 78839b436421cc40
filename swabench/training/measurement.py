"""One measurement of one predictor: what training leaves behind and analysis reads."""

from dataclasses import dataclass
from typing import Literal

from swabench.study.inputs import SplitName

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


@dataclass(frozen=True)
class Divergence:
    """The first loss of a run that was not finite.

    Attributes:
        epoch: The scored epoch after which it was found.
        predictor: Whose loss it was. One is enough: where the average is lost and its iterate is
            not, or the other way round, the run counts as diverged.
        split: On which images.
        loss: Infinite, or no number.
    """

    epoch: int
    predictor: Predictor
    split: SplitName
    loss: float

    def __str__(self) -> str:
        return f"loss not finite after epoch {self.epoch}"

    def plain(self) -> dict[str, str | int]:
        """As JSON has it, which knows neither infinities nor what is no number."""
        return {**vars(self), "loss": str(self.loss)}
