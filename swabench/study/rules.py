"""The rules by which the paper's claims are decided, part of the study like all settings."""

from swabench.study.limits import AboveHalf, AtMostHalf, BelowHalf, Distance, SeedNumber
from swabench.study.settings import Settings


class ClaimRules(Settings):
    """What decides the claims C1 to C8, and which methods play which part in them.

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
        power: Chance of telling the difference that is given as detectable.
        transient: C3 leaves out this first share of the fine-tuning epochs, in which the
            iterate leaves the starting point and the average still holds it.
        sgd: SGD at a constant rate.
        decayed: SGD at a decayed rate.
        swa: SWA at a constant rate.
        swa_cyclical: SWA at a cyclical rate.
        pswa: Periodic SWA.
        adam_longer: Control: Adam for as long as fine-tuning takes.
        swa_without_start: Control: SWA whose mean leaves the starting weights out.
        swa_cyclical_without_start: Control: the same at the cyclical rate.
        pswa_without_start: Control: Periodic SWA whose means leave out where a phase starts.
        last_phase: Control: the mean of the last phase's epochs, without restarts.
        score_weighted: SWA whose members count by their score.
        score_weighted_100: The same by the score to the power 100.
        score_weighted_1000: The same by the score to the power 1000.
        sign_flip_seed: Seed of the drawn sign flips, used beyond 16 seeds only.
    """

    margin_points: Distance = 0.15
    margin_nats: Distance = 0.005
    margin_flatness: Distance = 0.1
    alpha: BelowHalf = 0.05
    power: AboveHalf = 0.8
    transient: AtMostHalf = 1 / 3
    sgd: str = "sgd"
    decayed: str = "sgd-multiplicative"
    swa: str = "swa"
    swa_cyclical: str = "swa-cyclical"
    pswa: str = "pswa"
    adam_longer: str = "adam-longer"
    swa_without_start: str = "swa-without-start"
    swa_cyclical_without_start: str = "swa-cyclical-without-start"
    pswa_without_start: str = "pswa-without-start"
    last_phase: str = "swa-cyclical-last-phase"
    score_weighted: str = "swa-score-weighted"
    score_weighted_100: str = "swa-score-weighted-100"
    score_weighted_1000: str = "swa-score-weighted-1000"
    sign_flip_seed: SeedNumber = 0

    @property
    def parts(self) -> dict[str, str]:
        """The method that plays each part, by the part's name."""
        return {
            name: getattr(self, name)
            for name, field in type(self).model_fields.items()
            if field.annotation is str
        }

    @property
    def named_methods(self) -> dict[str, str]:
        """The parts that the study itself fills, and by which methods."""
        fields = type(self).model_fields
        return {part: name for part, name in self.parts.items() if name != fields[part].default}
