"""Optimizers, as settings: what makes steps of gradients. Learning rates come from a schedule."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from swabench.study.limits import Decay, Fraction, PositiveFraction, Repeats, Share
from swabench.study.settings import Settings


class BaseSGD(Settings):
    """Stochastic gradient descent with momentum, as `torch.optim.SGD`.

    Attributes:
        momentum: Share of the last steps' direction that is kept.
        weight_decay: Times the weights, added to the gradient.
        nesterov: Whether the gradient counts once more, as in torch.
    """

    momentum: Fraction = 0.9
    weight_decay: Decay = 0
    nesterov: bool = Field(default=False, strict=True)

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "BaseSGD":
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: true needs a momentum above 0")
        return self


class SGD(BaseSGD):
    """Stochastic gradient descent, as `torch.optim.SGD`."""

    TITLE: ClassVar[str] = "SGD"
    name: Literal["sgd"]


class Adam(Settings):
    """Adam, as `torch.optim.Adam`."""

    TITLE: ClassVar[str] = "Adam"
    name: Literal["adam"]
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    weight_decay: Decay = 0


class ScheduleFreeSGD(Settings):
    """Schedule-Free SGD (Defazio et al. 2024, arXiv 2405.15682), as the package `schedulefree`.

    Gradients are taken at y = (1 − β)·z + β·x; z ← z − γ·∇f(y); x is the mean of z, weighted by
    the squares of the rates, and is what is measured and kept.

    Attributes:
        momentum: β.
        weight_decay: Times y, added to the gradient.
    """

    TITLE: ClassVar[str] = "Schedule-Free SGD"
    name: Literal["schedule-free-sgd"]
    momentum: PositiveFraction = 0.9
    weight_decay: Decay = 0


class Lookahead(BaseSGD):
    """Lookahead over SGD (Zhang et al. 2019, arXiv 1907.08610).

    After every k steps φ ← φ + α·(θ − φ) and θ ← φ; momentum is kept, nothing is re-estimated.
    The slow weights φ are what is measured and kept.

    Attributes:
        steps: k.
        alpha: α.
    """

    TITLE: ClassVar[str] = "Lookahead"
    name: Literal["lookahead"]
    steps: Repeats = 5
    alpha: Share = 0.5


Optimizer = Annotated[SGD | Adam | ScheduleFreeSGD | Lookahead, Field(discriminator="name")]
