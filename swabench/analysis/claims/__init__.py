"""The paper's claims C1 to C7 put to the test, from records alone, by the study's rules.

A claim is a question, a measure, the runs it needs, and a way to gather evidence; what is
common (are all runs there, Holm's correction, the verdict) is done once, for all of them. A
claim of which any run is missing is not measured: part of the seeds never passes for all.
"""

from swabench.analysis.claims.claim import Claim, ClaimSpec
from swabench.analysis.claims.context import ClaimContext
from swabench.analysis.claims.decide import decide_claims

__all__ = ["Claim", "ClaimContext", "ClaimSpec", "decide_claims"]
