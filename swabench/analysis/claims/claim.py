"""A claim: as it is asked, and as it is decided."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swabench.analysis.claims.context import ClaimContext
from swabench.analysis.evidence import Evidence, Verdict, judge
from swabench.study.study import Study


@dataclass(frozen=True)
class Claim:
    """One claim of the paper, and what the records say about it.

    Attributes:
        key: C1 to C8.
        statement: The claim itself, to stand after "that" or "whether".
        question: The claim as one question.
        measure: What is measured, and the rule that decides.
        verdict: By that rule.
        reason: What the verdict rests on, in a sentence; for `not measured`, what is missing.
        evidence: The comparisons; p-values are corrected by Holm's method within the claim.
        notes: What else a reader should see.
    """

    key: str
    statement: str
    question: str
    measure: str
    verdict: Verdict
    reason: str
    evidence: tuple[Evidence, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClaimSpec:
    """How one claim is put to the test.

    Attributes:
        key: C1 to C7.
        statement: The claim itself, to stand after "that" or "whether".
        question: The claim as one question.
        measure: What is measured, and the rule that decides; with fields for the study's rules.
        needs: The runs that it needs, at every seed.
        gather: Makes the comparisons.
        judge: Makes a verdict of them, at a level.
        explain: A further sentence on what the verdict rests on.
        notes: What else a reader should see.
        lacks: What it lacks beside runs; empty where nothing.
    """

    key: str
    statement: str
    question: str
    measure: str
    needs: Callable[[Study], Sequence[str]]
    gather: Callable[[ClaimContext], Sequence[Evidence]]
    judge: Callable[[Sequence[Evidence], float], Verdict] = judge
    explain: Callable[[ClaimContext, Sequence[Evidence]], str] = lambda context, evidence: ""
    notes: Callable[[ClaimContext], Sequence[str]] = lambda context: ()
    lacks: Callable[[ClaimContext], str] = lambda context: ""
