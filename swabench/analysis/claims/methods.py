"""C1, C2 and C5: methods against each other, by their final test results."""

from dataclasses import replace

from swabench.analysis.claims.context import ClaimContext
from swabench.analysis.evidence import Evidence
from swabench.analysis.statistics import mcnemar_mid_p


def every_method_beats_pretraining(context: ClaimContext) -> list[Evidence]:
    """C1: every method against the pretraining that it starts from."""
    start = context.study.pretrain.name
    return [e for name in context.study.methods for e in _beats(context, name, start)]


def swa_close_to_sgd(context: ClaimContext) -> list[Evidence]:
    """C2: SWA, at its constant and at its cyclical rate, against tuned SGD."""
    rules = context.rules
    return [e for name in (rules.swa, rules.swa_cyclical) for e in _close(context, name, rules.sgd)]


def pswa_beats_swa(context: ClaimContext) -> list[Evidence]:
    """C5: Periodic SWA against SWA at the same rate."""
    return _beats(context, context.rules.pswa, context.rules.swa_cyclical)


def _beats(context: ClaimContext, name: str, other: str) -> list[Evidence]:
    a, b = context.final(name, "accuracy"), context.final(other, "accuracy")
    label = f"{name} − {other}"
    decisive = context.compare.directed(label, "test accuracy", "points", a, b, 1)
    return [_with_mcnemar(decisive, context, name, other), _loss_beside(context, name, other)]


def _close(context: ClaimContext, name: str, other: str) -> list[Evidence]:
    a, b = context.final(name, "accuracy"), context.final(other, "accuracy")
    label = f"{name} − {other}"
    margin = context.rules.margin_points
    decisive = context.compare.equal(label, "test accuracy", "points", a, b, margin)
    return [_with_mcnemar(decisive, context, name, other), _loss_beside(context, name, other)]


def _loss_beside(context: ClaimContext, name: str, other: str) -> Evidence:
    a, b = context.final(name, "loss"), context.final(other, "loss")
    return context.compare.shown(f"{name} − {other}", "test loss", "nats", a, b)


def _with_mcnemar(evidence: Evidence, context: ClaimContext, name: str, other: str) -> Evidence:
    telling = []
    for seed in context.seeds:
        a, b = context.correct(name, seed), context.correct(other, seed)
        if a is None or b is None:
            return evidence
        if mcnemar_mid_p(a, b) < context.rules.alpha:
            telling.append(seed)
    return replace(evidence, mcnemar_seeds=tuple(telling))
