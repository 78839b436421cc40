"""The rules by which the paper's claims are decided, part of the study like all settings."""

from typing import Annotated

from pydantic import Field

from swabench.study.settings import SeedNumber, Settings

Margin = Annotated[float, Field(gt=0)]
Level = Annotated[float, Field(gt=0, lt=0.5)]


class ClaimRules(Settings):
    """What decides the claims C1 to C7, and which methods play which part in them.

    The margin of the accuracy is where the paper draws its own line: it calls its fine-tuned
    results, from 92.90 % to 93.04 %, extremely close. So differences up to 0.15 points count as
    none. The other margins are our choice, for the paper says nothing to fix them: 0.005 nats are
    two percent of a loss of about 0.25, which Adam's is on MNIST; a tenth is a small difference
    in flatness.

    Attributes:
        margin_points: Accuracies nearer than this, in percentage points, count as equal.
        margin_nats: Losses nearer than this, in nats, count as equal.
        margin_flatness: Flatness is equal where the logarithm of the ratio is nearer to zero
            than this; 0.1 is a tenth.
        alpha: Level of every test, after Holm's correction within a claim.
        power: Chance of telling a difference for which the needed seeds are given.
        transient: C3 leaves out this first share of the fine-tuning epochs, in which the
            iterate leaves the starting point and the average still holds it.
        sgd: The tuned SGD of C2, C4 and C7.
        swa: SWA at a constant rate, in C2, C4, C6 and C7.
        swa_cyclical: SWA at a cyclical rate, in C2, C3, C5 and C6.
        pswa: Periodic SWA, in C5.
        sign_flip_seed: Seed of the drawn sign flips, used beyond 16 seeds only.
    """

    margin_points: Margin = 0.15
    margin_nats: Margin = 0.005
    margin_flatness: Margin = 0.1
    alpha: Level = 0.05
    power: Annotated[float, Field(gt=0.5, lt=1)] = 0.8
    transient: Annotated[float, Field(ge=0, le=0.5)] = 1 / 3
    sgd: str = "sgd"
    swa: str = "swa"
    swa_cyclical: str = "swa-cyclical"
    pswa: str = "pswa"
    sign_flip_seed: SeedNumber = 0

    @property
    def named_methods(self) -> dict[str, str]:
        """The parts that the study itself fills, and by which methods."""
        parts = {"sgd", "swa", "swa_cyclical", "pswa"} & self.model_fields_set
        return {part: getattr(self, part) for part in sorted(parts)}
