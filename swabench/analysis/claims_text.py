"""The decided claims as a person and as a program reads them: Markdown, and a data frame."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from swabench.analysis.claims import Claim
from swabench.analysis.evidence import Evidence, Verdict
from swabench.analysis.words import what_was_run
from swabench.study.study import Study

DIGITS = {"points": 3, "%": 2}
"""Decimals by unit; losses and ratios get the default of four."""

MARK = "†"
"""Marks a comparison of which the t test and the sign-flip test say different things."""


def evidence_frame(claims: Sequence[Claim], study: Study) -> pd.DataFrame:
    """Every comparison of every claim, one a row; a claim without evidence has one row."""
    return pd.DataFrame(
        [
            {"claim": claim.key, "verdict": claim.verdict, **_columns(e, study)}
            for claim in claims
            for e in (claim.evidence or (None,))
        ]
    )


def _columns(e: Evidence | None, study: Study) -> dict[str, Any]:
    if e is None:
        return {"seeds": "0"}
    low, high = e.over_images or (None, None)
    return {
        "comparison": e.comparison,
        "measure": e.quantity.name,
        "unit": e.quantity.unit,
        "test": e.test,
        "decides": e.decides,
        "margin": e.quantity.margin,
        "finding": e.finding(study.claims.alpha),
        "difference": e.estimate.mean,
        "low": e.estimate.low,
        "high": e.estimate.high,
        "low_over_images": low,
        "high_over_images": high,
        "deviation": e.estimate.deviation,
        "seeds": str(e.estimate.n),
        "p_t": e.p_t,
        "p_sign_flip": e.p_sign_flip,
        "p_difference": e.p_difference,
        "p_equal": e.p_equal,
        "p_beyond": e.p_beyond,
        "detectable": e.detectable,
        "mcnemar_seeds": _listed(e.mcnemar_seeds),
    }


def for_programs(claims: Sequence[Claim], study: Study) -> list[dict[str, Any]]:
    """Every claim with its evidence as mappings, lists, strings and numbers."""
    return [
        asdict(claim)
        | {
            "evidence": [
                asdict(e) | {"finding": e.finding(study.claims.alpha)} for e in claim.evidence
            ]
        }
        for claim in claims
    ]


def in_words(verdict: Verdict, study: Study) -> str:
    """A verdict as a person reads it."""
    return f"equal within ±{study.claims.margin_points:g} points" if verdict == "equal" else verdict


def verdicts(claims: Sequence[Claim], study: Study) -> pd.DataFrame:
    """One line a claim: the question, its verdict and the findings that it rests on."""
    return pd.DataFrame(
        [
            {
                "Claim": c.key,
                "Question": c.question,
                "Verdict": in_words(c.verdict, study),
                "Why": c.reason,
            }
            for c in claims
        ]
    )


def presentable_evidence(claim: Claim, study: Study) -> pd.DataFrame:
    """A claim's evidence as a person reads it."""
    level = f"{100 * study.confidence:g} %"
    alpha = study.claims.alpha
    return pd.DataFrame(
        [
            {
                "Comparison": e.comparison,
                "In": e.quantity.name,
                f"Mean [{level}]": _estimate(e),
                "Seeds": e.estimate.n,  # of some parts of the landscape not all
                "Finding": e.finding(alpha),
                "p (t)": p_value(e.p_t),
                "p (sign-flip)": p_value(e.p_sign_flip) + MARK * e.tests_disagree(alpha),
                "p (difference)": p_value(e.p_difference) if e.decides else "—",
                "p (equal)": p_value(e.p_equal) if e.decides else "—",
                "p (beyond)": p_value(e.p_beyond) if e.decides else "—",
                "Detectable from zero": _number(e.detectable, e),
                f"[{level}] over images too": _interval(e.over_images, e),
            }
            for e in claim.evidence
        ]
    )


def claims_markdown(claims: Sequence[Claim], study: Study) -> str:
    """The whole of `claims.md`."""
    parts = [f"# Claims: {study.title}", what_was_run(study), rule_in_words(study)]
    parts.append(_markdown(verdicts(claims, study)))
    for claim in claims:
        verdict = in_words(claim.verdict, study)
        parts += [f"## {claim.key}: {claim.question}", f"**{verdict}.** {claim.reason}"]
        parts.append(claim.rule)
        if claim.evidence:
            parts.append(_markdown(presentable_evidence(claim, study)))
        if claim.notes:
            parts.append("\n".join(f"- {note}" for note in claim.notes))
    return "\n\n".join(parts) + "\n"


def rule_in_words(study: Study) -> str:
    """The rule behind every verdict, for a reader who begins here."""
    rules = study.claims
    fewest = math.ceil(1 - math.log2(rules.alpha))  # n seeds have p-values down to 2^(1 - n)
    return (
        "Methods of a seed share starting weights and data order, so they are compared by their "
        "differences seed by seed. The paired t test decides, at a level of "
        f"{rules.alpha:g} after Holm's correction for the comparisons that decide a claim: whether "
        "there is a difference, whether it lies within a margin (two one-sided tests, TOST), and "
        f"whether it lies beyond it. Margins: accuracies ±{rules.margin_points:g} points, losses "
        f"±{rules.margin_nats:g} nats, flatness ±{rules.margin_flatness:g} in the logarithm of its "
        "ratio. The paper calls its fine-tuned rows, which lie 0.14 points apart, extremely close; "
        "margins of the loss and of flatness are our choice. Of “a − b: better” a is the better. "
        "Open: the data show neither of these. p (difference), p (equal) and p (beyond) are "
        "corrected; p (t) and p (sign-flip) are not, nor are intervals. The exact sign-flip test "
        f"stands beside the t test; {MARK} marks where the two disagree, with {fewest} seeds or "
        f"more, as fewer cannot reach {rules.alpha:g} by flips. Comparisons without p (difference) "
        "are shown and decide nothing. “Detectable from zero” is the difference that so many seeds "
        f"would find with {rules.power:.0%} power, given their spread, at the strictest level of "
        "Holm's correction where the comparison decides. Intervals hold "
        "for these test images; those “over images too” count the images as drawn, like the seeds "
        "(two-way random effects), and are wider."
    )


def p_value(value: float) -> str:
    """A p-value with two digits, or a bound below a thousandth."""
    if pd.isna(value):
        return "—"
    if value < 0.001:
        return "< 0.001"
    return f"{value:.2f}" if value >= 0.0995 else f"{value:.3f}"


def _estimate(e: Evidence) -> str:
    interval = (e.estimate.low, e.estimate.high)
    bounds = "" if pd.isna(e.estimate.low) else f" {_interval(interval, e)}"
    return f"{_number(e.estimate.mean, e, signed=True)}{bounds} {e.quantity.unit}".rstrip()


def _interval(bounds: tuple[float, float] | None, e: Evidence) -> str:
    if bounds is None or pd.isna(bounds[0]):
        return "—"
    return f"[{_number(bounds[0], e, signed=True)}, {_number(bounds[1], e, signed=True)}]"


def _number(value: float, e: Evidence, *, signed: bool = False) -> str:
    digits = DIGITS.get(e.quantity.unit, 4)
    return "—" if pd.isna(value) else f"{value:{'+' if signed else ''}.{digits}f}"


def _listed(seeds: Sequence[int] | None) -> str | None:
    return None if seeds is None else " ".join(map(str, seeds))


def _markdown(frame: pd.DataFrame) -> str:
    return str(frame.to_markdown(index=False, disable_numparse=True))
