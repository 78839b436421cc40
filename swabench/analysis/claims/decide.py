"""What is common to all claims: are the runs there, Holm's correction, verdict and reasons."""

from collections.abc import Sequence
from dataclasses import replace

from swabench.analysis.claims.claim import Claim, ClaimSpec
from swabench.analysis.claims.context import ClaimContext
from swabench.analysis.claims.specs import SPECS, UNTRIED
from swabench.analysis.evidence import Evidence, corrected
from swabench.analysis.flatness import Flatness
from swabench.analysis.frame import Records
from swabench.study.averaging import ScoreWeighted
from swabench.study.schedules import Constant
from swabench.study.study import Study


def decide_claims(
    study: Study, records: Records, seeds: Sequence[int], flatness: Flatness | None = None
) -> list[Claim]:
    """Decide every claim by the study's rules.

    Args:
        study: The study with its rules.
        records: Records of all its runs (`collect` with `study.run_names`).
        seeds: The seeds that must be there.
        flatness: How sharp the minima are, by measure, method and seed, where it was measured.
    """
    context = ClaimContext(study, records, seeds, flatness or {})
    weighted = [
        name
        for name, method in study.methods.items()
        if isinstance(method.averaging, ScoreWeighted)
    ]
    words = f"It is no finding of the paper; see the rows {', '.join(weighted)} in the table."
    untried = replace(UNTRIED, reason=words) if weighted else UNTRIED
    return [*(_decide(spec, context) for spec in SPECS), untried]


def _decide(spec: ClaimSpec, context: ClaimContext) -> Claim:
    measure = spec.measure.format(
        rules=context.rules,
        transient=f"{context.rules.transient:.0%}",
        tuned=_rate_in_words(context),
    )
    claim = Claim(spec.key, spec.statement, spec.question, measure, "not measured", "")
    lacking = _lacking(spec.needs(context.study), context) or spec.lacks(context)
    if lacking:
        return replace(claim, reason=f"{lacking}.")
    evidence = corrected(spec.gather(context), context.rules.alpha)
    verdict = spec.judge(evidence, context.rules.alpha)
    reasons = (
        _reason(evidence, context.rules.alpha),
        _too_few_seeds(evidence),
        spec.explain(context, evidence),
    )
    return replace(
        claim,
        verdict=verdict,
        reason=" ".join(filter(None, reasons)),
        evidence=evidence,
        notes=(*spec.notes(context), *_mcnemar_notes(evidence, context)),
    )


def _rate_in_words(context: ClaimContext) -> str:
    """The constant rate of the tuned SGD, in brackets; nothing where it has none."""
    method = context.study.methods.get(context.rules.sgd)
    if method is None or not isinstance(method.rate, Constant):
        return ""
    return f" (rate {method.rate.learning_rate:g})"


def _lacking(names: Sequence[str], context: ClaimContext) -> str:
    """What a claim needs and the records do not have; empty where nothing is missing."""
    if not names:
        return "The study has no rate_sweep of its SGD and its SWA"
    unknown = [name for name in names if name not in context.study.run_names]
    if unknown:
        return f"The study has no method {' and no method '.join(map(repr, unknown))}"
    absent = {
        name: [s for s in context.seeds if s not in context.records.get(name, {})] for name in names
    }
    parts = [f"{name} lacks seeds {', '.join(map(str, s))}" for name, s in absent.items() if s]
    return "; ".join(parts)


def _reason(evidence: Sequence[Evidence], alpha: float) -> str:
    deciding = [e for e in evidence if e.decides]
    if not deciding:
        return "Nothing measured here can decide it."
    speaking = sum(e.p_for <= alpha for e in deciding)
    against = sum(e.p_against <= alpha for e in deciding)
    total = len(deciding)
    noun = "comparison that decides" if total == 1 else f"{total} comparisons that decide"
    counts = (
        f"{speaking or 'none'} {'speaks' if speaking == 1 else 'speak'} for it",
        f"{against or 'none'} {'speaks' if against == 1 else 'speak'} against it",
    )
    if total > 1:
        return f"Of {noun}, {counts[0]} and {counts[1]}."
    word = "speaks for it" if speaking else "speaks against it" if against else "speaks for neither"
    return f"The one {noun} {word}."


def _too_few_seeds(evidence: Sequence[Evidence]) -> str:
    few = [e for e in evidence if e.has_too_few_seeds]
    if not few:
        return ""
    seeds, fewest = few[0].estimate.n, max(e.fewest_seeds for e in few)
    return f"{seeds} seeds are too few for the sign-flip test, which takes {fewest} here."


def _mcnemar_notes(evidence: Sequence[Evidence], context: ClaimContext) -> list[str]:
    return [
        f"{e.comparison}: seed by seed, McNemar's mid-p is below {context.rules.alpha:g} at "
        f"{len(e.mcnemar_seeds)} of {len(context.seeds)} seeds"
        # All of them, or none, need not be named.
        + (f" ({listed})." if 0 < len(e.mcnemar_seeds) < len(context.seeds) else ".")
        for e in evidence
        if e.mcnemar_seeds is not None
        for listed in [", ".join(map(str, e.mcnemar_seeds))]
    ]
