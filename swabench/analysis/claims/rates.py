"""C7: is a rate that is right for SWA too high for plain SGD?"""

from collections import Counter
from collections.abc import Mapping, Sequence

from swabench.analysis.claims.context import ClaimContext
from swabench.analysis.evidence import Evidence, Values, Verdict
from swabench.study.study import Study

Best = Mapping[str, Mapping[int, float]]
"""The best rate by method and seed."""


def sweep_runs(study: Study) -> list[str]:
    """The sweep's runs of SGD and SWA; none where the study does not sweep both."""
    parts = {study.claims.sgd, study.claims.swa}
    if not study.rate_sweep or not parts <= set(study.rate_sweep.methods):
        return []
    return [run for (method, _), run in study.sweep_cells.items() if method in parts]


def best_rates(context: ClaimContext, method: str) -> dict[int, float]:
    """For every seed the rate with the best mean validation accuracy at the other seeds."""
    scores = {
        rate: context.final(run, "accuracy", "validation")
        for rate, run in _rates_of(context, method).items()
    }

    def best(seed: int) -> float:
        others = [s for s in context.seeds if s != seed] or [seed]
        return max(scores, key=lambda rate: sum(scores[rate][s] for s in others))

    return {seed: best(seed) for seed in context.seeds}


def best_of_each(context: ClaimContext) -> Best:
    """The best rates of SGD and of SWA."""
    return {name: best_rates(context, name) for name in (context.rules.sgd, context.rules.swa)}


def losses_at_the_others_best(context: ClaimContext, best: Best) -> list[Evidence]:
    """SGD at SWA's best rate decides; SWA at SGD's, and every rate of both, are shown."""
    sgd, swa = context.rules.sgd, context.rules.swa
    accuracy = context.quantity("test accuracy")
    found = [
        context.compare(
            f"{name}: at {other}'s best rate − at its own",
            accuracy,
            _at(context, name, best[other]),
            _at(context, name, best[name]),
            test="worse by more" if name == sgd else None,
            decides=name == sgd,
        )
        for name, other in ((sgd, swa), (swa, sgd))
    ]
    for rate in _rates_of(context, sgd):
        for name in (sgd, swa):
            everywhere = dict.fromkeys(context.seeds, rate)
            label = f"{name}: at {rate:g} − at its best rate"
            at_best = _at(context, name, best[name])
            found.append(context.compare(label, accuracy, _at(context, name, everywhere), at_best))
    return found


def judge_rates(context: ClaimContext, best: Best, verdict: Verdict) -> Verdict:
    """A loss at a rate that is not the higher one is no loss by too high a rate.

    Nor is it told where both are best at the highest rate tried: their best may lie apart beyond.
    """
    sgd, swa = best[context.rules.sgd], best[context.rules.swa]
    if verdict == "supported" and any(swa[seed] <= sgd[seed] for seed in context.seeds):
        return "open"
    return "open" if verdict == "contradicted" and _both_at_the_end(context, best) else verdict


def explain_rates(context: ClaimContext, best: Best, evidence: Sequence[Evidence]) -> str:
    """Each one's best rate, and how the other does there against its own best."""
    sentences = []
    parts = (context.rules.swa, context.rules.sgd)
    for name, other, e in zip(parts, reversed(parts), evidence[:2], strict=True):
        change = f"{e.estimate.mean:+.2f}".replace("-", "−")
        sentences.append(
            f"The best rate of {name} is {_counted(best[name])}; there {other} has {change} points "
            "against its own best."
        )
    return " ".join(sentences)


def notes_on_rates(context: ClaimContext, best: Best) -> list[str]:
    """Whether the sweep reaches far enough."""
    notes = ["Best rates are chosen by the validation images of the other seeds."]
    for method in (context.rules.sgd, context.rules.swa):
        tried = _rates_of(context, method)
        for edge, word in ((min(tried), "lowest"), (max(tried), "highest")):
            if count := sum(rate == edge for rate in best[method].values()):
                notes.append(
                    f"{method}: for {count} of {len(context.seeds)} seeds the best rate is the "
                    f"{word} tried; one beyond it may be better."
                )
    if _both_at_the_end(context, best):
        notes.append("Where both are best at the highest rate tried, they cannot be told apart.")
    return notes


def _both_at_the_end(context: ClaimContext, best: Best) -> bool:
    """Whether at some seed both are best at the highest rate of the sweep."""
    highest = max(_rates_of(context, context.rules.swa))
    return any(all(rates[seed] == highest for rates in best.values()) for seed in context.seeds)


def _rates_of(context: ClaimContext, method: str) -> dict[float, str]:
    cells = context.study.sweep_cells.items()
    return {rate: run for (name, rate), run in sorted(cells) if name == method}


def _at(context: ClaimContext, method: str, rates: Mapping[int, float]) -> Values:
    """Test accuracies of a method at a rate for each seed."""
    runs = _rates_of(context, method)
    scores = {rate: context.final(run, "accuracy") for rate, run in runs.items()}
    return {seed: scores[rate][seed] for seed, rate in rates.items()}


def _counted(rates: Mapping[int, float]) -> str:
    """The rates that were chosen, with the number of seeds where there are several."""
    counts = sorted(Counter(rates.values()).items())
    if len(counts) == 1:
        return f"{counts[0][0]:g}"
    return ", ".join(f"{rate:g} (for {n} seed{'s' * (n > 1)})" for rate, n in counts)
