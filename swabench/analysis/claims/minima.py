"""C4: is SWA's minimum as wide as SGD's?"""

import math
from collections.abc import Mapping, Sequence

from swabench.analysis.claims.context import ClaimContext
from swabench.analysis.evidence import Evidence
from swabench.analysis.flatness import LINE


def minima_alike(context: ClaimContext) -> list[Evidence]:
    """The logarithms of every measure of flatness, SWA less SGD; the line decides."""
    swa, sgd = context.rules.swa, context.rules.sgd
    margin, seeds = context.rules.margin_flatness, context.seeds
    found = []
    for measure, methods in sorted(context.flatness.items(), key=lambda item: item[0] != LINE):
        logs = [
            {
                s: math.log(v)
                for s, v in methods.get(name, {}).items()
                if s in context.seeds and v > 0
            }
            for name in (swa, sgd)
        ]
        both = logs[0].keys() & logs[1].keys()
        if not both:
            continue
        a, b = ({seed: values[seed] for seed in both} for values in logs)
        name = f"log of the {measure}"
        if len(both) < len(seeds):  # some of the seeds never pass for all of them
            name += f" ({len(both)} of {len(seeds)} seeds)"
        if measure == LINE:
            found.append(context.compare.equal(f"{swa} − {sgd}", name, "", a, b, margin))
        else:
            found.append(context.compare.shown(f"{swa} − {sgd}", name, "", a, b))
    return found


def the_wider(context: ClaimContext, evidence: Sequence[Evidence]) -> str:
    """Which of the two has the wider minimum, in a sentence."""
    decisive = evidence[0]
    swa, sgd = context.rules.swa, context.rules.sgd
    ratio = math.exp(decisive.estimate.mean)
    words = f"Around {swa} the loss rises {ratio:.2f} times as far as around {sgd}"
    if decisive.p_against > context.rules.alpha:
        return f"{words}."
    return f"{words}: {swa if ratio < 1 else sgd} has the wider minimum."


def about_the_line(context: ClaimContext) -> list[str]:
    """What a reader should know of the paper and of distances."""
    return [
        "The paper finds no particular difference between the two (section 3.3), against the "
        "expectation that SWA's minimum is the wider: so a difference to either side is against "
        "it.",
        "Along the line, distance is counted in the way from start to end, as the paper draws it; "
        "that way is not as long for every method. Along random rays the unit is the same for all.",
    ]


def landscape_lacks(context: ClaimContext) -> str:
    """What the landscape lacks for the line to be compared; empty where nothing."""
    methods = {
        n: context.flatness.get(LINE, {}).get(n, {}) for n in (context.rules.swa, context.rules.sgd)
    }
    absent = {n: [s for s in context.seeds if s not in rises] for n, rises in methods.items()}
    if any(absent.values()):
        return f"The landscape has no {LINE} of {_at_seeds(absent)}"
    # Of what does not rise there is no logarithm, and no ratio to compare.
    falling = {n: [s for s in context.seeds if rises[s] <= 0] for n, rises in methods.items()}
    if any(falling.values()):
        return f"The {LINE} is no rise but a fall for {_at_seeds(falling)}, so it has no ratio"
    return ""


def _at_seeds(seeds: Mapping[str, Sequence[int]]) -> str:
    return "; ".join(
        f"{name} at seeds {', '.join(map(str, some))}" for name, some in seeds.items() if some
    )
