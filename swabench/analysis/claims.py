"""The paper's claims C1 to C7 put to the test, from records alone, by the study's rules.

A claim is a question, a measure, the runs it needs, and a way to gather evidence; what is
common (are all runs there, Holm's correction, the verdict) is done once, for all of them. A
claim of which any run is missing is not measured: part of the seeds never passes for all.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from swabench.analysis.evidence import Comparer, Evidence, Values, Verdict, corrected, judge
from swabench.analysis.flatness import LINE, Flatness
from swabench.analysis.frame import Records
from swabench.analysis.statistics import mcnemar_mid_p, mean_interval
from swabench.records import Record
from swabench.study.schedules import Constant
from swabench.study.study import Study
from swabench.training.measurement import Predictor

Measure = Literal["accuracy", "loss"]
UNITS: Mapping[Measure, str] = {"accuracy": "points", "loss": "nats"}


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


class Case:
    """What every claim draws on: the study, its records at the seeds asked for, the rules."""

    def __init__(
        self, study: Study, records: Records, seeds: Sequence[int], flatness: Flatness
    ) -> None:
        self.study = study
        self.rules = study.claims
        self.records = records
        self.seeds = list(seeds)
        self.flatness = flatness
        self.compare = Comparer(study, np.random.default_rng(study.claims.sign_flip_seed))
        self._tensors: dict[tuple[str, int], dict[str, NDArray[np.float32]]] = {}

    def final(
        self,
        name: str,
        measure: Measure,
        predictor: Predictor | None = None,
        split: Literal["validation", "test"] = "test",
    ) -> Values:
        """A final measurement at every seed; by default of the method's own result."""
        found = self.records.final(name, measure, predictor, split)
        return {seed: found[seed] for seed in self.seeds}

    def course(self, name: str, measure: Measure, predictor: Predictor, seed: int) -> list[float]:
        """A predictor's test measurements over the epochs, those of the transient left out."""
        first = math.floor(self.rules.transient * self.study.finetune.epochs)
        found = self.records.course(name, measure, predictor)[seed]
        return [float(value) for value in found[found.index >= first].dropna()]

    def probabilities(self, name: str, seed: int, predictor: Predictor) -> NDArray[np.float64]:
        """Predicted probabilities of the test images, shape (N, C)."""
        return np.exp(self._kept(name, seed)[predictor].astype(np.float64))

    def correct(self, name: str, seed: int) -> NDArray[np.bool_] | None:
        """Which test images the method's result gets right, (N,); None without labels."""
        kept = self._kept(name, seed)
        if "labels" not in kept:
            return None
        right = kept[self.records[name][seed].result].argmax(-1) == kept["labels"]
        return np.asarray(right, dtype=np.bool_)

    def _kept(self, name: str, seed: int) -> dict[str, NDArray[np.float32]]:
        if (name, seed) not in self._tensors:
            self._tensors[name, seed] = _test_predictions(self.records[name][seed])
        return self._tensors[name, seed]


@dataclass(frozen=True)
class _Test:
    key: str
    statement: str
    question: str
    measure: str
    needs: Callable[[Study], Sequence[str]]
    gather: Callable[[Case], Sequence[Evidence]]
    judge: Callable[[Sequence[Evidence], float], Verdict] = judge
    explain: Callable[[Case, Sequence[Evidence]], str] = lambda case, evidence: ""
    notes: Callable[[Case], Sequence[str]] = lambda case: ()
    lacks: Callable[[Case], str] = lambda case: ""


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
    case = Case(study, records, seeds, flatness or {})
    return [*(_decide(test, case) for test in _tests()), _UNTRIED]


_UNTRIED = Claim(
    "C8",
    "weighting the snapshots by their validation score would do better",
    "Would weighting the snapshots by their validation score do better?",
    "The paper proposes it and does not try it.",
    "not tested",
    "It is no finding of the paper, and this study runs no such method.",
)


def _decide(test: _Test, case: Case) -> Claim:
    measure = test.measure.format(
        rules=case.rules, transient=f"{case.rules.transient:.0%}", tuned=_rate_in_words(case)
    )
    claim = Claim(test.key, test.statement, test.question, measure, "not measured", "")
    lacking = _lacking(test.needs(case.study), case) or test.lacks(case)
    if lacking:
        return replace(claim, reason=f"{lacking}.")
    evidence = corrected(test.gather(case), case.rules.alpha)
    verdict = test.judge(evidence, case.rules.alpha)
    reasons = (
        _reason(evidence, case.rules.alpha),
        _too_few_seeds(evidence),
        test.explain(case, evidence),
    )
    return replace(
        claim,
        verdict=verdict,
        reason=" ".join(filter(None, reasons)),
        evidence=evidence,
        notes=(*test.notes(case), *_mcnemar_notes(evidence, case)),
    )


def _rate_in_words(case: Case) -> str:
    """The constant rate of the tuned SGD, in brackets; nothing where it has none."""
    method = case.study.methods.get(case.rules.sgd)
    if method is None or not isinstance(method.rate, Constant):
        return ""
    return f" (rate {method.rate.learning_rate:g})"


def _lacking(names: Sequence[str], case: Case) -> str:
    """What a claim needs and the records do not have; empty where nothing is missing."""
    if not names:
        return "The study has no rate_sweep of its SGD and its SWA"
    unknown = [name for name in names if name not in case.study.run_names]
    if unknown:
        return f"The study has no method {' and no method '.join(map(repr, unknown))}"
    absent = {
        name: [s for s in case.seeds if s not in case.records.get(name, {})] for name in names
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


# --- C1, C2, C5: methods against each other --------------------------------------------------


def _beats(case: Case, name: str, other: str) -> list[Evidence]:
    a, b = case.final(name, "accuracy"), case.final(other, "accuracy")
    label = f"{name} − {other}"
    decisive = case.compare.directed(label, "test accuracy", "points", a, b, 1)
    return [_with_mcnemar(decisive, case, name, other), _loss_beside(case, name, other)]


def _close(case: Case, name: str, other: str) -> list[Evidence]:
    a, b = case.final(name, "accuracy"), case.final(other, "accuracy")
    label = f"{name} − {other}"
    margin = case.rules.margin_points
    decisive = case.compare.equal(label, "test accuracy", "points", a, b, margin)
    return [_with_mcnemar(decisive, case, name, other), _loss_beside(case, name, other)]


def _loss_beside(case: Case, name: str, other: str) -> Evidence:
    a, b = case.final(name, "loss"), case.final(other, "loss")
    return case.compare.shown(f"{name} − {other}", "test loss", "nats", a, b)


def _every_method_beats_pretraining(case: Case) -> list[Evidence]:
    start = case.study.pretrain.name
    return [e for name in case.study.methods for e in _beats(case, name, start)]


def _swa_close_to_sgd(case: Case) -> list[Evidence]:
    rules = case.rules
    return [e for name in (rules.swa, rules.swa_cyclical) for e in _close(case, name, rules.sgd)]


def _pswa_beats_swa(case: Case) -> list[Evidence]:
    return _beats(case, case.rules.pswa, case.rules.swa_cyclical)


def _with_mcnemar(evidence: Evidence, case: Case, name: str, other: str) -> Evidence:
    telling = []
    for seed in case.seeds:
        a, b = case.correct(name, seed), case.correct(other, seed)
        if a is None or b is None:
            return evidence
        if mcnemar_mid_p(a, b) < case.rules.alpha:
            telling.append(seed)
    return replace(evidence, mcnemar_seeds=tuple(telling))


def _mcnemar_notes(evidence: Sequence[Evidence], case: Case) -> list[str]:
    return [
        f"{e.comparison}: seed by seed, McNemar's mid-p is below {case.rules.alpha:g} at "
        f"{len(e.mcnemar_seeds)} of {len(case.seeds)} seeds"
        # Naming all or none of them would tell nobody anything.
        + (f" ({listed})." if 0 < len(e.mcnemar_seeds) < len(case.seeds) else ".")
        for e in evidence
        if e.mcnemar_seeds is not None
        for listed in [", ".join(map(str, e.mcnemar_seeds))]
    ]


# --- C3: stability ---------------------------------------------------------------------------


def _average_is_steadier(case: Case) -> list[Evidence]:
    name = case.rules.swa_cyclical

    def swings(measure: Measure, predictor: Predictor) -> Values:
        courses = {s: case.course(name, measure, predictor, s) for s in case.seeds}
        return {seed: _swing(course) for seed, course in courses.items()}

    return [
        case.compare.directed(
            f"{name}: average − iterate",
            f"swing of the test {measure}",
            unit,
            swings(measure, "average"),
            swings(measure, "iterate"),
            -1,
        )
        for measure, unit in UNITS.items()
    ]


def _swing(course: Sequence[float]) -> float:
    """Standard deviation of the changes from one epoch to the next: 0 for a steady trend."""
    changes = np.diff(course)
    return float(changes.std(ddof=1)) if len(changes) > 1 else 0.0


# --- C4: flatness ----------------------------------------------------------------------------


def _minima_alike(case: Case) -> list[Evidence]:
    swa, sgd = case.rules.swa, case.rules.sgd
    margin = case.rules.margin_flatness
    found = []
    for measure, methods in sorted(case.flatness.items(), key=lambda item: item[0] != LINE):
        logs = [
            {s: math.log(v) for s, v in methods.get(name, {}).items() if s in case.seeds and v > 0}
            for name in (swa, sgd)
        ]
        both = logs[0].keys() & logs[1].keys()
        if not both:
            continue
        a, b = ({seed: values[seed] for seed in both} for values in logs)
        name = f"log of the {measure}"
        if len(both) < len(case.seeds):  # some of the seeds never pass for all of them
            name += f" ({len(both)} of {len(case.seeds)} seeds)"
        if measure == LINE:
            found.append(case.compare.equal(f"{swa} − {sgd}", name, "", a, b, margin))
        else:
            found.append(case.compare.shown(f"{swa} − {sgd}", name, "", a, b))
    return found


def _the_wider(case: Case, evidence: Sequence[Evidence]) -> str:
    decisive = evidence[0]
    swa, sgd = case.rules.swa, case.rules.sgd
    ratio = math.exp(decisive.estimate.mean)
    words = f"Around {swa} the loss rises {ratio:.2f} times as far as around {sgd}"
    if decisive.p_against > case.rules.alpha:
        return f"{words}."
    return f"{words}: {swa if ratio < 1 else sgd} has the wider minimum."


def _about_the_line(case: Case) -> list[str]:
    return [
        "The paper finds no particular difference between the two (section 3.3), against the "
        "expectation that SWA's minimum is the wider: so a difference to either side is against "
        "it.",
        "Along the line, distance is counted in the way from start to end, as the paper draws it; "
        "that way is not as long for every method. Along random rays the unit is the same for all.",
    ]


def _landscape_lacks(case: Case) -> str:
    methods = {n: case.flatness.get(LINE, {}).get(n, {}) for n in (case.rules.swa, case.rules.sgd)}
    absent = {n: [s for s in case.seeds if s not in rises] for n, rises in methods.items()}
    if any(absent.values()):
        return f"The landscape has no {LINE} of {_at_seeds(absent)}"
    # Of what does not rise there is no logarithm, and no ratio to compare.
    falling = {n: [s for s in case.seeds if rises[s] <= 0] for n, rises in methods.items()}
    if any(falling.values()):
        return f"The {LINE} is no rise but a fall for {_at_seeds(falling)}, so it has no ratio"
    return ""


def _at_seeds(seeds: Mapping[str, Sequence[int]]) -> str:
    return "; ".join(
        f"{name} at seeds {', '.join(map(str, some))}" for name, some in seeds.items() if some
    )


# --- C6: the average as an ensemble ----------------------------------------------------------


def _average_is_like_ensemble(case: Case) -> list[Evidence]:
    margins = {"accuracy": case.rules.margin_points, "loss": case.rules.margin_nats}
    found = []
    for name in (case.rules.swa, case.rules.swa_cyclical):
        found += [
            case.compare.equal(
                f"{name}: average − ensemble",
                f"test {measure}",
                unit,
                case.final(name, measure, "average"),
                case.final(name, measure, "ensemble"),
                margins[measure],
            )
            for measure, unit in UNITS.items()
        ]
        found.append(
            case.compare.directed(
                f"{name}: average − iterate",
                "variance of the predictions over seeds",
                "",
                _distance_from_others(case, name, "average"),
                _distance_from_others(case, name, "iterate"),
                -1,
            )
        )
        found.append(_agreement(case, name))
    return found


def _distance_from_others(case: Case, name: str, predictor: Predictor) -> Values:
    """Per seed, the mean squared distance of its probabilities from the other seeds' mean.

    The variance term of the Brier score's bias and variance, up to a factor that is the same
    for all predictors.
    """
    if len(case.seeds) < 2:
        return dict.fromkeys(case.seeds, 0.0)
    every = np.stack([case.probabilities(name, seed, predictor) for seed in case.seeds])
    others = (every.sum(axis=0) - every) / (len(every) - 1)
    distances = ((every - others) ** 2).sum(axis=-1).mean(axis=-1)
    return dict(zip(case.seeds, distances.tolist(), strict=True))


def _agreement(case: Case, name: str) -> Evidence:
    shares = []
    for seed in case.seeds:
        a, b = (
            case.probabilities(name, seed, predictor).argmax(-1)
            for predictor in ("average", "ensemble")
        )
        shares.append(100 * float((a == b).mean()))
    estimate = mean_interval(shares, case.study.confidence)
    label = f"{name}: average and ensemble"
    return Evidence(label, "test images given the same class", "%", estimate, math.nan, math.nan)


# --- C7: rates -------------------------------------------------------------------------------


def _sweep_runs(study: Study) -> list[str]:
    parts = {study.claims.sgd, study.claims.swa}
    if not study.rate_sweep or not parts <= set(study.rate_sweep.methods):
        return []
    return [run for (method, _), run in study.sweep_cells.items() if method in parts]


def _rates_of(case: Case, method: str) -> dict[float, str]:
    cells = case.study.sweep_cells.items()
    return {rate: run for (name, rate), run in sorted(cells) if name == method}


def _best_rates(case: Case, method: str) -> dict[int, float]:
    """For every seed the rate with the best mean validation accuracy at the other seeds."""
    runs = _rates_of(case, method)
    scores = {rate: case.final(run, "accuracy", split="validation") for rate, run in runs.items()}

    def best(seed: int) -> float:
        others = [s for s in case.seeds if s != seed] or [seed]
        return max(scores, key=lambda rate: sum(scores[rate][s] for s in others))

    return {seed: best(seed) for seed in case.seeds}


def _against_best(case: Case, method: str, rate: float) -> tuple[Values, Values]:
    """Test accuracies at a rate, and at the best rate of each seed."""
    runs = _rates_of(case, method)
    scores = {r: case.final(run, "accuracy") for r, run in runs.items()}
    chosen = _best_rates(case, method)
    return scores[rate], {seed: scores[chosen[seed]][seed] for seed in case.seeds}


def _high_rates_suit_swa_only(case: Case) -> list[Evidence]:
    """One deciding comparison a rate above SGD's best; its p-values are of both questions.

    For the claim speaks a rate at which SWA is within the margin of its best and SGD is below
    its best by more; both must be shown, so the larger p counts. Against it speaks a rate at
    which either SWA is below by more or SGD is within; either will do, so the smaller p counts,
    twice.
    """
    rules, compare = case.rules, case.compare
    margin = rules.margin_points
    highest = max(_best_rates(case, rules.sgd).values())
    found: list[Evidence] = []
    for rate in _rates_of(case, rules.sgd):
        shown, losses = {}, {}
        for method in (rules.sgd, rules.swa):
            a, b = _against_best(case, method, rate)
            label = f"{method}: at {rate:g} − at its best rate"
            shown[method] = compare.shown(label, "test accuracy", "points", a, b)
            losses[method] = np.array([b[seed] - a[seed] for seed in case.seeds])
        if rate > highest:
            sgd, swa = losses[rules.sgd], losses[rules.swa]
            against = min(compare.p_above(swa, margin), compare.p_within(sgd, margin))
            needed = [compare.needed(e.estimate, margin) for e in shown.values()]
            shown[rules.sgd] = replace(
                shown[rules.sgd],
                p_for=max(compare.p_within(swa, margin), compare.p_above(sgd, margin)),
                p_against=min(1.0, 2 * against),
                seeds_needed=None if None in needed else max(n for n in needed if n),
                one_sided=abs(swa.mean()) < margin < sgd.mean(),
            )
        found += shown.values()
    return found


def _judge_rates(evidence: Sequence[Evidence], alpha: float) -> Verdict:
    """One rate that suits SWA alone proves the claim; it falls only if there is no such rate."""
    deciding = [e for e in evidence if e.decides]
    if any(e.p_for <= alpha for e in deciding):
        return "supported"
    if deciding and all(e.p_against <= alpha for e in deciding):
        return "contradicted"
    return "not distinguished"


def _chosen_rates(case: Case) -> list[str]:
    notes = []
    for method in (case.rules.sgd, case.rules.swa):
        counts = sorted(Counter(_best_rates(case, method).values()).items())
        rates = ", ".join(f"{rate:g} (for {n} seed{'s' * (n > 1)})" for rate, n in counts)
        notes.append(f"{method}: best rate on the validation images of the other seeds: {rates}.")
    for method in (case.rules.sgd, case.rules.swa):
        tried, best = _rates_of(case, method), _best_rates(case, method).values()
        for edge, word in ((min(tried), "lowest"), (max(tried), "highest")):
            if count := sum(rate == edge for rate in best):
                notes.append(
                    f"{method}: for {count} of {len(case.seeds)} seeds the best rate is the "
                    f"{word} tried; one beyond it may be better."
                )
    if max(_best_rates(case, case.rules.sgd).values()) == max(_rates_of(case, case.rules.sgd)):
        notes.append(f"No rate above {case.rules.sgd}'s best was tried, so nothing can decide.")
    return notes


# --- all of them -----------------------------------------------------------------------------


def _tests() -> list[_Test]:
    return [
        _Test(
            "C1",
            "every fine-tuning is better than Adam alone",
            "Is every fine-tuning better than Adam alone?",
            "Final test accuracy of each method less that of pretraining, paired by seed. "
            "Supported if every one is above zero, contradicted if any is below.",
            lambda study: study.row_names,
            _every_method_beats_pretraining,
        ),
        _Test(
            "C2",
            "SWA and tuned SGD are extremely close",
            "Are SWA and tuned SGD extremely close?",
            "Final test accuracy of {rules.swa} and of {rules.swa_cyclical} less that of "
            "{rules.sgd}, paired by seed. Supported if both lie within ±{rules.margin_points:g} "
            "points (TOST), contradicted if either lies beyond. Tuned is {rules.sgd} as the study "
            "has it{tuned}: its rate was not picked here on validation images.",
            lambda study: (study.claims.sgd, study.claims.swa, study.claims.swa_cyclical),
            _swa_close_to_sgd,
        ),
        _Test(
            "C3",
            "the average is stable where its own cyclical iterate is not",
            "Is the average stable where its own cyclical iterate is not?",
            "The swing of a curve: the standard deviation of its changes from one epoch to the "
            "next, so that a steady rise counts for nothing and jumping up and down for all. "
            "Test accuracy and test loss of {rules.swa_cyclical}, average less iterate, paired "
            "by seed; the first {transient} of the epochs are left out for both. Supported if "
            "the average swings less in both, contradicted if more in either.",
            lambda study: (study.claims.swa_cyclical,),
            _average_is_steadier,
        ),
        _Test(
            "C4",
            "SWA's minimum is as wide as SGD's",
            "Is SWA's minimum as wide as SGD's?",
            f"The {LINE} through the starting and the fine-tuned weights, as far to one side of "
            "the latter as to the other; its logarithm, "
            "{rules.swa} less {rules.sgd}, paired by seed. Supported if the two are within "
            "±{rules.margin_flatness:g} (TOST), contradicted if they are beyond, on either side. "
            "Other measures of flatness are shown beside it.",
            lambda study: (study.claims.sgd, study.claims.swa),
            _minima_alike,
            explain=_the_wider,
            notes=_about_the_line,
            lacks=_landscape_lacks,
        ),
        _Test(
            "C5",
            "Periodic SWA beats SWA",
            "Does Periodic SWA beat SWA?",
            "Final test accuracy of {rules.pswa} less that of {rules.swa_cyclical}, which has the "
            "same rate and no restarts, paired by seed. Supported if above zero, contradicted if "
            "below.",
            lambda study: (study.claims.pswa, study.claims.swa_cyclical),
            _pswa_beats_swa,
        ),
        _Test(
            "C6",
            "SWA behaves like an ensemble of its snapshots",
            "Does SWA behave like an ensemble of its snapshots?",
            "The average less the ensemble of the same snapshots, paired by seed: test accuracy "
            "within ±{rules.margin_points:g} points and test loss within ±{rules.margin_nats:g} "
            "nats (TOST). And variance reduction: the mean squared distance of a seed's "
            "predicted probabilities from the mean of the other seeds', average less iterate, "
            "below zero. Supported if all hold for {rules.swa} and {rules.swa_cyclical}, "
            "contradicted if any opposite does.",
            lambda study: (study.claims.swa, study.claims.swa_cyclical),
            _average_is_like_ensemble,
        ),
        _Test(
            "C7",
            "a rate that is right for SWA is too high for plain SGD",
            "Is a rate that is right for SWA too high for plain SGD?",
            "Test accuracy at each rate of the sweep less that at the method's best rate, which "
            "is chosen for every seed by the validation accuracy at the other seeds. Supported "
            "if at some rate above {rules.sgd}'s best, {rules.swa} is within "
            "{rules.margin_points:g} points of its best (TOST) and {rules.sgd} is below its best "
            "by more; contradicted if at every such rate one of the two does not hold. The "
            "p-values are of both together, one pair a rate.",
            _sweep_runs,
            _high_rates_suit_swa_only,
            _judge_rates,
            notes=_chosen_rates,
        ),
    ]


def _test_predictions(record: Record) -> dict[str, NDArray[np.float32]]:
    """Predictions and labels of the test images: the rest of the arrays is not kept."""
    prefix, suffix = "log_probabilities/", "/test"
    arrays = record.arrays()
    kept = {
        name.removeprefix(prefix).removesuffix(suffix): array
        for name, array in arrays.items()
        if name.startswith(prefix) and name.endswith(suffix)
    }
    if "labels/test" in arrays:
        kept["labels"] = arrays["labels/test"]
    return kept
