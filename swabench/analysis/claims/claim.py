"""A claim as it is asked, read from `claims.yaml`, and as it is decided."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from swabench.analysis.evidence import Evidence, Test, Verdict
from swabench.training.measurement import Predictor


@dataclass(frozen=True)
class Claim:
    """One claim, and what the records say about it.

    Attributes:
        key: C1 to C8, or P1, the primary contrast of a tuned study.
        statement: The claim itself, as a sentence without its capital and full stop.
        question: The claim as one question.
        rule: What is measured, and what decides.
        verdict: By that rule.
        reason: What the verdict rests on, in a sentence; for `not measured`, what is missing.
        evidence: The comparisons; p-values are corrected by Holm's method within the claim.
        notes: What else a reader should see.
    """

    key: str
    statement: str
    question: str
    rule: str
    verdict: Verdict
    reason: str
    evidence: tuple[Evidence, ...] = ()
    notes: tuple[str, ...] = ()


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ComparisonSpec(_Data):
    """One comparison: `run` less `with`, in one quantity.

    Attributes:
        run: A part of the rules, or `every method`.
        of: Its predictor; None for what it hands over.
        other: What it is compared with (`with` in the file).
        other_of: The other's predictor (`with_of` in the file).
        quantity: In what (`in` in the file).
        test: What the claim says of it.
        control: Whether it is no test of the claim, but says what else would do the same.
    """

    run: str
    of: Predictor | None = None
    other: str = Field(alias="with")
    other_of: Predictor | None = Field(default=None, alias="with_of")
    quantity: str = Field(alias="in")
    test: Test | None = None
    control: bool = False

    @property
    def decides(self) -> bool:
        """Whether the verdict rests on it."""
        return self.test is not None and not self.control


class ClaimSpec(_Data):
    """How one claim is put to the test.

    Attributes:
        statement: The claim itself, as a sentence without its capital and full stop.
        question: The claim as one question.
        rule: What is measured, and what decides; with fields for the study's rules.
        compare: The comparisons.
        gather: A claim whose comparisons take more than that: `rates`.
        of_tuned_studies: Whether it is a question of this product to a study whose methods are
            tuned and compared by sides, and no claim of the paper.
        notes: What else a reader should see.
    """

    statement: str
    question: str
    rule: str
    compare: tuple[ComparisonSpec, ...] = ()
    gather: Literal["rates"] | None = None
    of_tuned_studies: bool = False
    notes: tuple[str, ...] = ()


@cache
def claim_specs() -> Mapping[str, ClaimSpec]:
    """All claims by key, as `claims.yaml` has them."""
    text = files("swabench.analysis.claims").joinpath("claims.yaml").read_text(encoding="utf-8")
    return {key: ClaimSpec.model_validate(spec) for key, spec in yaml.safe_load(text).items()}
