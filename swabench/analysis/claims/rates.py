"""C7: is a rate that is right for SWA too high for plain SGD?"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from swabench.analysis.claims.context import ClaimContext
from swabench.analysis.evidence import Evidence, Values, Verdict
from swabench.study.study import Study


def sweep_runs(study: Study) -> list[str]:
    """The sweep's runs of SGD and SWA; none where the study does not sweep both."""
    parts = {study.claims.sgd, study.claims.swa}
    if not study.rate_sweep or not parts <= set(study.rate_sweep.methods):
        return []
    return [run for (method, _), run in study.sweep_cells.items() if method in parts]


def _rates_of(context: ClaimContext, method: str) -> dict[float, str]:
    cells = context.study.sweep_cells.items()
    return {rate: run for (name, rate), run in sorted(cells) if name == method}


def best_rates(context: ClaimContext, method: str) -> dict[int, float]:
    """For every seed the rate with the best mean validation accuracy at the other seeds."""
    runs = _rates_of(context, method)
    scores = {
        rate: context.final(run, "accuracy", split="validation") for rate, run in runs.items()
    }

    def best(seed: int) -> float:
        others = [s for s in context.seeds if s != seed] or [seed]
        return max(scores, key=lambda rate: sum(scores[rate][s] for s in others))

    return {seed: best(seed) for seed in context.seeds}


def _against_best(context: ClaimContext, method: str, rate: float) -> tuple[Values, Values]:
    """Test accuracies at a rate, and at the best rate of each seed."""
    runs = _rates_of(context, method)
    scores = {r: context.final(run, "accuracy") for r, run in runs.items()}
    chosen = best_rates(context, method)
    return scores[rate], {seed: scores[chosen[seed]][seed] for seed in context.seeds}


def high_rates_suit_swa_only(context: ClaimContext) -> list[Evidence]:
    """One deciding comparison a rate above SGD's best; its p-values are of both questions.

    For the claim speaks a rate at which SWA is within the margin of its best and SGD is below
    its best by more; both must be shown, so the larger p counts. Against it speaks a rate at
    which either SWA is below by more or SGD is within; either will do, so the smaller p counts,
    twice.
    """
    rules, compare = context.rules, context.compare
    margin = rules.margin_points
    highest = max(best_rates(context, rules.sgd).values())
    found: list[Evidence] = []
    for rate in _rates_of(context, rules.sgd):
        shown, losses = {}, {}
        for method in (rules.sgd, rules.swa):
            a, b = _against_best(context, method, rate)
            label = f"{method}: at {rate:g} − at its best rate"
            shown[method] = compare.shown(label, "test accuracy", "points", a, b)
            losses[method] = np.array([b[seed] - a[seed] for seed in context.seeds])
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


def judge_rates(evidence: Sequence[Evidence], alpha: float) -> Verdict:
    """One rate that suits SWA alone proves the claim; it falls only if there is no such rate."""
    deciding = [e for e in evidence if e.decides]
    if any(e.p_for <= alpha for e in deciding):
        return "supported"
    if deciding and all(e.p_against <= alpha for e in deciding):
        return "contradicted"
    return "not distinguished"


def chosen_rates(context: ClaimContext) -> list[str]:
    """Which rates are best, for how many seeds, and whether the sweep reaches far enough."""
    notes = []
    for method in (context.rules.sgd, context.rules.swa):
        counts = sorted(Counter(best_rates(context, method).values()).items())
        rates = ", ".join(f"{rate:g} (for {n} seed{'s' * (n > 1)})" for rate, n in counts)
        notes.append(f"{method}: best rate on the validation images of the other seeds: {rates}.")
    for method in (context.rules.sgd, context.rules.swa):
        tried, best = _rates_of(context, method), best_rates(context, method).values()
        for edge, word in ((min(tried), "lowest"), (max(tried), "highest")):
            if count := sum(rate == edge for rate in best):
                notes.append(
                    f"{method}: for {count} of {len(context.seeds)} seeds the best rate is the "
                    f"{word} tried; one beyond it may be better."
                )
    if max(best_rates(context, context.rules.sgd).values()) == max(
        _rates_of(context, context.rules.sgd)
    ):
        notes.append(f"No rate above {context.rules.sgd}'s best was tried, so nothing can decide.")
    return notes
