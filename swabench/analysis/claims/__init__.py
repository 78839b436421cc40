"""The paper's claims C1 to C8 put to the test, from what was measured alone, by a study's rules.

A claim is data (`claims.yaml`): words, comparisons, what each says. What is common (are all runs
there, Holm's correction, the verdict) is done once, for all of them. A claim of which any run is
missing is not measured: part of the seeds never passes for all.
"""

from swabench.analysis.claims.claim import Claim, ClaimSpec, claim_specs
from swabench.analysis.claims.context import ClaimContext
from swabench.analysis.claims.decide import decide_claims, pairs_compared

__all__ = [
    "Claim",
    "ClaimContext",
    "ClaimSpec",
    "claim_specs",
    "decide_claims",
    "pairs_compared",
]
