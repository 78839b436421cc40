"""From a claim's words and the measurements to a verdict with its reasons."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from swabench.analysis.claims import rates
from swabench.analysis.claims.claim import Claim, ClaimSpec, ComparisonSpec, claim_specs
from swabench.analysis.claims.context import LOG, SWING, ClaimContext, parts_of
from swabench.analysis.crossed import crossed_interval
from swabench.analysis.evidence import Evidence, corrected, judge
from swabench.analysis.flatness import Flatness
from swabench.analysis.frame import Records
from swabench.analysis.predictions import Pair, PredictionTables
from swabench.analysis.statistics import mcnemar_mid_p
from swabench.study.seeds import in_spans, listed
from swabench.study.study import Study
from swabench.training.measurement import Predictor

EVERY = "every method"
EVERY_OTHER = "every other measure of flatness"


def decide_claims(
    study: Study,
    records: Records,
    seeds: Sequence[int],
    flatness: Flatness | None = None,
    predictions: PredictionTables | None = None,
) -> list[Claim]:
    """Decide every claim by the study's rules.

    Args:
        study: The study with its rules.
        records: Records of all its runs (`collect` with `study.run_names`).
        seeds: The seeds that must be there.
        flatness: How sharp the minima are, by measure, method and seed, where it was measured.
        predictions: What was computed from the predictions (`tables_of_predictions`).
    """
    context = ClaimContext(study, records, seeds, flatness or {}, predictions or PredictionTables())
    return [_decide(key, spec, context) for key, spec in claims_of(study).items()]


def claims_of(study: Study) -> dict[str, ClaimSpec]:
    """The claims that are put to a study: the paper's, and before them its primary contrast."""
    contrasts = "averaging_side" in parts_of(study)
    return {k: s for k, s in claim_specs().items() if contrasts or not s.of_tuned_studies}


def pairs_compared(study: Study) -> list[Pair]:
    """Runs whose results the claims compare, each pair once; those that the study has."""
    found: dict[Pair, None] = {}
    for spec in claims_of(study).values():
        for wanted in _comparisons(spec, study):
            names = {wanted.run, wanted.other} <= set(study.run_names)
            of_results = wanted.spec.of is None and wanted.spec.other_of is None
            if names and of_results and wanted.spec.quantity.startswith("test "):
                found[wanted.run, wanted.other] = None
    return list(found)


@dataclass(frozen=True)
class _Wanted:
    """A comparison between two runs of the study, by name."""

    spec: ComparisonSpec
    run: str
    other: str

    @property
    def label(self) -> str:
        spec = self.spec
        if self.run == self.other:
            return f"{self.run}: {spec.of or 'result'} − {spec.other_of or 'result'}"
        return f"{_named(self.run, spec.of)} − {_named(self.other, spec.other_of)}"


def _comparisons(spec: ClaimSpec, study: Study) -> list[_Wanted]:
    """A claim's comparisons, each once, with the runs that play the parts.

    A run is not held against itself. Where the study has no such run, the part's own name stands
    for it. A control that is a row of the study is compared as a row.
    """
    found: dict[tuple[str, str], _Wanted] = {}
    parts = parts_of(study)
    for each in spec.compare:
        other = parts[each.other]
        for run in study.methods if each.run == EVERY else [parts[each.run]]:
            if run != other or each.of != each.other_of:
                wanted = _Wanted(each, run, other)
                found.setdefault((wanted.label, each.quantity), wanted)
    return list(found.values())


def _decide(key: str, spec: ClaimSpec, context: ClaimContext) -> Claim:
    fields = context.fields()
    rule = spec.rule.format(**fields)
    claim = Claim(key, spec.statement, spec.question, rule, "not measured", "")
    alpha, power = context.rules.alpha, context.rules.power
    wanted = _comparisons(spec, context.study)
    if spec.gather == "rates":
        if lacking := _lacks_rates(context):
            return replace(claim, reason=f"{lacking}.")
        best = rates.best_of_each(context)
        evidence = rates.losses_at_the_others_best(context, best)
    else:
        if lacking := _lacks(wanted, context):
            return replace(claim, reason=f"{lacking}.")
        named = {comparison.quantity for comparison in spec.compare}
        evidence = [e for each in wanted for e in _compared(each, context, named)]
    found = corrected(evidence, alpha, power)
    verdict = judge(found, alpha)
    reason = _findings(found, alpha)
    notes = [note.format(**fields) for note in spec.notes]
    if spec.gather == "rates":
        verdict = rates.judge_rates(context, best, verdict)
        reason = f"{reason} {rates.explain_rates(context, best, found)}"
        notes += rates.notes_on_rates(context, best)
    notes += [
        *(f"Not shown: {words}." for words in context.records.divergences(_runs(wanted))),
        *_other_measures(found, alpha),
        *_controls(found, alpha),
        *_mcnemar_notes(found, context),
        *_disagreements(found, alpha),
    ]
    return replace(claim, verdict=verdict, reason=reason, evidence=found, notes=tuple(notes))


def _compared(wanted: _Wanted, context: ClaimContext, named: Collection[str]) -> list[Evidence]:
    """The evidence of one comparison; none where it decides nothing and was not measured.

    Args:
        wanted: The comparison.
        context: What it draws on.
        named: The quantities that the claim names; other measures of flatness are none of them.
    """
    if wanted.spec.quantity == EVERY_OTHER:
        return [
            e
            for measure in context.flatness
            if f"{LOG}{measure}" not in named
            for e in _evidence(wanted, f"{LOG}{measure}", context)
        ]
    quantity = wanted.spec.quantity.format(**context.fields())
    return _evidence(wanted, quantity, context)


def _evidence(wanted: _Wanted, name: str, context: ClaimContext) -> list[Evidence]:
    spec, quantity = wanted.spec, context.quantity(name)
    a = context.values(name, wanted.run, spec.of) if wanted.run in context.records else {}
    b = context.values(name, wanted.other, spec.other_of) if wanted.other in context.records else {}
    both = a.keys() & b.keys()
    if not both:
        return []
    found = context.compare(
        wanted.label,
        quantity,
        {seed: a[seed] for seed in both},
        {seed: b[seed] for seed in both},
        test=spec.test,
        decides=spec.decides,
        control=spec.control,
    )
    if spec.of is None and spec.other_of is None and name.startswith("test "):
        found = _with_images(found, (wanted.run, wanted.other), name, context)
    return [found]


def _with_images(evidence: Evidence, pair: Pair, quantity: str, context: ClaimContext) -> Evidence:
    """The evidence with what the images add: a wider interval, and McNemar's test by seed."""
    squares = context.predictions.pairs.get((*pair, quantity.removeprefix("test ")))
    if squares is not None:
        interval = crossed_interval(squares, context.study.confidence)
        evidence = replace(evidence, over_images=interval)
    counts = context.predictions.mcnemar.get(pair)
    if counts and quantity == "test accuracy" and evidence.decides:
        alpha = context.rules.alpha
        telling = tuple(seed for seed, only in counts.items() if mcnemar_mid_p(*only) <= alpha)
        evidence = replace(evidence, mcnemar_seeds=telling)
    return evidence


# --- what is missing -----------------------------------------------------------------------


def _lacks(wanted: Iterable[_Wanted], context: ClaimContext) -> str:
    """What deciding comparisons need and the records do not have; empty where nothing."""
    deciding = [each for each in wanted if each.spec.decides]
    if lacking := _lacks_runs(_runs(deciding), context):
        return lacking
    for each in deciding:
        quantity = each.spec.quantity.format(**context.fields())
        sides = ((each.run, each.spec.of), (each.other, each.spec.other_of))
        for name, predictor in sides:
            if lacking := _lacks_values(quantity, name, predictor, context):
                return lacking
    return ""


def _runs(wanted: Iterable[_Wanted]) -> list[str]:
    """The runs of some comparisons, each once."""
    return list(dict.fromkeys(name for each in wanted for name in (each.run, each.other)))


def _lacks_runs(names: Sequence[str], context: ClaimContext) -> str:
    unknown = [name for name in names if name not in context.study.run_names]
    if unknown:
        return f"The study has no method {' and no method '.join(map(repr, unknown))}"
    absent = {
        name: [s for s in context.seeds if s not in context.records.get(name, {})] for name in names
    }
    lacking = [f"{n} lacks seeds {in_spans(s)}" for n, s in absent.items() if s]
    return "; ".join([*context.records.divergences(names), *lacking])


def _lacks_values(
    quantity: str, name: str, predictor: Predictor | None, context: ClaimContext
) -> str:
    found = context.values(quantity, name, predictor)
    absent = [seed for seed in context.seeds if seed not in found]
    if not absent:
        return ""
    every = context.study.finetune.score_every_epochs
    if quantity.startswith(SWING) and every > 1:
        return f"Curves have a point every {every} epochs; the swing needs each"
    if quantity.startswith(LOG):
        raw = context.flatness.get(quantity.removeprefix(LOG), {}).get(name, {})
        if falling := [seed for seed in absent if raw.get(seed, 1) <= 0]:
            listed = ", ".join(map(str, falling))
            return f"Around {name} the loss falls at seeds {listed}, so its rise has no logarithm"
    where = f" at {len(absent)} of {len(context.seeds)} seeds" if found else ""
    return f"No {quantity} was measured of {_named(name, predictor)}{where}"


def _lacks_rates(context: ClaimContext) -> str:
    runs = rates.sweep_runs(context.study)
    if not runs:
        return "The study has no rate_sweep of its SGD and its SWA"
    return _lacks_runs(runs, context)


# --- words ---------------------------------------------------------------------------------


def _named(run: str, predictor: Predictor | None) -> str:
    return f"{run}'s {predictor}" if predictor else run


def _findings(evidence: Sequence[Evidence], alpha: float) -> str:
    """What the deciding comparisons say, those that say the same together."""
    said: dict[str, list[str]] = {}
    for e in evidence:
        if e.decides:
            words = f"{e.finding(alpha)} (in {e.quantity.name})"
            said.setdefault(words, []).append(e.comparison)
    if not said:
        return "Nothing measured here can decide it."
    return " ".join(f"{listed(comparisons)}: {words}." for words, comparisons in said.items())


def _controls(evidence: Sequence[Evidence], alpha: float) -> list[str]:
    """What the controls say, in a note each."""
    return [
        f"Control: {e.comparison}: {e.finding(alpha)} (in {e.quantity.name})."
        for e in evidence
        if e.control
    ]


def _other_measures(evidence: Sequence[Evidence], alpha: float) -> list[str]:
    """Where another measure of the same pair finds more than the margin, and the deciding not."""
    deciding = {e.comparison for e in evidence if e.decides and not e.is_beyond(alpha)}
    disagreeing = [
        e
        for e in evidence
        if e.quantity.name.startswith(LOG) and e.comparison in deciding and not e.decides
    ]
    return [
        f"Another measure says otherwise: {e.comparison}: {e.finding(alpha)} "
        f"(in {e.quantity.name})."
        for e in disagreeing
        if e.is_beyond(alpha)
    ]


def _mcnemar_notes(evidence: Sequence[Evidence], context: ClaimContext) -> list[str]:
    return [
        f"{e.comparison}: seed by seed, McNemar's mid-p is at most {context.rules.alpha:g} at "
        f"{len(e.mcnemar_seeds)} of {len(context.seeds)} seeds"
        # All of them, or none, need not be named.
        + (f" ({listed})." if 0 < len(e.mcnemar_seeds) < len(context.seeds) else ".")
        for e in evidence
        if e.mcnemar_seeds is not None
        for listed in [", ".join(map(str, e.mcnemar_seeds))]
    ]


def _disagreements(evidence: Sequence[Evidence], alpha: float) -> list[str]:
    """Where the t test and the sign-flip test say different things of a deciding comparison."""
    return [
        f"{e.comparison}: the t test (p {e.p_t:.2g}) and the sign-flip test "
        f"(p {e.p_sign_flip:.2g}) disagree about a difference."
        for e in evidence
        if e.decides and e.tests_disagree(alpha)
    ]
