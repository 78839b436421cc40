"""The decided claims as a person and as a program reads them: Markdown, and a data frame."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from swabench.analysis.claims import Claim
from swabench.analysis.evidence import Evidence
from swabench.study.study import Study

DIGITS = {"points": 3, "%": 2}
"""Decimals by unit; losses and ratios get the default of four."""


def evidence_frame(claims: Sequence[Claim]) -> pd.DataFrame:
    """Every comparison of every claim, one a row; a claim without evidence has one row."""
    return pd.DataFrame(
        [
            {
                "claim": claim.key,
                "verdict": claim.verdict,
                "comparison": e.comparison if e else None,
                "measure": e.measure if e else None,
                "unit": e.unit if e else None,
                "decides": e.decides if e else None,
                "difference": e.estimate.mean if e else None,
                "low": e.estimate.low if e else None,
                "high": e.estimate.high if e else None,
                "deviation": e.estimate.deviation if e else None,
                "seeds": str(e.estimate.n) if e else "0",
                "p_t": e.p_t if e else None,
                "p_sign_flip": e.p_sign_flip if e else None,
                "p_for": e.p_for if e else None,
                "p_against": e.p_against if e else None,
                "seeds_needed": str(e.seeds_needed) if e and e.seeds_needed else None,
                "mcnemar_seeds": _listed(e.mcnemar_seeds) if e else None,
            }
            for claim in claims
            for e in (claim.evidence or (None,))
        ]
    )


def for_programs(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """Every claim with its evidence as mappings, lists, strings and numbers."""
    return [
        asdict(claim) | {"evidence": [asdict(e) | {"decides": e.decides} for e in claim.evidence]}
        for claim in claims
    ]


def verdicts(claims: Sequence[Claim]) -> pd.DataFrame:
    """One line a claim: the question and its verdict."""
    return pd.DataFrame(
        [
            {"Claim": c.key, "Question": c.question, "Verdict": c.verdict, "Why": c.reason}
            for c in claims
        ]
    )


def presentable_evidence(claim: Claim, study: Study) -> pd.DataFrame:
    """A claim's evidence as a person reads it."""
    interval = f"Mean [{100 * study.confidence:g} %]"
    return pd.DataFrame(
        [
            {
                "Comparison": e.comparison,
                "Measure": e.measure,
                interval: _estimate(e),
                "p (t)": p_value(e.p_t),
                "p (sign-flip)": p_value(e.p_sign_flip),
                "p for": p_value(e.p_for),
                "p against": p_value(e.p_against),
                "Seeds needed": str(e.seeds_needed or "—") if undecided(e, study) else "—",
            }
            for e in claim.evidence
        ]
    )


def claims_markdown(claims: Sequence[Claim], study: Study) -> str:
    """The whole of `claims.md`."""
    parts = [f"# The paper's claims: {study.title}", rule_in_words(study)]
    parts.append(_markdown(verdicts(claims)))
    for claim in claims:
        parts += [f"## {claim.key}: {claim.question}", f"**{claim.verdict}.** {claim.reason}"]
        parts.append(claim.measure)
        if claim.evidence:
            parts.append(_markdown(presentable_evidence(claim, study)))
        if claim.notes:
            parts.append("\n".join(f"- {note}" for note in claim.notes))
    return "\n\n".join(parts) + "\n"


def rule_in_words(study: Study) -> str:
    """The rule behind every verdict, for a reader who begins here."""
    rules = study.claims
    return (
        "Methods of a seed share starting weights and data order, so they are compared by their "
        "differences seed by seed. A comparison counts only where the paired t test and the "
        "exact sign-flip test both say so; “p for” and “p against” are the larger of the two, for "
        "the data speaking for the claim and against it, corrected by Holm's method for the "
        f"comparisons that decide the claim. At {rules.alpha:g} or less they count. Equality is "
        f"tested by two one-sided tests (TOST): accuracies within ±{rules.margin_points:g} points, "
        f"losses within ±{rules.margin_nats:g} nats, flatness within ±{rules.margin_flatness:g} in "
        "the logarithm of its ratio. What is neither supported nor contradicted is not "
        "distinguished: then “seeds needed” is about how many seeds would tell a difference as "
        f"large as the one observed, at {rules.power:.0%} power of the t test before Holm's "
        "correction, and never fewer than the sign-flip test takes after it. The rules are part "
        "of the study. The margin of the accuracy comes from the paper; those of the loss and of "
        "flatness are this study's choice, which no result of the paper fixes."
    )


def undecided(evidence: Evidence, study: Study) -> bool:
    """Whether a comparison that decides says neither yes nor no."""
    alpha = study.claims.alpha
    return evidence.decides and evidence.p_for > alpha and evidence.p_against > alpha


def p_value(value: float) -> str:
    """A p-value with two digits, or a bound below a thousandth."""
    if pd.isna(value):
        return "—"
    if value < 0.001:
        return "< 0.001"
    return f"{value:.2f}" if value >= 0.0995 else f"{value:.3f}"


def _estimate(evidence: Evidence) -> str:
    e, digits = evidence.estimate, DIGITS.get(evidence.unit, 4)
    sign = "" if evidence.unit == "%" else "+"
    bounds = "" if pd.isna(e.low) else f" [{e.low:{sign}.{digits}f}, {e.high:{sign}.{digits}f}]"
    return f"{e.mean:{sign}.{digits}f}{bounds} {evidence.unit}".rstrip()


def _listed(seeds: Sequence[int] | None) -> str | None:
    return None if seeds is None else " ".join(map(str, seeds))


def _markdown(frame: pd.DataFrame) -> str:
    return str(frame.to_markdown(index=False, disable_numparse=True))
